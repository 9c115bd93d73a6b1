// A data plane put together by hand, without a control plane, because no configuration tells users apart yet: whoever calls says
// who he is in the header `X-User`, and is believed.
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { createBackend } from "../../data-plane/backends/backend.ts";
import { gateway } from "../../data-plane/backends/leg.ts";
import type { Authenticate } from "../../data-plane/incoming-auth/registry.ts";
import { createApp } from "../../data-plane/ingress/app.ts";
import { createOwnerForwarder } from "../../data-plane/ingress/forward-to-owner.ts";
import { createParkedCalls } from "../../data-plane/relay/parked-calls.ts";
import { createRelay } from "../../data-plane/relay/relay.ts";
import { emptyRuntime, type Runtime } from "../../data-plane/runtime.ts";
import { createCallerTokens } from "../../data-plane/session/caller-tokens.ts";
import { createCallers } from "../../data-plane/session/callers.ts";
import { createSessionIds } from "../../data-plane/session/session-ids.ts";
import { createSessionStore } from "../../data-plane/session/store.ts";
import { createVirtualServer } from "../../data-plane/virtual-server.ts";
import { AggregationSchema } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";

export interface TwoUserGateway extends AsyncDisposable {
  /** Of the virtual server `team`; `other` has the same backends. */
  readonly url: string;
}

/** Serves these backends, by URL, with names as prefixes. */
export async function startTwoUserGateway(urls: Readonly<Record<string, string>>): Promise<TwoUserGateway> {
  await using stack = new AsyncDisposableStack();
  const log = pino({ level: "silent" });
  const secret = randomBytes(32);
  const self = { address: "", instance: randomUUID() };
  const ids = createSessionIds({ secret, self: () => self });
  const sessions = stack.use(createSessionStore({ idleMs: 60_000, sessionsMax: 100, ids }));
  const callers = stack.use(createCallers({ idleMs: 60_000, callersMax: 100, clientInfo: gateway.clientInfo }));
  const owners = stack.use(createOwnerForwarder());
  const relay = createRelay({ secret, sessions: () => [...sessions.all(), ...callers.all()], log });
  const backends = Object.entries(urls).map(([name, url]) =>
    createBackend({
      spec: create(BackendSchema, { name, url, transport: "streamable-http" }),
      credential: async () => ({ authorization: "Bearer shared" }),
      breaker: { enabled: false, failureThreshold: 5, openMs: 60_000 },
      log,
      onMessage: relay.outside,
      onChange: () => undefined,
    }),
  );
  for (const backend of backends) stack.defer(() => backend.retire(0));
  await Promise.all(backends.map(({ firstAttempt }) => firstAttempt));
  const aggregation = create(AggregationSchema, {
    conflictResolution: "prefix",
    conflictResolutionConfig: { prefixFormat: "{workload}_" },
  });
  const spec = create(VirtualServerSchema, { aggregation });
  const virtualServers = ["team", "other"].map((name) => createVirtualServer({ name, spec, authenticate, backends }));
  const runtime: Runtime = {
    ...emptyRuntime,
    version: "1",
    virtualServers: new Map(virtualServers.map((server) => [server.name, server])),
  };
  const app = createApp({
    ...{ sessions, callers, relay, owners, log },
    tokens: createCallerTokens(secret),
    parked: createParkedCalls({ log }),
    self: () => self,
    bodyBytesMax: 1024 * 1024,
    runtime: () => runtime,
    sse: undefined,
    origin: { isLoopback: true, allowedHosts: [], allowedOrigins: [] },
  });
  const server = createServer(app.callback());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  stack.defer(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  self.address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const owned = stack.move();
  return { url: `${self.address}/team/mcp`, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const authenticate: Authenticate = (headers) => {
  const user = headers["x-user"];
  return typeof user === "string" ? { issuer: "test", subject: user } : undefined;
};
