// Metrics as Prometheus reads them. Source: Prometheus, text-based exposition format 0.0.4.
import { type CallCounts, durationBounds } from "./call-meter.ts";

export const expositionType = "text/plain; version=0.0.4; charset=utf-8";

type Labels = Readonly<Record<string, string>>;

/** Collects what is exposed; families come in the order in which they were first named. */
export interface Exposition {
  counter(name: string, help: string, value: number, labels?: Labels): void;
  gauge(name: string, help: string, value: number, labels?: Labels): void;
  histogram(name: string, help: string, counts: CallCounts, labels?: Labels): void;
  text(): string;
}

export function createExposition(): Exposition {
  const families = new Map<string, string[]>();

  function family(name: string, help: string, type: string): string[] {
    const lines = families.get(name) ?? [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`];
    families.set(name, lines);
    return lines;
  }

  return {
    counter: (name, help, value, labels) => void family(name, help, "counter").push(sample(name, value, labels)),
    gauge: (name, help, value, labels) => void family(name, help, "gauge").push(sample(name, value, labels)),
    histogram(name, help, { durations, seconds }, labels = {}) {
      const lines = family(name, help, "histogram");
      let count = 0;
      for (const [i, inBucket] of durations.entries()) {
        count += inBucket;
        lines.push(sample(`${name}_bucket`, count, { ...labels, le: `${durationBounds[i] ?? "+Inf"}` }));
      }
      lines.push(sample(`${name}_sum`, seconds, labels), sample(`${name}_count`, count, labels));
    },
    text: () => [...families.values()].map((lines) => `${lines.join("\n")}\n`).join(""),
  };
}

function sample(name: string, value: number, labels: Labels = {}): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${text.replace(/[\\"\n]/g, escaped)}"`);
  return `${name}${pairs.length > 0 ? `{${pairs.join(",")}}` : ""} ${Number.isFinite(value) ? value : value > 0 ? "+Inf" : "NaN"}`;
}

const escaped = (character: string): string => (character === "\n" ? "\\n" : `\\${character}`);
