// Backends that only callers have a credential for: nobody knows their tools before one comes, each caller sees what the backend lists
// to them, and operators see that it is so. And sessions whose requests come with different tokens.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { bearer, openClient, openRawSession } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type GuardedBackend, startGuardedBackend } from "../support/guarded-backend.ts";
import { type Issuer, startIssuer } from "../support/issuer.ts";
import { runVmcpctl } from "../support/processes.ts";
import { type Served, serve } from "../support/serve.ts";

const audience = "https://vmcp.example/mcp";
const stack = new AsyncDisposableStack();
let issuer: Issuer;
let backend: GuardedBackend;
let vmcp: Served;

before(async () => {
  issuer = stack.use(await startIssuer({ clients: [{ id: "public" }] }));
  backend = stack.use(await startGuardedBackend({ issuers: [issuer], audience: "https://up.example", hasWhoami: true }));
  const exchange = { tokenUrl: issuer.tokenUrl, clientId: "public", audience: "https://up.example" };
  vmcp = stack.use(
    await serve({
      backends: [httpBackend("up", backend.url)],
      incomingAuth: { type: "oidc", oidc: { issuer: issuer.issuer, audience } },
      outgoingAuth: { source: "inline", default: { type: "token_exchange", tokenExchange: exchange } },
    }),
  );
});
after(() => stack.disposeAsync());

const tokenOf = (sub: string, scope = "") => issuer.token({ sub, audience, scope });

async function status() {
  const { backends } = (await (await fetch(`${vmcp.address}/status`)).json()) as {
    backends: { health: string; listed_with: string; error?: string; tools?: number }[];
  };
  return backends[0];
}

test("before anybody comes nothing is listed, and operators see why", async () => {
  const seen = await status();
  assert.equal(seen?.health, "unknown");
  assert.equal(seen?.listed_with, "callers' own");
  assert.match(String(seen?.error), /only callers get in/);
  assert.equal(backend.requests.length, 0, "it was not asked without a credential");
});

test("a caller sees what the backend lists to them, and nobody else does", async () => {
  await using ada = await openClient(vmcp.url, {}, bearer(await tokenOf("ada")));
  assert.deepEqual(await ada.toolNames(), ["up_whoami"]);
  assert.equal(await ada.call("up_whoami"), "ada");
  assert.equal((await status())?.health, "healthy");
  backend.revoke(({ sub }) => sub === "eve"); // not welcome there
  await using eve = await openClient(vmcp.url, {}, bearer(await tokenOf("eve")));
  assert.deepEqual(await eve.toolNames(), []);
  await assert.rejects(eve.call("up_whoami"), /unknown tool/);
  assert.deepEqual(await ada.toolNames(), ["up_whoami"]);
});

test("what is listed to a caller goes to no control plane, so to no other proxy", async () => {
  await using ada = await openClient(vmcp.url, {}, bearer(await tokenOf("ada")));
  assert.deepEqual(await ada.toolNames(), ["up_whoami"]);
  const ctl = async (...args: string[]) => (await runVmcpctl(vmcp.adminAddress, args)).stdout;
  const seen = await eventually("its state is reported", async () => {
    const text = await ctl("proxy", "status", "-o", "json");
    return text.includes('"state": "healthy"') && text;
  });
  assert.match(seen, /"catalog": "virtualServers\/test\/backends\/up\/catalogs\//);
  assert.doesNotMatch(seen, /listingDigest/);
  assert.doesNotMatch(await ctl("audit", "list", "-o", "json"), /whoami|FIRST_SEEN/);
});

test("what changes is told to the caller whose it is", async () => {
  await using ada = await openClient(vmcp.url, {}, bearer(await tokenOf("ada")));
  await eventually("the stream is open", () => backend.streams() > 0);
  backend.set({ tools: ['{"name":"whoami","inputSchema":{"type":"object"}}', '{"name":"new","inputSchema":{"type":"object"}}'] });
  backend.announce("tools");
  await eventually("it hears of it", () => ada.notifications.includes("notifications/tools/list_changed"));
  assert.deepEqual((await ada.toolNames()).sort(), ["up_new", "up_whoami"]);
});

test("requests of one session with different tokens are made with what each is good for", async () => {
  const [wide, narrow] = [await tokenOf("bob", "read write"), await tokenOf("bob", "read")];
  const session = await openRawSession(vmcp.url, "2025-11-25", bearer(wide));
  const call = (token: string) =>
    session.post('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"up_whoami"}}', bearer(token));
  const made = async (token: string): Promise<string | undefined> => {
    assert.match((await call(token)).body, /"text":"bob"/);
    return backend.seen.findLast(({ rpcMethod }) => rpcMethod === "tools/call")?.token;
  };
  const [first, second] = [await made(wide), await made(narrow)];
  assert.notEqual(first, second);
  for (let i = 0; i < 5; i++) {
    assert.equal(await made(wide), first);
    assert.equal(await made(narrow), second);
  }
  const subjects = issuer.tokenRequests.map(({ params }) => params.subject_token);
  assert.ok(subjects.includes(wide) && subjects.includes(narrow));
});
