import assert from "node:assert/strict";
import { test } from "node:test";
import type { Verdict } from "./authenticator.ts";
import {
  audience,
  callerOf,
  createSigningKey,
  createTestClock,
  goodClaims,
  introspectPath,
  issue,
  open,
  openidPath,
  said,
  startIssuer,
  type TestIssuer,
} from "./test-issuer.ts";

process.env.VMCP_TEST_INTROSPECTION_SECRET = "s3:cret/+ä";
const client = { clientId: "us & them", clientSecretEnv: "VMCP_TEST_INTROSPECTION_SECRET" };

async function openWithIssuer(config: Parameters<typeof open>[0] = {}) {
  const issuer = await startIssuer();
  const opened = open({ issuer: issuer.url, introspectionUrl: issuer.url + introspectPath, ...client, ...config });
  const active = (changes = {}) => ({ active: true, ...goodClaims(issuer.url, opened.clock.nowMs()), ...changes });
  return { issuer, ...opened, active, [Symbol.asyncDispose]: () => issuer[Symbol.asyncDispose]() };
}

const times = ({ asked }: TestIssuer) => asked.filter((path) => path === introspectPath).length;

test("an opaque token is good when its issuer says so, and asked about once a minute", async () => {
  await using one = await openWithIssuer();
  one.issuer.introspect = (token) => (token === "opaque" ? one.active() : { active: false });
  const first = callerOf(await one.ask("Bearer opaque"));
  assert.equal(first?.identity.subject, "ada");
  assert.equal(first?.identity.client, "cli");
  assert.deepEqual([...(first?.scopes ?? [])], ["read", "write"]);
  assert.equal(callerOf(await one.ask("Bearer opaque")), first);
  one.clock.pass(59_999);
  assert.equal(callerOf(await one.ask("Bearer opaque")), first);
  assert.equal(times(one.issuer), 1);
  one.issuer.introspect = () => ({ active: false });
  one.clock.pass(1);
  assert.match(said(await one.ask("Bearer opaque")), /^401 invalid_token /);
  assert.equal(times(one.issuer), 2);
});

test("the issuer is told who asks, each part encoded (RFC 6749 section 2.3.1)", async () => {
  await using one = await openWithIssuer();
  one.issuer.introspect = () => one.active();
  await one.ask("Bearer opaque");
  const [, basic = ""] = one.issuer.clients[0]?.split(" ") ?? [];
  assert.equal(Buffer.from(basic, "base64").toString(), "us+%26+them:s3%3Acret%2F%2B%C3%A4");
});

test("what the issuer says counts for no longer than the token, clocks aside", async () => {
  await using one = await openWithIssuer({ clockSkew: { seconds: 0n } });
  const exp = Math.floor(one.clock.nowMs() / 1_000) + 20;
  one.issuer.introspect = () => one.active({ exp });
  assert.equal(said(await one.ask("Bearer opaque")), "200");
  one.clock.pass(exp * 1_000 - one.clock.nowMs() - 1);
  assert.equal(said(await one.ask("Bearer opaque")), "200");
  one.clock.pass(1);
  assert.match(said(await one.ask("Bearer opaque")), /has expired/);
});

test("a clock that stands still or is set back does not keep an answer", async () => {
  await using one = await openWithIssuer();
  one.issuer.introspect = () => one.active();
  assert.equal(said(await one.ask("Bearer opaque")), "200");
  one.clock.pass(60_000);
  one.clock.jump(-60_000);
  assert.equal(said(await one.ask("Bearer opaque")), "200");
  assert.equal(times(one.issuer), 2);
});

test("a token that is refused is asked about again after five seconds", async () => {
  await using one = await openWithIssuer();
  for (let i = 0; i < 10; i++) assert.match(said(await one.ask("Bearer opaque")), /^401 invalid_token /);
  assert.equal(times(one.issuer), 1);
  one.clock.pass(5_000);
  one.issuer.introspect = () => one.active();
  assert.equal(said(await one.ask("Bearer opaque")), "200");
});

const refused: [what: string, changes: Record<string, unknown>][] = [
  ["active as text", { active: "true" }],
  ["active as a number", { active: 1 }],
  ["no active", { active: undefined }],
  ["another issuer", { iss: "https://evil.example" }],
  ["an issuer that is null", { iss: null }],
  ["no audience", { aud: undefined }],
  ["another audience", { aud: "https://other.example" }],
  ["no exp", { exp: undefined }],
  ["exp in the past", { exp: 1 }],
  ["exp as text", { exp: "2000000000" }],
  ["no sub", { sub: undefined }],
  ["sub an object", { sub: {} }],
  ["iat in the future", { iat: 4_000_000_000 }],
  ["iat long ago", { iat: 1 }],
  ["nbf in the future", { nbf: 4_000_000_000 }],
  ["the type of a refresh token", { token_type: "refresh_token" }],
  ["the use of a refresh token", { token_use: "refresh_token" }],
  ["a refresh token of Keycloak", { typ: "Refresh" }],
  ["cnf unknown", { cnf: { kid: "x" } }],
  ["cnf of a key, with Bearer", { cnf: { jkt: "A".repeat(43) } }],
  ["scope a number", { scope: 1 }],
];
for (const [what, changes] of refused) {
  test(`an answer with ${what} lets nobody in`, async () => {
    await using one = await openWithIssuer();
    one.issuer.introspect = () => one.active(changes);
    assert.match(said(await one.ask("Bearer opaque")), "active" in changes ? /^503 / : /^401 invalid_token /);
  });
}

