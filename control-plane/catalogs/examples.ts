// For tests: what a backend lists, as a proxy would report it.
import { create, toBinary } from "@bufbuild/protobuf";
import { ListingSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";

/** Encoded listing of tools with these descriptions, by name. */
export function listing(tools: Readonly<Record<string, string>>): Uint8Array {
  const items = Object.entries(tools).map(([name, description]) => Buffer.from(JSON.stringify({ name, description })));
  const lists = [{ kind: "tools", items }];
  return toBinary(
    ListingSchema,
    create(ListingSchema, { era: "session", protocolVersion: "2025-11-25", capabilities: '{"tools":{}}', lists }),
  );
}
