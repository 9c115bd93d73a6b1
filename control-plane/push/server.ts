// DiscoveryService over grpc-js: joins each stream to the fleet.
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { Metadata, status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { RetryInfoSchema } from "../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../proto/gen/google/rpc/status_pb.ts";
import type { DiscoveryService } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Handlers } from "../../proto/grpc.ts";
import type { Fleet } from "./fleet.ts";
import type { Sendable } from "./target.ts";

/** The handlers to register. Nothing that a proxy sends makes them throw. */
export function discoveryHandlers(fleet: Fleet, log: Log): Handlers<typeof DiscoveryService> {
  return {
    streamSnapshots(call) {
      const close = (code: status, details: string, retryMs?: number) =>
        call.emit("error", { code, details, ...(retryMs !== undefined && { metadata: comeAgain(code, details, retryMs) }) });
      const send = ({ messages }: Sendable) => {
        for (const message of messages) call.write(message);
      };
      const connection = fleet.connect({ send, close });
      call.on("data", (request) => {
        try {
          connection.receive(request);
        } catch (error) {
          log.error({ err: error }, "a message of a proxy could not be handled");
          connection.ended();
          close(status.INTERNAL, "the message could not be handled");
        }
      });
      call.on("end", () => {
        connection.ended();
        call.end();
      });
      call.on("cancelled", () => connection.ended());
      call.on("error", () => connection.ended());
    },
  };
}

function comeAgain(code: status, message: string, retryMs: number): Metadata {
  const details = [anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: durationFromMs(retryMs) }))];
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, message, details }))));
  return metadata;
}
