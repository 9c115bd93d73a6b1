// What the callers of one backend notice of trouble beside them: another backend that is ill, and thousands of clients that get on
// slowly. Calm and trouble take turns; what counts is the 99th percentile beside trouble, as part of that in the calm just before.
// `npm run bench:neighbours -- [--rounds N] [--seconds N]`. Exits with 1 when a bound is broken.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { mcpHeaders, openRawSession } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { runProcess, startProcess } from "../support/processes.ts";
import { type Served, serve } from "../support/serve.ts";
import { allIllnesses } from "./ill-backend.ts";
import { median, say } from "./measure.ts";
import type { GroupReport, LoadGroup, LoadPlan } from "./overload-load.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "4" } },
});
const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
const slowSockets = 5_000;
const script = (name: string): string => join(import.meta.dirname, name);

async function load(vmcp: Served, tool: string, more: { rate: number; connections: number }): Promise<GroupReport> {
  const session = await openRawSession(vmcp.url);
  const headers = { ...mcpHeaders, "mcp-session-id": session.id, "mcp-protocol-version": "2025-11-25" };
  const caller = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const body = `{"jsonrpc":"2.0","id":"@id","method":"tools/call","params":{"name":"${tool}","arguments":{}}}`;
  const group: LoadGroup = { name: tool, callers: [caller.join("")], body, ...more };
  const plan: LoadPlan = { port: Number(new URL(vmcp.url).port), seconds, group, startsAtMs: Date.now() + 300 };
  const { code, stdout, stderr } = await runProcess(process.execPath, [script("overload-load.ts"), JSON.stringify(plan)]);
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as GroupReport;
}

/** Takes turns; gives the ratios of the rounds. */
async function compare(what: string, vmcp: Served, trouble: () => Promise<unknown>, most: number): Promise<void> {
  const good = () => load(vmcp, "good_hello", { rate: 400, connections: 40 });
  await good(); // warm
  const ratios: number[] = [];
  const p99s: string[] = [];
  for (let round = 0; round < rounds; round++) {
    const calm = await good();
    const troubled = trouble();
    const beside = await good();
    await troubled;
    if (calm.failed + beside.failed + beside.status429 + beside.status503 > 0) throw new Error(JSON.stringify({ calm, beside }));
    ratios.push(beside.okMs.p99 / calm.okMs.p99);
    p99s.push(`${calm.okMs.p99.toFixed(1)}→${beside.okMs.p99.toFixed(1)}`);
  }
  const ratio = median(ratios);
  const isGood = ratio <= most;
  say(`${isGood ? "good" : "BAD "} ${what.padEnd(34)} p99 × ${ratio.toFixed(2)}, at most ${most}   (ms: ${p99s.join(" ")})`);
  if (!isGood) process.exitCode = 1;
}

await using good = await startBackend({ tools: [plainTool("hello")], calls: { hello: () => textResult("hello") } });
const operational = { timeouts: { default: "2s" } };

for (const illness of allIllnesses) {
  await using ill = startProcess(process.execPath, [script("ill-backend.ts"), illness]);
  await eventually("it listens", async () => ill.stdout().includes("\n"));
  const backends = [httpBackend("good", good.url), httpBackend("ill", `http://127.0.0.1:${ill.stdout().trim()}/mcp`)];
  await using vmcp = await serve({ backends, operational });
  const session = await openRawSession(vmcp.url);
  await eventually("both are listed", async () => /ill_hello/.test(await session.result("tools/list")));
  await compare(`beside one that ${illness}`, vmcp, () => load(vmcp, "ill_hello", { rate: 40, connections: 40 }), 1.2);
}

await using vmcp = await serve({ backends: [httpBackend("good", good.url)] });
const port = new URL(vmcp.url).port;
const slow = async (): Promise<void> => {
  const child = startProcess(process.execPath, [script("../support/slow-sockets.ts"), port, `${slowSockets}`]);
  await child.ended;
};
// They are hung up on after 10 s and 30 s, and are all there for the seconds that count.
await compare(`beside ${slowSockets} slow clients`, vmcp, slow, 2);
