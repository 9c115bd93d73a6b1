// Documents for programs. Apart from `output.ts`, which help needs too: YAML takes time to load.
import { stringify } from "yaml";
import { json } from "./output.ts";

export function structured(format: "json" | "yaml", value: unknown): string {
  return format === "json" ? json(value) : stringify(value, { lineWidth: 0 });
}
