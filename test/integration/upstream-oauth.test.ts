// Users sign in at backends with a browser: two real issuers, a real browser, and backends that say whose token they were shown.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { type ElicitRequestURLParams, UrlElicitationRequiredError } from "@modelcontextprotocol/sdk/types.js";
import type { Page } from "playwright-core";
import { startBalancer } from "../support/balancer.ts";
import { type Browser, startBrowser, whyNoBrowser } from "../support/browser.ts";
import { redisPlace, searchFor, textPlace } from "../support/canary.ts";
import { bearer, openClient, type SdkClient } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { whyMissing } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { type GuardedBackend, startGuardedBackend } from "../support/guarded-backend.ts";
import { type Issuer, startIssuer } from "../support/issuer.ts";
import { startMesh } from "../support/mesh.ts";
import { lastingPort } from "../support/processes.ts";
import { startRedis } from "../support/redis.ts";
import { type Served, serve } from "../support/serve.ts";
import { signIn } from "../support/sign-in.ts";

const skip = await whyNoBrowser();
const noRedis = await whyMissing("redis-server", "redis-server");
const audience = "https://vmcp.example/team";
const secret = "a secret: with + signs & more";
const canVisit = { elicitation: { url: {} } };

describe("users of a backend with an authorization server of its own", { skip }, () => {
  const stack = new AsyncDisposableStack();
  let home: Issuer;
  let away: Issuer;
  let mail: GuardedBackend;
  let wiki: GuardedBackend;
  let vmcp: Served;
  let browser: Browser;

  before(async () => {
    process.env.VMCP_TEST_GATEWAY_SECRET = secret;
    const port = await lastingPort();
    const base = `http://127.0.0.1:${port}`;
    home = stack.use(await startIssuer({ clients: [{ id: "gateway", secret, redirectUris: [`${base}/oauth/signed-in`] }] }));
    const clients = [{ id: "gateway at mail", secret, redirectUris: [`${base}/oauth/callback`] }];
    away = stack.use(await startIssuer({ clients, hasClientDocuments: true }));
    mail = stack.use(await startGuardedBackend({ issuers: [away], scopes: ["read"], hasWhoami: true }));
    wiki = stack.use(await startGuardedBackend({ issuers: [away], scopes: ["read"], hasWhoami: true }));
    const here = { insecureAllowHttp: true, allowPrivateIp: true };
    const registered = { clientId: "gateway at mail", clientSecretEnv: "VMCP_TEST_GATEWAY_SECRET" };
    const parts = {
      backends: [httpBackend("mail", mail.url), httpBackend("wiki", wiki.url)],
      incomingAuth: {
        type: "oidc",
        oidc: { issuer: home.issuer, audience, clientId: "gateway", clientSecretEnv: "VMCP_TEST_GATEWAY_SECRET" },
      },
      outgoingAuth: {
        source: "inline",
        backends: {
          mail: { type: "upstream_oauth", upstreamOauth: { ...here, ...registered } },
          wiki: { type: "upstream_oauth", upstreamOauth: here },
        },
      },
    };
    vmcp = stack.use(await serve(parts, ["--port", String(port)]));
    browser = stack.use(await startBrowser());
  });
  after(() => stack.disposeAsync());

  const clientOf = async (sub: string, capabilities = canVisit): Promise<SdkClient> =>
    openClient(vmcp.url, capabilities, bearer(await home.token({ sub, audience })));

  /** What a call answers that needs a sign-in first. */
  async function linkFrom(client: SdkClient, tool: string): Promise<ElicitRequestURLParams> {
    const error = await client.call(tool).then(
      (text) => assert.fail(`the call was answered: ${text}`),
      (failure: unknown) => failure,
    );
    assert.ok(error instanceof UrlElicitationRequiredError, String(error));
    const [elicitation] = error.elicitations;
    assert.ok(elicitation);
    return elicitation;
  }

  async function press(page: Page, user: string): Promise<void> {
    await page.locator("#user").fill(user);
    await page.locator("#sign-in").click();
  }

  /** Follows a link as somebody who is this user at home, and that one away; gives what the last page says. */
  async function follow(url: string, atHome: string, inAway = atHome): Promise<Page> {
    const page = await browser.open(url);
    await page.locator("#continue").click();
    await page.waitForURL(`${home.issuer}/**`);
    await press(page, atHome);
    await page.waitForURL((at) => at.origin === away.issuer || at.pathname.startsWith("/oauth/"));
    if (new URL(page.url()).origin === away.issuer) await press(page, inAway);
    await page.locator("#done, #problem").waitFor();
    return page;
  }

  test("a call asks for a sign-in, and works with the user's own token afterwards", async () => {
    await using client = await clientOf("ada");
    const { url, elicitationId } = await linkFrom(client, "mail_sign_in");
    assert.deepEqual((await linkFrom(client, "mail_sign_in")).elicitationId, elicitationId, "while it is waited for");
    const page = await follow(url, "ada", "ada at mail");
    assert.match(String(await page.locator("#done").textContent()), /signed in at mail/);
    assert.equal(await client.call("mail_sign_in"), 'You are signed in at "mail"; its tools are listed now.');
    await eventually("the tools are listed", async () => (await client.toolNames()).includes("mail_whoami"));
    assert.equal(await client.call("mail_whoami"), "ada at mail");
    await eventually("the client is told", () => client.notifications.includes("notifications/elicitation/complete"));
  });

  test("each user has a token of their own", async () => {
    await using ada = await clientOf("ada");
    await using bob = await clientOf("bob");
    await follow((await linkFrom(bob, "mail_sign_in")).url, "bob");
    await eventually("the tools are listed", async () => (await bob.toolNames()).includes("mail_whoami"));
    assert.equal(await bob.call("mail_whoami"), "bob");
    await eventually("the tools are listed", async () => (await ada.toolNames()).includes("mail_whoami"));
    assert.equal(await ada.call("mail_whoami"), "ada at mail");
  });

  test("a user who follows another's link is refused, and nobody is signed in", async () => {
    await using client = await clientOf("carol");
    const { url } = await linkFrom(client, "mail_sign_in");
    const page = await follow(url, "mallory");
    assert.match(String(await page.locator("#problem").textContent()), /not the user whom this link was made for/);
    await linkFrom(client, "mail_sign_in");
  });

  test("without a registered client the proxy is its own registration", async () => {
    await using client = await clientOf("dora");
    await follow((await linkFrom(client, "wiki_sign_in")).url, "dora");
    await eventually("the tools are listed", async () => (await client.toolNames()).includes("wiki_whoami"));
    assert.equal(await client.call("wiki_whoami"), "dora");
    const granted = away.tokenRequests.findLast(({ grantType }) => grantType === "authorization_code");
    assert.equal(granted?.clientId, `${vmcp.address}/oauth/client.json`);
    assert.equal(granted?.params.resource, wiki.url);
  });

  test("whom the callers' issuer knows already is sent on to the backend's server", async () => {
    await using client = await clientOf("gina");
    const own = new URL(home.authorizationUrl);
    const redirect_uri = `${vmcp.address}/oauth/signed-in`;
    const pkce = { code_challenge: "a".repeat(43), code_challenge_method: "S256" };
    const asked = { client_id: "gateway", response_type: "code", scope: "openid", state: "none of ours", redirect_uri, ...pkce };
    own.search = String(new URLSearchParams(asked));
    const page = await browser.open(own.href);
    await press(page, "gina");
    await page.locator("#problem").waitFor();
    await page.goto((await linkFrom(client, "mail_sign_in")).url);
    await page.locator("#continue").click();
    await page.waitForURL(`${away.issuer}/**`); // all of it followed from one form
    await press(page, "gina");
    await page.locator("#done").waitFor();
    assert.deepEqual(
      (await page.context().cookies(`${vmcp.address}/oauth/`)).filter(({ name }) => name.startsWith("vmcp")),
      [],
    );
  });

  test("each step is for the browser that began, and good once", async () => {
    await using client = await clientOf("frank");
    const { url } = await linkFrom(client, "mail_sign_in");
    const begun = await fetch(url, { method: "POST", headers: { origin: vmcp.address }, redirect: "manual" });
    const [cookie = ""] = String(begun.headers.get("set-cookie")).split(";");
    const get = (at: URL | string, headers = {}) => fetch(at, { headers, redirect: "manual" });
    const proven = await signIn(String(begun.headers.get("location")), "frank");
    assert.equal((await get(proven)).status, 403);
    assert.equal((await get(proven, { cookie: `${cookie}x` })).status, 403);
    const sent = await get(proven, { cookie });
    assert.equal(sent.status, 303);
    assert.equal((await get(proven, { cookie })).status, 400);
    const back = await signIn(String(sent.headers.get("location")), "frank");
    assert.equal((await get(back)).status, 403);
    await linkFrom(client, "mail_sign_in");
    const done = await get(back, { cookie });
    assert.equal(done.status, 200);
    assert.match(await done.text(), /id="done"/);
    assert.equal((await get(back, { cookie })).status, 400);
    await eventually("the tools are listed", async () => (await client.toolNames()).includes("mail_whoami"));
    assert.equal(await client.call("mail_whoami"), "frank");
  });

  test("an old link, a bent one and a used state lead to a page that says so, with nothing of them in it", async () => {
    for (const path of [
      "connect/s1k1.AAAA",
      "connect/%3Cscript%3E",
      "callback?state=%3Cb%3E&code=1",
      "signed-in?error=x%3Cb%3E",
    ]) {
      const answer = await fetch(`${vmcp.address}/oauth/${path}`);
      assert.equal(answer.status, 400, path);
      const html = await answer.text();
      assert.match(html, /id="problem"/);
      assert.doesNotMatch(html, /<b>|<script>|s1k1/);
      assert.match(String(answer.headers.get("content-security-policy")), /default-src 'none'.*frame-ancestors 'none'/);
      assert.equal(answer.headers.get("cache-control"), "no-store");
      assert.equal(answer.headers.get("referrer-policy"), "no-referrer");
    }
  });

  test("a form of somebody else starts nothing", async () => {
    await using client = await clientOf("erin");
    const { url } = await linkFrom(client, "mail_sign_in");
    for (const headers of [{ origin: "https://evil.example" }, { origin: "http://127.0.0.1:1" }, { origin: "null" }, {}])
      assert.ok([400, 403].includes((await fetch(url, { method: "POST", headers, redirect: "manual" })).status));
    const own = { origin: vmcp.address };
    const begun = await fetch(url, { method: "POST", headers: own, redirect: "manual" });
    assert.equal(begun.status, 303);
    assert.match(String(begun.headers.get("set-cookie")), /^vmcp-sign-in-.*Path=\/oauth; HttpOnly; SameSite=Lax; Max-Age=/);
    const elsewhere = await fetch(new URL("/mcp", vmcp.address), { method: "POST", headers: { origin: "https://evil.example" } });
    assert.equal(elsewhere.status, 403);
  });

  test("no token is in what the proxy says", async () => {
    const seen = [...mail.seen, ...wiki.seen].map(({ token }) => token);
    assert.ok(seen.length > 0);
    assert.deepEqual(await searchFor([...new Set(seen), secret], [textPlace("log", () => JSON.stringify(vmcp.logs()))]), []);
  });
});