test("what the issuer may leave out may be missing", async () => {
  await using one = await openWithIssuer();
  one.issuer.introspect = () =>
    one.active({ iss: undefined, iat: undefined, scope: undefined, token_type: "bearer", client_id: undefined });
  assert.equal(said(await one.ask("Bearer opaque")), "200");
});

test("requests with one token wait for one answer", async () => {
  await using one = await openWithIssuer();
  one.issuer.introspect = () => one.active();
  const all = await Promise.all(Array.from({ length: 500 }, () => one.ask("Bearer opaque")));
  assert.equal(new Set(all.map(callerOf)).size, 1);
  assert.equal(times(one.issuer), 1);
});

test("at most sixty-four tokens are looked up at a time", async () => {
  await using one = await openWithIssuer();
  const waiting: (() => void)[] = [];
  one.issuer.introspect = () => new Promise((resolve) => waiting.push(() => resolve(one.active())));
  const verdicts: Promise<Verdict>[] = [];
  for (let i = 0; i < 64; i++) verdicts.push(one.ask(`Bearer opaque${i}`));
  assert.match(said(await one.ask("Bearer another")), /^503 too many/);
  const release = setInterval(() => {
    for (const resolve of waiting.splice(0)) resolve();
  }, 5);
  const all = await Promise.all(verdicts);
  clearInterval(release);
  assert.ok(all.every((verdict) => said(verdict) === "200"));
  one.issuer.introspect = () => one.active();
  assert.equal(said(await one.ask("Bearer another")), "200");
});

const away: [what: string, instead: (response: import("node:http").ServerResponse) => void][] = [
  ["that is down", (response) => void response.destroy()],
  ["that fails", (response) => void response.writeHead(500).end()],
  ["that does not know us", (response) => void response.writeHead(401, { "www-authenticate": "Basic" }).end()],
  ["that answers garbage", (response) => void response.writeHead(200, { "content-type": "application/json" }).end("{")],
  ["that answers a page", (response) => void response.writeHead(200, { "content-type": "text/html" }).end("<html>")],
  ["that says it is elsewhere", (response) => void response.writeHead(302, { location: "/x" }).end()],
  ["that never answers", () => undefined],
];
for (const [what, instead] of away) {
  test(`an issuer ${what} lets nobody in, and nobody is told that the token is bad`, async () => {
    await using issuer = await startIssuer();
    const { ask, lines } = open(
      { issuer: issuer.url, introspectionUrl: issuer.url + introspectPath, ...client },
      createTestClock(),
      150,
    );
    issuer.instead.set(introspectPath, instead);
    assert.match(said(await ask("Bearer opaque-token-text")), /^503 /);
    issuer.instead.clear();
    issuer.introspect = () => ({ active: true, ...goodClaims(issuer.url, Date.now()) });
    assert.equal(said(await ask("Bearer opaque-token-text")), "200", "and the failure is not remembered");
    assert.equal(/opaque-token-text|s3:cret/.test(lines.join()), false);
  });
}

test("where to ask is discovered", async () => {
  await using one = await openWithIssuer({ introspectionUrl: "" });
  one.issuer.introspect = () => one.active();
  assert.match(said(await one.ask("Bearer opaque")), /^401 invalid_token /, "there is no place to ask");
  one.issuer.metadata.introspection_endpoint = one.issuer.url + introspectPath;
  one.clock.pass(60 * 60_000);
  assert.equal(said(await one.ask("Bearer opaque")), "200");
  assert.deepEqual(one.issuer.asked, [openidPath, openidPath, introspectPath]);
});

test("an issuer whose metadata can't be had lets nobody in, and is asked once a second", async () => {
  await using one = await openWithIssuer({ introspectionUrl: "" });
  one.issuer.metadata.issuer = "https://evil.example";
  for (let i = 0; i < 10; i++) assert.match(said(await one.ask(`Bearer opaque${i}`)), /^503 /);
  assert.equal(one.issuer.count(openidPath), 1);
});

test("an opaque token where nobody can be asked is refused", async () => {
  await using issuer = await startIssuer();
  const { ask } = open({ issuer: issuer.url });
  assert.match(said(await ask("Bearer opaque")), /^401 invalid_token /);
  assert.deepEqual(issuer.asked, []);
});

test("several issuers are asked in order until one says that it is active", async () => {
  await using second = await startIssuer();
  await using one = await openWithIssuer({
    additionalIssuers: [{ issuer: second.url, audience, introspectionUrl: second.url + introspectPath, ...client }],
  });
  second.introspect = () => one.active({ iss: second.url });
  assert.equal(callerOf(await one.ask("Bearer a"))?.identity.issuer, second.url);
  assert.deepEqual([times(one.issuer), times(second)], [1, 1]);
  one.issuer.introspect = () => one.active();
  assert.equal(callerOf(await one.ask("Bearer b"))?.identity.issuer, one.issuer.url);
  assert.deepEqual([times(one.issuer), times(second)], [2, 1]);
  one.issuer.introspect = () => undefined;
  assert.equal(callerOf(await one.ask("Bearer c"))?.identity.issuer, second.url, "the first may be down");
  second.introspect = () => ({ active: false });
  assert.match(said(await one.ask("Bearer d")), /^503 /, "then nobody knows whether it is one of the first's");
});

test("a JWT is not introspected", async () => {
  await using one = await openWithIssuer();
  one.issuer.introspect = () => one.active();
  const token = issue(createSigningKey("k"), { ...goodClaims("https://other.example", one.clock.nowMs()) });
  assert.match(said(await one.ask(`Bearer ${token}`)), /of no issuer that is accepted/);
  assert.equal(times(one.issuer), 0);
});
