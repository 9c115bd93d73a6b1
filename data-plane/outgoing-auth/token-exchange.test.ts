import assert from "node:assert/strict";
import { createHash, generateKeyPairSync, type JsonWebKey, randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { decodeProtectedHeader, type JWK } from "jose";
import { pino } from "pino";
import { IncomingAuthSchema } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { OutgoingAuthStrategySchema, type TokenExchangeSchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { eventually } from "../../test/support/eventually.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { startTokenServer, type TokenReply, unsignedJwt, usualAnswer } from "../../test/support/token-server.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { oneKey } from "../mcp/seal.ts";
import { Secret } from "../secrets.ts";
import { type Credential, NoCredentialError } from "./credential.ts";
import { createCredentials } from "./registry.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());

/** A token server, and credentials for it whose clock stands still. */
async function setUp() {
  const server = stack.use(await startTokenServer());
  const clock = { ms: Date.now() };
  const lines: string[] = [];
  const log = pino({ level: "info" }, { write: (line: string) => void lines.push(line) });
  const credentials = stack.use(createCredentials({ log, keys: oneKey(randomBytes(32)), nowMs: () => clock.ms }));
  const incomingAuth = create(IncomingAuthSchema, { type: "oidc", oidc: { issuer: `${server.origin}/realm` } });

  function of(config: MessageInitShape<typeof TokenExchangeSchema> = {}, backend = "files"): Credential {
    const tokenExchange = { tokenUrl: server.url, audience: backend, ...config };
    const resource = `virtualServers/team/backends/${backend}`;
    const recipient = { resource, backend, virtualServer: "team", url: "http://127.0.0.1:1", incomingAuth };
    return credentials.of(create(OutgoingAuthStrategySchema, { type: "token_exchange", tokenExchange }), recipient);
  }

  function caller(subject: string, token = `subject-of-${subject}`, lifeMs = 3_600_000): Caller {
    const digest = createHash("sha256").update(token).digest("base64url");
    return {
      identity: { issuer: "https://idp", subject, isAnonymous: false, client: "cli" },
      token: { secret: new Secret(token), digest, expiresAtMs: clock.ms + lifeMs },
      scopes: new Set(["read"]),
    };
  }

  const counters = () => credentials.metrics.snapshot()[0];
  return { server, clock, lines, credentials, of, caller, counters };
}

const confidential = { clientId: "gate.way-1", clientSecret: "s3cr:t &%ü" };

function claimsOf(shown: readonly string[]): Record<string, unknown> {
  assert.equal(shown[0], "authorization");
  return JSON.parse(Buffer.from(shown[1]?.split(".")[1] ?? "", "base64url").toString());
}

test("a caller's token is exchanged for one of the backend's, with everything that was configured", async () => {
  const { server, of, caller } = await setUp();
  await using directory = await temporaryDirectory();
  const actorTokenFile = await directory.write("actor", "actor-one\n");
  const credential = of({
    ...{ resource: "https://files.example/mcp", scopes: ["b", "a"], subjectTokenType: "jwt", requestedTokenType: "jwt" },
    ...{ actorTokenFile, actorTokenType: "id_token" },
  });
  const shown = await credential.show(caller("ada"));
  assert.equal(claimsOf(shown).sub, "for subject-of-ada");
  const type = (name: string) => `urn:ietf:params:oauth:token-type:${name}`;
  assert.deepEqual(server.requests[0]?.parameters, {
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    ...{ subject_token: "subject-of-ada", subject_token_type: type("jwt"), requested_token_type: type("jwt") },
    ...{ audience: "files", resource: "https://files.example/mcp", scope: "b a" },
    ...{ actor_token: "actor-one", actor_token_type: type("id_token") },
  });
  await directory.write("actor", "actor-two");
  await credential.show(caller("bob"));
  assert.equal(server.requests[1]?.parameters.actor_token, "actor-two");
});

test("a token at hand is shown at once, and is the very same list", async () => {
  const { server, of, caller } = await setUp();
  const credential = of();
  const ada = caller("ada");
  const first = await credential.show(ada);
  assert.equal(credential.show(ada), first);
  assert.equal(credential.show(caller("ada")), first, "the same token, verified again");
  assert.equal(server.requests.length, 1);
});

test("a hundred calls at once make one exchange", async () => {
  const { server, of, caller, counters } = await setUp();
  server.delayMs = 30;
  const credential = of();
  const ada = caller("ada");
  const shown = await Promise.all(Array.from({ length: 100 }, (_, i) => credential.show(i % 2 ? ada : caller("ada"))));
  assert.equal(new Set(shown).size, 1);
  assert.equal(server.requests.length, 1);
  assert.equal(counters()?.obtained, 1);
  assert.equal(counters()?.misses, 1);
});

test("ten users with two tokens each and ten backends: everybody gets their own", async () => {
  const { server, of, caller } = await setUp();
  const backends = Array.from({ length: 10 }, (_, i) => `backend${i}`);
  const callers = Array.from({ length: 20 }, (_, i) => caller(`user${i >> 1}`, `token-${i >> 1}-${i % 2 ? "narrow" : "wide"}`));
  const pairs = backends.flatMap((backend) => callers.map((one) => ({ backend, one })));
  for (const round of [1, 2]) {
    const shown = await Promise.all(pairs.map(async ({ backend, one }) => of({}, backend).show(one)));
    for (const [i, { backend, one }] of pairs.entries()) {
      const { sub, aud } = claimsOf(shown[i] ?? []);
      assert.deepEqual({ sub, aud }, { sub: `for ${one.token?.secret.reveal()}`, aud: backend }, `round ${round}`);
    }
    assert.equal(server.requests.length, 200);
  }
});

test("two backends with one configuration, audience included, do not share tokens", async () => {
  const { server, of, caller } = await setUp();
  const ada = caller("ada");
  const shown = [await of({ audience: "all" }, "files").show(ada), await of({ audience: "all" }, "mail").show(ada)];
  assert.notDeepEqual(shown[0], shown[1]);
  assert.equal(server.requests.length, 2);
});

test("one subject of two issuers, or with two clients, is two callers even with one token digest", async () => {
  const { server, of, caller } = await setUp();
  const credential = of();
  const ada = caller("ada");
  await credential.show(ada);
  await credential.show({ ...ada, identity: { ...ada.identity, issuer: "https://other" } });
  await credential.show({ ...ada, identity: { ...ada.identity, client: "web" } });
  await credential.show({ ...ada, identity: { ...ada.identity, issuer: "https://idpa", subject: "da" } });
  assert.equal(server.requests.length, 4);
});

test("a caller without a token, or with one that is over, gets none, and nobody is asked", async () => {
  const { server, of, caller, clock } = await setUp();
  const credential = of();
  assert.throws(() => credential.show({ ...caller("ada"), token: undefined }), { name: "NoCredentialError", fault: "caller" });
  const ada = caller("ada");
  clock.ms += 3_600_000;
  await assert.rejects(async () => credential.show(ada), /has expired/);
  assert.equal(server.requests.length, 0);
});

const methods: [name: string, config: object][] = [
  ["client_secret_basic, which is the default with a secret", {}],
  ["client_secret_post", { clientAuthMethod: "client_secret_post" }],
];
for (const [name, config] of methods)
  test(`the gateway proves itself by ${name}`, async () => {
    const { server, of, caller } = await setUp();
    server.clients = { [confidential.clientId]: { secret: confidential.clientSecret } };
    await of({ ...confidential, ...config }).show(caller("ada"));
    assert.equal(server.requests[0]?.client, confidential.clientId);
    assert.equal(server.requests[0]?.headers.authorization !== undefined, !("clientAuthMethod" in config));
    const wrong = of({ ...confidential, ...config, clientSecret: "other" });
    await assert.rejects(async () => wrong.show(caller("ada")), { fault: "temporary", message: /the gateway as a client/ });
  });

test("a client id without special characters is understood by servers that decode nothing", async () => {
  const { server, of, caller } = await setUp();
  await of({ clientId: "gate.way-1_x", clientSecret: "a-b.c_d" }).show(caller("ada"));
  const sent = Buffer.from(server.requests[0]?.headers.authorization?.slice(6) ?? "", "base64").toString();
  assert.equal(sent, "gate.way-1_x:a-b.c_d");
});

const keys: [name: string, key: ReturnType<typeof generateKeyPairSync>, alg: string][] = [
  ["RSA", generateKeyPairSync("rsa", { modulusLength: 2_048 }) as never, "RS256"],
  ["P-256", generateKeyPairSync("ec", { namedCurve: "P-256" }) as never, "ES256"],
  ["Ed25519", generateKeyPairSync("ed25519") as never, "Ed25519"],
];
for (const [name, { publicKey, privateKey }, alg] of keys)
  test(`the gateway proves itself by an assertion that a ${name} key signs, as PEM or JWK`, async () => {
    const { server, of, caller } = await setUp();
    const jwk = (publicKey as never as { export(options: object): JsonWebKey }).export({ format: "jwk" });
    server.clients = { "gate.way-1": { key: { ...jwk, kid: "k7", alg } as JWK } };
    await using directory = await temporaryDirectory();
    const exported = (options: object) =>
      (privateKey as never as { export(options: object): string | JsonWebKey }).export(options);
    const pem = await directory.write("key.pem", exported({ type: "pkcs8", format: "pem" }) as string);
    const json = JSON.stringify({ ...(exported({ format: "jwk" }) as JsonWebKey), kid: "k7" });
    await of({ clientId: "gate.way-1", privateKeyFile: pem, privateKeyId: "k7" }).show(caller("ada"));
    await of({ clientId: "gate.way-1", privateKeyFile: await directory.write("key.jwk", json) }).show(caller("ada"));
    for (const { client, parameters } of server.requests) {
      assert.equal(client, "gate.way-1");
      assert.equal(decodeProtectedHeader(parameters.client_assertion ?? "").kid, "k7");
    }
    assert.equal(server.requests.length, 2);
  });

test("what can't be used to prove anything is said to the operator, and not shown", async () => {
  const { of } = await setUp();
  await using directory = await temporaryDirectory();
  const broken = await directory.write("key", "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----");
  const small = generateKeyPairSync("rsa", { modulusLength: 1_024 }).privateKey.export({ type: "pkcs8", format: "pem" });
  const cases: [config: object, words: RegExp][] = [
    [{ clientSecret: "s3cret" }, /needs a client id/],
    [{ clientId: "c", clientSecretEnv: "VMCP_TEST_NOT_SET" }, /VMCP_TEST_NOT_SET is not set/],
    [{ clientId: "c", clientAuthMethod: "client_secret_post" }, /needs a client secret/],
    [{ clientId: "c", clientAuthMethod: "private_key_jwt", clientSecret: "s3cret" }, /needs a private key/],
    [{ clientId: "c", clientAuthMethod: "tls_client_auth" }, /is not known/],
    [{ clientId: "c", privateKeyFile: broken }, /can't be read; wanted: PEM/],
    [{ clientId: "c", privateKeyFile: await directory.write("jwk", '{"s3cret"') }, /is no JSON/],
    [{ clientId: "c", privateKeyFile: await directory.write("small", String(small)) }, /2048 bits is too short/],
    [{ tokenUrl: "http://idp.example/token" }, /in clear to http:\/\/idp.example; wanted: https/],
    [{ actorTokenEnv: "VMCP_TEST_NOT_SET" }, /VMCP_TEST_NOT_SET is not set/],
  ];
  for (const [config, words] of cases)
    assert.throws(
      () => of(config),
      (error: Error) => words.test(error.message) && !error.message.includes("s3cret"),
      String(words),
    );
});

const failures: [what: string, reply: TokenReply | "hang up", fault: "caller" | "temporary", isRemembered: boolean][] = [
  ["invalid_grant", { status: 400, body: { error: "invalid_grant" } }, "caller", true],
  ["invalid_target", { status: 400, body: { error: "invalid_target" } }, "caller", true],
  ["invalid_scope", { status: 400, body: { error: "invalid_scope" } }, "caller", true],
  ["access_denied", { status: 403, body: { error: "access_denied" } }, "caller", true],
  ["interaction_required", { status: 400, body: { error: "interaction_required" } }, "caller", true],
  ["invalid_client", { status: 401, body: { error: "invalid_client" } }, "temporary", true],
  ["a code of its own", { status: 400, body: { error: "constructor" } }, "temporary", true],
  ["another's token", { body: { ...usual(), access_token: unsignedJwt({ aud: "mail" }) } }, "temporary", true],
  ["the caller's own token", { body: { ...usual(), access_token: "subject-of-ada" } }, "temporary", true],
  ["a DPoP token", { body: { ...usual(), token_type: "DPoP" } }, "temporary", true],
  ["no token", { body: { token_type: "Bearer" } }, "temporary", true],
  ["500", { status: 500, body: { error: "server_error" } }, "temporary", false],
  ["429", { status: 429, body: { error: "invalid_request" } }, "temporary", false],
  ["temporarily_unavailable", { status: 400, body: { error: "temporarily_unavailable" } }, "temporary", false],
  ["a web page", { body: "<html>" }, "temporary", false],
  ["a web page that says 404", { status: 404, body: "<html>" }, "temporary", false],
  ["a megabyte", { body: { ...usual(), padding: "x".repeat(1024 * 1024) } }, "temporary", false],
  ["a redirect", { status: 307, headers: { location: "http://127.0.0.1:1/" }, body: {} }, "temporary", false],
  ["nothing", "hang up", "temporary", false],
];
for (const [what, reply, fault, isRemembered] of failures)
  test(`an endpoint that answers with ${what} gives no token, and is ${isRemembered ? "" : "not "}believed for 5 s`, async () => {
    const { server, of, caller, clock } = await setUp();
    server.misbehave = () => reply;
    const credential = of();
    const ada = caller("ada");
    const fails = () => assert.rejects(async () => credential.show(ada), { fault });
    await fails();
    await fails();
    assert.equal(server.requests.length, isRemembered ? 1 : 2);
    server.misbehave = undefined;
    await (isRemembered ? fails() : credential.show(ada));
    clock.ms += 5_000;
    await credential.show(ada);
    assert.equal(server.requests.length, isRemembered ? 2 : 3);
  });

function usual() {
  return usualAnswer({ parameters: { audience: "files" }, headers: {}, client: undefined, number: 0 });
}

test("nothing of what an endpoint says reaches clients, and no credential reaches the log", async () => {
  const { server, of, caller, lines } = await setUp();
  const long = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ";
  server.misbehave = ({ parameters }) => ({
    status: 400,
    body: {
      error: "invalid_grant",
      error_description: `CANARY expired: ${parameters.subject_token}, s3cr:t &%ü or ${long}\r\n{}`,
    },
  });
  const credential = of(confidential);
  await assert.rejects(
    async () => credential.show(caller("ada", "short")),
    (error: Error) => error instanceof NoCredentialError && !/CANARY|short|eyJ/.test(error.message),
  );
  const line = lines.find((one) => one.includes("no token")) ?? "";
  assert.match(line, /CANARY expired: \[secret\]/);
  assert.doesNotMatch(lines.join(""), /short|s3cr|eyJ|subject-of/);
});

test("the log has one line for many failures of a kind, and says how many it left out", async () => {
  const { server, of, caller, lines, clock } = await setUp();
  server.misbehave = () => ({ status: 400, body: { error: "invalid_grant" } });
  const credential = of();
  for (let i = 0; i < 10; i++) await assert.rejects(async () => credential.show(caller(`user${i}`)));
  assert.equal(lines.length, 1);
  clock.ms += 10_000;
  await assert.rejects(async () => credential.show(caller("another")));
  assert.match(lines[1] ?? "", /"unsaid":9/);
});

const lives: [what: string, change: object, isKept: boolean][] = [
  ["1 second", { expires_in: 1 }, false],
  ["0 seconds", { expires_in: 0 }, false],
  ["less than nothing", { expires_in: -1 }, false],
  ["an unknown time", { expires_in: undefined }, true],
  ["a time that is no number", { expires_in: "x" }, true],
  ["30,000 years", { expires_in: 1e12 }, true],
];
for (const [what, change, isKept] of lives)
  test(`a token for ${what} is shown ${isKept ? "again" : "only to those who wait for it"}`, async () => {
    const { server, of, caller } = await setUp();
    server.misbehave = (request) => ({ body: { ...usualAnswer(request), ...change } });
    const credential = of();
    const ada = caller("ada");
    const both = await Promise.all([credential.show(ada), credential.show(caller("ada"))]);
    assert.equal(both[0], both[1]);
    await credential.show(ada);
    assert.equal(server.requests.length, isKept ? 1 : 2);
  });

test("no token outlives the caller's, whatever it says of itself", async () => {
  const { server, of, caller, clock } = await setUp();
  server.misbehave = (request) => ({ body: { ...usualAnswer(request), expires_in: 1e12 } });
  const credential = of();
  const ada = caller("ada", "t", 100_000);
  await credential.show(ada);
  clock.ms += 99_999;
  await credential.show(ada);
  assert.equal(server.requests.length, 1, "and no other is obtained, which would end as early");
  clock.ms += 1;
  await assert.rejects(async () => credential.show(ada), /has expired/);
});

test("when 80 % of its time is over the next is obtained, while the old is still shown", async () => {
  const { server, of, caller, clock, counters } = await setUp();
  server.misbehave = (request) => ({ body: { ...usualAnswer(request), expires_in: 130 } });
  const credential = of();
  const ada = caller("ada");
  const old = await credential.show(ada);
  clock.ms += 79_999;
  assert.equal(credential.show(ada), old);
  clock.ms += 1;
  server.delayMs = 20;
  for (let i = 0; i < 10; i++) assert.equal(credential.show(ada), old);
  await eventually("the next is shown", () => credential.show(ada) !== old);
  assert.equal(server.requests.length, 2);
  assert.equal(counters()?.refreshes, 1);
});

test("when that fails the old is shown to its end, and it is tried again every 5 s", async () => {
  const { server, of, caller, clock, counters } = await setUp();
  server.misbehave = (request) => (request.number > 1 ? { status: 400, body: { error: "invalid_grant" } } : undefined);
  const credential = of();
  const ada = caller("ada", "t", 1e9);
  const old = await credential.show(ada);
  clock.ms += 3_000_000;
  for (let tries = 1; tries <= 3; tries++) {
    assert.equal(credential.show(ada), old);
    await eventually("it is tried", () => server.requests.length === 1 + tries);
    await eventually("it has failed", () => counters()?.failed.refused_caller === tries);
    for (let i = 0; i < 5; i++) assert.equal(credential.show(ada), old);
    assert.equal(counters()?.refreshes, tries);
    clock.ms += 5_000;
  }
  clock.ms += 600_000;
  await assert.rejects(async () => credential.show(ada), { fault: "caller" });
});

test("a refused token is not shown again, and another is obtained once for all who had it", async () => {
  const { server, of, caller, clock } = await setUp();
  const credential = of();
  const [ada, again] = [caller("ada"), caller("ada")];
  const shown = await credential.show(ada);
  await credential.show(again);
  clock.ms += 1_000;
  const verdicts = await Promise.all([ada, again, ada].map((one) => credential.refused(one, [...shown], "Bearer")));
  assert.deepEqual(verdicts, [true, true, true]);
  const [next, other] = await Promise.all([credential.show(ada), credential.show(again)]);
  assert.notEqual(next[1], shown[1]);
  assert.equal(next, other);
  assert.equal(server.requests.length, 2);
  assert.equal(await credential.refused(ada, shown, undefined), true, "the one at hand is another");
  assert.equal(credential.show(ada), next);
});

test("a backend that refuses everything does not make an exchange for every call", async () => {
  const { server, of, caller, clock, counters } = await setUp();
  const credential = of();
  const ada = caller("ada");
  for (let call = 0; call < 50; call++) {
    clock.ms += 100;
    const shown = await Promise.resolve()
      .then(() => credential.show(ada))
      .catch((error: NoCredentialError) => error);
    if (shown instanceof Error) assert.match(shown.message, /does not accept the token/);
    else if (await credential.refused(ada, shown, undefined))
      await credential.refused(ada, await credential.show(ada), undefined);
  }
  assert.ok(server.requests.length <= 2, `${server.requests.length} exchanges in 5 s`);
  assert.ok((counters()?.negativeHits ?? 0) > 40);
});

test("a token for one request that was refused is followed by no other for 5 s", async () => {
  const { server, of, caller } = await setUp();
  server.misbehave = (request) => ({ body: { ...usualAnswer(request), expires_in: 1 } });
  const credential = of();
  const ada = caller("ada");
  assert.equal(await credential.refused(ada, await credential.show(ada), undefined), false);
  await assert.rejects(async () => credential.show(ada), /does not accept the token/);
  assert.equal(server.requests.length, 1);
});

test("an endpoint that is down is left alone for all backends, and tokens at hand are still shown", async () => {
  const { server, of, caller, clock } = await setUp();
  const [files, mail] = [of(), of({}, "mail")];
  const ada = caller("ada");
  const shown = await files.show(ada);
  server.misbehave = () => ({ status: 503, body: "" });
  for (let i = 0; i < 5; i++) await assert.rejects(async () => files.show(caller(`user${i}`)), { fault: "temporary" });
  await assert.rejects(async () => mail.show(ada), /left alone/);
  assert.equal(server.requests.length, 6);
  assert.equal(files.show(ada), shown);
  server.misbehave = undefined;
  clock.ms += 5_000;
  await mail.show(ada);
});

test("an endpoint that does not answer is given up after 5 s", async () => {
  const { server, of, caller } = await setUp();
  server.delayMs = 7_000;
  const startMs = performance.now();
  await assert.rejects(async () => of().show(caller("ada")), { fault: "temporary", message: /can't be reached/ });
  assert.ok(performance.now() - startMs < 6_000);
});

test("the gateway gets in with a token of its own, and listings are the same for all", async () => {
  const { server, of, caller } = await setUp();
  server.clients = { [confidential.clientId]: { secret: confidential.clientSecret } };
  const credential = of({ ...confidential, scopes: ["list"], resource: "https://files.example" });
  assert.equal(credential.gatewayShows, "its own token");
  const shown = await credential.show(undefined);
  assert.equal(credential.show(undefined), shown);
  const asked = { grant_type: "client_credentials", audience: "files", resource: "https://files.example", scope: "list" };
  assert.deepEqual(server.requests[0]?.parameters, asked);
  assert.equal(credential.contextOf(caller("ada")), undefined);
  await credential.show(caller("ada"));
  assert.equal(server.requests.length, 2, "a caller never gets it");
});

test("a gateway that gets no token of its own asks again after 10 minutes, and lists for each caller meanwhile", async () => {
  for (const error of ["unauthorized_client", "unsupported_grant_type", "invalid_scope", "access_denied", "invalid_target"]) {
    const { server, of, caller, clock } = await setUp();
    server.misbehave = ({ parameters }) =>
      parameters.grant_type === "client_credentials" ? { status: 400, body: { error } } : undefined;
    const credential = of(confidential);
    const ada = caller("ada");
    await assert.rejects(async () => credential.show(undefined), NoCredentialError);
    assert.equal(credential.gatewayShows, "nobody");
    clock.ms += 599_999;
    assert.throws(() => credential.show(undefined), /only called for callers/);
    assert.equal(server.requests.length, 1);
    const context = credential.contextOf(ada);
    assert.ok(context && !context.includes("ada"));
    assert.equal(credential.contextOf(caller("ada", "another token")), context);
    assert.notEqual(credential.contextOf(caller("bob")), context);
    assert.notEqual(credential.contextOf({ ...caller("ada"), scopes: new Set(["read", "write"]) }), context);
    assert.notEqual(
      credential.contextOf({ ...ada, identity: { ...ada.identity, issuer: "https://idpa", subject: "da" } }),
      context,
    );
    assert.equal(credential.contextOf(undefined), undefined);
    await credential.show(ada);
    server.misbehave = undefined;
    clock.ms += 1;
    assert.equal(credential.gatewayShows, "its own token");
    await credential.show(undefined);
  }
});

test("an outage is no refusal: the gateway goes on to ask", async () => {
  const { server, of } = await setUp();
  server.misbehave = () => ({ status: 500, body: "" });
  const credential = of(confidential);
  await assert.rejects(async () => credential.show(undefined), { fault: "temporary" });
  assert.equal(credential.gatewayShows, "its own token");
});

test("a backend that wants to know for whom it is refuses the gateway's own token, and is only called for callers", async () => {
  const { of, caller } = await setUp();
  const credential = of(confidential);
  assert.equal(await credential.refused(undefined, await credential.show(undefined), undefined), false);
  assert.equal(credential.gatewayShows, "nobody");
  assert.ok(credential.contextOf(caller("ada")));
});

test("without a client credential only callers get in", async () => {
  const { server, of, caller } = await setUp();
  const credential = of({ clientId: "public" });
  assert.equal(credential.gatewayShows, "nobody");
  assert.throws(() => credential.show(undefined), NoCredentialError);
  await credential.show(caller("ada"));
  assert.equal(server.requests[0]?.parameters.client_id, "public");
});

test("the issuer of the callers says where tokens are exchanged, and is asked once", async () => {
  const { server, of, caller } = await setUp();
  const metadata = { issuer: `${server.origin}/realm`, token_endpoint: server.url };
  server.pages.set("/realm/.well-known/openid-configuration", { body: metadata });
  const credential = of({ tokenUrl: "" });
  await Promise.all([credential.show(caller("ada")), credential.show(caller("bob"))]);
  assert.equal(server.requests.length, 2);
  assert.equal(server.paths.filter((path) => path.includes(".well-known")).length, 1);
});

const metadata: [what: string, change: object, words: RegExp][] = [
  ["of another issuer", { issuer: "https://evil.example" }, /not that of the issuer/],
  ["of the issuer with a slash more", { issuer: "SELF/realm/" }, /not that of the issuer/],
  ["without a token endpoint", { token_endpoint: undefined }, /names no token endpoint/],
  ["that leads to a private address", { token_endpoint: "https://169.254.169.254/token" }, /address is not public/],
  ["that leads to plain http", { token_endpoint: "http://idp.example/token" }, /metadata leads to plain http/],
];
for (const [what, change, words] of metadata)
  test(`metadata ${what} is not used, and not asked for again at once`, async () => {
    const { server, of, caller, clock, lines } = await setUp();
    const wanted = { issuer: `${server.origin}/realm`, token_endpoint: server.url };
    const body = JSON.parse(JSON.stringify({ ...wanted, ...change }).replaceAll("SELF", server.origin));
    server.pages.set("/realm/.well-known/openid-configuration", { body });
    const credential = of({ tokenUrl: "" });
    for (let i = 0; i < 3; i++) await assert.rejects(async () => credential.show(caller("ada")), NoCredentialError);
    assert.equal(server.paths.length, 1);
    assert.match(lines.join(""), words);
    server.pages.set("/realm/.well-known/openid-configuration", { body: wanted });
    clock.ms += 30_000;
    await credential.show(caller("ada"));
  });

test("an endpoint that moved is found again", async () => {
  const { server, of, caller, clock } = await setUp();
  const page = "/.well-known/oauth-authorization-server/realm";
  server.pages.set("/old", { status: 404, body: {} });
  server.pages.set(page, { body: { issuer: `${server.origin}/realm`, token_endpoint: `${server.origin}/old` } });
  const credential = of({ tokenUrl: "" });
  await assert.rejects(async () => credential.show(caller("ada")), { fault: "temporary" });
  server.pages.set(page, { body: { issuer: `${server.origin}/realm`, token_endpoint: server.url } });
  clock.ms += 30_000;
  await credential.show(caller("ada"));
});

test("a token of an upstream provider is not part of this version", async () => {
  const { of, caller } = await setUp();
  assert.throws(() => of({ subjectProviderName: "google" }).show(caller("ada")), NoCredentialError);
});
