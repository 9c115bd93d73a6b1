// Every page of deploy/auth has a configuration. Each is served as it stands there, with the addresses in it changed to those of a real
// issuer and a real backend, and does what its page says.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { bearer, openClient, type SentHeaders, send } from "../support/client.ts";
import { startGuardedBackend } from "../support/guarded-backend.ts";
import { type Issuer, startIssuer } from "../support/issuer.ts";
import { startVmcp, temporaryDirectory } from "../support/processes.ts";

const pages = join(import.meta.dirname, "../../deploy/auth");
const secret = randomBytes(16).toString("hex");
const audience = "https://gateway.example.com/mcp";
const wikiAudience = "https://wiki.example.com";
const script = { tools: [plainTool("echo")], calls: { echo: () => textResult("said") } };

interface Shown {
  readonly issuer: Issuer;
  readonly backend: Backend;
  readonly url: string;
  readonly headers: SentHeaders;
  call(): Promise<string>;
}

/** What each page promises, once it is served and a caller has come. */
const promises: Readonly<Record<string, (shown: Shown) => Promise<void>>> = {
  async unauthenticated({ backend, call }) {
    assert.equal(await call(), "said");
    for (const { headers } of backend.requests) assert.equal(headers.authorization, undefined);
  },
  async header_injection({ backend, call }) {
    assert.equal(await call(), "said");
    for (const { headers } of backend.requests) assert.equal(headers["x-api-key"], secret);
  },
  async client_credentials({ backend, call, issuer }) {
    assert.equal(await call(), "said");
    for (const { headers } of backend.requests) assert.match(String(headers.authorization), /^Bearer ey/);
    assert.deepEqual(new Set(issuer.tokenRequests.map(({ grantType }) => grantType)), new Set(["client_credentials"]));
  },
  async token_exchange({ call, issuer }) {
    assert.equal(await call(), "said");
    assert.ok(issuer.tokenRequests.some(({ grantType }) => grantType.endsWith(":token-exchange")));
  },
  async pass_through({ backend, call }) {
    assert.equal(await call(), "said");
    const [called] = backend.requests.filter(({ message }) => message?.method === "tools/call");
    assert.equal(called?.headers["x-team"], "blue");
  },
  async upstream_oauth({ call }) {
    assert.match(await call(), /sign in there.*http:\/\/127\.0\.0\.1:\d+\/oauth\/connect\//s);
  },
  async oidc({ call, url }) {
    assert.equal(await call(), "said");
    assert.equal((await send(url, { method: "POST" })).status, 401);
  },
  async local({ call }) {
    assert.equal(await call(), "said");
  },
};

/** Those whose backend demands a token; the others get a backend that takes everybody. */
const guardedPages = new Set(["client_credentials", "token_exchange", "upstream_oauth"]);

test("every page is tried here", () => {
  const files = readdirSync(pages).map((name) => name.replace(/\.md$/, ""));
  assert.deepEqual(files.filter((name) => name !== "README").sort(), Object.keys(promises).sort());
});

for (const [page, keep] of Object.entries(promises))
  test(`${page}: its configuration does what its page says`, async () => {
    await using stack = new AsyncDisposableStack();
    const issuer = stack.use(
      await startIssuer({
        clients: [
          { id: "gateway", secret },
          { id: "gateway-at-wiki", secret },
        ],
      }),
    );
    const backend = guardedPages.has(page)
      ? stack.use(await startGuardedBackend({ issuers: [issuer], audience: wikiAudience, script }))
      : stack.use(await startBackend(script));
    const [, yaml = ""] = /```yaml\n(.*?)```/s.exec(readFileSync(join(pages, `${page}.md`), "utf8")) ?? [];
    const text = yaml
      .replaceAll("https://login.example.com/token", issuer.tokenUrl)
      .replaceAll("https://login.example.com", issuer.issuer)
      .replaceAll("https://wiki.example.com/mcp", backend.url);
    const directory = stack.use(await temporaryDirectory());
    const path = await directory.write("vmcp-config.yaml", text);
    const env = { WIKI_API_KEY: secret, GATEWAY_SECRET: secret, GATEWAY_AT_WIKI_SECRET: secret };
    const vmcp = stack.use(await startVmcp(["serve", "--config", path, "--port", "0", "--admin-listen", "127.0.0.1:0"], { env }));
    assert.deepEqual(
      vmcp.logs().filter(({ file }) => file !== undefined),
      [],
      "nothing in it has no effect",
    );
    const token = await issuer.token({ sub: "ada", audience, scope: "mcp wiki:admin" });
    const headers = { ...bearer(token), "x-team": "blue" };
    const url = `${vmcp.address}/mcp`;
    const client = stack.use(await openClient(url, {}, headers));
    const name = page === "upstream_oauth" ? "wiki_sign_in" : "wiki_echo";
    await keep({ issuer, backend, url, headers, call: () => client.call(name) });
  });
