// How near the process is to what it can bear, and what it therefore leaves undone. Memory counts at once; what comes in peaks (a late
// loop, calls, queues) counts once it lasts for a second. Levels and period are those of Envoy's overload manager.
import type { Log } from "../../common/log.ts";

/** What is left undone; each level includes those before it. */
export type PressureLevel = 0 | 1 | 2 | 3 | 4;
export const pressureLevels = {
  /** No new streams, and backends' lists are not refreshed. */
  streams: 1,
  /** No new sessions. */
  sessions: 2,
  /** Only who is known is served, and the largest queues of streams are cut. */
  strangers: 3,
  /** Hardly any new connection. */
  connections: 4,
} as const satisfies Record<string, PressureLevel>;

/** Parts of what there is; 1 is all of it. */
export interface Readings {
  readonly memory: number;
  readonly loopDelay: number;
  readonly inFlight: number;
  readonly streamQueues: number;
}

export interface Pressure {
  /** Takes the readings of now; to be called every `sampleMs`. */
  sample(): void;
  readonly level: PressureLevel;
  readonly value: number;
}

export interface PressureOptions {
  readonly read: () => Readings;
  readonly log: Log;
  /** Called with every sample. */
  readonly onSample?: (level: PressureLevel) => void;
}

export const sampleMs = 250;
const enterAt = [0, 0.8, 0.85, 0.92, 0.97] as const;
// A level is left only well below where it begins.
const hysteresis = 0.05;
const samplesKept = 4;
// Calls have an admission of their own, which refuses better than this could. Full places close only what lasts: streams.
const inFlightMost = 0.84;

export function createPressure({ read, log, onSample }: PressureOptions): Pressure {
  const recent: Record<Exclude<keyof Readings, "memory">, number[]> = { loopDelay: [], inFlight: [], streamQueues: [] };
  let level: PressureLevel = 0;
  let value = 0;

  function lasting(name: keyof typeof recent, reading: number): number {
    const samples = recent[name];
    samples.push(Math.min(1, reading)); // a single stop of the process, however long, is one bad sample
    if (samples.length > samplesKept) samples.shift();
    return samples.reduce((sum, one) => sum + one, 0) / samplesKept;
  }

  return {
    sample() {
      const readings = read();
      const parts: Record<keyof Readings, number> = {
        memory: readings.memory,
        loopDelay: lasting("loopDelay", readings.loopDelay),
        inFlight: Math.min(inFlightMost, lasting("inFlight", readings.inFlight)),
        streamQueues: lasting("streamQueues", readings.streamQueues),
      };
      const [cause, most] = Object.entries(parts).reduce((a, b) => (b[1] > a[1] ? b : a));
      value = most;
      const next = levelOf(value, level);
      if (next !== level) {
        const fields = { event: "overload.pressure", level: next, before: level, cause, pressure: Number(value.toFixed(2)) };
        if (next > level) log.warn(fields, "the pressure on this process is higher: less is taken on");
        else log.info(fields, "the pressure on this process is lower");
        level = next;
      }
      onSample?.(level);
    },
    get level() {
      return level;
    },
    get value() {
      return value;
    },
  };
}

function levelOf(value: number, level: PressureLevel): PressureLevel {
  let next = level;
  while (next < 4 && value >= (enterAt[next + 1] as number)) next++;
  while (next > 0 && value < (enterAt[next] as number) - hysteresis) next--;
  return next as PressureLevel;
}
