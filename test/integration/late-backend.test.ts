// A server that is down at the start costs its own tools and nothing else, and joins when it comes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Call, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, openRawSession } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { serve } from "../support/serve.ts";

const script = { tools: [plainTool("hello")], calls: { hello: () => textResult("hello") } };

test("a server that comes later brings its tools, and clients are told", async () => {
  await using early = await startBackend(script);
  await using late = await startBackend(script);
  await late.down();
  await using vmcp = await serve({ backends: [httpBackend("early", early.url), httpBackend("late", late.url)] });
  await using client = await openClient(vmcp.url);
  await eventually("the early server's tool", async () => (await client.toolNames()).includes("early_hello"));
  assert.deepEqual(await client.toolNames(), ["early_hello"]);
  assert.equal(await client.call("early_hello"), "hello");

  await late.up();
  await eventually("list_changed", () => client.notifications.includes("notifications/tools/list_changed"), 60_000);
  assert.deepEqual((await client.toolNames()).sort(), ["early_hello", "late_hello"]);
  assert.equal(await client.call("late_hello"), "hello");
});

test("a server that changes its tools changes ours, and clients are told", async () => {
  await using backend = await startBackend(script);
  await using vmcp = await serve({ backends: [httpBackend("b", backend.url)] });
  await using client = await openClient(vmcp.url);
  await eventually("the first tool", async () => (await client.toolNames()).includes("b_hello"));
  await eventually("somebody listens", () => backend.streams() > 0);
  client.notifications.length = 0;
  backend.set({ tools: [...script.tools, plainTool("more")] });
  backend.announce("tools");
  await eventually("list_changed", () => client.notifications.includes("notifications/tools/list_changed"));
  assert.deepEqual((await client.toolNames()).sort(), ["b_hello", "b_more"]);
});

test("a server that answers garbage costs only itself", async () => {
  await using good = await startBackend(script);
  await using bad = await startBackend({ fault: { status: 200, body: "<html>hello</html>" } });
  await using vmcp = await serve({ backends: [httpBackend("good", good.url), httpBackend("bad", bad.url)] });
  await using client = await openClient(vmcp.url);
  await eventually("the good server's tool", async () => (await client.toolNames()).includes("good_hello"));
  assert.equal(await client.call("good_hello"), "hello");
  bad.set({ fault: undefined, ...script });
});

test("lists in many pages are read to the end", async () => {
  const names = Array.from({ length: 25 }, (_, i) => `tool${String(i).padStart(2, "0")}`);
  await using backend = await startBackend({ tools: names.map((name) => plainTool(name)), pageSize: 10 });
  await using vmcp = await serve({ backends: [httpBackend("b", backend.url)] });
  await using client = await openClient(vmcp.url);
  await eventually("the tools are listed", async () => (await client.toolNames()).length === names.length);
  assert.deepEqual(
    (await client.toolNames()).sort(),
    names.map((name) => `b_${name}`),
  );
});

test("a deadline is a backend's own, and progress puts it off", async () => {
  const talks = async ({ notify, params }: Call): Promise<string> => {
    const { progressToken } = (params._meta ?? {}) as { progressToken?: unknown };
    for (let i = 0; i < 8; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      if (progressToken !== undefined)
        notify(JSON.stringify({ jsonrpc: "2.0", method: "notifications/progress", params: { progressToken, progress: i } }));
    }
    return textResult("done");
  };
  await using quick = await startBackend({ tools: [plainTool("talk")], calls: { talk: talks } });
  await using slow = await startBackend({ tools: [plainTool("talk")], calls: { talk: talks } });
  const operational = { timeouts: { default: "5s", perWorkload: { quick: "400ms" } } };
  const backends = [httpBackend("quick", quick.url), httpBackend("slow", slow.url)];
  await using vmcp = await serve({ backends, operational });
  const session = await openRawSession(vmcp.url);
  assert.match(await session.result("tools/call", '{"name":"slow_talk"}'), /done/, "the default lets it finish");
  assert.match(await session.result("tools/call", '{"name":"quick_talk"}'), /"reason":"backend_timeout"/);
  const withProgress = '{"name":"quick_talk","_meta":{"progressToken":"p"}}';
  assert.match(await session.result("tools/call", withProgress), /done/);
});
