import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type BackendScript, plainTool, rawError, startBackend } from "../../test/support/backend.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { type Catalog, listCatalog } from "./catalog.ts";
import { createConnector } from "./connect.ts";
import { BackendError } from "./errors.ts";
import type { Leg } from "./leg.ts";

const client = { protocolVersion: "2025-11-25", clientInfo: '{"name":"c","version":"1"}', capabilities: "{}" } as const;
const keys = (catalog: Catalog, kind: "tools" | "prompts" | "resources" | "templates") => catalog[kind].map(({ key }) => key);
const ok = plainTool("ok");

/** A leg to a scripted server. */
async function setUp(t: TestContext, script: BackendScript) {
  const server = await startBackend(script);
  const leg = await openLeg(t, server.url);
  t.after(() => server[Symbol.asyncDispose]());
  return { server, list: (previous?: Catalog) => listCatalog(leg, AbortSignal.timeout(10_000), previous) };
}

async function openLeg(t: TestContext, url: string): Promise<Leg> {
  const spec = create(BackendSchema, { name: "scripted", url, transport: "streamable-http" });
  const connector = createConnector({ spec, credential: sameForAll([]), log: pino({ level: "silent" }) });
  t.after(() => connector.close());
  return connector.openLeg(client, AbortSignal.timeout(10_000));
}

const badItems: [string, string, RegExp][] = [
  ["that is not JSON", '{"name":"bad","inputSchema":{"type" object nul,,}}', /item 2 is not JSON/],
  ["with raw control characters", '{"name":"b\u0001d"}', /item 2 is not JSON/],
  ["with a word that JSON does not have", '{"name":"bad","x":nul}', /item 2 is not JSON/],
  ["without a name", '{"title":"no name"}', /item 2 has no "name"/],
  ["with an empty name", '{"name":""}', /item 2 has no "name"/],
  ["with a number as its name", '{"name":1}', /item 2 has no "name"/],
  ["that is no object", '"bad"', /item 2 has no "name"/],
  ["that is null", "null", /item 2 has no "name"/],
];
for (const [what, item, reason] of badItems) {
  test(`an item ${what} is left out, and the others are listed`, async (t) => {
    const { list } = await setUp(t, { tools: [ok, item, plainTool("last")], prompts: ['{"name":"p"}'] });
    const { catalog, problems } = await list();
    assert.deepEqual(keys(catalog, "tools"), ["ok", "last"]);
    assert.deepEqual(keys(catalog, "prompts"), ["p"]);
    assert.deepEqual(
      problems.map(({ kind, isStale }) => [kind, isStale]),
      [["tools", false]],
    );
    assert.match(problems[0]?.reason ?? "", reason);
    assert.match(problems[0]?.reason ?? "", /^tools\/list: 1 of 3 items left out/);
  });
}

test("an item that is not UTF-8 is left out", async (t) => {
  const server = createServer(async (request, response) => {
    const { id, method } = request.method === "POST" ? ((await json(request)) as { id?: unknown; method?: string }) : {};
    const result =
      method === "initialize"
        ? '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}'
        : `{"tools":[{"name":"caf\xe9"},${ok}]}`;
    const headers = { "content-type": "application/json" };
    if (id === undefined) response.writeHead(202).end();
    else response.writeHead(200, headers).end(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":${result}}`, "latin1");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const leg = await openLeg(t, `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`);
  const { catalog, problems } = await listCatalog(leg, AbortSignal.timeout(10_000));
  assert.deepEqual(keys(catalog, "tools"), ["ok"]);
  assert.match(problems[0]?.reason ?? "", /item 1 is not JSON in UTF-8/);
});

const failures: [string, NonNullable<BackendScript["methods"]>, RegExp][] = [
  ["is refused", { "resources/list": () => rawError('{"code":-32603,"message":"db\\u001b down"}') }, /refused: .*db.* down/],
  ["is refused with nonsense", { "resources/list": () => rawError('{"code" nul}') }, /refused/],
  ["has no items", { "resources/list": () => '{"items":[]}' }, /without "resources"/],
  ["is not a list", { "resources/list": () => '{"resources":{}}' }, /expected an array/],
  ["repeats its cursor", { "resources/list": () => '{"resources":[],"nextCursor":"x"}' }, /same cursor/],
  ["has a cursor that is nonsense", { "resources/list": () => '{"resources":[],"nextCursor":{"a" nul}}' }, /not a string/],
];
for (const [what, methods, reason] of failures) {
  test(`a list that ${what} stays as it was, and the others go on`, async (t) => {
    const { server, list } = await setUp(t, { tools: [ok], resources: ['{"uri":"x:1"}'] });
    const before = await list();
    server.set({ methods, tools: [ok, plainTool("new")] });
    const { catalog, problems } = await list(before.catalog);
    assert.deepEqual(keys(catalog, "tools"), ["ok", "new"]);
    assert.deepEqual(keys(catalog, "resources"), ["x:1"]);
    assert.deepEqual(
      problems.map(({ kind, isStale }) => [kind, isStale]),
      [["resources", true]],
    );
    assert.match(problems[0]?.reason ?? "", reason);
    assert.deepEqual(keys((await list()).catalog, "resources"), []);
  });
}

test("a list that the backend does not know is empty, and nothing is wrong", async (t) => {
  const { list } = await setUp(t, { methods: { "prompts/list": () => rawError('{"code":-32601,"message":"no"}') } });
  const { problems } = await list();
  assert.deepEqual(problems, []);
});

test("a session that is over lists nothing, whatever is known", async (t) => {
  const { server, list } = await setUp(t, { tools: [ok] });
  const { catalog } = await list();
  server.dropSessions();
  await assert.rejects(list(catalog), (error) => error instanceof BackendError && error.code === "session_gone");
});

test("when every list fails, so does the listing", async (t) => {
  const { server, list } = await setUp(t, { tools: [ok] });
  const { catalog } = await list();
  const refuse = () => rawError('{"code":-32603,"message":"down"}');
  const methods = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];
  server.set({ methods: Object.fromEntries(methods.map((method) => [method, refuse])) });
  await assert.rejects(list(catalog), /was refused/);
});
