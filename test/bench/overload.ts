// What becomes of calls when there are too many: goodput and latency at three and ten times what the gateway can do, how soon all is
// well again, and what others notice of one identity that wants two hundred times its share. The load is a process of its own, and so
// is the gateway; the backend is this one. `npm run bench:overload -- [--seconds N]`. Exits with 1 when a bound is broken.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { mcpHeaders, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { startIssuer } from "../support/issuer.ts";
import { runProcess } from "../support/processes.ts";
import { serve } from "../support/serve.ts";
import { bound, cpuOf, say } from "./measure.ts";
import type { GroupReport, LoadGroup, LoadPlan } from "./overload-load.ts";

const { values } = parseArgs({ options: { seconds: { type: "string", default: "6" } } });
const seconds = Number(values.seconds);
const audience = "https://vmcp.example";
const callersCount = 20;

await using stack = new AsyncDisposableStack();
const backend = stack.use(await startBackend({ tools: [plainTool("echo")], calls: { echo: () => textResult("hello") } }));
const issuer = stack.use(await startIssuer());
const vmcp = stack.use(
  await serve({
    backends: [httpBackend("one", backend.url)],
    incomingAuth: { type: "oidc", oidc: { issuer: issuer.issuer, audience, insecureAllowHttp: true } },
  }),
);
const port = Number(new URL(vmcp.url).port);
const body = JSON.stringify({
  jsonrpc: "2.0",
  id: "@id",
  method: "tools/call",
  params: { name: "one_echo", arguments: { text: "x".repeat(200) } },
});

/** The header lines of a caller with a session. */
async function callerOf(sub: string): Promise<string> {
  const token = await issuer.token({ sub, audience, expiresInSeconds: 3_600 });
  const headers = { ...mcpHeaders, authorization: `Bearer ${token}` };
  const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "bench", version: "1" } };
  const initialize = JSON.stringify({ jsonrpc: "2.0", id: 0, method: "initialize", params });
  const answer = await fetch(vmcp.url, { method: "POST", headers, body: initialize });
  if (answer.status !== 200) throw new Error(`initialize was answered ${answer.status} ${await answer.text()}`);
  await answer.text();
  const session = { "mcp-session-id": `${answer.headers.get("mcp-session-id")}`, "mcp-protocol-version": "2025-11-25" };
  return Object.entries({ ...headers, ...session })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
}

type LoadReport = Readonly<Record<string, GroupReport>>;

/** A process for each group, so that none is late because of another. */
async function run(groups: readonly LoadGroup[], forSeconds = seconds): Promise<LoadReport> {
  const startsAtMs = Date.now() + 1_000;
  const reports = await Promise.all(
    groups.map(async (group) => {
      const plan: LoadPlan = { port, seconds: forSeconds, group, startsAtMs };
      const script = join(import.meta.dirname, "overload-load.ts");
      // A load without patience yields to those that measure: elsewhere it would have processors of its own.
      const nice = group.isPatient || group.rate === 0 ? "0" : "10";
      const { code, stdout, stderr } = await runProcess("nice", ["-n", nice, process.execPath, script, JSON.stringify(plan)]);
      if (code !== 0) throw new Error(stderr);
      return [group.name, JSON.parse(stdout) as GroupReport] as const;
    }),
  );
  return Object.fromEntries(reports);
}

async function limits(): Promise<string> {
  const { pressure, limits: all } = (await (await fetch(`${vmcp.address}/status`)).json()) as {
    pressure: number;
    limits: { name: string; used: number; limit: number; refused: number }[];
  };
  const shown = all.filter(({ name }) => name.startsWith("in_flight")).map((one) => `${one.name} ${one.used}/${one.limit}`);
  return `${shown.join(", ")}; pressure level ${pressure}`;
}

const ms = (value: number): string => `${value.toFixed(1)} ms`;

function summary(name: string, report: GroupReport, forSeconds = seconds): void {
  const { ok, status429, status503, failed, unsent, okMs, shedMs, firstShedMs } = report;
  say(
    `${name}: ${(ok / forSeconds).toFixed(0)} answered a second, p50 ${ms(okMs.p50)}, p99 ${ms(okMs.p99)}; ` +
      `${status429} × 429, ${status503} × 503, p50 ${ms(shedMs.p50)}, p99 ${ms(shedMs.p99)} (first second ${ms(firstShedMs.p99)}); ${failed} failed, ${unsent} unsent`,
  );
}

