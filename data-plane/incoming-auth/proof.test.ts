// Tokens that are bound to a key or to a certificate.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { calculateJwkThumbprint } from "jose";
import { createDpop } from "./dpop.ts";
import { createReplays } from "./replays.ts";
import {
  audience,
  type Changes,
  callerOf,
  createSigningKey,
  createTestClock,
  goodClaims,
  introspectPath,
  issue,
  open,
  type SigningKey,
  said,
  sha256,
  signRaw,
  startIssuer,
} from "./test-issuer.ts";

const key = createSigningKey("k1");
const own = createSigningKey("own");
const { kid: _kid, alg: _alg, use: _use, ...ownJwk } = own.jwk;
const stranger = createSigningKey("stranger");
const jkt = await calculateJwkThumbprint(own.jwk as never);
const issuer = await startIssuer(key);
after(() => issuer[Symbol.asyncDispose]());

const clock = createTestClock();
const now = () => Math.floor(clock.nowMs() / 1_000);
const certificateSettings = { clientCertificateHeader: "Client-Cert", clientCertificateFrom: ["192.0.2.0/24", "2001:db8::/32"] };
const { ask, authenticator } = open({ issuer: issuer.url, ...certificateSettings }, clock);
const tokenWith = (cnf: unknown, changes: Changes = {}) =>
  issue(key, { ...goodClaims(issuer.url, clock.nowMs()), cnf, ...changes });
const token = tokenWith({ jkt });

let proofs = 0;
const proofClaims = (changes: Changes = {}) => ({
  jti: `proof ${proofs++}`,
  htm: "POST",
  htu: audience,
  iat: now(),
  ath: sha256(token),
  ...changes,
});
const prove = (changes: Changes = {}, header: Changes = {}, by: SigningKey = own) =>
  signRaw(by, { typ: "dpop+jwt", alg: "ES256", jwk: ownJwk, ...header }, proofClaims(changes));
const withProof = (dpop: unknown, authorization = `DPoP ${token}`) => ask(authorization, { headers: { dpop } as never });

test("a token that is bound to a key is good with a proof, each time a new one", async () => {
  const verdict = await withProof(prove());
  assert.equal(callerOf(verdict)?.identity.confirmation, jkt);
  assert.equal(callerOf(await withProof(prove(), `dpop ${token}`)), callerOf(verdict));
  const proof = prove();
  assert.equal(said(await withProof(proof)), "200");
  assert.equal(said(await withProof(proof)), "401 invalid_dpop_proof the proof was used before");
});

test("the same jti of another key is another proof", async () => {
  const strangerJwk = stranger.publicKey.export({ format: "jwk" });
  const theirs = tokenWith({ jkt: await calculateJwkThumbprint(strangerJwk as never) });
  assert.equal(said(await withProof(prove({ jti: "shared" }))), "200");
  const proof = prove({ jti: "shared", ath: sha256(theirs) }, { jwk: strangerJwk }, stranger);
  assert.equal(said(await withProof(proof, `DPoP ${theirs}`)), "200");
});

const alike: [what: string, changes: Changes][] = [
  ["with query and fragment", { htu: `${audience}?a=b#c` }],
  ["with the default port", { htu: audience.replace("example/", "example:443/") }],
  ["in upper case where case does not count", { htu: audience.replace("https://mcp.example", "HTTPS://MCP.EXAMPLE") }],
  ["with letters escaped", { htu: audience.replace("team", "%74eam") }],
  ["with dots", { htu: audience.replace("team", "x/../team") }],
  ["29 seconds ahead", { iat: now() + 29 }],
  ["89 seconds old", { iat: now() - 89 }],
];
for (const [what, changes] of alike)
  test(`a proof ${what} is good`, async () => assert.equal(said(await withProof(prove(changes))), "200"));

