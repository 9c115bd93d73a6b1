// Both auth boundaries over a mesh of two proxies with Redis: two real issuers of callers' tokens, and backends that remember every
// request. Each strategy shows its backend what it should, and the tokens of callers are found nowhere but with callers.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { redisPlace, requestsPlace, searchFor, textPlace } from "../support/canary.ts";
import { bearer, mcpHeaders, openClient, openRawSession, send } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { whyMissing } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { type GuardedBackend, startGuardedBackend } from "../support/guarded-backend.ts";
import { type Issuer, startIssuer } from "../support/issuer.ts";
import { type Mesh, startMesh } from "../support/mesh.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";

const skip = await whyMissing("redis-server", "redis-server");
const audience = "https://vmcp.example/team";
const secret = "the-secret-of-the-gateway";
const staticKey = `static-${randomBytes(12).toString("hex")}`;
const exchangedNames = ["drive", "mail", "wiki"] as const;
const tokens: string[] = []; // of callers: they must be found nowhere

const stack = new AsyncDisposableStack();
let home: Issuer;
let partner: Issuer;
let redis: RedisServer;
let mesh: Mesh;
let exchanged: Record<(typeof exchangedNames)[number], GuardedBackend>;
let machine: GuardedBackend;
let keyed: Backend;
let passed: Backend;
let open: Backend;

const echo = { tools: [plainTool("echo")], calls: { echo: () => textResult("said") } };

before(async () => {
  if (skip) return;
  process.env.VMCP_TEST_GATEWAY_SECRET = secret;
  process.env.VMCP_TEST_STATIC_KEY = staticKey;
  process.env.VMCP_SESSION_HMAC_SECRET = randomBytes(32).toString("hex");
  partner = stack.use(await startIssuer());
  home = stack.use(await startIssuer({ clients: [{ id: "gateway", secret }], peers: [partner] }));
  redis = stack.use(await startRedis());
  const guarded = (name: string) =>
    startGuardedBackend({ issuers: [home], audience: `https://${name}.example`, script: echo, hasWhoami: true });
  const [drive, mail, wiki] = await Promise.all(exchangedNames.map(async (name) => stack.use(await guarded(name))));
  exchanged = { drive, mail, wiki } as typeof exchanged;
  machine = stack.use(await guarded("machine"));
  [keyed, passed, open] = (await Promise.all([1, 2, 3].map(async () => stack.use(await startBackend(echo))))) as [
    Backend,
    Backend,
    Backend,
  ];
  const client = { tokenUrl: home.tokenUrl, clientId: "gateway", clientSecretEnv: "VMCP_TEST_GATEWAY_SECRET" };
  const exchange = (name: string) => ({
    type: "token_exchange",
    tokenExchange: { ...client, audience: `https://${name}.example`, scopes: ["read", "write"] },
  });
  mesh = stack.use(await startMesh(2, ["--redis", redis.url]));
  const { code, stderr } = await mesh.apply([
    virtualServer("team", {
      backends: [
        ...Object.entries({ ...exchanged, machine, keyed, passed, open }).map(([name, { url }]) => httpBackend(name, url)),
      ],
      incomingAuth: {
        type: "oidc",
        oidc: {
          ...{ issuer: home.issuer, audience, requiredScopes: ["mcp"] },
          toolScopes: [{ tool: "keyed_echo", scopes: ["keys", "admin"] }],
          additionalIssuers: [{ issuer: partner.issuer, audience }],
        },
      },
      passthroughHeaders: ["X-Trace"],
      outgoingAuth: {
        source: "inline",
        backends: {
          ...Object.fromEntries(exchangedNames.map((name) => [name, exchange(name)])),
          machine: { type: "client_credentials", clientCredentials: { ...client, audience: "https://machine.example" } },
          keyed: { type: "header_injection", headerInjection: { headerName: "X-Key", headerValueEnv: "VMCP_TEST_STATIC_KEY" } },
          passed: { type: "pass_through", passThrough: { headers: ["X-Team"] } },
        },
      },
    }),
  ]);
  assert.equal(code, 0, stderr);
  for (const { address } of mesh.proxies)
    await eventually("every backend is ready", async () => {
      const { backends } = (await (await fetch(`${address}/status`)).json()) as { backends: { health: string }[] };
      return backends.length === 7 && backends.every(({ health }) => health === "healthy");
    });
});
after(() => stack.disposeAsync());

