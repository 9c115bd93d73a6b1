// Metrics as Prometheus reads them. Source: Prometheus, text-based exposition format 0.0.4.
import { type CallCounts, durationBounds } from "./call-meter.ts";

export const expositionType = "text/plain; version=0.0.4; charset=utf-8";

type Labels = Readonly<Record<string, string>>;

/** What processes that are one proxy say together: the sum of what each says, or the most that one says. */
type Together = "sum" | "most";

/** A metric with its samples: plain data, that one process can hand to another. */
export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly together: Together;
  /** Name with labels, as it is written → value. */
  readonly samples: Map<string, number>;
}

/** Collects what is exposed; families come in the order in which they were first named. */
export interface Exposition {
  counter(name: string, help: string, value: number, labels?: Labels): void;
  gauge(name: string, help: string, value: number, labels?: Labels, together?: Together): void;
  histogram(name: string, help: string, counts: CallCounts, labels?: Labels): void;
  families(): readonly Family[];
}

export function createExposition(): Exposition {
  const families = new Map<string, Family>();

  function samplesOf(name: string, help: string, type: Family["type"], together: Together = "sum"): Family["samples"] {
    const family = families.get(name) ?? { name, help, type, together, samples: new Map() };
    families.set(name, family);
    return family.samples;
  }

  return {
    counter: (name, help, value, labels) => void samplesOf(name, help, "counter").set(series(name, labels), value),
    gauge: (name, help, value, labels, together) =>
      void samplesOf(name, help, "gauge", together).set(series(name, labels), value),
    histogram(name, help, { durations, seconds }, labels = {}) {
      const samples = samplesOf(name, help, "histogram");
      let count = 0;
      for (const [i, inBucket] of durations.entries()) {
        count += inBucket;
        samples.set(series(`${name}_bucket`, { ...labels, le: `${durationBounds[i] ?? "+Inf"}` }), count);
      }
      samples.set(series(`${name}_sum`, labels), seconds).set(series(`${name}_count`, labels), count);
    },
    families: () => [...families.values()],
  };
}

/** What several processes expose, as one. */
export function together(all: readonly (readonly Family[])[]): readonly Family[] {
  const families = new Map<string, Family>();
  for (const family of all.flat()) {
    const whole = families.get(family.name) ?? { ...family, samples: new Map<string, number>() };
    families.set(family.name, whole);
    const { samples } = whole;
    for (const [name, value] of family.samples) {
      const before = samples.get(name) ?? 0;
      samples.set(name, family.together === "sum" ? before + value : Math.max(before, value));
    }
  }
  return [...families.values()];
}

/** The page. */
export function textOf(families: readonly Family[]): string {
  return families
    .map(({ name, help, type, samples }) => {
      const lines = [...samples].map(([one, value]) => `${one} ${numberOf(value)}\n`);
      return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
    })
    .join("");
}

function series(name: string, labels: Labels = {}): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${text.replace(/[\\"\n]/g, escaped)}"`);
  return `${name}${pairs.length > 0 ? `{${pairs.join(",")}}` : ""}`;
}

function numberOf(value: number): string {
  return Number.isFinite(value) ? `${value}` : value > 0 ? "+Inf" : "NaN";
}

const escaped = (character: string): string => (character === "\n" ? "\\n" : `\\${character}`);
