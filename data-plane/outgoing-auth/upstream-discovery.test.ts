// A backend and an authorization server that say what they want, among it what a hostile one would.
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, test } from "node:test";
import { DiscoveryError } from "./authorization-server.ts";
import { isAbout, readChallenge } from "./protected-resource.ts";
import { createUpstreamDiscovery, type DiscoveryConfig } from "./upstream-discovery.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());

/** What is answered, by path: a document, or a status with headers. */
type Answers = Record<string, Readonly<Record<string, unknown>>>;

async function startServer(): Promise<{ origin: string; answers: Answers; paths: string[] }> {
  const one = { origin: "", answers: {} as Answers, paths: [] as string[] };
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const path = request.url ?? "";
    one.paths.push(path);
    const answer = one.answers[path] ?? { status: 404 };
    if ("status" in answer)
      response.writeHead(answer.status as number, answer.headers as Record<string, string> | undefined).end();
    else response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  stack.defer(() => void server.close().closeAllConnections());
  one.origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return one;
}

const none: DiscoveryConfig = {
  ...{ issuer: "", resource: "", scopes: [], insecureAllowHttp: true, allowPrivateIp: true, caBundlePath: "" },
};

async function setUp(config: Partial<DiscoveryConfig> = {}) {
  const [backend, issuer] = [await startServer(), await startServer()];
  const url = `${backend.origin}/team/mcp`;
  const well = "/.well-known/oauth-protected-resource";
  const metadata = {
    issuer: issuer.origin,
    authorization_endpoint: `${issuer.origin}/auth`,
    token_endpoint: `${issuer.origin}/token`,
    code_challenge_methods_supported: ["S256"],
  };
  backend.answers["/team/mcp"] = { status: 401, headers: { "www-authenticate": "Bearer" } };
  backend.answers[`${well}/team/mcp`] = { resource: url, authorization_servers: [issuer.origin] };
  issuer.answers["/.well-known/oauth-authorization-server"] = metadata;
  const clock = { ms: 0 };
  const discovery = createUpstreamDiscovery({ backendUrl: url, config: { ...none, ...config }, nowMs: () => clock.ms });
  return { backend, issuer, url, well, metadata, clock, discovery };
}

const fails = (promise: Promise<unknown>, words: RegExp) =>
  assert.rejects(promise, (error: Error) => error instanceof DiscoveryError && words.test(error.message));

test("a backend's challenge leads to its document, and that to the server", async () => {
  const { backend, issuer, url, discovery, well } = await setUp();
  const header = `Bearer error="x", scope="a b", resource_metadata="${backend.origin}/elsewhere"`;
  backend.answers["/team/mcp"] = { status: 401, headers: { "www-authenticate": header } };
  backend.answers["/elsewhere"] = { resource: url, authorization_servers: [issuer.origin], scopes_supported: ["c"] };
  const { server, resource, scopes } = await discovery.find();
  assert.equal(server.issuer, issuer.origin);
  assert.equal(resource, url);
  assert.deepEqual(scopes, ["a", "b"]);
  assert.ok(!backend.paths.includes(`${well}/team/mcp`));
});

test("without a hint the path is inserted, then left out; scopes are those that are supported", async () => {
  const { backend, issuer, url, discovery, well } = await setUp();
  delete backend.answers[`${well}/team/mcp`];
  backend.answers[well] = { resource: backend.origin, authorization_servers: [issuer.origin], scopes_supported: ["c"] };
  assert.deepEqual((await discovery.find()).scopes, ["c"]);
  assert.deepEqual(backend.paths, ["/team/mcp", `${well}/team/mcp`, well]);
  assert.equal((await discovery.find()).resource, backend.origin, url);
});

test("an issuer with a path is looked up in the order of the specification", async () => {
  const { backend, issuer, url, well, metadata, discovery } = await setUp();
  const named = `${issuer.origin}/tenant`;
  backend.answers[`${well}/team/mcp`] = { resource: url, authorization_servers: [named] };
  issuer.answers["/tenant/.well-known/openid-configuration"] = { ...metadata, issuer: named };
  assert.equal((await discovery.find()).server.issuer, named);
  assert.deepEqual(issuer.paths, [
    "/.well-known/oauth-authorization-server/tenant",
    "/.well-known/openid-configuration/tenant",
    "/tenant/.well-known/openid-configuration",
  ]);
});

test("the operator's word goes before the backend's", async () => {
  const { issuer, url, metadata } = await setUp();
  const other = await setUp({ issuer: issuer.origin, resource: "https://named.example", scopes: ["z"] });
  other.backend.answers["/team/mcp"] = { status: 500 };
  const found = await other.discovery.find();
  assert.deepEqual([found.server.issuer, found.resource, found.scopes], [metadata.issuer, "https://named.example", ["z"]], url);
  assert.deepEqual(other.issuer.paths, []);
});