async function tokenFor(sub: string, issuer: Issuer = home, scope = "mcp keys admin", expiresInSeconds = 3_600): Promise<string> {
  const token = await issuer.token({ sub, audience, scope, expiresInSeconds });
  tokens.push(token);
  return token;
}

interface Counted {
  readonly memoryHits: number;
  readonly redisHits: number;
  readonly obtained: number;
}

const url = (proxy: number): string => `${mesh.proxies[proxy]?.address}/team/mcp`;
const exchanges = () => home.tokenRequests.filter(({ grantType }) => grantType.endsWith(":token-exchange"));

test("each strategy shows its backend what it should", { skip }, async () => {
  const headers = { ...bearer(await tokenFor("ada")), "x-team": "blue", "x-trace": "t1", "x-other": "red", cookie: "a=b" };
  await using client = await openClient(url(0), {}, headers);
  for (const name of ["drive", "mail", "wiki", "machine", "keyed", "passed", "open"])
    assert.equal(await client.call(`${name}_echo`), "said", name);
  for (const name of exchangedNames) {
    assert.equal(await client.call(`${name}_whoami`), "ada");
    const seen = exchanged[name].seen.findLast(({ rpcMethod }) => rpcMethod === "tools/call");
    assert.equal(seen?.client_id, "gateway");
    assert.equal(seen?.scope, "read write");
    assert.equal(seen?.claims.iss, home.issuer);
  }
  const own = machine.seen.findLast(({ rpcMethod }) => rpcMethod === "tools/call");
  assert.equal(own?.client_id, "gateway");
  const last = ({ requests }: Backend) => requests.findLast(({ message }) => message?.method === "tools/call")?.headers ?? {};
  assert.equal(last(keyed)["x-key"], staticKey);
  assert.equal(last(passed)["x-team"], "blue");
  for (const backend of [keyed, passed, open]) {
    for (const { headers: sent } of backend.requests) {
      assert.equal(sent.authorization, undefined);
      assert.equal(sent.cookie, undefined);
      assert.equal(sent["x-other"], undefined);
    }
  }
  assert.equal(last(open)["x-team"], undefined);
  for (const backend of [keyed, passed, open, ...Object.values(exchanged)]) assert.equal(last(backend)["x-trace"], "t1");
});

test("a caller of another issuer is that issuer's, also where a subject is called the same", { skip }, async () => {
  const [here, there] = [await tokenFor("eve"), await tokenFor("eve", partner)];
  await using one = await openClient(url(0), {}, bearer(here));
  const before = exchanges().length;
  assert.equal(await one.call("drive_whoami"), "eve");
  await using other = await openClient(url(1), {}, bearer(there));
  assert.equal(await other.call("drive_whoami"), "eve");
  assert.equal(exchanges().length - before, 2, "neither was shown the other's token");
});

test("1,000 calls of one user to 3 backends over 2 proxies cost 3 exchanges; a fresh token 1 more each at most", {
  skip,
}, async () => {
  const headers = bearer(await tokenFor("busy"));
  const before = exchanges().length;
  const session = await openRawSession(url(0), "2025-11-25", headers);
  const call = async (i: number) => {
    const body = `{"jsonrpc":"2.0","id":${i},"method":"tools/call","params":{"name":"${exchangedNames[i % 3]}_whoami"}}`;
    const more = { "mcp-session-id": session.id, "mcp-protocol-version": "2025-11-25" };
    const answer = await send(url(i % 2), { method: "POST", headers: { ...mcpHeaders, ...more, ...headers }, body });
    assert.equal(answer.status, 200, answer.body);
    assert.match(answer.body, /"text":"busy"/);
  };
  const many = async (from: number, to: number) => {
    let next = from;
    const work = async () => {
      while (next < to) await call(next++);
    };
    await Promise.all(Array.from({ length: 20 }, work));
  };
  await many(1, 1_001);
  assert.equal(exchanges().length - before, 3);
  Object.assign(headers, bearer(await tokenFor("busy"))); // its client refreshed it; the session goes on
  await many(1_001, 1_101);
  assert.ok(exchanges().length - before <= 6, `${exchanges().length - before} exchanges`);
  assert.equal((await session.delete()).status, 204);
  const counted = await Promise.all(
    mesh.proxies.map(async ({ address }) => {
      const { backends } = (await (await fetch(`${address}/status`)).json()) as {
        backends: { name: string; tokens?: Counted }[];
      };
      return backends.find(({ name }) => name === "drive")?.tokens as Counted;
    }),
  );
  const sum = (name: keyof Counted) => counted.reduce((total, one) => total + one[name], 0);
  assert.ok(sum("memoryHits") > 300 && sum("redisHits") >= 1 && sum("obtained") >= 1, JSON.stringify(counted));
});

