// A proxy without a control plane and without an issuer of tokens: whoever calls says who he is in the header `X-User`, and is
// believed; `X-Token` stands for the token he shows.
import { createHash, randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type Logger, pino } from "pino";
import { type Backend, createBackend } from "../../data-plane/backends/backend.ts";
import type { DrainOptions } from "../../data-plane/ingress/http-server.ts";
import { type Keys, oneKey } from "../../data-plane/mcp/seal.ts";
import { sameForAll } from "../../data-plane/outgoing-auth/credential.ts";
import { createCredentials } from "../../data-plane/outgoing-auth/registry.ts";
import { emptyRuntime, type Runtime } from "../../data-plane/runtime.ts";
import { type Serving, type SessionOptions, startServing } from "../../data-plane/serving.ts";
import { createVirtualServer } from "../../data-plane/virtual-server.ts";
import { AggregationSchema } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { believing } from "./authenticators.ts";

export interface TwoUserGateway extends AsyncDisposable {
  /** Of the virtual server `team`; `other` has the same backends. */
  readonly url: string;
  readonly serving: Serving;
  /** Changes parts of what is served, as a snapshot would. */
  setRuntime(changes: Partial<Runtime>): void;
}

export interface TwoUserOptions {
  /** Default: a random one, so that no other gateway shares its sessions. */
  readonly keys?: Keys;
  readonly session?: SessionOptions;
  readonly drain?: DrainOptions;
  readonly log?: Logger;
  /** Default: a free one. */
  readonly port?: number;
  /** Takes part in what is served, for what a snapshot would say. */
  readonly runtime?: Partial<Runtime>;
}

/** Serves these backends, by URL, with names as prefixes. */
export async function startTwoUserGateway(
  urls: Readonly<Record<string, string>>,
  options: TwoUserOptions = {},
): Promise<TwoUserGateway> {
  await using stack = new AsyncDisposableStack();
  const { keys = oneKey(randomBytes(32)), log = pino({ level: "silent" }), port = 0, session = {}, drain = {} } = options;
  let runtime: Runtime = emptyRuntime;
  const at = { host: "127.0.0.1", port, log, session, drain };
  const credentials = stack.use(createCredentials({ log, keys }));
  const serving = await startServing(at, { keys, runtime: () => runtime, credentials });
  const backends: Backend[] = [];
  stack.defer(async () => void (await Promise.all(backends.map((backend) => backend.retire(0))))); // after the sessions
  stack.use(serving);
  for (const [name, url] of Object.entries(urls))
    backends.push(
      createBackend({
        spec: create(BackendSchema, { name, url, transport: "streamable-http" }),
        credential: sameForAll(["authorization", "Bearer shared"]),
        breaker: { enabled: false, failureThreshold: 5, openMs: 60_000 },
        log,
        onMessage: serving.relay.outside,
        onChange: () => undefined,
      }),
    );
  await Promise.all(backends.map(({ firstAttempt }) => firstAttempt));
  const aggregation = create(AggregationSchema, {
    conflictResolution: "prefix",
    conflictResolutionConfig: { prefixFormat: "{workload}_" },
  });
  const spec = create(VirtualServerSchema, { aggregation });
  const virtualServers = ["team", "other"].map((name) => createVirtualServer({ name, spec, auth, backends }));
  runtime = {
    ...emptyRuntime,
    version: "1",
    virtualServers: new Map(virtualServers.map((server) => [server.name, server])),
    ...options.runtime,
  };
  const owned = stack.move();
  return {
    url: `${serving.address}/team/mcp`,
    serving,
    setRuntime(changes) {
      runtime = { ...runtime, ...changes };
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const auth = believing(({ "x-user": user, "x-token": token }) => {
  if (typeof user !== "string") return undefined;
  const tokenDigest = createHash("sha256").update(String(token)).digest("base64url");
  return { issuer: "test", subject: user, isAnonymous: false, tokenDigest };
});
