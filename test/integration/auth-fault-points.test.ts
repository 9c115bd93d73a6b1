// Whatever fails on the way of a credential, nobody gets in and nothing goes out without one. Each place of the code that requests
// come to (each `await`, and the beginning of each function) is made to fail, one at a time, on a proxy that knows nothing yet.
import assert from "node:assert/strict";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from "jose";
import { pino } from "pino";
import { AggregationSchema } from "../../proto/gen/vmcp/resource/v1/aggregation_pb.ts";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { IncomingAuthSchema } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { mcpHeaders, type SentHeaders, send } from "../support/client.ts";
import { plantFaultPoints } from "../support/fault-points.ts";
import { startGuardedBackend } from "../support/guarded-backend.ts";
import { startIssuer } from "../support/issuer.ts";

const path =
  /^data-plane\/(incoming-auth\/|outgoing-auth\/|outbound\/|secrets\.ts|ingress\/(admission|discovery)\.ts|backends\/shown\.ts|session\/binding\.ts)/;
/** What may fail without denying anything, and why. */
const harmless: readonly (readonly [RegExp, string])[] = [
  [/quiet-log\.ts/, "a log line decides about nobody"],
  [/metrics\.ts/, "nor does a counter"],
];
const faults = plantFaultPoints((file) => path.test(file) && !file.endsWith(".test.ts"));

// Imported only now, so that they have their points.
const { createAuthenticators } = await import("../../data-plane/incoming-auth/registry.ts");
const { createCredentials } = await import("../../data-plane/outgoing-auth/registry.ts");
const { createBackend } = await import("../../data-plane/backends/backend.ts");
const { oneKey } = await import("../../data-plane/mcp/seal.ts");
const { emptyRuntime } = await import("../../data-plane/runtime.ts");
const { startServing } = await import("../../data-plane/serving.ts");
const { createVirtualServer } = await import("../../data-plane/virtual-server.ts");

const secret = "the-secret-of-the-gateway";
const audience = "https://vmcp.example/team";
const log = pino({ level: "silent" });
process.env.VMCP_TEST_GATEWAY_SECRET = secret;

const stack = new AsyncDisposableStack();
const issuer = stack.use(await startIssuer({ clients: [{ id: "gateway", secret }] }));
const backend = stack.use(await startGuardedBackend({ issuers: [issuer], audience: "https://up.example", hasWhoami: true }));
test.after(() => stack.disposeAsync());

const pair = await generateKeyPair("ES256", { extractable: true });
const jwk = await exportJWK(pair.publicKey);
const jkt = await calculateJwkThumbprint(jwk);

type Shows = (url: string) => Promise<SentHeaders>;

/** Callers of each kind of token; each asks for a new one, so that nothing is known of it. */
const callers: Readonly<Record<string, Shows>> = {
  "a JWT": async () => ({ authorization: `Bearer ${await issuer.token({ sub: "ada", audience })}` }),
  "an opaque token": async () => ({ authorization: `Bearer ${await issuer.token({ sub: "ada", audience, format: "opaque" })}` }),
  async "a token that is bound to a key"(url) {
    const token = await issuer.token({ sub: "ada", audience, cnf: { jkt } });
    const ath = createHash("sha256").update(token).digest("base64url");
    const proof = new SignJWT({ htm: "POST", htu: url, ath, jti: randomUUID() }).setIssuedAt();
    const dpop = await proof.setProtectedHeader({ alg: "ES256", typ: "dpop+jwt", jwk }).sign(pair.privateKey);
    return { authorization: `DPoP ${token}`, dpop };
  },
};

