// Which definition of each tool is approved. The first that is seen is (trust on first use); from then on only an operator approves
// another. A tool that is gone keeps its pin, so that it can't come back as something else unnoticed.
import { toolHash } from "../../common/tool-hash.ts";

/** A tool as it is listed. */
export interface Tool {
  readonly name: string;
  /** In hex. */
  readonly hash: string;
  /** Its JSON as the backend sent it: a part of the listing. */
  readonly json: Uint8Array;
}

export interface Pin {
  readonly tool: string;
  /** Hash of what is approved, in hex. */
  readonly approved: string;
  /** Since when something else is listed, milliseconds since 1970; undefined while what is approved is. */
  readonly changedMs?: number | undefined;
  /** The approved definition as it was last listed, once something else is. */
  readonly definition?: string | undefined;
}

export interface Followed {
  /** Sorted by tool. */
  readonly pins: readonly Pin[];
  /** Approved because nobody had seen them before. */
  readonly firstSeen: readonly string[];
  /** Not what is approved since now. */
  readonly changed: readonly string[];
}

// A backend that lists other names all the time must not make us forget one. Those beyond are never approved by themselves.
const pinsMax = 10_000;

/** Of the JSON of a tool; undefined when it is none. */
export function readTool(json: Uint8Array): Tool | undefined {
  try {
    const text = textOf({ json });
    const { name } = JSON.parse(text) as { name?: unknown };
    return typeof name === "string" ? { name, json, hash: Buffer.from(toolHash(text)).toString("hex") } : undefined;
  } catch {
    return undefined;
  }
}

export function textOf({ json }: Pick<Tool, "json">): string {
  return Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString();
}

/** What becomes of pins when a backend lists `tools` after it listed `before`. */
export function followTools(
  pins: readonly Pin[],
  { before, tools, nowMs }: { readonly before: readonly Tool[]; readonly tools: readonly Tool[]; readonly nowMs: number },
): Followed {
  const next = new Map(pins.map((pin) => [pin.tool, pin]));
  const old = new Map(before.map((tool) => [tool.name, tool]));
  const firstSeen: string[] = [];
  const changed: string[] = [];
  for (const { name, hash } of tools) {
    const pin = next.get(name);
    if (!pin) {
      if (next.size >= pinsMax) continue;
      next.set(name, { tool: name, approved: hash });
      firstSeen.push(name);
    } else if (pin.approved === hash) next.set(name, { tool: name, approved: hash });
    else {
      const last = old.get(name);
      const definition = last?.hash === pin.approved ? textOf(last) : pin.definition;
      if (pin.changedMs === undefined) changed.push(name);
      next.set(name, { ...pin, changedMs: pin.changedMs ?? nowMs, definition });
    }
  }
  return { pins: sorted(next), firstSeen, changed };
}

/** Approves definitions, by tool and hash. */
export function approve(pins: readonly Pin[], approved: ReadonlyMap<string, string>): readonly Pin[] {
  const next = new Map(pins.map((pin) => [pin.tool, pin]));
  for (const [tool, hash] of approved) next.set(tool, { tool, approved: hash });
  return sorted(next);
}

function sorted(pins: ReadonlyMap<string, Pin>): Pin[] {
  return [...pins.values()].sort((a, b) => (a.tool < b.tool ? -1 : 1));
}
