// `vmcpctl tap` and `vmcpctl top`: the real program, a real control plane, a proxy of one process and one of two, and calls that carry
// secrets which must not be seen.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, type SdkClient } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type RunningVmcp, runVmcpctl, startVmcp, temporaryDirectory } from "../support/processes.ts";
import { callTool } from "../support/stateless-client.ts";

const program = join(import.meta.dirname, "../../cli/vmcpctl.ts");
const secret = "s3cret-argument";
const stack = new AsyncDisposableStack();
let plane: RunningVmcp;
let edges: RunningVmcp[];
let clients: SdkClient[];

before(async () => {
  const calls = {
    hello: () => textResult("a s3cret-result"),
    fails: () => JSON.stringify({ content: [{ type: "text", text: "it is broken" }], isError: true }),
  };
  const backend = stack.use(await startBackend({ tools: ["hello", "fails"].map((name) => plainTool(name)), calls }));
  plane = stack.use(await startVmcp(["control-plane", "--listen", "127.0.0.1:0", "--store", ":memory:"]));
  const directory = stack.use(await temporaryDirectory());
  const document = virtualServer("team", { backends: [httpBackend("b", backend.url)] });
  const file = await directory.write("team.yaml", JSON.stringify(document));
  assert.equal((await ctl("apply", "-f", file)).code, 0);
  const flags = ["proxy", "--port", "0", "--control-plane", plane.adminAddress];
  edges = await Promise.all([startVmcp([...flags, "--id", "edge-1"]), startVmcp([...flags, "--id", "edge-2", "--workers", "2"])]);
  for (const edge of edges) stack.use(edge);
  clients = await Promise.all(edges.map(({ address }) => openClient(`${address}/team/mcp`)));
  for (const client of clients) stack.use(client);
});
after(() => stack.disposeAsync());

test("tap shows calls of both proxies as lines of JSON, and nothing that was said", async () => {
  await using tap = startTap("tap", "-o", "json", "--limit", "7");
  await tap.listens;
  for (const client of clients) {
    await client.call("b_hello", { password: secret });
    await client.call("b_fails");
    await client.call(`unknown-${secret}`).catch(() => undefined);
  }
  await callTool(`${edges[0]?.address}/team/mcp`, "b_hello");
  assert.equal(await tap.ended, 0);
  const events = tap.lines.map((line) => JSON.parse(line));
  const seen = events.map(({ proxy, target, outcome, protocolVersion }) => {
    return [
      proxy,
      target.virtualServer,
      target.method,
      target.name ?? "-",
      target.workload ?? "-",
      outcome,
      protocolVersion,
    ].join(" ");
  });
  const of = (proxy: string) => [
    `${proxy} team tools/call - - error -32602 2025-11-25`,
    `${proxy} team tools/call b_fails b tool_error 2025-11-25`,
    `${proxy} team tools/call b_hello b ok 2025-11-25`,
  ];
  assert.deepEqual(seen.sort(), [...of("edge-1"), "edge-1 team tools/call b_hello b ok 2026-07-28", ...of("edge-2")]);
  for (const { identity, requestBytes, responseBytes, duration, time } of events) {
    assert.equal(identity, "anonymous");
    assert.ok(requestBytes > 50 && responseBytes > 20 && /^[\d.]+s$/.test(duration) && Date.parse(time) > 0);
  }
  assert.doesNotMatch(tap.lines.join(""), /s3cret|broken/);
});

test("tap's filters hold together, and its table is for people", async () => {
  await using tap = startTap(
    "tap",
    "--tool",
    "b_fails",
    "--status",
    "failed",
    "--proxy",
    "edge-2",
    "--workload",
    "b",
    "-g",
    "team",
    "--limit",
    "1",
  );
  await tap.listens;
  assert.match(tap.notes(), /^listening to edge-2$/m);
  for (const client of clients) for (const tool of ["b_hello", "b_fails"]) await client.call(tool);
  assert.equal(await tap.ended, 0);
  assert.match(
    tap.lines.join("\n"),
    /^TIME +PROXY +SERVER +METHOD +NAME +WORKLOAD +OUTCOME +TOOK +IN +OUT +WHO\n\d\d:\d\d:\d\d\.\d{3} +edge-2 +team +tools\/call +b_fails +b +tool_error +[\d.]+ ms +\d+ B +\d+ B +anonymous$/,
  );
});