test("a token that a backend revokes early is exchanged anew, once, and the call is made", { skip }, async () => {
  await using client = await openClient(url(0), {}, bearer(await tokenFor("revoked")));
  assert.equal(await client.call("mail_whoami"), "revoked");
  await new Promise((resolve) => setTimeout(resolve, 1_500)); // a refusal of what has just been issued is no reason to ask again
  const bad = exchanged.mail.seen.findLast(({ sub }) => sub === "revoked")?.token;
  exchanged.mail.revoke(({ token }) => token === bad);
  const before = exchanges().length;
  assert.equal(await client.call("mail_whoami"), "revoked");
  assert.equal(exchanges().length - before, 1);
});

test("scopes: a tool that needs more is refused with all that it needs, and others work", { skip }, async () => {
  const headers = bearer(await tokenFor("small", home, "mcp keys"));
  const session = await openRawSession(url(0), "2025-11-25", headers);
  const refused = await session.ask("tools/call", '{"name":"keyed_echo"}');
  assert.equal(refused.status, 403);
  const challenge = String(refused.headers["www-authenticate"]);
  assert.match(challenge, /error="insufficient_scope"/);
  assert.match(challenge, /scope="mcp keys admin"/);
  assert.match(challenge, /resource_metadata="http:\/\/127\.0\.0\.1:\d+\/\.well-known\/oauth-protected-resource\/team\/mcp"/);
  assert.match(await session.result("tools/call", '{"name":"open_echo"}'), /said/);
  const none = await send(url(0), {
    method: "POST",
    headers: { ...mcpHeaders, ...bearer(await tokenFor("none", home, "other")) },
  });
  assert.equal(none.status, 403);
  assert.match(String(none.headers["www-authenticate"]), /scope="mcp"/);
});

test("who shows nothing, or what is not for us, is told where to get a token", { skip }, async () => {
  const foreign = await home.token({ sub: "ada", audience: "https://other.example" });
  for (const [shown, error] of [
    [{}, undefined],
    [bearer(foreign), "invalid_token"],
    [bearer("nonsense"), "invalid_token"],
  ] as const)
    for (const method of ["POST", "GET", "DELETE"]) {
      const answer = await send(url(1), { method, headers: { ...mcpHeaders, ...shown } });
      assert.equal(answer.status, 401);
      const challenge = String(answer.headers["www-authenticate"]);
      assert.equal(/error="([^"]*)"/.exec(challenge)?.[1], error);
      const metadata = String(/resource_metadata="([^"]*)"/.exec(challenge)?.[1]);
      const document = (await (await fetch(metadata)).json()) as Record<string, unknown>;
      assert.equal(document.resource, url(1));
      assert.deepEqual(document.authorization_servers, [home.issuer, partner.issuer]);
      assert.deepEqual(document.scopes_supported, ["mcp"]);
    }
});

test("the tokens of callers are found with nobody else", { skip }, async () => {
  const backends = { ...exchanged, machine, keyed, passed, open };
  const snapshot = await mesh.ctl("get", "virtualservers", "-o", "json");
  const statuses = await Promise.all(mesh.proxies.map(async ({ address }) => (await fetch(`${address}/status`)).text()));
  const places = [
    ...Object.entries(backends).map(([name, backend]) => requestsPlace(name, () => backend.requests)),
    ...[mesh.controlPlane, ...mesh.proxies].map((one, i) => textPlace(`log ${i}`, () => one.stderr() + one.stdout())),
    textPlace("resources", () => snapshot.stdout + snapshot.stderr),
    textPlace("status", () => statuses.join()),
    redisPlace("redis", [redis.port]),
  ];
  assert.ok(tokens.length > 5);
  assert.deepEqual(await searchFor(tokens, places), []);
  // Neither is what they were exchanged for, but at the backend that it is for; nor the operator's secrets.
  const issued = Object.values(exchanged).flatMap(({ seen }) => seen.map(({ token }) => token));
  assert.deepEqual(await searchFor([...new Set(issued), staticKey, secret], places.slice(Object.keys(backends).length)), []);
});
