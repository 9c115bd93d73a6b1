// Users of replicas that share a Redis, signing in at a real issuer, whose refresh tokens rotate: one that is used twice ends all.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { IncomingAuthSchema } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { whyMissing } from "../../test/support/debian.ts";
import { eventually } from "../../test/support/eventually.ts";
import { startGuardedBackend } from "../../test/support/guarded-backend.ts";
import { startIssuer } from "../../test/support/issuer.ts";
import { startRedis } from "../../test/support/redis.ts";
import { signIn } from "../../test/support/sign-in.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { oneKey } from "../mcp/seal.ts";
import { readRedisAddress } from "../redis/address.ts";
import { NoCredentialError, SignInNeededError } from "./credential.ts";
import { createCredentials } from "./registry.ts";
import { SignInError } from "./sign-in-error.ts";
import { createSignInFlow, hashOf, markOf, type Visit } from "./sign-in-flow.ts";
import { createSignInSeals, type Ticket } from "./sign-in-seals.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const noRedis = await whyMissing("redis-server", "redis-server");
const log = pino({ level: "silent" });
const base = "http://127.0.0.1:1";
const host = { host: "127.0.0.1:1" };
const who = (subject: string): Caller => ({
  identity: { issuer: "https://id.example", subject, isAnonymous: false },
  token: undefined,
  scopes: new Set(),
});
const ada = who("ada");

interface Settings {
  readonly replicas?: number;
  readonly hasRedis?: boolean;
  readonly secret?: string;
}

async function setUp({ replicas = 1, hasRedis = false, secret = "s3cret" }: Settings = {}) {
  const redirectUris = [`${base}/oauth/callback`];
  const clients = secret ? [{ id: "gateway", secret, redirectUris }] : [{ id: "gateway", auth: "none", redirectUris } as const];
  const audiences: Record<string, { readonly format: "opaque" }> = {};
  const issuer = stack.use(await startIssuer({ clients, audiences, scopes: ["read"] }));
  const backend = stack.use(await startGuardedBackend({ issuers: [issuer], scopes: ["read"] }));
  audiences[backend.url] = { format: "opaque" }; // they end by our clock, which is put forward here
  const redis = hasRedis ? stack.use(await startRedis()) : undefined;
  const clock = { ms: Date.now() };
  const key = randomBytes(32);
  const upstreamOauth = { clientId: "gateway", clientSecret: secret, insecureAllowHttp: true, allowPrivateIp: true };
  const strategy = create(OutgoingAuthStrategySchema, { type: "upstream_oauth", upstreamOauth });
  const recipient = { resource: "r", backend: "mail", url: backend.url, virtualServer: "team", incomingAuth: undefined };
  const signedIn: Ticket[] = [];

  function open() {
    const keys = oneKey(Buffer.from(key));
    const shared = redis ? { redis: { address: readRedisAddress(redis.url) } } : {};
    const nowMs = () => clock.ms;
    const credentials = stack.use(createCredentials({ log, keys, nowMs, ...shared }));
    const credential = credentials.of(strategy, recipient);
    const flow = createSignInFlow({
      seals: createSignInSeals({ keys, nowMs }),
      store: credentials.userTokens,
      find: credentials.signIns.find,
      onSignedIn: (ticket) => void signedIn.push(ticket),
      log,
    });
    return { credential, flow, store: credentials.userTokens, show: async (caller?: Caller) => credential.show(caller, host) };
  }
  const proxies = Array.from({ length: replicas }, open);
  for (const { store } of proxies)
    await eventually("the store is there", () =>
      store.read("x").then(
        () => true,
        () => false,
      ),
    );
  const refreshes = () => issuer.tokenRequests.filter(({ grantType }) => grantType === "refresh_token");
  return { issuer, backend, redis, clock, proxies, first: proxies[0] as ReturnType<typeof open>, open, refreshes, signedIn };
}

type Proxy = Awaited<ReturnType<typeof setUp>>["first"];

/** What a browser with these secrets does. */
function browserOf(...secrets: readonly string[]): Visit {
  return {
    base,
    secretOf: (mark) => secrets.find((secret) => markOf(hashOf(secret)) === mark),
    isOf: async () => true,
  };
}

const needsSignIn = async (proxy: Proxy, caller = ada): Promise<SignInNeededError> => {
  const error = await proxy.show(caller).catch((failure: unknown) => failure);
  assert.ok(error instanceof SignInNeededError, String(error));
  return error;
};

const ticketIn = ({ url }: SignInNeededError): string => url.slice(`${base}/oauth/connect/`.length);