const { d, ...privateParts } = { ...own.privateKey.export({ format: "jwk" }) };
const rsa = createSigningKey("rsa", "RS256");
const refused: [what: string, dpop: unknown, why: RegExp][] = [
  ["no proof", undefined, /has no DPoP proof/],
  ["an empty proof", "", /not three parts/],
  ["two proofs", `${prove()}, ${prove()}`, /not three parts/],
  ["a list of proofs", [prove(), prove()], /has no DPoP proof/],
  ["a very long proof", prove({ x: "x".repeat(8_192) }), /longer than 8192/],
  ["the token as its proof", token, /not of type dpop\+jwt/],
  ["typ JWT", prove({}, { typ: "JWT" }), /not of type dpop\+jwt/],
  ["no typ", prove({}, { typ: undefined }), /not of type dpop\+jwt/],
  ["alg none", `${prove({}, { alg: "none" })}`, /not accepted here/],
  ["alg HS256", prove({}, { alg: "HS256" }), /not accepted here/],
  ["no alg", prove({}, { alg: undefined }), /does not say its algorithm/],
  ["crit", prove({}, { crit: ["x"], x: 1 }), /critical extensions/],
  ["no key", prove({}, { jwk: undefined }), /no public key/],
  ["a key that is text", prove({}, { jwk: "key" }), /no public key/],
  ["a private key", prove({}, { jwk: { ...privateParts, d } }), /no public key/],
  ["a shared secret", prove({}, { jwk: { kty: "oct", k: "AAAA" } }), /no public key/],
  ["a key of another kind", prove({}, { jwk: rsa.publicKey.export({ format: "jwk" }) }), /no public key/],
  ["another's key", prove({}, { jwk: stranger.publicKey.export({ format: "jwk" }) }, stranger), /another key than the token's/],
  ["our key and another's signature", prove({}, {}, stranger), /signature of the proof is wrong/],
  ["a key that is not on its curve", prove({}, { jwk: { ...ownJwk, y: ownJwk.x } }), /another key than the token's|signature/],
  ["no jti", prove({ jti: undefined }), /has no jti/],
  ["jti empty", prove({ jti: "" }), /has no jti/],
  ["jti a number", prove({ jti: 1 }), /has no jti/],
  ["another method", prove({ htm: "GET" }), /another method/],
  ["the method in lower case", prove({ htm: "post" }), /another method/],
  ["no method", prove({ htm: undefined }), /another method/],
  ["another path", prove({ htu: `${audience}/x` }), /another URL/],
  ["a slash behind", prove({ htu: `${audience}/` }), /another URL/],
  ["another host", prove({ htu: audience.replace("mcp", "evil") }), /another URL/],
  ["another port", prove({ htu: audience.replace("example/", "example:444/") }), /another URL/],
  ["plain http", prove({ htu: audience.replace("https", "http") }), /another URL/],
  ["a path in other case", prove({ htu: audience.replace("team", "Team") }), /another URL/],
  ["a slash that is escaped", prove({ htu: audience.replace("/team", "%2Fteam") }), /another URL/],
  ["a user in the URL", prove({ htu: audience.replace("//", "//a@") }), /another URL/],
  ["no URL", prove({ htu: undefined }), /another URL/],
  ["a URL that is none", prove({ htu: "/team" }), /another URL/],
  ["no iat", prove({ iat: undefined }), /when it was made/],
  ["iat as text", prove({ iat: String(now()) }), /when it was made/],
  ["iat far ahead", prove({ iat: now() + 32 }), /made in the future/],
  ["iat long ago", prove({ iat: now() - 90 }), /too old/],
  ["no ath", prove({ ath: undefined }), /another token/],
  ["ath of another token", prove({ ath: sha256(tokenWith({ jkt }, { jti: "x" })) }), /another token/],
  ["ath in hexadecimal", prove({ ath: Buffer.from(sha256(token), "base64url").toString("hex") }), /another token/],
  ["a claim twice", signRaw(own, { typ: "dpop+jwt", alg: "ES256", jwk: ownJwk }, `{"htm":"POST","htm":"GET"}`), /no clear JSON/],
];
for (const [what, dpop, why] of refused) {
  test(`a request with ${what} is refused, whether or not the token is known`, async () => {
    const verdict = said(await withProof(dpop));
    assert.match(verdict, /^401 invalid_dpop_proof /);
    assert.match(verdict, why);
    const fresh = open({ issuer: issuer.url }, clock);
    assert.equal(said(await fresh.ask(`DPoP ${token}`, { headers: { dpop } as never })), verdict);
  });
}

test("a bound token is no bearer token, and a bearer token no bound one", async () => {
  assert.match(said(await withProof(prove(), `Bearer ${token}`)), /401 invalid_token .*comes with the DPoP scheme/);
  const bearer = tokenWith(undefined);
  assert.equal(said(await ask(`Bearer ${bearer}`)), "200");
  const verdict = await withProof(prove({ ath: sha256(bearer) }), `DPoP ${bearer}`);
  assert.match(said(verdict), /401 invalid_token .*is not bound to a key/);
});

test("a proof is needed also for a token that was introspected", async () => {
  process.env.VMCP_TEST_PROOF_SECRET = "secret";
  const client = { clientId: "us", clientSecretEnv: "VMCP_TEST_PROOF_SECRET", introspectionUrl: issuer.url + introspectPath };
  const opaque = open({ issuer: issuer.url, ...client }, clock);
  issuer.introspect = () => ({ active: true, ...goodClaims(issuer.url, clock.nowMs()), cnf: { jkt } });
  assert.match(said(await opaque.ask("DPoP opaque")), /invalid_dpop_proof/);
  const dpop = prove({ ath: sha256("opaque") });
  assert.equal(said(await opaque.ask("DPoP opaque", { headers: { dpop } })), "200");
  assert.match(said(await opaque.ask("Bearer opaque", { headers: { dpop } })), /comes with the DPoP scheme/);
});

test("a request whose own URL is none is refused", async () => {
  const verdict = await ask(`DPoP ${token}`, { url: "/team", headers: { dpop: prove({ htu: "/team" }) } });
  assert.match(said(verdict), /another URL/);
});

test("proofs are remembered as long as they would be good, and no longer than twice that", () => {
  const own = createTestClock();
  const replays = createReplays({ windowMs: 100, idsMax: 3, clock: own });
  assert.equal(replays.take("a"), "new");
  own.pass(99);
  assert.equal(replays.take("b"), "new");
  own.pass(99);
  assert.equal(replays.take("b"), "seen");
  assert.equal(replays.take("a"), "seen");
  own.pass(2);
  assert.equal(replays.take("c"), "new");
  own.pass(98);
  assert.equal(replays.take("a"), "new", "200 ms after it was there");
});

test("when no more proofs can be remembered, none is good", async () => {
  const own = createTestClock();
  const replays = createReplays({ windowMs: 100, idsMax: 3, clock: own });
  assert.deepEqual(["a", "b", "c", "d", "a"].map(replays.take), ["new", "new", "new", "full", "seen"]);
  own.pass(100);
  assert.deepEqual(["d", "a"].map(replays.take), ["new", "seen"]);
  own.pass(1_000);
  assert.deepEqual(["a", "d"].map(replays.take), ["new", "new"]);
});

test("a proof stays used for as long as its iat allows", async () => {
  const own = createTestClock(clock.nowMs());
  const dpop = createDpop({ clock: own, clockSkewMaxMs: 30_000 });
  const check = (proof: string) =>
    dpop.check(
      { headers: { dpop: proof }, method: "POST", url: audience, remoteAddress: undefined },
      { token, jkt, clockSkewMs: 30_000 },
    );
  own.pass(59_000);
  const proof = prove({ iat: Math.floor(own.nowMs() / 1_000) + 29 });
  assert.equal(await check(proof), undefined);
  for (let i = 0; i < 118; i++) {
    own.pass(1_000);
    assert.match((await check(proof))?.refusal.description ?? "", /used before/);
  }
  own.pass(2_000);
  assert.match((await check(proof))?.refusal.description ?? "", /too old/);
});

const der = Buffer.from("not looked into");
const certificate = `:${der.toString("base64")}:`;
const certified = tokenWith({ "x5t#S256": sha256(der) });
const withCertificate = (value: unknown, remoteAddress: string | undefined = "192.0.2.7") =>
  ask(`Bearer ${certified}`, { headers: { "client-cert": value } as never, remoteAddress });

test("a token that is bound to a certificate is good where a trusted proxy shows it", async () => {
  for (const address of ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"]) {
    const caller = callerOf(await withCertificate(certificate, address));
    assert.equal(caller?.identity.confirmation, sha256(der), address);
  }
});

const notShown: [what: string, value: unknown, address: string | undefined][] = [
  ["none", undefined, "192.0.2.7"],
  ["one from elsewhere", certificate, "198.51.100.1"],
  ["one from this machine", certificate, "127.0.0.1"],
  ["one from nowhere", certificate, ""],
  ["two", `${certificate}, ${certificate}`, "192.0.2.7"],
  ["a list", [certificate], "192.0.2.7"],
  ["one without colons", der.toString("base64"), "192.0.2.7"],
  ["an empty one", "::", "192.0.2.7"],
  ["another", `:${Buffer.from("another").toString("base64")}:`, "192.0.2.7"],
  ["its hash", sha256(der), "192.0.2.7"],
  ["one with parameters", `${certificate};a=1`, "192.0.2.7"],
];
for (const [what, value, address] of notShown) {
  test(`a token that is bound to a certificate is refused with ${what}`, async () => {
    assert.match(said(await withCertificate(value, address)), /^401 invalid_token .*bound to a(nother)? certificate/);
  });
}

test("where nobody may pass certificates on, the header is not looked at", async () => {
  const { ask: other } = open({ issuer: issuer.url }, clock);
  const presented = { headers: { "client-cert": certificate }, remoteAddress: "192.0.2.7" };
  assert.match(said(await other(`Bearer ${certified}`, presented)), /^401 invalid_token .*none came/);
});

test("a token that is bound to both needs both", async () => {
  const both = tokenWith({ jkt, "x5t#S256": sha256(der) });
  const attempt = (headers: Record<string, string>) => ask(`DPoP ${both}`, { headers });
  const dpop = () => prove({ ath: sha256(both) });
  assert.equal(said(await attempt({ dpop: dpop(), "client-cert": certificate })), "200");
  assert.match(said(await attempt({ dpop: dpop() })), /none came/);
  assert.match(said(await attempt({ "client-cert": certificate })), /has no DPoP proof/);
  assert.match(said(await ask(`Bearer ${both}`, { headers: { "client-cert": certificate } })), /comes with the DPoP scheme/);
});

test("a certificate is no key: the DPoP scheme does not go with it", async () => {
  const verdict = await ask(`DPoP ${certified}`, { headers: { "client-cert": certificate, dpop: prove() } });
  assert.match(said(verdict), /is not bound to a key/);
  assert.ok(authenticator.discovery?.dpopAlgorithms.every((name) => !/^(none|HS)/.test(name)));
});
