// What the breaker costs a call, processor time of this process: calls that work, calls to a backend that fails every one of 1,000 a
// second, and calls that fail now and then without opening it. The work is nothing at all, so that all that is seen is the breaker. The
// kinds take turns, so that a busy machine is busy for all. `npm run bench:breaker -- [--rounds N] [--calls N]`. Exits with 1 when a
// failing backend costs more than a working one, beyond its bound.
import { parseArgs } from "node:util";
import { type Breaker, createBreaker } from "../../data-plane/backends/breaker.ts";
import { createStallMeter } from "../../data-plane/backends/breaker-stalls.ts";
import { BackendError } from "../../data-plane/backends/errors.ts";
import { median, say } from "./measure.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "41" }, calls: { type: "string", default: "10000" } },
});
const [rounds, calls] = [Number(values.rounds), Number(values.calls)];
const ratioMax = 1.05;

// A clock of its own: each call is made 1 ms after the last, however fast this runs.
let nowMs = 1_000_000;
const stalls = createStallMeter({ nowMs: () => performance.now() });
const failure = new BackendError("unavailable", "not_executed", "nobody listens there");
const works = async (): Promise<void> => undefined;
const fails = (): Promise<void> => Promise.reject(failure);

interface Lane {
  readonly name: string;
  readonly breaker: Breaker;
  readonly work: (call: number) => Promise<void>;
  readonly microseconds: number[];
  made: number;
}

function lane(name: string, work: Lane["work"], failureThreshold = 5): Lane {
  const settings = { enabled: true, failureThreshold, openMs: 60_000 };
  const breaker = createBreaker({ settings, nowMs: () => nowMs, random: Math.random, stalls });
  return { name, breaker, work, microseconds: [], made: 0 };
}

const lanes = [
  lane("every call works", works),
  lane("every call fails", fails),
  lane("1 in 10 fails, it stays closed", (call) => (call % 10 === 0 ? fails() : works())),
  lane("2 in 5 fail, it stays closed", (call) => (call % 5 < 2 ? fails() : works())),
];

async function round({ breaker, work, microseconds }: Lane): Promise<{ shed: number }> {
  let shed = 0;
  const before = process.cpuUsage();
  for (let call = 0; call < calls; call++) {
    nowMs++;
    try {
      await breaker.run(30_000, () => work(call));
    } catch (error) {
      if ((error as BackendError).code === "shed") shed++;
    }
  }
  const { user, system } = process.cpuUsage(before);
  microseconds.push((user + system) / calls);
  return { shed };
}

for (const one of lanes) for (let warm = 0; warm < 5; warm++) await round(one);
for (const { microseconds } of lanes) microseconds.length = 0;
const shed = new Map<Lane, number>();
for (let turn = 0; turn < rounds; turn++) for (const one of lanes) shed.set(one, (await round(one)).shed);

const [working, failing] = lanes as [Lane, Lane];
for (const one of lanes) {
  const share = ((shed.get(one) ?? 0) / calls) * 100;
  say(`${one.name.padEnd(32)} ${median(one.microseconds).toFixed(2)} µs a call, ${share.toFixed(1)} % shed`);
}
const ratio = median(failing.microseconds.map((value, turn) => value / (working.microseconds[turn] as number)));
say(`a failing backend costs ${ratio.toFixed(2)} of a working one, at most ${ratioMax}; Node ${process.version}`);
if (ratio > ratioMax) process.exitCode = 1;
