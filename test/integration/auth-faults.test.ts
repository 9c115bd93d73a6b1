// What becomes of calls while the servers that say who somebody is are slow, away, wrong or changed: callers who are known go on,
// others are refused, and nobody is let in, or shown to a backend, for want of an answer.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { bearer, mcpHeaders, openRawSession, type RawSession, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type GuardedBackend, startGuardedBackend } from "../support/guarded-backend.ts";
import { type Issuer, startIssuer, type TokenFault } from "../support/issuer.ts";
import { type Served, serve } from "../support/serve.ts";

const audience = "https://vmcp.example/mcp";
const secret = "the-secret-of-the-gateway";
const stack = new AsyncDisposableStack();
let people: Issuer; // who callers are
let tokens: Issuer; // what backends are shown
let backend: GuardedBackend;
let other: GuardedBackend;
let vmcp: Served;

before(async () => {
  process.env.VMCP_TEST_GATEWAY_SECRET = secret;
  people = stack.use(await startIssuer({ clients: [{ id: "gateway", secret }] }));
  tokens = stack.use(await startIssuer({ clients: [{ id: "gateway", secret }], peers: [people] }));
  backend = stack.use(await startGuardedBackend({ issuers: [tokens], audience: "https://one.example", hasWhoami: true }));
  other = stack.use(await startGuardedBackend({ issuers: [people], audience: "https://other.example", hasWhoami: true }));
  const exchange = (issuer: Issuer, at: string) => ({
    type: "token_exchange",
    tokenExchange: {
      ...{ tokenUrl: issuer.tokenUrl, clientId: "gateway", clientSecretEnv: "VMCP_TEST_GATEWAY_SECRET" },
      audience: at,
    },
  });
  vmcp = stack.use(
    await serve({
      backends: [httpBackend("one", backend.url), httpBackend("other", other.url)],
      incomingAuth: { type: "oidc", oidc: { issuer: people.issuer, audience } },
      outgoingAuth: {
        source: "inline",
        backends: { one: exchange(tokens, "https://one.example"), other: exchange(people, "https://other.example") },
      },
    }),
  );
});
after(() => stack.disposeAsync());

async function newcomer(sub: string = randomUUID()): Promise<RawSession> {
  return openRawSession(vmcp.url, "2025-11-25", bearer(await people.token({ sub, audience })));
}

const whoami = async (session: RawSession, name = "one"): Promise<string> =>
  session.result("tools/call", `{"name":"${name}_whoami"}`);

const exchanges = (): number => tokens.tokenRequests.filter(({ grantType }) => grantType.endsWith(":token-exchange")).length;

interface Case {
  readonly what: string;
  readonly fault: TokenFault;
  /** Calls of one newcomer, and how often a token is asked for. `refused`: no call is made. */
  readonly wanted: "refused" | { readonly calls: number; readonly exchanges: number };
}

const cases: readonly Case[] = [
  { what: "answers 500", fault: { status: 500 }, wanted: "refused" },
  { what: "answers with a page", fault: { status: 200, body: "<html>" }, wanted: "refused" },
  { what: "hangs up", fault: { cut: "before" }, wanted: "refused" },
  { what: "says nothing for a minute", fault: { delayMs: 60_000 }, wanted: "refused" },
  { what: "refuses the caller", fault: { error: "invalid_grant" }, wanted: "refused" },
  { what: "refuses the client", fault: { error: "invalid_client" }, wanted: "refused" },
  { what: "gives a token for somebody else", fault: { audience: "https://wrong.example" }, wanted: "refused" },
  { what: "gives a token that is no bearer token", fault: { members: { token_type: "N_A" } }, wanted: "refused" },
  { what: "gives no token", fault: { members: { access_token: undefined } }, wanted: "refused" },
  { what: "does not say how long", fault: { expiresIn: "absent" }, wanted: { calls: 3, exchanges: 1 } },
  { what: "says one second", fault: { expiresIn: 1 }, wanted: { calls: 3, exchanges: 3 } },
  { what: "says thirty thousand years", fault: { expiresIn: 1e12 }, wanted: { calls: 3, exchanges: 1 } },
];