test("on one's own machine the connection says who it is, and a client that can't open links is given one to read", async () => {
  await using stack = new AsyncDisposableStack();
  const away = stack.use(await startIssuer({ hasClientDocuments: true }));
  const wiki = stack.use(await startGuardedBackend({ issuers: [away], scopes: ["read"], hasWhoami: true }));
  const upstreamOauth = { insecureAllowHttp: true, allowPrivateIp: true };
  const outgoingAuth = { source: "inline", default: { type: "upstream_oauth", upstreamOauth } };
  const parts = { backends: [httpBackend("wiki", wiki.url)], incomingAuth: { type: "local" }, outgoingAuth };
  const vmcp = stack.use(await serve(parts));
  const client = stack.use(await openClient(vmcp.url));
  const [url = ""] = /http:\S+/.exec(await client.call("wiki_sign_in")) ?? [];
  const begun = await fetch(url, { method: "POST", headers: { origin: vmcp.address }, redirect: "manual" });
  const [cookie = ""] = String(begun.headers.get("set-cookie")).split(";");
  const back = await signIn(String(begun.headers.get("location")), "me at wiki");
  assert.match(await (await fetch(back, { headers: { cookie } })).text(), /id="done"/);
  await eventually("the tools are listed", async () => (await client.toolNames()).includes("wiki_whoami"));
  assert.equal(await client.call("wiki_whoami"), "me at wiki");
});

