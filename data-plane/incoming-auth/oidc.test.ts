import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { IncomingAuthSchema } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { createAuthenticators } from "./registry.ts";
import {
  audience,
  callerOf,
  createSigningKey,
  createTestClock,
  goodClaims,
  issue,
  jwksPath,
  oauthPath,
  open,
  openidPath,
  said,
  sha256,
  startIssuer,
} from "./test-issuer.ts";

const key = createSigningKey("k1");
const stranger = createSigningKey("k2");
const hour = 60 * 60_000;

/** An issuer with one key, and somebody who believes it. */
async function openWithIssuer(config: Parameters<typeof open>[0] = {}) {
  const issuer = await startIssuer(key);
  const opened = open({ issuer: issuer.url, ...config });
  const token = (changes = {}, by = key) => issue(by, { ...goodClaims(issuer.url, opened.clock.nowMs()), ...changes });
  return { issuer, ...opened, token, [Symbol.asyncDispose]: () => issuer[Symbol.asyncDispose]() };
}

test("who calls is what the token says", async () => {
  await using one = await openWithIssuer();
  const token = one.token({ azp: "web", scope: " read  write ", scp: ["admin"], exp: 2_000_000_000, iat: 1_999_990_000 });
  one.clock.jump(1_999_995_000_000 - one.clock.nowMs());
  const caller = callerOf(await one.ask(`Bearer ${token}`));
  assert.deepEqual(caller?.identity, {
    issuer: one.issuer.url,
    subject: "ada",
    isAnonymous: false,
    client: "web",
    tokenDigest: sha256(token),
  });
  assert.deepEqual([...(caller?.scopes ?? [])], ["read", "write", "admin"]);
  assert.equal(caller?.token?.secret.reveal(), token);
  assert.equal(caller?.token?.digest, sha256(token));
  assert.equal(caller?.token?.expiresAtMs, 2_000_000_000_000);
  assert.equal(JSON.stringify(caller).includes(token), false);
});

test("a token is over after its longest age, whatever it says", async () => {
  await using one = await openWithIssuer({ maxTokenAge: { seconds: 600n }, clockSkew: { seconds: 10n } });
  const token = one.token({ exp: Math.floor(one.clock.nowMs() / 1_000) + 3_600 });
  const issuedAtMs = Math.floor(one.clock.nowMs() / 1_000) * 1_000;
  assert.equal(callerOf(await one.ask(`Bearer ${token}`))?.token?.expiresAtMs, issuedAtMs + 600_000);
  one.clock.jump(issuedAtMs + 609_999 - one.clock.nowMs());
  assert.equal(said(await one.ask(`Bearer ${token}`)), "200");
  one.clock.jump(1);
  assert.match(said(await one.ask(`Bearer ${token}`)), /issued too long ago/);
});

test("a token that is known is answered at once, with the same caller, without a question", async () => {
  await using one = await openWithIssuer();
  const presented = { headers: { authorization: `Bearer ${one.token()}` }, method: "POST", url: audience, remoteAddress: "::1" };
  const first = one.authenticator.authenticate(presented);
  assert.ok(first instanceof Promise);
  const second = one.authenticator.authenticate({ ...presented, headers: { ...presented.headers } });
  const third = one.authenticator.authenticate({
    ...presented,
    headers: { authorization: `x ${presented.headers.authorization}` },
  });
  const known = await first;
  assert.equal(callerOf(await second), callerOf(known), "also while it was being verified");
  assert.ok((await third).refusal);
  const again = one.authenticator.authenticate(presented);
  assert.ok(!(again instanceof Promise));
  assert.equal(callerOf(again), callerOf(known));
  assert.equal(again, one.authenticator.authenticate(presented));
  assert.deepEqual(one.issuer.asked, [openidPath, jwksPath]);
});

test("a token that is known is refused when it has expired", async () => {
  await using one = await openWithIssuer();
  const token = one.token();
  assert.equal(said(await one.ask(`Bearer ${token}`)), "200");
  one.clock.jump(629_000); // the claims begin at a full second
  const headers = { authorization: `Bearer ${token}` };
  const verdict = one.authenticator.authenticate({ headers, method: "POST", url: audience, remoteAddress: undefined });
  assert.ok(!(verdict instanceof Promise) && !verdict.refusal, "within the skew it is still known");
  one.clock.jump(1_000);
  assert.match(said(await one.ask(`Bearer ${token}`)), /401 invalid_token .*has expired/);
});

