// A server that hangs or fails costs its callers their deadline a few times, then nothing; others never notice.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type BackendScript, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, openRawSession } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { serve } from "../support/serve.ts";

const tools = [plainTool("hello")];
const operational = {
  timeouts: { default: "500ms" },
  failureHandling: { circuitBreaker: { enabled: true, failureThreshold: 3, timeout: "60s" } },
};

for (const [what, fault] of [
  ["hangs", { calls: { hello: () => new Promise<never>(() => undefined) } }],
  ["answers 503", { fault: { status: 503 } }],
] satisfies [string, Partial<BackendScript>][]) {
  test(`calls to a server that ${what} soon fail at once, without reaching it, while others work`, async () => {
    await using bad = await startBackend({ tools, calls: { hello: () => textResult("hello") } });
    await using good = await startBackend({ tools, calls: { hello: () => textResult("hello") } });
    await using vmcp = await serve({ backends: [httpBackend("bad", bad.url), httpBackend("good", good.url)], operational });
    const session = await openRawSession(vmcp.url);
    const call = (name: string) => session.result("tools/call", `{"name":"${name}","arguments":{}}`);
    await eventually("both are listed", async () => {
      const list = await session.result("tools/list");
      return list.includes("bad_hello") && list.includes("good_hello");
    });
    assert.match(await call("bad_hello"), /hello/);

    bad.set(fault);
    for (let failures = 0; failures < 3; failures++) assert.match(await call("bad_hello"), /"error"|"isError":true/);
    const reached = bad.bodies("tools/call").length;
    const startedAt = performance.now();
    const answer = await call("bad_hello");
    const tookMs = performance.now() - startedAt;
    assert.match(answer, /"message":.*\bbad\b.*not executed/);
    assert.match(answer, /"outcome":"not_executed"/);
    assert.ok(tookMs < 250, `${tookMs} ms`);
    assert.equal(bad.bodies("tools/call").length, reached);
    assert.match(await call("good_hello"), /"text":"hello"/);
    assert.match(await session.result("tools/list"), /bad_hello/);
  });
}

test("errors that a tool means are no failures of its server", async () => {
  const isError = `{"content":[{"type":"text","text":"no such file"}],"isError":true}`;
  await using backend = await startBackend({ tools, calls: { hello: () => isError } });
  await using vmcp = await serve({ backends: [httpBackend("b", backend.url)], operational });
  await using client = await openClient(vmcp.url);
  await eventually("it is listed", async () => (await client.toolNames()).includes("b_hello"));
  for (let i = 0; i < 8; i++) assert.equal(await client.call("b_hello"), "no such file");
  assert.equal(backend.bodies("tools/call").length, 8);
});

test("a call whose outcome is unknown says so, and is not run again", async () => {
  await using backend = await startBackend({ tools, calls: { hello: () => new Promise<never>(() => undefined) } });
  await using vmcp = await serve({ backends: [httpBackend("b", backend.url)], operational });
  const session = await openRawSession(vmcp.url);
  await eventually("it is listed", async () => (await session.result("tools/list")).includes("b_hello"));
  assert.match(await session.result("tools/call", `{"name":"b_hello"}`), /0\.5 ?s|500 ?ms|timed out|deadline/i);
  assert.equal(backend.bodies("tools/call").length, 1);
});