test("every step may come to another proxy, and what is kept can be read by nobody", { skip: noRedis }, async () => {
  process.env.VMCP_SESSION_HMAC_SECRET = randomBytes(32).toString("hex");
  await using stack = new AsyncDisposableStack();
  const redis = stack.use(await startRedis());
  const mesh = stack.use(await startMesh(3, ["--redis", redis.url]));
  const balancer = stack.use(await startBalancer(mesh.proxies.map(({ address }) => address)));
  const clients = [{ id: "gateway", auth: "none", redirectUris: [`${balancer.address}/oauth/signed-in`] } as const];
  const home = stack.use(await startIssuer({ clients }));
  const away = stack.use(await startIssuer({ hasClientDocuments: true }));
  const wiki = stack.use(await startGuardedBackend({ issuers: [away], scopes: ["read"], hasWhoami: true }));
  const upstreamOauth = { insecureAllowHttp: true, allowPrivateIp: true };
  const { code, stderr } = await mesh.apply([
    virtualServer("team", {
      backends: [httpBackend("wiki", wiki.url)],
      incomingAuth: { type: "oidc", oidc: { issuer: home.issuer, audience, clientId: "gateway" } },
      outgoingAuth: { source: "inline", default: { type: "upstream_oauth", upstreamOauth } },
    }),
  ]);
  assert.equal(code, 0, stderr);
  for (const { address } of mesh.proxies)
    await eventually("it serves", async () => (await fetch(`${address}/.well-known/oauth-protected-resource/team/mcp`)).ok);
  for (const user of ["ada", "bob", "carol"]) {
    const token = await home.token({ sub: user, audience });
    await using client = await openClient(`${balancer.address}/team/mcp`, {}, bearer(token));
    const [url = ""] = /http:\S+/.exec(await client.call("wiki_sign_in")) ?? [];
    const begun = await fetch(url, { method: "POST", headers: { origin: balancer.address }, redirect: "manual" });
    const [cookie = ""] = String(begun.headers.get("set-cookie")).split(";");
    const proven = await signIn(String(begun.headers.get("location")), user);
    const sent = await fetch(proven, { headers: { cookie }, redirect: "manual" });
    const back = await signIn(String(sent.headers.get("location")), `${user} at wiki`);
    assert.match(await (await fetch(back, { headers: { cookie } })).text(), /id="done"/);
    for (const _ of mesh.proxies) assert.equal((await fetch(back, { headers: { cookie } })).status, 400, "on none a second time");
    for (const _ of mesh.proxies)
      await eventually("each proxy has it", async () => (await client.call("wiki_whoami")) === `${user} at wiki`);
  }
  const secrets = [...new Set(wiki.seen.map(({ token }) => token)), "ada at wiki"];
  const granted = away.tokenRequests.map(({ answer }) =>
    String((JSON.parse(String(answer?.body)) as { refresh_token: string }).refresh_token),
  );
  const logs = mesh.proxies.map((proxy, i) => textPlace(`proxy ${i}`, () => JSON.stringify(proxy.logs())));
  assert.deepEqual(await searchFor([...secrets, ...granted], [redisPlace("redis", [redis.port]), ...logs]), []);
});
