// Streams of proxies that cost next to nothing, for loads of many: each has a connection of its own, reads only the beginning of
// what comes, and acknowledges it. What they say is right as long as nothing is lost on the way.
import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Client, type ClientDuplexStream, credentials } from "@grpc/grpc-js";
import { AdminService } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { StreamSnapshotsRequestSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { createClient } from "../../proto/grpc.ts";

export interface ProxyStreamOptions {
  readonly address: string;
  readonly id: string;
  readonly features: readonly string[];
  /** Told after each answer. */
  readonly onAnswered: (response: ResponseHead) => void;
}

/** What a response begins with. */
export interface ResponseHead {
  readonly nonce: bigint;
  readonly version: string;
  readonly digest: Uint8Array;
  readonly kind: "snapshot" | "delta" | "upToDate" | "other";
}

const path = "/vmcp.discovery.v1.DiscoveryService/StreamSnapshots";
const options = {
  "grpc.use_local_subchannel_pool": 1,
  "grpc.enable_retries": 0,
  "grpc.max_receive_message_length": 32 * 1024 * 1024,
  "grpc-node.flow_control_window": 1024 * 1024,
};

export function openProxyStream({ address, id, features, onAnswered }: ProxyStreamOptions): Disposable {
  const client = new Client(address, credentials.createInsecure(), options);
  const asIs = (bytes: Buffer): Buffer => bytes;
  const stream: ClientDuplexStream<Buffer, Buffer> = client.makeBidiStreamRequest(path, asIs, asIs);
  const say = (message: Parameters<typeof create<typeof StreamSnapshotsRequestSchema>>[1]): void =>
    void stream.write(Buffer.from(toBinary(StreamSnapshotsRequestSchema, create(StreamSnapshotsRequestSchema, message))));
  stream.on("data", (bytes: Buffer) => {
    const response = headOf(bytes);
    const { nonce, version, digest } = response;
    if (response.kind === "other") return;
    say({ message: { case: "ack", value: { nonce, version, digest } } });
    onAnswered(response);
  });
  stream.on("error", () => undefined); // the bench counts what is answered
  say({ message: { case: "hello", value: { node: { id, instanceId: "1" }, features: [...features] } } });
  return {
    [Symbol.dispose]() {
      stream.cancel();
      client.close();
    },
  };
}

/** Fields stand in the order of their numbers: what comes before the payload is all that is read. */
export function headOf(bytes: Buffer): ResponseHead {
  const reader = new BinaryReader(bytes);
  let [nonce, version, digest] = [0n, "", new Uint8Array()];
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1) nonce = BigInt(reader.uint64());
    else if (field === 2) version = reader.string();
    else if (field === 4) digest = new Uint8Array(reader.bytes());
    else if (field > 5) return { nonce, version, digest, kind: kinds[field] ?? "other" };
    else reader.skip(wireType);
  }
  return { nonce, version, digest, kind: "other" };
}

const kinds: Readonly<Record<number, ResponseHead["kind"]>> = { 6: "snapshot", 7: "delta", 8: "upToDate" };

/** The operators' API of a control plane. */
export function openAdmin(address: string) {
  return createClient(AdminService, address, credentials.createInsecure(), {
    "grpc.max_receive_message_length": 32 * 1024 * 1024,
  });
}