/** A proxy that has just started: it knows no keys, no tokens and no sessions. */
async function startProxy() {
  await using starting = new AsyncDisposableStack();
  const keys = oneKey(randomBytes(32));
  const incomingAuth = create(IncomingAuthSchema, {
    type: "oidc",
    oidc: { issuer: issuer.issuer, audience, clientId: "gateway", clientSecretEnv: "VMCP_TEST_GATEWAY_SECRET" },
  });
  const strategy = create(OutgoingAuthStrategySchema, {
    type: "token_exchange",
    tokenExchange: { clientId: "gateway", clientSecretEnv: "VMCP_TEST_GATEWAY_SECRET", audience: "https://up.example" },
  });
  const auth = createAuthenticators({ log }).of(incomingAuth);
  const credentials = starting.use(createCredentials({ log, keys }));
  const recipient = { resource: "backends/up", backend: "up", url: backend.url, virtualServer: "team", incomingAuth };
  const up = createBackend({
    spec: create(BackendSchema, { name: "up", url: backend.url, transport: "streamable-http" }),
    credential: credentials.of(strategy, recipient),
    breaker: { enabled: false, failureThreshold: 5, openMs: 60_000 },
    log,
    onMessage: () => undefined,
    onChange: () => undefined,
  });
  starting.defer(() => up.retire(0));
  await up.firstAttempt;
  const aggregation = create(AggregationSchema, {
    conflictResolution: "prefix",
    conflictResolutionConfig: { prefixFormat: "{workload}_" },
  });
  const team = createVirtualServer({ name: "team", spec: create(VirtualServerSchema, { aggregation }), auth, backends: [up] });
  const runtime = { ...emptyRuntime, version: "1", virtualServers: new Map([["team", team]]) };
  const serving = starting.use(
    await startServing({ host: "127.0.0.1", port: 0, log }, { keys, runtime: () => runtime, credentials }),
  );
  const owned = starting.move();
  return { url: `${serving.address}/team/mcp`, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const initialize =
  '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}';
const whoami = '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"up_whoami"}}';

interface Visit {
  /** Of `initialize`. */
  readonly status: number;
  readonly opened: number;
  /** Of the call, once a session was opened: its status and its body. */
  readonly called?: { readonly status: number; readonly body: string; readonly failures: number };
}

/** A caller opens a session and calls a tool. */
async function visit(shows: Shows, failing?: string): Promise<Visit> {
  await using proxy = await startProxy();
  faults.watch(failing);
  const headers = { ...mcpHeaders, ...(await shows(proxy.url)) };
  const first = await send(proxy.url, { method: "POST", headers, body: initialize });
  const opened = faults.failures;
  const id = first.headers["mcp-session-id"];
  if (typeof id !== "string") return { status: first.status, opened };
  const session = { "mcp-session-id": id, "mcp-protocol-version": "2025-11-25" };
  const again = { ...headers, ...session, ...("dpop" in headers ? await shows(proxy.url) : {}) };
  const answer = await send(proxy.url, { method: "POST", headers: again, body: whoami });
  return { status: first.status, opened, called: { status: answer.status, body: answer.body, failures: faults.failures } };
}

test("nobody gets in, and nothing goes out, wherever the way of a credential fails", { timeout: 110_000 }, async (t) => {
  const tried = new Set<string>();
  const wrong: string[] = [];
  for (const [kind, shows] of Object.entries(callers)) {
    const whole = await visit(shows);
    assert.equal(whole.called?.status, 200, `${kind}: ${JSON.stringify(whole)}`);
    assert.match(whole.called.body, /"text":"ada"/);
    const points = [...faults.reached].filter((point) => !tried.has(point) && !harmless.some(([file]) => file.test(point)));
    for (const point of points) {
      tried.add(point);
      const { status, opened, called } = await visit(shows, point);
      if (opened > 0 && status < 300) wrong.push(`${point}: a session was opened with ${kind}`);
      if (called && called.failures > opened && /"text":"ada"/.test(called.body))
        wrong.push(`${point}: a call was made with ${kind}`);
      if (opened === 0 && (called?.failures ?? 0) === 0) wrong.push(`${point}: was not reached again with ${kind}`);
    }
  }
  t.diagnostic(`${tried.size} points`);
  assert.deepEqual(wrong, []);
  assert.ok(tried.size >= 60, `${tried.size} points`);
  // The backend never saw a request of a caller without a token.
  for (const { verdict, headers } of backend.requests) if (headers.authorization === undefined) assert.notEqual(verdict, 200);
});
