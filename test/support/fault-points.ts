// Makes code fail at one place after another: sources are loaded with a named point before each `await` and at the beginning of each
// function, and a test says which of them throws. Only what runs for an HTTP request is made to fail.
import { AsyncLocalStorage } from "node:async_hooks";
import { Server } from "node:http";
import { registerHooks, stripTypeScriptTypes } from "node:module";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { type Node, parse } from "acorn";
import { full } from "acorn-walk";

export interface FaultPoints {
  /** Points that requests came to since `watch`, in the order in which they first did. */
  readonly reached: ReadonlySet<string>;
  /** Forgets what was reached; from now on requests that come to this point fail there. */
  watch(failing?: string): void;
  /** How often it was made to fail since `watch`. */
  readonly failures: number;
}

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Instruments files that are loaded from now on, by their path from the project's top: call it before they are imported. */
export function plantFaultPoints(isWanted: (path: string) => boolean): FaultPoints {
  const requests = new AsyncLocalStorage<true>();
  const reached = new Set<string>();
  let failing: string | undefined;
  let failures = 0;

  Object.assign(globalThis, {
    vmcpFaultPoint(point: string): void {
      if (!requests.getStore()) return;
      reached.add(point);
      if (point !== failing) return;
      failures++;
      throw new Error(`made to fail at ${point}`);
    },
  });

  const { emit } = Server.prototype;
  Server.prototype.emit = function (this: Server, ...event: unknown[]) {
    const pass = () => emit.apply(this, event as Parameters<typeof emit>);
    return event[0] === "request" ? requests.run(true, pass) : pass();
  } as typeof emit;

  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context);
      const path = url.startsWith("file:") ? relative(root, fileURLToPath(url)) : "";
      if (!path.endsWith(".ts") || !isWanted(path)) return loaded;
      const source = instrument(stripTypeScriptTypes(String(loaded.source)), path);
      return { ...loaded, format: "module", source };
    },
  });

  return {
    reached,
    watch(next) {
      reached.clear();
      failing = next;
      failures = 0;
    },
    get failures() {
      return failures;
    },
  };
}

/** The source with its points; lines stay the lines they are. */
function instrument(source: string, path: string): string {
  const inserted: { at: number; text: string; isEnd: boolean }[] = [];
  const wrap = ({ start, end }: Node, call: string): void => {
    inserted.push({ at: start, text: `(${call}, `, isEnd: false }, { at: end, text: ")", isEnd: true });
  };
  const tree = parse(source, { ecmaVersion: "latest", sourceType: "module" });
  full(tree, (node) => {
    const place = source.slice(0, node.start).split("\n");
    const call = `globalThis.vmcpFaultPoint("${path}:${place.length}:${place.at(-1)?.length} ${node.type}")`;
    if (node.type === "AwaitExpression") wrap(node, call);
    const body = /Function/.test(node.type) ? (node as { body?: Node }).body : undefined;
    if (body?.type === "BlockStatement") inserted.push({ at: body.start + 1, text: `${call};`, isEnd: false });
    else if (body) wrap(body, call);
  });
  // From the back, so that places stay what they are; of two at one place the end of the inner comes before the beginning.
  inserted.sort((a, b) => b.at - a.at || Number(a.isEnd) - Number(b.isEnd));
  let text = source;
  for (const { at, text: added } of inserted) text = text.slice(0, at) + added + text.slice(at);
  return text;
}
