// DiscoveryService over grpc-js: joins each stream to the fleet.
import { status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import type { DiscoveryService } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Handlers } from "../../proto/grpc.ts";
import type { Fleet } from "./fleet.ts";

/** The handlers to register. Nothing that a proxy sends makes them throw. */
export function discoveryHandlers(fleet: Fleet, log: Log): Handlers<typeof DiscoveryService> {
  return {
    streamSnapshots(call) {
      const close = (code: status, details: string) => call.emit("error", { code, details });
      const connection = fleet.connect({ send: ({ message }) => call.write(message), close });
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