/** Signs in with a link of `proxy`, by way of `by`; gives what came back, unused. */
async function begin(proxy: Proxy, secret: string, caller = ada, by = proxy): Promise<URLSearchParams> {
  const ticket = by.flow.open(ticketIn(await needsSignIn(proxy, caller)));
  const url = await by.flow.begin(ticket, browserOf(secret), secret);
  return (await signIn(url, caller.identity.subject)).searchParams;
}

async function complete(proxy: Proxy, caller = ada, by = proxy): Promise<void> {
  const secret = randomBytes(32).toString("base64url");
  await by.flow.finish(await begin(proxy, secret, caller, by), browserOf(secret));
}

const failsAs = (promise: Promise<unknown>, problem: SignInError["problem"]) =>
  assert.rejects(promise, (error) => error instanceof SignInError && error.problem === problem);

test("a user signs in once, and then is shown without a detour", async () => {
  const { first, signedIn, issuer, backend } = await setUp();
  const { elicitationId, url } = await needsSignIn(first);
  assert.match(url, /^http:\/\/127\.0\.0\.1:1\/oauth\/connect\/s1/);
  assert.equal((await needsSignIn(first)).elicitationId, elicitationId);
  assert.notEqual((await needsSignIn(first, who("bob"))).elicitationId, elicitationId);
  await complete(first);
  assert.deepEqual(
    signedIn.map((ticket) => ticket.elicitationId),
    [elicitationId],
  );
  const shown = first.credential.show(ada, host);
  assert.ok(Array.isArray(shown), "no promise");
  assert.match(String(shown[1]), /^Bearer \S+$/);
  await needsSignIn(first, who("bob"));
  const [asked] = issuer.tokenRequests;
  assert.deepEqual([asked?.params.resource, asked?.clientAuth], [backend.url, "basic"]);
});

test("the gateway itself gets in with a token of its own, where its client can have one", async () => {
  const { first } = await setUp();
  assert.match(String((await first.show())[1]), /^Bearer \S+$/);
  assert.equal(first.credential.gatewayShows, "its own token");
  const open = await setUp({ secret: "" });
  await assert.rejects(open.first.show(), NoCredentialError);
  assert.equal(open.first.credential.gatewayShows, "nobody");
  assert.notEqual(first.credential.contextOf(ada), first.credential.contextOf(who("bob")));
});

test("without a place to visit there is no link", async () => {
  const { first } = await setUp();
  const error = await Promise.resolve(first.credential.show(ada)).catch((failure: unknown) => failure);
  assert.ok(error instanceof NoCredentialError && !(error instanceof SignInNeededError));
});

test("a state is good once, in the browser that began, for ten minutes", async () => {
  const { first, clock } = await setUp();
  const back = await begin(first, "mine");
  await failsAs(first.flow.finish(back, browserOf()), "other_browser");
  await failsAs(first.flow.finish(back, browserOf("another's")), "other_browser");
  await failsAs(first.flow.finish(back, { ...browserOf(), secretOf: () => "forged" }), "other_browser");
  await first.flow.finish(back, browserOf("mine"));
  await failsAs(first.flow.finish(back, browserOf("mine")), "used");
  const late = await begin(first, "late", who("bob"));
  clock.ms += 10 * 60_000;
  await failsAs(first.flow.finish(late, browserOf("late")), "link");
});

test("a state is of no use in another step, nor without its parts", async () => {
  const { first } = await setUp();
  const back = await begin(first, "mine");
  await failsAs(first.flow.proven(back, browserOf("mine")), "link");
  const wrong = (change: (parameters: URLSearchParams) => void) => {
    const parameters = new URLSearchParams(back);
    change(parameters);
    return first.flow.finish(parameters, browserOf("mine"));
  };
  await failsAs(
    wrong((parameters) => parameters.set("state", `${back.get("state")}A`)),
    "link",
  );
  await failsAs(
    wrong((parameters) => parameters.delete("state")),
    "link",
  );
  await failsAs(
    wrong((parameters) => parameters.set("iss", "https://evil.example")),
    "server_answer",
  );
});

for (const [name, change, problem] of [
  ["of another server", (p) => p.set("iss", "https://evil.example"), "server_answer"],
  ["of nobody", (p) => p.delete("iss"), "server_answer"],
  ["with another code", (p) => p.set("code", "guessed"), "server_answer"],
  ["without a code", (p) => p.delete("code"), "server_answer"],
  ["that says no", (p) => p.set("error", "access_denied"), "denied"],
] as const satisfies readonly (readonly [string, (parameters: URLSearchParams) => void, SignInError["problem"]])[])
  test(`an answer ${name} signs nobody in`, async () => {
    const { first } = await setUp();
    const back = await begin(first, "mine");
    change(back);
    await failsAs(first.flow.finish(back, browserOf("mine")), problem);
    await needsSignIn(first);
  });

