// What idle sessions cost that listen: opens 5,000 on one proxy, each with its GET stream, and prints memory. `npm run bench:streams --
// [--sessions N] [--called]`; with --called each has called a tool before, so that the proxy keeps a session with the server, and follows what
// that says. Exits with 1 when a bound is broken.
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { inspected, lookInside } from "../support/inside.ts";
import { startMesh } from "../support/mesh.ts";
import { startVmcp } from "../support/processes.ts";
import { bound, say } from "./measure.ts";

const { values } = parseArgs({
  options: { sessions: { type: "string", default: "5000" }, called: { type: "boolean", default: false } },
});
const count = Number(values.sessions);
const atOnce = 32;
const bytesMax = (values.called ? 48 : 40) * 1024;
const quietMs = 5_000;

await using stack = new AsyncDisposableStack();
const backend = stack.use(
  await startBackend({ tools: [plainTool("echo")], calls: { echo: () => textResult("hello") }, isForgetful: true }),
);
const mesh = stack.use(await startMesh(0));
await mesh.apply([virtualServer("team", { backends: [httpBackend("b", backend.url)] })], "--no-wait");
const flags = ["--control-plane", mesh.controlPlane.adminAddress, "--port", "0", "--drain-delay", "0s", "--drain-timeout", "1s"];
const proxy = stack.use(await startVmcp(["proxy", ...flags], { env: inspected }));
const url = new URL(`${proxy.address}/team/mcp`);
using inside = await lookInside(proxy);
const streams: Socket[] = [];
stack.defer(() => {
  for (const stream of streams) stream.destroy();
});

/** A session with its stream, on a socket of its own and nothing more: this process has to hold them all, too. */
async function openOne(): Promise<void> {
  const session = await openRawSession(url.href);
  if (values.called) await session.result("tools/call", `{"name":"b_echo"}`);
  const socket = connect(Number(url.port), url.hostname);
  streams.push(socket);
  socket.write(
    `GET ${url.pathname} HTTP/1.1\r\nhost: ${url.host}\r\naccept: text/event-stream\r\n` +
      `mcp-session-id: ${session.id}\r\nmcp-protocol-version: 2025-11-25\r\n\r\n`,
  );
  const [head] = (await once(socket, "data")) as [Buffer];
  if (!head.toString("latin1").startsWith("HTTP/1.1 200")) throw new Error(`no stream: ${head}`);
  socket.resume();
}

async function openMany(many: number): Promise<void> {
  let left = many;
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (left-- > 0) await openOne();
    }),
  );
}

await eventually("the tool is listed", async () =>
  (await (await openRawSession(url.href)).result("tools/list")).includes("b_echo"),
);
await openMany(count / 10); // pools, code, caches
await sleep(quietMs);
const before = await inside.memory();
const startedMs = performance.now();
await openMany(count);
say(
  `${count} sessions ${values.called ? "that called, " : ""}with streams, opened in ${((performance.now() - startedMs) / 1_000).toFixed(1)} s`,
);
await sleep(quietMs);
const after = await inside.memory();
const each = (key: keyof typeof before): number => (after[key] - before[key]) / count;
say(
  `heap: ${Math.round(each("heapBytes"))} bytes each; resident: ${Math.round(each("residentBytes"))} bytes each, ${Math.round(after.residentBytes / 1024 / 1024)} MB in all`,
);
say(`sessions at the server: ${backend.sessions().length}`);
bound("resident memory of a session and its stream", each("residentBytes") / 1024, { atMost: bytesMax / 1024 }, " KB");
