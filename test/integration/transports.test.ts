// One real server, reached in each of the three ways; and programs that we start stay ours to the end.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { openClient, send } from "../support/client.ts";
import { httpBackend, stdioBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { startEverything, startEverythingSse, stdioServer } from "../support/processes.ts";
import { serve } from "../support/serve.ts";

test("streamable HTTP, HTTP+SSE and stdio look the same to a client", async () => {
  await using http = await startEverything();
  await using sse = await startEverythingSse();
  await using vmcp = await serve({
    backends: [
      httpBackend("http", http.url),
      { name: "sse", url: sse.url, transport: "sse" },
      stdioBackend("stdio", stdioServer("everything", "stdio")),
    ],
  });
  await using client = await openClient(vmcp.url);
  const own = async (prefix: string) => (await client.toolNames()).filter((name) => name.startsWith(prefix));
  for (const prefix of ["http_", "sse_", "stdio_"]) {
    await eventually(`the tools of ${prefix}`, async () => (await own(prefix)).length > 10);
    assert.equal(await client.call(`${prefix}echo`, { message: "ünï" }), "Echo: ünï");
    const seen: number[] = [];
    const long = { name: `${prefix}trigger-long-running-operation`, arguments: { duration: 0.2, steps: 2 } };
    await client.client.callTool(long, undefined, { onprogress: ({ progress }) => seen.push(progress) });
    assert.deepEqual(seen, [1, 2], prefix);
    const { messages } = await client.client.getPrompt({ name: `${prefix}simple-prompt` });
    assert.equal(messages.length, 1);
  }
  const bare = (names: string[]) => names.map((name) => name.replace(/^\w+?_/, "")).sort();
  assert.deepEqual(bare(await own("sse_")), bare(await own("http_")));
  assert.deepEqual(bare(await own("stdio_")), bare(await own("http_")));
});

test("a stdio server that dies is started again, and leaves with vmcp", { skip: notLinux() }, async () => {
  await using vmcp = await serve({ backends: [stdioBackend("s", stdioServer("everything", "stdio"))] });
  await using client = await openClient(vmcp.url);
  await eventually("its tools", async () => (await client.toolNames()).includes("s_echo"));
  const [first] = childrenOf(vmcp.pid);
  assert.ok(first);
  process.kill(first, "SIGKILL");
  const second = await eventually("another one", () => childrenOf(vmcp.pid).find((pid) => pid !== first));
  await eventually("it answers", async () => (await client.call("s_echo", { message: "again" })) === "Echo: again", 20_000);
  assert.equal((await send(`${vmcp.address}/health`)).status, 200);
  await vmcp.stop();
  await eventually("it is gone", () => !isRunning(second));
});

test("stdio servers end even when vmcp is killed outright", { skip: notLinux() }, async () => {
  await using vmcp = await serve({ backends: [stdioBackend("s", stdioServer("everything", "stdio"))] });
  const child = await eventually("the child", () => childrenOf(vmcp.pid)[0]);
  await using client = await openClient(vmcp.url);
  await eventually("its tools", async () => (await client.toolNames()).includes("s_echo"));
  vmcp.kill("SIGKILL");
  await vmcp.ended;
  await eventually("it is gone", () => !isRunning(child));
});

function notLinux(): string | false {
  return process.platform === "linux" ? false : "reads /proc";
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
}

/** Whether a process runs; a zombie, which only waits for the system's init, does not. */
function isRunning(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}