test("what is too much is counted, not queued", async () => {
  await using tap = startTap("tap", "-o", "json", "--rate", "5", "--for", "8s", "--proxy", "edge-1");
  await tap.listens;
  for (let at = 0; at < 200; at += 1) await clients[0]?.call("b_hello");
  assert.equal(await tap.ended, 0);
  const leftOut = [...tap.notes().matchAll(/^edge-1: (\d+) more, too many to show/gm)].reduce(
    (sum, [, count]) => sum + Number(count),
    0,
  );
  assert.equal(tap.lines.length + leftOut, 200);
  assert.ok(tap.lines.length <= 50, String(tap.lines.length));
});

test("Ctrl-C ends a tap with 130 and no stack, and proxies tell no more", async () => {
  await using tap = startTap("tap");
  await tap.listens;
  tap.interrupt();
  assert.equal(await tap.ended, 130);
  assert.doesNotMatch(tap.notes(), /\n\s+at /);
});

test("top sums over all proxies, once where nobody looks", async () => {
  const running = ctl("top", "tools", "--interval", "3s");
  await callFor(2_500);
  const { code, stdout, stderr } = await running;
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^TOOL +WORKLOAD +SERVER +CALLS\/S +FAILED +P50 +P99 +IN\/S +OUT\/S\n/);
  assert.match(stdout, /^b_hello +b +team +[1-9][\d.]* +0 +≤ \d+ ms +≤ \d+ ms /m);
  assert.match(stdout, /^b_fails +b +team +[1-9][\d.]* +[1-9]\d* /m);
  const proxies = ctl("top", "proxies", "--interval", "2s", "-o", "json");
  await callFor(1_500);
  const rows = JSON.parse((await proxies).stdout).proxies as { proxy: string; calls: number }[];
  assert.deepEqual(rows.map(({ proxy }) => proxy).sort(), ["edge-1", "edge-2"]);
  assert.ok(rows.every(({ calls }) => calls > 0));
});

for (const [what, args, wanted] of [
  ["an unknown thing to top", ["top", "teapots"], 64],
  ["a rate of nothing", ["tap", "--rate", "0"], 64],
  ["too short an interval", ["top", "tools", "--interval", "1ms"], 64],
  ["a format that it has not", ["tap", "-o", "yaml"], 64],
] as const) {
  test(`${what} is exit code ${wanted}`, async () => {
    const { code, stdout, stderr } = await ctl(...args);
    assert.deepEqual([code, stdout], [wanted, ""]);
    assert.notEqual(stderr, "");
  });
}

const ctl = (...args: string[]) => runVmcpctl(plane.adminAddress, args);

async function callFor(ms: number): Promise<void> {
  // Until the stream is open nothing is summed, so it is called all the time.
  for (const endMs = performance.now() + ms; performance.now() < endMs; )
    for (const client of clients) for (const tool of ["b_hello", "b_fails"]) await client.call(tool);
}

function startTap(...args: string[]) {
  const child = spawn(process.execPath, [program, ...args], {
    env: { ...process.env, VMCP_SERVER: plane.adminAddress, NO_COLOR: "1" },
  });
  const lines: string[] = [];
  let notes = "";
  createInterface(child.stdout).on("line", (line) => lines.push(line));
  child.stderr.on("data", (chunk) => {
    notes += chunk;
  });
  const ended = once(child, "close").then(([code]) => code as number | null);
  const listens = eventually("it listens", () => notes.includes("listening to"));
  return {
    lines,
    ended,
    listens,
    notes: () => notes,
    interrupt: () => child.kill("SIGINT"),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}