test("when its key is taken away a token that is known is refused with the next set of keys", async () => {
  await using one = await openWithIssuer();
  const next = createSigningKey("k2");
  const token = one.token({ exp: Math.floor(one.clock.nowMs() / 1_000) + 7_200 });
  assert.equal(said(await one.ask(`Bearer ${token}`)), "200");
  one.issuer.keys = [next.jwk];
  one.clock.pass(6_000);
  assert.equal(said(await one.ask(`Bearer ${token}`)), "200");
  assert.equal(said(await one.ask(`Bearer ${one.token({}, next)}`)), "200", "a new kid makes us ask");
  assert.match(said(await one.ask(`Bearer ${token}`)), /401 invalid_token .*does not publish/);
  assert.deepEqual(one.issuer.asked, [openidPath, jwksPath, jwksPath], "where the keys are is known for longer");
});

test("metadata that went wrong later does not take away what was known", async () => {
  await using one = await openWithIssuer();
  assert.equal(said(await one.ask(`Bearer ${one.token()}`)), "200");
  const next = createSigningKey("k2");
  one.issuer.keys = [next.jwk];
  one.issuer.metadata = { issuer: "https://evil.example", jwks_uri: "https://evil.example/jwks" };
  one.clock.pass(hour);
  assert.equal(said(await one.ask(`Bearer ${one.token({}, next)}`)), "200");
  assert.equal(one.issuer.count(openidPath), 2);
});

test("without any new kid, it is refused after ten minutes", async () => {
  await using one = await openWithIssuer();
  const token = one.token({ exp: Math.floor(one.clock.nowMs() / 1_000) + 7_200 });
  assert.equal(said(await one.ask(`Bearer ${token}`)), "200");
  one.issuer.keys = [];
  one.clock.pass(10 * 60_000);
  assert.match(said(await one.ask(`Bearer ${token}`)), /401 invalid_token .*does not publish/);
});

test("two issuers with the same kid do not vouch for each other", async () => {
  const other = createSigningKey("k1");
  await using neighbour = await startIssuer(other);
  await using one = await openWithIssuer({ additionalIssuers: [{ issuer: neighbour.url, audience: "https://other.example" }] });
  const claims = { iss: neighbour.url, aud: "https://other.example" };
  assert.equal(said(await one.ask(`Bearer ${one.token()}`)), "200");
  const caller = callerOf(await one.ask(`Bearer ${one.token(claims, other)}`));
  assert.equal(caller?.identity.issuer, neighbour.url);
  assert.match(said(await one.ask(`Bearer ${one.token({}, other)}`)), /signature of the token is wrong/);
  assert.match(said(await one.ask(`Bearer ${one.token(claims)}`)), /signature of the token is wrong/);
  assert.match(
    said(await one.ask(`Bearer ${one.token({ iss: neighbour.url }, other)}`)),
    /another audience/,
    "each has its own audience",
  );
  assert.deepEqual(one.authenticator.discovery?.authorizationServers, [one.issuer.url, neighbour.url]);
});

test("a token of an unknown issuer, or one that is refused anyhow, makes us ask nobody", async () => {
  await using one = await openWithIssuer();
  for (const changes of [{ iss: "https://evil.example" }, { exp: 1 }, { aud: "x" }, { sub: "" }])
    assert.match(said(await one.ask(`Bearer ${one.token(changes)}`)), /401 invalid_token/);
  assert.deepEqual(one.issuer.asked, []);
});

test("an issuer that only has the metadata of RFC 8414 is found, also below a path", async () => {
  await using one = await openWithIssuer();
  one.issuer.instead.set(openidPath, (response) => void response.writeHead(404).end());
  const { issuer } = one;
  issuer.instead.set(oauthPath, (response) => void response.end(JSON.stringify(issuer.metadata)));
  assert.equal(said(await one.ask(`Bearer ${one.token()}`)), "200");
  const tenant = `${issuer.url}/tenant`;
  issuer.instead.set(
    `${oauthPath}/tenant`,
    (response) => void response.end(JSON.stringify({ ...issuer.metadata, issuer: tenant })),
  );
  const below = open({ issuer: tenant }, one.clock);
  assert.equal(said(await below.ask(`Bearer ${one.token({ iss: tenant })}`)), "200");
  assert.ok(issuer.asked.includes("/tenant/.well-known/openid-configuration"));
});

