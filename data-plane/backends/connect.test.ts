import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { readMessage, request, resultResponse } from "../mcp/json-rpc.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { createConnector } from "./connect.ts";

const log = pino({ level: "silent" });
const client = { protocolVersion: "2025-11-25", clientInfo: '{"name":"c","version":"1"}', capabilities: "{}" } as const;
const signal = () => AbortSignal.timeout(10_000);

// A server in a line: counts its calls, echoes progress under the token it was given, and dies when told to.
const script = `
  const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\\n");
  const initialized = { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "s", version: "1" } };
  let calls = 0;
  require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
    const { id, method, params } = JSON.parse(line);
    if (method === "server/discover") return say({ id, error: { code: -32601, message: "what?" } });
    if (method === "initialize") return say({ id, result: initialized });
    if (method === "die") process.exit(3);
    if (method === "garble") say({ method: "notifications/progress", params: [1] });
    if (method === "log") say({ method: "notifications/message", params: { level: "info", data: "whose?" } });
    if (id === undefined) return;
    const progressToken = params?._meta?.progressToken;
    if (progressToken !== undefined) say({ method: "notifications/progress", params: { progressToken, progress: 1 } });
    setTimeout(() => say({ id, result: { calls: ++calls, seen: params?.n } }), params?.delay ?? 0);
  });`;

function stdio(t: TestContext, program = script) {
  const spec = create(BackendSchema, { name: "s", transport: "stdio", command: process.execPath, args: ["-e", program] });
  const connector = createConnector({ spec, credential: sameForAll([]), log });
  t.after(() => connector.close());
  return connector;
}

const ask = (params: object, id = "1") => readMessage(request("count", JSON.stringify(params), id));

test("sessions share one child, and each hears only of its own calls", async (t) => {
  const connector = stdio(t);
  const [one, two] = await Promise.all([connector.openLeg(client, signal()), connector.openLeg(client, signal())]);
  const heard: string[] = [];
  const token = { _meta: { progressToken: "mine" } };
  const answers = await Promise.all([
    one.request(ask({ n: "one", delay: 50, ...token }), {
      signal: signal(),
      onMessage: ({ json }) => void heard.push(`one ${json}`),
    }),
    two.request(ask({ n: "two", ...token }, '"x"'), {
      signal: signal(),
      onMessage: ({ json }) => void heard.push(`two ${json}`),
    }),
  ]);
  const results = answers.map(({ json }) => JSON.parse(json.toString()));
  assert.deepEqual(results, [
    { jsonrpc: "2.0", id: 1, result: { calls: 2, seen: "one" } },
    { jsonrpc: "2.0", id: "x", result: { calls: 1, seen: "two" } },
  ]);
  const progress = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"mine","progress":1}}';
  assert.deepEqual(heard.sort(), [`one ${progress}`, `two ${progress}`]);
});

test("a child that dies fails the calls in flight, and the next session starts another", async (t) => {
  const connector = stdio(t);
  const leg = await connector.openLeg(client, signal());
  const pending = leg.request(ask({ delay: 10_000 }), { signal: signal() });
  await leg.notify(request("die", undefined), signal());
  await assert.rejects(pending, { code: "unavailable", outcome: "unknown", message: '"s" ended with exit code 3' });
  assert.equal(leg.closedBy, '"s" ended with exit code 3');
  const next = await connector.openLeg(client, signal());
  const { json } = await next.request(ask({}), { signal: signal() });
  assert.match(json.toString(), /"calls":1/);
});

test("a malformed notification and a log line that names no call touch nobody's call", async (t) => {
  const leg = await stdio(t).openLeg(client, signal());
  const heard: string[] = [];
  const pending = leg.request(ask({ delay: 100 }), {
    signal: signal(),
    onMessage: ({ json }) => void heard.push(json.toString()),
  });
  for (const method of ["garble", "log"]) await leg.notify(request(method, undefined), signal());
  assert.match((await pending).json.toString(), /"calls":1/);
  assert.deepEqual(heard, []);
});

test("a child that does not answer any more can be started anew", async (t) => {
  const connector = stdio(t);
  const leg = await connector.openLeg(client, signal());
  await connector.restart();
  assert.notEqual(leg.closedBy, undefined);
  const { json } = await (await connector.openLeg(client, signal())).request(ask({}), { signal: signal() });
  assert.match(json.toString(), /"calls":1/);
});

test("a child that won't live is not started without pause, and says why", async (t) => {
  const connector = stdio(t, "process.exit(7)");
  const why = { code: "unavailable", outcome: "not_executed", message: '"s" ended with exit code 7' };
  await assert.rejects(connector.openLeg(client, signal()), why);
  const startedMs = performance.now();
  await assert.rejects(connector.openLeg(client, signal()), why);
  assert.ok(performance.now() - startedMs < 400, "refused during the pause, without a start");
});