for (const [name, change, words] of [
  ["the metadata of another issuer", (m) => ({ ...m, issuer: "https://other.example" }), /another issuer/],
  ["no word of PKCE", ({ code_challenge_methods_supported: _, ...m }) => m, /PKCE/],
  ["plain PKCE only", (m) => ({ ...m, code_challenge_methods_supported: ["plain"] }), /PKCE/],
  ["a script for an endpoint", (m) => ({ ...m, authorization_endpoint: "javascript:alert(1)" }), /authorization_endpoint/],
  ["an endpoint with a user", (m) => ({ ...m, token_endpoint: "https://a:b@c.example/" }), /token_endpoint/],
  ["no token endpoint", ({ token_endpoint: _, ...m }) => m, /token_endpoint/],
  ["no code flow", (m) => ({ ...m, response_types_supported: ["token"] }), /no code flow/],
] as const satisfies readonly (readonly [string, (metadata: Record<string, unknown>) => object, RegExp])[])
  test(`a server with ${name} is not used`, async () => {
    const { issuer, metadata, discovery } = await setUp();
    issuer.answers["/.well-known/oauth-authorization-server"] = (change as (m: object) => Record<string, unknown>)(metadata);
    await fails(discovery.find(), words);
  });

for (const resource of ["https://bank.example/mcp", "/team/mc", "/other", 7])
  test(`a document about ${resource} is not used`, async () => {
    const { backend, issuer, discovery, well } = await setUp();
    const about = String(resource).startsWith("/") ? backend.origin + resource : resource;
    backend.answers[`${well}/team/mcp`] = { resource: about, authorization_servers: [issuer.origin] };
    await fails(discovery.find(), /which is not its URL/);
  });

test("addresses that the backend names must be https and public, unless the operator says otherwise", async () => {
  const plain = await setUp({ insecureAllowHttp: false });
  await fails(plain.discovery.find(), /plain http/);
  const secret = await setUp({ allowPrivateIp: false });
  await fails(secret.discovery.find(), /not public/);
  assert.deepEqual([plain.issuer.paths, secret.issuer.paths], [[], []]);
});

test("a challenge does not lead to a private address either", async () => {
  const { backend, issuer, discovery } = await setUp({ allowPrivateIp: false });
  const header = `Bearer resource_metadata="${issuer.origin}/latest/meta-data"`;
  backend.answers["/team/mcp"] = { status: 401, headers: { "www-authenticate": header } };
  await fails(discovery.find(), /not public/);
  assert.deepEqual(issuer.paths, []);
});

test("a redirect is not followed", async () => {
  const { backend, issuer, discovery } = await setUp();
  const headers = { location: `${backend.origin}/trap` };
  issuer.answers["/.well-known/oauth-authorization-server"] = { status: 302, headers };
  await fails(discovery.find(), /leads elsewhere|HTTP 404/);
  assert.ok(!backend.paths.includes("/trap"));
});

test("what was found is kept for 10 minutes, and longer when nobody answers", async () => {
  const { issuer, clock, discovery } = await setUp();
  await discovery.find();
  clock.ms += 9 * 60_000;
  await discovery.find();
  assert.equal(issuer.paths.length, 1);
  issuer.answers = {};
  clock.ms += 2 * 60_000;
  assert.ok(await discovery.find());
  assert.ok(issuer.paths.length > 1);
  clock.ms += 24 * 60 * 60_000;
  await assert.rejects(discovery.find());
});

test("after a failure servers are left alone for 5 s, and looks are shared", async () => {
  const { backend, clock, discovery } = await setUp();
  backend.answers = {};
  await Promise.allSettled([discovery.find(), discovery.find()]);
  const asked = backend.paths.length;
  await assert.rejects(discovery.find());
  assert.equal(backend.paths.length, asked);
  clock.ms += 5_000;
  await assert.rejects(discovery.find());
  assert.equal(backend.paths.length, asked * 2 - 1, "what the probe said is known");
});

test("a challenge that comes later is heeded, and what it leaves out is not forgotten", async () => {
  const { backend, issuer, url, clock, discovery } = await setUp();
  await discovery.find();
  backend.answers["/new"] = { resource: url, authorization_servers: [issuer.origin], scopes_supported: ["c"] };
  discovery.learn(`Bearer resource_metadata="${backend.origin}/new"`);
  clock.ms += 5_000;
  assert.deepEqual((await discovery.find()).scopes, ["c"]);
  discovery.learn('Bearer scope="d"');
  clock.ms += 5_000;
  assert.deepEqual((await discovery.find()).scopes, ["d"]);
  assert.equal(backend.paths.filter((path) => path === "/new").length, 2);
  discovery.learn("Basic");
  discovery.learn(undefined);
  clock.ms += 5_000;
  assert.ok(discovery.known, "nothing new was said");
});

test("challenges are read whatever else is in them", () => {
  for (const [header, url, scopes] of [
    ['Bearer resource_metadata="https://a.example/x", scope="r w"', "https://a.example/x", ["r", "w"]],
    ['Basic realm="a", Bearer scope=one,resource_metadata="https://a.example/\\"x"', 'https://a.example/"x', ["one"]],
    ['Bearer resource_metadata="no url"', undefined, []],
    ['Bearer scope="a\\"b ok"', undefined, ["ok"]],
    ["", undefined, []],
    [undefined, undefined, []],
  ] as const)
    assert.deepEqual(readChallenge(header), { metadataUrl: url, scopes }, header);
});

test("a resource is the backend, or what it is below", () => {
  const backend = "https://a.example/team/mcp";
  for (const good of [backend, `${backend}/`, "https://a.example/team", "https://a.example", "https://A.example/team/"])
    assert.ok(isAbout(good, backend), good);
  for (const bad of [
    "https://a.example/team/mcp/x",
    "https://a.example/te",
    "http://a.example",
    "https://b.example",
    "https://a.example:8443",
  ])
    assert.ok(!isAbout(bad, backend), bad);
});