const only = (report: LoadReport): GroupReport => Object.values(report)[0] as GroupReport;
const callers = await Promise.all(Array.from({ length: callersCount }, (_, i) => callerOf(`user-${i}`)));
const group = { name: "all", callers, body, connections: 32, rate: 0 };

await run([group], 3); // warm
const before = await cpuOf(vmcp.pid);
const closed = only(await run([group]));
const cpuPerCall = ((await cpuOf(vmcp.pid)) - before) / closed.ok;
const peak = closed.ok / seconds;
summary("as fast as 32 connections go (peak)", closed);
say(`  ${cpuPerCall.toFixed(0)} µs of processor a call; ${await limits()}`);
const most = only(await run([{ ...group, connections: 400, rate: peak * 0.8, isPatient: true }]));
summary("80 % of it", most);

// Most of the load does not wait as it is told; those who do are whom it is about.
const patient = { ...group, name: "patient", connections: 200, rate: peak * 0.2, isPatient: true };
for (const [times, goodput] of [
  [3, 0.85],
  [10, 0.7],
] as const) {
  const reports = await run([patient, { ...group, name: "impatient", connections: 1_000, rate: peak * (times - 0.2) }]);
  const [waiting, pushing] = [reports.patient as GroupReport, reports.impatient as GroupReport];
  summary(`${times} × the peak, who waits as told`, waiting);
  summary(`${times} × the peak, who does not`, pushing);
  say(`  ${await limits()}`);
  const ok = waiting.ok + pushing.ok;
  bound("goodput, of the peak", ok / seconds / peak, { atLeast: goodput });
  if (times === 3) bound("p99 of what was let in", waiting.okMs.p99, { atMost: 2 * most.okMs.p99 }, " ms");
  bound("p99 of what was shed", waiting.shedMs.p99, { atMost: 10 }, " ms");
}

// One that has no memory left refuses every new session, and does nothing else.
const refusing = stack.use(await serve({ backends: [httpBackend("one", backend.url)] }, ["--memory-limit", "64MB"]));
const initialize = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "bench", version: "1" } };
const refused = {
  ...{ method: "POST", headers: mcpHeaders },
  body: JSON.stringify({ jsonrpc: "2.0", id: 0, method: "initialize", params: initialize }),
};
await eventually("it refuses", async () => (await send(refusing.url, refused)).status === 503);
const refusedCount = 3_000;
let cpuBefore = 0;
for (let i = -500; i < refusedCount; i++) {
  if (i === 0) cpuBefore = await cpuOf(refusing.pid);
  const { status } = await send(refusing.url, refused);
  if (status !== 503) throw new Error(`answered ${status}`);
}
bound("processor for a refusal", ((await cpuOf(refusing.pid)) - cpuBefore) / refusedCount / 1_000, { atMost: 0.3 }, " ms");

const quiet = { ...group, name: "quiet", connections: 100, rate: peak * 0.4 };
const storm = await run([quiet, { ...group, name: "storm", connections: 1_000, rate: peak * 10, to: 4 }], 12);
const lastBad = (storm.quiet as GroupReport).badByQuarter.findLastIndex((count) => count > 0);
bound("all well again after", Math.max(0, (lastBad + 1) / 4 - 4), { atMost: 5 }, " s");

const fair = { ...group, name: "others", callers: callers.slice(1), connections: 190, isPatient: true, rate: peak * 0.3 };
const alone = (await run([fair])).others as GroupReport;
summary("others alone", alone);
const share = fair.rate / (callersCount - 1);
const flood = { ...group, name: "flood", callers: callers.slice(0, 1), connections: 400, rate: share * 200 };
const together = await run([fair, flood]);
const [others, flooding] = [together.others as GroupReport, together.flood as GroupReport];
summary("others beside a flood", others);
summary("the flood", flooding);
say(`  ${await limits()}`);
const asked = others.ok + others.status429 + others.status503 + others.failed;
bound("others' success", others.ok / asked, { atLeast: 0.999 });
bound("p99 of the others", others.okMs.p99, { atMost: 1.5 * alone.okMs.p99 }, " ms");