for (const { what, fault, wanted } of cases)
  test(`a token endpoint that ${what}: ${wanted === "refused" ? "no call is made, and the next one is" : "calls are made"}`, async () => {
    const session = await newcomer(`caller-${what.replaceAll(" ", "-")}`);
    tokens.set({ token: fault });
    const [seen, asked] = [backend.requests.length, exchanges()];
    if (wanted !== "refused") {
      for (let i = 0; i < wanted.calls; i++) assert.match(await whoami(session), /"text":"caller-/);
      tokens.set({ token: undefined });
      // The first call may also have asked for what opens the session.
      const spent = exchanges() - asked;
      assert.ok(wanted.exchanges === 1 ? spent === 1 : spent >= wanted.exchanges, `${spent} exchanges`);
      return;
    }
    const startedMs = performance.now();
    const answer = await whoami(session);
    assert.match(answer, /"reason":"backend_no_credential"/);
    assert.match(answer, /"outcome":"not_executed"/);
    assert.ok(performance.now() - startedMs < 9_000, "it does not take longer than the endpoint may");
    assert.doesNotMatch(answer, /localhost|127\.0\.0\.1|html|eyJ/, "nothing of the endpoint is told");
    assert.deepEqual(
      backend.requests.slice(seen).filter(({ message }) => message?.method === "tools/call"),
      [],
    );
    assert.match(await whoami(session, "other"), /"text":"caller-/, "another token endpoint is another matter");
    tokens.set({ token: undefined });
    await eventually("it works again", async () => (await whoami(session)).includes('"text":"caller-'), 40_000);
  });

test("while the token endpoint is away, those go on who have their token", async () => {
  const [known, fresh] = [await newcomer("known"), await newcomer("fresh")];
  assert.match(await whoami(known), /"text":"known"/);
  await tokens.down();
  try {
    for (let i = 0; i < 20; i++) assert.match(await whoami(known), /"text":"known"/);
    for (let i = 0; i < 5; i++) await whoami(fresh);
    const startedMs = performance.now();
    assert.match(await whoami(fresh), /backend_no_credential/);
    assert.ok(performance.now() - startedMs < 500, "nobody waits for an endpoint that is known to be away");
  } finally {
    await tokens.up();
  }
  await eventually("the others are back", async () => (await whoami(fresh)).includes('"text":"fresh"'), 40_000);
});

/** Whether a token gets its caller in. */
async function statusFor(token: string): Promise<number> {
  const body =
    '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}';
  return (await send(vmcp.url, { method: "POST", headers: { ...mcpHeaders, ...bearer(token) }, body })).status;
}

const tokenOf = (sub: string) => people.token({ sub, audience });

test("keys that can't be fetched: known ones go on, also for callers who come now", async () => {
  assert.equal(await statusFor(await tokenOf("before")), 200);
  for (const fault of [
    { status: 500 },
    { body: "garbage" },
    { body: `{"keys":[${'{"kty":"RSA"},'.repeat(300_000)}{}]}` },
    { cut: "before" as const },
  ]) {
    people.set({ jwks: fault, discovery: fault });
    assert.equal(await statusFor(await tokenOf(randomUUID())), 200);
    assert.equal(await statusFor(await people.sign({ sub: "x", aud: audience }, { header: { kid: randomUUID() } })), 401);
  }
  people.set({ jwks: undefined, discovery: undefined });
});

test("keys that are rotated with both published: nobody is refused", async () => {
  const old = await tokenOf("old");
  await people.rotate();
  // What was asked a moment ago is not asked again at once.
  await eventually("tokens of the new key get in", async () => (await statusFor(await tokenOf(randomUUID()))) === 200, 7_000);
  assert.equal(await statusFor(old), 200);
});

test("keys that are rotated all at once: refused for five seconds at most, and the old key counts no more", async () => {
  const old = [await tokenOf("old"), await tokenOf("older")] as const;
  assert.equal(await statusFor(old[0]), 200);
  await people.rotateAbruptly();
  const startedMs = performance.now();
  await eventually("tokens of the new key get in", async () => (await statusFor(await tokenOf(randomUUID()))) === 200, 7_000);
  assert.ok(performance.now() - startedMs < 6_000);
  assert.equal(await statusFor(old[0]), 401, "also one that was known");
  assert.equal(await statusFor(old[1]), 401);
});

test("10,000 tokens of unknown keys: all refused, and the issuer is asked as often as it may be", async () => {
  const forged = await people.sign({ sub: "x", aud: audience });
  const [, payload, signature] = forged.split(".");
  const before = people.fetches.jwks;
  const startedMs = performance.now();
  let next = 0;
  const work = async () => {
    while (next < 10_000) {
      const header = Buffer.from(JSON.stringify({ alg: "RS256", typ: "at+jwt", kid: `unknown-${next++}` })).toString("base64url");
      const { status } = await send(vmcp.url, {
        method: "POST",
        headers: { ...mcpHeaders, ...bearer(`${header}.${payload}.${signature}`) },
        body: "{}",
      });
      assert.equal(status, 401);
    }
  };
  await Promise.all(Array.from({ length: 16 }, work));
  const seconds = (performance.now() - startedMs) / 1_000;
  const fetches = people.fetches.jwks - before;
  assert.ok(fetches <= seconds / 5 + 1, `${fetches} fetches in ${seconds} s`);
  await eventually("good ones get in as ever", async () => (await statusFor(await tokenOf("good"))) === 200);
});