test("a reference that leads nowhere is refused before anything starts", () => {
  const spec = create(BackendSchema, { name: "s", transport: "stdio", command: "x", env: { KEY: "env:VMCP_TEST_NOT_SET" } });
  assert.throws(() => createConnector({ spec, credential: sameForAll([]), log }), /VMCP_TEST_NOT_SET is not set on this proxy/);
});

// Of the stateless era: asks for a name before it greets, and says what changes to whoever listens.
const stateless = `
  const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\\n");
  const key = (name) => "io.modelcontextprotocol/" + name;
  require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
    const { id, method, params } = JSON.parse(line);
    const meta = params?._meta ?? {};
    if (id === undefined) return;
    if (meta[key("protocolVersion")] !== "2026-07-28") return say({ id, error: { code: -32602, message: "no envelope" } });
    if (method === "server/discover") return say({ id, result: {
      resultType: "complete", supportedVersions: ["2026-07-28"], capabilities: { tools: { listChanged: true }, resources: { subscribe: true } },
      ttlMs: 0, cacheScope: "private",
    } });
    if (method === "subscriptions/listen") {
      const tagged = { _meta: { [key("subscriptionId")]: id } };
      say({ method: "notifications/subscriptions/acknowledged", params: { ...tagged, notifications: params.notifications } });
      for (const uri of params.notifications.resourceSubscriptions ?? [])
        say({ method: "notifications/resources/updated", params: { ...tagged, uri } });
      return;
    }
    if (meta.progressToken !== undefined) say({ method: "notifications/progress", params: { progressToken: meta.progressToken, progress: 1 } });
    const name = params.inputResponses?.name?.content?.name;
    if (name !== undefined) return say({ id, result: { resultType: "complete", greeting: "Hello, " + name, state: params.requestState } });
    const question = { method: "elicitation/create", params: { message: "who?", requestedSchema: { type: "object", properties: {} } } };
    say({ id, result: { resultType: "input_required", inputRequests: { name: question }, requestState: "s-1" } });
  });`;

test("a program of the stateless era is found to be one, and asks a client with a session as such", async (t) => {
  const connector = stdio(t, stateless);
  const leg = await connector.openLeg({ ...client, era: "session", capabilities: '{"elicitation":{}}' }, signal());
  assert.equal(leg.facts.era, "stateless");
  const said: string[] = [];
  const answer = await leg.request(ask({ _meta: { progressToken: "mine" } }), {
    signal: signal(),
    onMessage(message) {
      said.push(message.method as string);
      if (message.method !== "elicitation/create") return undefined;
      return leg.notify(resultResponse(message.id as string, '{"action":"accept","content":{"name":"Ada"}}'), signal());
    },
  });
  assert.deepEqual(JSON.parse(answer.json.toString()), {
    jsonrpc: "2.0",
    id: 1,
    result: { greeting: "Hello, Ada", state: "s-1" },
  });
  assert.deepEqual(said, ["notifications/progress", "elicitation/create", "notifications/progress"]);
});

test("a program of the stateless era says what changes to those who asked", async (t) => {
  const connector = stdio(t, stateless);
  const [one, two] = await Promise.all([connector.openLeg(client, signal()), connector.openLeg(client, signal())]);
  const heard: string[] = [];
  const stop = new AbortController();
  const updated = Promise.withResolvers<void>();
  const hearing = { signal: stop.signal };
  void one.listen(({ json }) => {
    heard.push(json.toString());
    return void updated.resolve();
  }, hearing);
  void two.listen(({ json }) => void heard.push(`two ${json}`), hearing);
  const subscribed = await one.request(readMessage(request("resources/subscribe", '{"uri":"x:1"}', "1")), { signal: signal() });
  assert.equal(subscribed.json.toString(), '{"jsonrpc":"2.0","id":1,"result":{}}');
  await updated.promise;
  assert.deepEqual(heard, ['{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"x:1"}}']);
  stop.abort();
});

for (const [how, discover] of [
  ["ends when it is asked for its era", "process.exit(1)"],
  ["does not answer what it does not know", "undefined"],
]) {
  test(`a program that ${how} is served as one with sessions`, async (t) => {
    const program = script.replace(/(method === "server\/discover"\)) return .*$/m, `$1 return ${discover};`);
    assert.notEqual(program, script);
    const leg = await stdio(t, program).openLeg(client, signal());
    assert.equal(leg.facts.era, "session");
    const answer = await leg.request(ask({ n: 1 }), { signal: signal() });
    assert.deepEqual(JSON.parse(answer.json.toString()).result, { calls: 1, seen: 1 });
  });
}
