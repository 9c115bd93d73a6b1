// What a push costs a control plane: `vmcp control-plane` in a process of its own, and this one as the other end of 500 streams, each
// on its own connection. `npm run bench:push -- [--streams N] [--rounds N]`. Exits with 1 when a bound is broken.
//
// The proxies here acknowledge without decoding, so that what is measured is the control plane. Its processor time is that of a
// whole change, from the request to the last Ack, less what the same change takes when nobody is connected: that is the push.
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { eventually } from "../support/eventually.ts";
import { startVmcp, temporaryDirectory } from "../support/processes.ts";
import { openAdmin, openProxyStream, type ResponseHead } from "../support/proxy-streams.ts";
import { cpuOf, median, say } from "./measure.ts";

const { values } = parseArgs({
  options: { streams: { type: "string", default: "500" }, rounds: { type: "string", default: "12" } },
});
const [streamCount, rounds] = [Number(values.streams), Number(values.rounds)];
const warmUps = 3;
const bounds = { deltaCpuMs: 80, deltaAckMs: 150, fullCpuMs: 400, rssMb: 200 };
const backendCount = 452; // with its virtual server and group: 200 KB

type Declared = MessageInitShape<typeof ResourceSchema>;

await using stack = new AsyncDisposableStack();
const directory = stack.use(await temporaryDirectory());
const flags = ["--listen", "127.0.0.1:0", "--data", `${directory.path}/vmcp.db`];
const plane = stack.use(await startVmcp(["control-plane", ...flags]));
const admin = stack.use(openAdmin(plane.adminAddress));

const shown = (numbers: readonly number[]): string =>
  `${median(numbers).toFixed(0)} ms (${numbers.map((one) => one.toFixed(0)).join(" ")})`;

function backend(at: number, revision: number): Declared {
  const name = `b${String(at).padStart(3, "0")}`;
  const url = `http://127.0.0.1:9/${"x".repeat(250)}/${revision}`;
  return { name: `groups/g/backends/${name}`, spec: { case: "backend", value: { name, url, transport: "streamable-http" } } };
}

async function declare(resources: readonly Declared[], validateOnly = false): Promise<string> {
  const { version } = await admin.applyResources(
    { resources: [...resources], validateOnly, reason: "bench" },
    { deadline: Date.now() + 30_000 },
  );
  return version;
}

const cpuMs = async (): Promise<number> => (await cpuOf(plane.pid)) / 1_000;

