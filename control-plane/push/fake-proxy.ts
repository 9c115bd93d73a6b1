// A proxy for tests: real gRPC, but it says only what the script says.
import { EventEmitter, once } from "node:events";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { credentials, type ServiceError } from "@grpc/grpc-js";
import {
  type Ack,
  type CallsReportSchema,
  DiscoveryService,
  type Hello,
  type Nack,
  type SessionsReportSchema,
  type StatusReport,
  type StreamSnapshotsResponse,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { createClient } from "../../proto/grpc.ts";

const patienceMs = 5_000;

type Init<M> = Partial<Omit<M, "$typeName" | "$unknown">>;

export interface FakeProxy extends Disposable {
  /** Says the id given at connect; `init` adds to it. */
  hello(init?: Init<Hello>): void;
  /** Acknowledges a response as a good proxy does; `init` overrides. */
  ack(response: StreamSnapshotsResponse, init?: Init<Ack>): void;
  nack(response: StreamSnapshotsResponse, init?: Init<Nack>): void;
  report(init: Init<StatusReport>): void;
  sessions(init: MessageInitShape<typeof SessionsReportSchema>): void;
  calls(init: MessageInitShape<typeof CallsReportSchema>): void;
  /** The next response; fails when the stream ends or nothing comes for 5 s. */
  next(): Promise<StreamSnapshotsResponse>;
  /** The error that ended the stream. */
  readonly ended: Promise<ServiceError>;
  /** Ends the stream as a proxy that stops does. */
  leave(): void;
}

export function connectFakeProxy(address: string, id: string, instanceId = "1"): FakeProxy {
  const client = createClient(DiscoveryService, address, credentials.createInsecure());
  const stream = client.streamSnapshots();
  const arrived: StreamSnapshotsResponse[] = [];
  const arrivals = new EventEmitter();
  const ended = Promise.withResolvers<ServiceError>();
  let failure: ServiceError | undefined;
  stream.on("data", (response: StreamSnapshotsResponse) => {
    arrived.push(response);
    arrivals.emit("response");
  });
  stream.on("error", (error: ServiceError) => {
    failure = error;
    ended.resolve(error);
    if (arrivals.listenerCount("error") > 0) arrivals.emit("error", error);
  });
  const node = { $typeName: "vmcp.discovery.v1.Node", id, instanceId, softwareVersion: "0", labels: {}, address: "" } as const;

  return {
    ended: ended.promise,
    hello: (init = {}) => void stream.write({ message: { case: "hello", value: { node, ...init } } }),
    ack: ({ nonce, version, digest }, init = {}) =>
      void stream.write({ message: { case: "ack", value: { nonce, version, digest, ...init } } }),
    nack: ({ nonce, version }, init = {}) => void stream.write({ message: { case: "nack", value: { nonce, version, ...init } } }),
    report: (init) => void stream.write({ message: { case: "status", value: init } }),
    sessions: (value) => void stream.write({ message: { case: "sessions", value } }),
    calls: (value) => void stream.write({ message: { case: "calls", value } }),
    async next() {
      if (arrived.length === 0 && failure) throw failure;
      if (arrived.length === 0) await once(arrivals, "response", { signal: AbortSignal.timeout(patienceMs) });
      return arrived.shift() as StreamSnapshotsResponse;
    },
    leave: () => void stream.end(),
    [Symbol.dispose]() {
      stream.cancel();
      client.close();
    },
  };
}
