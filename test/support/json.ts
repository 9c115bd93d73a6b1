// JSON for tests that care about what was written: the sources of numbers survive. Independent of the product's own scanner.

/** A JSON-RPC message with the raw text of its id. */
export interface RpcMessage {
  /** Raw JSON text. */
  readonly id: string | undefined;
  readonly method: string | undefined;
  readonly params: Record<string, unknown>;
}

/** Reads one message; undefined when the text is none. */
export function readRpc(text: string): RpcMessage | undefined {
  let id: { holder: unknown; source: string } | undefined;
  const ids: { holder: unknown; source: string }[] = [];
  try {
    const message: unknown = parse(text, function (key, value, { source }) {
      if (key === "id" && source !== undefined) ids.push({ holder: this, source });
      return value;
    });
    if (typeof message !== "object" || message === null) return undefined;
    id = ids.findLast(({ holder }) => holder === message);
    const { method, params } = message as { method?: string; params?: Record<string, unknown> };
    return { id: id?.source, method, params: params ?? {} };
  } catch {
    return undefined;
  }
}

/** The value with every number as the text it was written with, so that 2^53+1, 1.0 and 1e400 stay apart in `deepEqual`. */
export function parseExactly(text: string): unknown {
  return parse(text, (_key, value, { source }) => (typeof value === "number" ? { number: source } : value));
}

// The third argument is in every supported Node and not yet in the type library.
type Reviver = (this: unknown, key: string, value: unknown, context: { source?: string }) => unknown;
const parse = JSON.parse as (text: string, reviver: Reviver) => unknown;