test("when the keys are no longer where they were, the issuer is asked where they are", async () => {
  await using one = await openWithIssuer();
  assert.equal(said(await one.ask(`Bearer ${one.token()}`)), "200");
  const next = createSigningKey("k2");
  one.issuer.instead.set(jwksPath, (response) => void response.writeHead(404).end());
  one.issuer.instead.set("/moved", (response) => void response.end(JSON.stringify({ keys: [next.jwk] })));
  one.issuer.metadata.jwks_uri = `${one.issuer.url}/moved`;
  one.clock.pass(5_000);
  assert.match(said(await one.ask(`Bearer ${one.token({}, next)}`)), /^401 /);
  one.clock.pass(5_000);
  assert.equal(said(await one.ask(`Bearer ${one.token({}, next)}`)), "200");
});

test("keys whose place is declared need no metadata", async () => {
  await using one = await openWithIssuer();
  const direct = open({ issuer: "https://issuer.example", jwksUrl: one.issuer.url + jwksPath }, one.clock);
  assert.equal(said(await direct.ask(`Bearer ${one.token({ iss: "https://issuer.example" })}`)), "200");
  assert.deepEqual(one.issuer.asked, [jwksPath]);
});

const wrongMetadata: [what: string, metadata: Record<string, unknown>][] = [
  ["of another issuer", { issuer: "https://evil.example" }],
  ["of an issuer with a slash behind", { issuer: "slash" }],
  ["without an issuer", { issuer: undefined }],
  ["without a place of keys", { jwks_uri: undefined }],
  ["with a place of keys that is no text", { jwks_uri: 1 }],
  ["with a place of keys that is a file", { jwks_uri: "file:///etc/passwd" }],
  ["with a place of keys on a private address", { jwks_uri: "https://10.0.0.1/jwks" }],
  ["with a place of keys in plain http", { jwks_uri: "http://issuer.example/jwks" }],
];
for (const [what, changes] of wrongMetadata) {
  test(`metadata ${what} is a failure: nobody can tell`, async () => {
    await using one = await openWithIssuer();
    const slash = changes.issuer === "slash" ? { issuer: `${one.issuer.url}/` } : changes;
    one.issuer.metadata = { ...one.issuer.metadata, ...slash };
    assert.match(said(await one.ask(`Bearer ${one.token()}`)), /^503 /);
    assert.equal(one.issuer.count(jwksPath), 0);
    assert.match(one.lines.join(), /keys of the issuer can't be fetched/);
  });
}

const failures: [what: string, instead: (response: import("node:http").ServerResponse) => void][] = [
  ["that are garbage", (response) => void response.end("<html>")],
  ["of 5 MB", (response) => void response.end(Buffer.alloc(5 * 1024 * 1024, " "))],
  ["that never come", () => undefined],
  [
    "that end too early",
    (response) => void response.writeHead(200, { "content-length": 100 }).write("{", () => response.destroy()),
  ],
  ["that are elsewhere", (response) => void response.writeHead(302, { location: jwksPath }).end()],
  ["with an error", (response) => void response.writeHead(500).end(JSON.stringify({ keys: [key.jwk, stranger.jwk] }))],
];
for (const [what, instead] of failures) {
  test(`keys ${what} are a failure: callers with known keys are served, others wait for better days`, async () => {
    await using issuer = await startIssuer(key);
    const { ask, clock, lines } = open({ issuer: issuer.url }, createTestClock(), 150);
    const token = (by = key, changes = {}) => `Bearer ${issue(by, { ...goodClaims(issuer.url, clock.nowMs()), ...changes })}`;
    issuer.instead.set(jwksPath, instead);
    assert.match(said(await ask(token())), /^503 /);
    issuer.instead.clear();
    clock.pass(1_000);
    assert.equal(said(await ask(token())), "200");
    issuer.instead.set(jwksPath, instead);
    clock.pass(hour);
    assert.equal(said(await ask(token())), "200");
    assert.match(said(await ask(token(stranger))), /401 invalid_token/);
    assert.equal(lines.join().includes(token().slice(7)), false);
  });
}

test("an issuer that is away is asked once, however many requests come", async () => {
  await using one = await openWithIssuer();
  one.issuer.instead.set(openidPath, (response) => void response.destroy());
  const all = await Promise.all(Array.from({ length: 200 }, (_, i) => one.ask(`Bearer ${one.token({ jti: `${i}` })}`)));
  assert.ok(all.every((verdict) => said(verdict).startsWith("503 ")));
  assert.ok(one.issuer.count(openidPath) <= 2, `${one.issuer.asked}`); // a library may try a broken connection twice
});

test("what nobody foresaw is refused, and logged without the token", async () => {
  await using one = await openWithIssuer();
  const token = one.token();
  const headers = {
    get authorization(): string {
      throw new Error(`about ${token}`);
    },
  };
  const verdict = await one.authenticator.authenticate({ headers, method: "POST", url: audience, remoteAddress: undefined });
  assert.match(said(verdict), /^503 the token can't be checked now$/);
  for (let i = 0; i < 100; i++)
    await one.authenticator.authenticate({ headers, method: "POST", url: audience, remoteAddress: "x" });
  assert.equal(one.lines.filter((line) => line.includes("could not be authenticated")).length, 1);
  assert.match(one.lines.join(), /"level":50/);
  assert.equal(one.lines.join().includes(token.slice(0, 20)), false);
});

test("whatever fails on the way, nobody is let in for it and nothing is thrown", async () => {
  await using issuer = await startIssuer(key);
  for (let failing = 0; failing < 30; failing++) {
    const clock = createTestClock();
    let readings = -Infinity;
    const read = (value: number): number => {
      if (readings++ === failing) throw new Error("the clock is broken");
      return value;
    };
    const broken = { ...clock, nowMs: () => read(clock.nowMs()), elapsedMs: () => read(clock.elapsedMs()) };
    const { ask } = open({ issuer: issuer.url }, broken);
    readings = 0;
    const claims = goodClaims(issuer.url, clock.nowMs());
    for (const wanted of [/^(200|503 .*)$/, /^(200|503 .*)$/])
      assert.match(said(await ask(`Bearer ${issue(key, claims)}`)), wanted);
    const forged = issue({ ...stranger, kid: key.kid }, claims);
    assert.match(said(await ask(`Bearer ${forged}`)), /^(401|503) /, `reading ${failing}`);
  }
});

test("scopes that a call needs are those of all calls and those of its tool", () => {
  const { authenticator } = open({
    issuer: "https://issuer.example",
    requiredScopes: ["read"],
    toolScopes: [
      { tool: "drop", scopes: ["write"] },
      { tool: "drop", scopes: ["admin", "read"] },
    ],
    resource: "https://mcp.example/",
  });
  assert.deepEqual(authenticator.scopesFor(), ["read"]);
  assert.deepEqual(authenticator.scopesFor("list"), ["read"]);
  assert.deepEqual(authenticator.scopesFor("drop"), ["read", "write", "admin"]);
  const { dpopAlgorithms = [], ...discovery } = authenticator.discovery ?? {};
  assert.deepEqual(discovery, {
    authorizationServers: ["https://issuer.example"],
    scopes: ["read"],
    resource: "https://mcp.example/",
  });
  assert.ok(dpopAlgorithms.includes("ES256"));
  const { authenticator: other } = open({
    issuer: "https://issuer.example",
    requiredScopes: ["read"],
    scopes: ["read", "write"],
  });
  assert.deepEqual([other.discovery?.scopes, other.discovery?.resource], [["read", "write"], undefined]);
});

const declared = { issuer: "https://issuer.example" };
const introspectionUrl = "https://issuer.example/introspect";
const wrong: [what: string, config: Parameters<typeof open>[0], problem: RegExp][] = [
  ["no issuer", {}, /issuer "" is no http or https URL/],
  ["an issuer that is no URL", { issuer: "issuer" }, /issuer "issuer" is no http/],
  ["an issuer with a query", { issuer: "https://issuer.example?x=1" }, /neither query nor fragment/],
  ["a remote issuer in plain http", { issuer: "http://issuer.example" }, /plain http/],
  ["keys in plain http", { ...declared, jwksUrl: "http://issuer.example/jwks" }, /jwksUrl is plain http/],
  ["an issuer with a password", { issuer: "https://a:b@issuer.example" }, /has a user in it/],
  ["no audience", { ...declared, audience: "" }, /no audience/],
  ["algorithm none", { ...declared, algorithms: ["none"] }, /"none" is no asymmetric/],
  ["a shared secret", { ...declared, algorithms: ["ES256", "HS256"] }, /"HS256" is no asymmetric/],
  ["an unknown type", { ...declared, tokenType: "jwt" }, /tokenType is "jwt"/],
  ["no token age", { ...declared, maxTokenAge: { seconds: 0n } }, /maxTokenAge is 0 ms/],
  ["a negative skew", { ...declared, clockSkew: { seconds: -1n } }, /clockSkew is -1000 ms/],
  ["a large skew", { ...declared, clockSkew: { seconds: 3_600n } }, /clockSkew is 3600000 ms/],
  ["a claim without a name", { ...declared, requiredClaims: [""] }, /required claim has no name/],
  ["an issuer twice", { ...declared, additionalIssuers: [{ ...declared, audience }] }, /stands there twice/],
  [
    "another without audience",
    { ...declared, additionalIssuers: [{ issuer: "https://b.example" }] },
    /"https:\/\/b.example": no audience/,
  ],
  ["a secret that is not there", { ...declared, clientId: "us", clientSecretEnv: "VMCP_NO_SUCH" }, /VMCP_NO_SUCH is not set/],
  [
    "a secret's file that is not there",
    { ...declared, clientId: "us", clientSecretFile: "/nowhere" },
    /file \/nowhere can't be read/,
  ],
  ["a secret without a client", { ...declared, clientSecretEnv: "PATH" }, /no clientId/],
  ["two secrets", { ...declared, clientId: "us", clientSecretEnv: "PATH", clientSecretFile: "/x" }, /both set/],
  ["introspection without a client", { ...declared, introspectionUrl }, /needs a clientId and a client secret/],
  ["authorities that are not there", { ...declared, caBundlePath: "/nowhere" }, /caBundlePath: .*ENOENT/],
  ["a scope with a space", { ...declared, requiredScopes: ["read write"] }, /"read write" is no scope/],
  ["scopes of no tool", { ...declared, toolScopes: [{ scopes: ["read"] }] }, /without a tool/],
  ["a certificate from anybody", { ...declared, clientCertificateHeader: "client-cert" }, /needs clientCertificateFrom/],
  ["a certificate from nowhere", { ...declared, clientCertificateFrom: ["10.0.0.0/8"] }, /no clientCertificateHeader/],
  ["no CIDR", { ...declared, clientCertificateHeader: "c", clientCertificateFrom: ["10.0.0.0/33"] }, /"10.0.0.0\/33" is no CIDR/],
  [
    "no name of a header",
    { ...declared, clientCertificateHeader: "a b", clientCertificateFrom: ["::/0"] },
    /no name of a header/,
  ],
];
for (const [what, config, problem] of wrong)
  test(`a configuration with ${what} is refused`, () => assert.throws(() => open(config), problem));

test("everything that is wrong is said at once", () => {
  assert.throws(
    () => open({ issuer: "x", audience: "", algorithms: ["none"] }),
    ({ message }: Error) => message.split("\n").length === 4,
  );
});

test("the registry makes one authenticator of one configuration, and refuses what can't be enforced", async () => {
  const authenticators = createAuthenticators({ log: pino({ level: "silent" }) });
  const oidc = { ...declared, audience, maxTokenAge: { seconds: 60n } };
  const config = () => create(IncomingAuthSchema, { type: "oidc", oidc } as never);
  assert.equal(authenticators.of(config()), authenticators.of(config()));
  assert.throws(() => authenticators.of(create(IncomingAuthSchema, { type: "oidc" })), /no oidc block/);
  assert.throws(() => authenticators.of(create(IncomingAuthSchema, { type: "saml" })), /"saml" is not supported/);
  const local = authenticators.of(create(IncomingAuthSchema, { type: "local" }));
  assert.equal(local.discovery, undefined);
});

test("a secret is read from its file", async () => {
  const directory = await mkdtemp(join(tmpdir(), "vmcp-oidc-"));
  try {
    await writeFile(join(directory, "secret"), "s3cret\n");
    assert.doesNotThrow(() => open({ ...declared, clientId: "us", clientSecretFile: join(directory, "secret") }));
  } finally {
    await rm(directory, { recursive: true });
  }
});