async function rssMb(): Promise<number> {
  const status = await readFile(`/proc/${plane.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}

interface Fleet extends Disposable {
  /** Resolves when all have answered a version; gives the kinds of what they got. */
  answered(version: string): Promise<ReadonlySet<ResponseHead["kind"]>>;
}

async function openFleet(name: string, features: readonly string[]): Promise<Fleet> {
  const streams = new DisposableStack();
  const counts = new Map<
    string,
    { count: number; readonly kinds: Set<ResponseHead["kind"]>; readonly all: PromiseWithResolvers<void> }
  >();
  const of = (version: string) => {
    const known = counts.get(version) ?? { count: 0, kinds: new Set(), all: Promise.withResolvers<void>() };
    counts.set(version, known);
    return known;
  };
  const onAnswered = ({ version, kind }: ResponseHead): void => {
    const one = of(version);
    one.count += 1;
    one.kinds.add(kind);
    if (one.count >= streamCount) one.all.resolve();
  };
  for (let at = 0; at < streamCount; at++) {
    streams.use(openProxyStream({ address: plane.adminAddress, id: `${name}-${at}`, features, onAnswered }));
    if (at % 25 === 24) await sleep(50); // a storm of new connections is not what is measured
  }
  await acknowledgedBy(streamCount);
  return {
    async answered(version) {
      const late = sleep(30_000, undefined, { ref: false }).then(() =>
        Promise.reject(new Error(`${of(version).count} answered ${version}`)),
      );
      await Promise.race([of(version).all.promise, late]);
      return of(version).kinds;
    },
    [Symbol.dispose]: () => streams.dispose(),
  };
}

interface Measured {
  readonly cpu: number[];
  /** From the push, at the control plane. */
  readonly lastAck: number[];
  /** From before the request was sent, at the proxies. */
  readonly seen: number[];
}

let revision = 0;

async function measure(fleet: Fleet, kind: ResponseHead["kind"]): Promise<Measured> {
  const measured: Measured = { cpu: [], lastAck: [], seen: [] };
  for (let round = -warmUps; round < rounds; round++) {
    await sleep(200);
    revision += 1;
    const [cpuBefore, startedMs] = [await cpuMs(), performance.now()];
    const kinds = await fleet.answered(await declare([backend(7, revision)]));
    const seenMs = performance.now() - startedMs;
    await sleep(100); // what the control plane does with the last answers is its work, too
    const cpu = (await cpuMs()) - cpuBefore;
    const { acknowledged, lastAckMillis } = await admin.getRollout({});
    if (acknowledged !== streamCount || [...kinds].join() !== kind) throw new Error(`${acknowledged} took ${[...kinds]}`);
    if (round < 0) continue;
    measured.cpu.push(cpu);
    measured.lastAck.push(lastAckMillis);
    measured.seen.push(seenMs);
  }
  return measured;
}

/** What a change takes when nobody is connected. */
async function alone(): Promise<number[]> {
  const used: number[] = [];
  for (let round = -warmUps; round < rounds; round++) {
    await sleep(200);
    const before = await cpuMs();
    await declare([backend(7, ++revision)]);
    await sleep(100);
    if (round >= 0) used.push((await cpuMs()) - before);
  }
  return used;
}

/** Asked now and then: an answer has a row for each proxy behind it. */
async function acknowledgedBy(count: number): Promise<void> {
  const isSo = async () => {
    await sleep(250);
    return (await admin.getRollout({})).acknowledged === count;
  };
  await eventually(`${count} have acknowledged`, isSo, 60_000);
}

await declare([
  { name: "groups/g", spec: { case: "group", value: {} } },
  ...Array.from({ length: backendCount }, (_, at) => backend(at, 0)),
]);
const served = {
  name: "dev",
  groupRef: "g",
  incomingAuth: { type: "anonymous" },
  outgoingAuth: { source: "inline", default: { type: "unauthenticated" } },
  aggregation: { conflictResolution: "prefix", conflictResolutionConfig: { prefixFormat: "{workload}_" } },
};
await declare([{ name: "virtualServers/dev", spec: { case: "virtualServer", value: served } }]);
const changes = await alone();
const rssAlone = await rssMb();
const fleet = await openFleet("delta", ["delta", "parts"]);
const rssIdle = await rssMb();
const delta = await measure(fleet, "delta");
const rss = await rssMb();
fleet[Symbol.dispose]();
await acknowledgedBy(0);
using whole = await openFleet("whole", []);
const full = await measure(whole, "snapshot");
const rssAfter = await rssMb();

say(`${streamCount} streams, ${backendCount + 1} resources; medians of ${rounds}`);
const [pushCpu, fullCpu] = [delta, full].map(({ cpu }) => median(cpu) - median(changes)) as [number, number];
say(`a change with nobody connected: processor ${shown(changes)}`);
say(`one changed resource to all: processor ${pushCpu.toFixed(0)} ms more; together ${shown(delta.cpu)}`);
say(`  last Ack after the push ${shown(delta.lastAck)}; after the request was sent, with 50 ms of quiet, ${shown(delta.seen)}`);
say(
  `everything to all: processor ${fullCpu.toFixed(0)} ms more; together ${shown(full.cpu)}; last Ack after the push ${shown(full.lastAck)}`,
);
say(
  `memory: ${rssAlone.toFixed(0)} MB with nobody connected, ${rssIdle.toFixed(0)} MB with all connected, ${rss.toFixed(0)} MB after the changes, ${rssAfter.toFixed(0)} MB after everything to all`,
);
const broken = [
  pushCpu > bounds.deltaCpuMs && `processor ${pushCpu.toFixed(0)} ms, ${bounds.deltaCpuMs} at most`,
  median(delta.lastAck) > bounds.deltaAckMs && `last Ack ${median(delta.lastAck).toFixed(0)} ms, ${bounds.deltaAckMs} at most`,
  median(full.cpu) > bounds.fullCpuMs &&
    `processor for everything ${median(full.cpu).toFixed(0)} ms, ${bounds.fullCpuMs} at most`,
  rssIdle > bounds.rssMb && `memory ${rssIdle.toFixed(0)} MB with all connected, ${bounds.rssMb} at most`,
].filter((line) => line !== false);
for (const line of broken) say(`broken: ${line}`);
if (broken.length > 0) process.exitCode = 1;
