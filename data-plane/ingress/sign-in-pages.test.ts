// The pages over HTTP, behind a public https address, with a flow that always comes to an end.
import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { after, test } from "node:test";
import Koa from "koa";
import { pino } from "pino";
import { SignInError } from "../outgoing-auth/sign-in-error.ts";
import type { SignInFlow, Visit } from "../outgoing-auth/sign-in-flow.ts";
import { emptyRuntime } from "../runtime.ts";
import { signInPages } from "./sign-in-pages.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const base = "https://vmcp.example";
const ticket = { issuer: "i", subject: "<ada>", virtualServer: "team", resource: "r", elicitationId: "e" };

interface Sent {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

async function serve(change: Partial<SignInFlow> = {}, publicUrl: string | undefined = base) {
  const flow: SignInFlow = {
    open: () => ticket,
    describe: async () => ({
      ...{ backend: "mail", virtualServer: "team", user: ticket.subject, server: "as.example" },
      endpoints: ["https://as.example/auth", "http://127.0.0.1:1/auth", "http://127.0.0.1:1/other"],
    }),
    begin: async () => "https://as.example/auth?x=1",
    proven: async () => "https://as.example/auth?x=2",
    finish: async (_parameters, visit: Visit) => String(visit.secretOf("12345678")),
    ...change,
  };
  const app = new Koa();
  app.use(signInPages({ flow, runtime: () => emptyRuntime, publicUrl, log: pino({ level: "silent" }) }));
  const server = createServer(app.callback());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  stack.defer(() => void server.close().closeAllConnections());
  const { port } = server.address() as AddressInfo;
  return async (path: string, { method = "GET", headers = {}, body = "" }: Sent = {}) => {
    const sent = request({ port, path, method, headers: { host: "vmcp.example", ...headers } }).end(body);
    const [answer] = await new Promise<[import("node:http").IncomingMessage]>((resolve, reject) =>
      sent.once("response", (one) => resolve([one])).once("error", reject),
    );
    return { status: answer.statusCode, headers: answer.headers, body: await text(answer) };
  };
}

const own = { origin: base };

test("a link shows what it is for, and starts nothing", async () => {
  let begun = 0;
  const ask = await serve({ begin: async () => String(++begun) });
  const { status, headers, body } = await ask("/oauth/connect/t");
  assert.equal(status, 200);
  assert.match(body, /id="continue"/);
  assert.match(body, /mail.*team.*as\.example.*&lt;ada&gt;/s);
  assert.equal(
    headers["content-security-policy"],
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self' https: http://127.0.0.1:1; frame-ancestors 'none'; base-uri 'none'",
  );
  assert.equal(headers["referrer-policy"], "same-origin");
  assert.equal(headers["cache-control"], "no-store");
  assert.equal(headers["x-content-type-options"], "nosniff");
  assert.equal(headers["set-cookie"], undefined);
  for (const method of ["HEAD", "PUT", "DELETE", "OPTIONS"])
    assert.equal((await ask("/oauth/connect/t", { method })).status, 405);
  assert.equal(begun, 0);
});

test("the button leads on, and leaves a cookie that only this host can have set", async () => {
  const { status, headers } = await (await serve())("/oauth/connect/t", { method: "POST", headers: own });
  assert.equal(status, 303);
  assert.equal(headers.location, "https://as.example/auth?x=1");
  const [cookie = ""] = headers["set-cookie"] ?? [];
  assert.match(cookie, /^__Host-vmcp-sign-in-[\w-]{8}=[\w-]{43}; Path=\/; Secure; HttpOnly; SameSite=Lax; Max-Age=1200$/);
  assert.equal(headers["referrer-policy"], "no-referrer");
});

for (const [name, headers, status] of [
  ["of another origin", { origin: "https://evil.example" }, 400],
  ["of no origin", { origin: "null" }, 400],
  ["of this host over http", { origin: "http://vmcp.example" }, 400],
  ["that a browser calls cross-site", { ...own, "sec-fetch-site": "cross-site" }, 400],
  ["that a browser calls same-site", { ...own, "sec-fetch-site": "same-site" }, 400],
  ["of who knows what", {}, 400],
  ["of ours without Origin, as the browser says", { "sec-fetch-site": "same-origin" }, 303],
  ["of ours", { ...own, "sec-fetch-site": "same-origin" }, 303],
  ["that is large", { ...own, "content-length": "9000" }, 413],
  ["without a length", { ...own, "transfer-encoding": "chunked" }, 413],
] as const satisfies readonly (readonly [string, Record<string, string>, number])[])
  test(`a form ${name} is answered ${status}`, async () => {
    const body = "content-length" in headers ? "a".repeat(9_000) : "";
    assert.equal((await (await serve())("/oauth/connect/t", { method: "POST", headers, body })).status, status);
  });

test("who is done holds nothing any more", async () => {
  const ask = await serve();
  const { status, body, headers } = await ask("/oauth/callback?state=s", {
    headers: { cookie: "__Host-vmcp-sign-in-12345678=mine" },
  });
  assert.equal(status, 200);
  assert.match(body, /id="done".*mine/);
  assert.match(String(headers["set-cookie"]), /^__Host-vmcp-sign-in-12345678=; .*Max-Age=0$/);
  assert.equal((await ask("/oauth/signed-in?state=s")).headers.location, "https://as.example/auth?x=2");
  assert.equal((await ask("/oauth/callback", { method: "POST", headers: own })).status, 405);
});

test("what goes wrong is said in our words, whatever it is", async () => {
  const refused = () => Promise.reject(new SignInError("denied", "secret reason"));
  const broken = () => Promise.reject(new Error("secret reason"));
  const ask = await serve({ finish: refused, proven: broken });
  for (const [path, status] of [
    ["/oauth/callback", 403],
    ["/oauth/signed-in", 500],
    [`/oauth/callback?${"a".repeat(9_000)}`, 414],
  ] as const) {
    const answer = await ask(path);
    assert.equal(answer.status, status);
    assert.match(answer.body, /id="problem"/);
    assert.doesNotMatch(answer.body, /secret reason/);
    assert.match(String(answer.headers["content-security-policy"]), /form-action 'none'/);
  }
});

test("beyond 64 at a time people are asked to come again", async () => {
  const gate = Promise.withResolvers<string>();
  const ask = await serve({ finish: () => gate.promise });
  const waiting = Array.from({ length: 65 }, () => ask("/oauth/callback"));
  assert.equal((await Promise.race(waiting)).status, 503);
  gate.resolve("mail");
  assert.equal((await Promise.all(waiting)).filter(({ status }) => status === 200).length, 64);
});

test("the proxy publishes its own registration", async () => {
  const { status, body } = await (await serve())("/oauth/client.json");
  assert.equal(status, 200);
  assert.deepEqual(JSON.parse(body), {
    client_id: `${base}/oauth/client.json`,
    client_name: "vmcp",
    redirect_uris: [`${base}/oauth/callback`],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  });
  assert.equal((await (await serve())("/oauth/other")).status, 404);
});
