// Calls of methods without HTTP in front: a session, real backends of ours before scripted servers, and what the client is sent.
import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { createView } from "../../data-plane/aggregation/view.ts";
import { createBackend } from "../../data-plane/backends/backend.ts";
import { createLimit, type Limit } from "../../data-plane/backends/limit.ts";
import { anonymous } from "../../data-plane/incoming-auth/anonymous.ts";
import { readMessage, request } from "../../data-plane/mcp/json-rpc.ts";
import { oneKey } from "../../data-plane/mcp/seal.ts";
import type { Call } from "../../data-plane/methods/call.ts";
import { sameForAll } from "../../data-plane/outgoing-auth/credential.ts";
import { createRelay, type Relay } from "../../data-plane/relay/relay.ts";
import { createCallerTokens } from "../../data-plane/session/caller-tokens.ts";
import { createLocalSessions } from "../../data-plane/session/local-sessions.ts";
import type { Session } from "../../data-plane/session/session.ts";
import { createVirtualServer, type VirtualServer } from "../../data-plane/virtual-server.ts";
import { AggregationSchema } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";

export interface DirectCalls extends AsyncDisposable {
  readonly session: Session;
  readonly server: VirtualServer;
  readonly relay: Relay;
  /** What the client was sent before answers, raw. */
  readonly sent: string[];
  /** A request of the client, with parsed `params`. */
  call(method: string, params: Readonly<Record<string, unknown>>, options?: { id?: string; limit?: Limit }): Call;
  endSession(): void;
}

/** One virtual server over these, by URL; earlier ones win name conflicts. `capabilities` is what the client can do. */
export async function directCalls(
  urls: Readonly<Record<string, string>>,
  capabilities: Readonly<Record<string, unknown>> = {},
): Promise<DirectCalls> {
  const log = pino({ level: "silent" });
  await using stack = new AsyncDisposableStack();
  const backends = Object.entries(urls).map(([name, url]) =>
    createBackend({
      spec: create(BackendSchema, { name, url, transport: "streamable-http" }),
      credential: sameForAll([]),
      breaker: { enabled: true, failureThreshold: 5, openMs: 60_000 },
      log,
      onMessage: () => undefined,
      onChange: () => undefined,
    }),
  );
  // Whatever fails from here on: a backend that nobody lets go of is watched for ever.
  for (const backend of backends) stack.defer(() => backend.retire(0));
  await Promise.all(backends.map(({ firstAttempt }) => firstAttempt));
  const aggregation = create(AggregationSchema, {
    conflictResolution: "priority",
    conflictResolutionConfig: { priorityOrder: Object.keys(urls) },
  });
  const spec = create(VirtualServerSchema, { aggregation });
  const server = createVirtualServer({ name: "v", spec, auth: anonymous, backends });
  const sessions = stack.use(createLocalSessions({ idleMs: 60_000, sessionsMax: 1 }));
  const session = sessions.create({
    virtualServer: "v",
    identity: { issuer: "i", subject: "s", isAnonymous: false },
    era: "session",
    protocolVersion: "2025-11-25",
    clientInfo: '{"name":"c","version":"1"}',
    capabilities: JSON.stringify(capabilities),
  }) as Session;
  const keys = oneKey(randomBytes(32));
  const relay = createRelay({ keys, sessions: () => sessions.all(), address: () => "", log });
  const tokens = createCallerTokens(keys);
  const view = createView(
    aggregation,
    backends.map(({ name, catalog }) => ({ backend: name, catalog })),
  );
  const sent: string[] = [];
  const owned = stack.move();
  return {
    session,
    server,
    relay,
    sent,
    call(method, params, { id = "1", limit = createLimit() } = {}) {
      const message = readMessage(request(method, JSON.stringify(params), id));
      const notify = (said: Buffer) => {
        sent.push(said.toString());
        return undefined;
      };
      session.calls.set(id, limit);
      const caller = { identity: session.identity, token: undefined, scopes: new Set<string>() };
      const asked = { message, id, params, session, caller, headers: {} };
      return { ...asked, server, view, limit, notify, relay, tokens, stateless: undefined };
    },
    endSession: () => sessions.end(session),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