test("a browser that does not belong to the caller begins nothing", async () => {
  const { first } = await setUp();
  const ticket = first.flow.open(ticketIn(await needsSignIn(first)));
  await failsAs(first.flow.begin(ticket, { ...browserOf(), isOf: async () => false }, "x"), "other_user");
});

test("with callers of an issuer it must be told how they sign in there", async () => {
  const credentials = stack.use(createCredentials({ log, keys: oneKey(randomBytes(32)) }));
  const oidc = { issuer: "https://id.example", audience: "a" };
  const recipient = {
    ...{ resource: "r", backend: "mail", url: "https://mail.example/mcp", virtualServer: "team" },
    incomingAuth: create(IncomingAuthSchema, { type: "oidc", oidc }),
  };
  const strategy = create(OutgoingAuthStrategySchema, { type: "upstream_oauth", upstreamOauth: {} });
  assert.throws(() => credentials.of(strategy, recipient), /incomingAuth\.oidc\.clientId/);
});

test("any replica serves any step, and all show what one signed in for", { skip: noRedis }, async () => {
  const { proxies, open } = await setUp({ replicas: 2, hasRedis: true });
  const [one, two] = proxies as [Proxy, Proxy];
  await complete(one, ada, two);
  const shown = await one.show(ada);
  assert.deepEqual(await two.show(ada), shown);
  const late = open();
  await eventually("the store is there", () =>
    late.store.read("x").then(
      () => true,
      () => false,
    ),
  );
  assert.deepEqual(await late.show(ada), shown);
});

test("a token that ended is refreshed once, however many ask, on all replicas", { skip: noRedis }, async () => {
  const { proxies, clock, refreshes } = await setUp({ replicas: 2, hasRedis: true });
  await complete(proxies[0] as Proxy);
  for (const { show } of proxies) await show(ada);
  for (let round = 1; round <= 4; round++) {
    clock.ms += 3_600_000;
    const all = await Promise.all(Array.from({ length: 60 }, (_, i) => (proxies[i % 2] as Proxy).show(ada)));
    assert.equal(new Set(all.map(([, value]) => value)).size, 1, `round ${round}`);
    assert.equal(refreshes().length, round);
  }
  const used = refreshes().map(({ params }) => params.refresh_token);
  assert.equal(new Set(used).size, used.length, "none is used twice");
  assert.ok(refreshes().every(({ answer }) => answer?.status === 200));
});

test("a token is refreshed meanwhile when it is about to end", async () => {
  const { first, clock, refreshes } = await setUp();
  await complete(first);
  const shown = await first.show(ada);
  clock.ms += 3_000_000;
  assert.equal(first.credential.show(ada, host), shown, "it is still good");
  await eventually("another is had", () => first.credential.show(ada, host) !== shown);
  assert.equal(refreshes().length, 1);
});

test("when the server takes a refresh token no more, the user signs in again", async () => {
  const { first, clock, issuer } = await setUp();
  await complete(first);
  clock.ms += 3_600_000;
  issuer.set({ token: { error: "invalid_grant" } });
  await needsSignIn(first);
  issuer.set({ token: undefined });
  await needsSignIn(first);
  await complete(first);
  assert.ok(await first.show(ada));
});

test("when the server is not well, nobody is asked to sign in", async () => {
  const { first, clock, issuer } = await setUp();
  await complete(first);
  clock.ms += 3_600_000;
  issuer.set({ token: { status: 503 } });
  const error = await first.show(ada).catch((failure: unknown) => failure);
  assert.ok(error instanceof NoCredentialError && !(error instanceof SignInNeededError) && error.fault === "temporary");
  issuer.set({ token: undefined });
  assert.ok(await first.show(ada));
});

test("a token that the backend refuses is refreshed, unless it has just been had", async () => {
  const { first, clock, refreshes } = await setUp();
  await complete(first);
  const shown = await first.show(ada);
  clock.ms += 10_000;
  assert.equal(await first.credential.refused(ada, shown, undefined), true);
  const next = await first.show(ada);
  assert.notEqual(next[1], shown[1]);
  assert.equal(await first.credential.refused(ada, shown, undefined), true, "there is another already");
  assert.equal(refreshes().length, 1);
  assert.equal(await first.credential.refused(ada, next, undefined), false);
  await needsSignIn(first);
});

test("while Redis is away nobody is asked to sign in, and what is at hand is shown", { skip: noRedis }, async () => {
  const { first, redis } = await setUp({ hasRedis: true });
  await complete(first);
  await redis?.stop();
  assert.ok(await first.show(ada));
  const error = await first.show(who("bob")).catch((failure: unknown) => failure);
  assert.ok(error instanceof NoCredentialError && !(error instanceof SignInNeededError) && error.fault === "temporary");
});
