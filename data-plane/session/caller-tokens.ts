// What callers carry for us from one request to the next: cursors, the state of calls that wait for input, ids of tasks. Each is
// worth something only to the caller who got it, on the virtual server that gave it, whichever replica it comes back to.
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { Identity } from "../incoming-auth/identity.ts";
import { createSealer, type Key, type Keys, payloadBytesMax } from "../mcp/seal.ts";

/** Whom a token is bound to. */
export interface Caller {
  readonly virtualServer: string;
  readonly identity: Identity;
}

/** The call that a state belongs to; it is void for any other. */
export interface BoundCall {
  readonly method: string;
  readonly params: Readonly<Record<string, unknown>>;
}

/** Where a call goes on that needed input. */
export type CallState =
  /** A replica holds it, with the backend waiting. */
  | { readonly kind: "parked"; readonly owner: string; readonly instance: string; readonly job: string; readonly round: number }
  /** The backend holds nothing; this is what it wants back, as JSON text. */
  | { readonly kind: "relayed"; readonly backend: string; readonly state: string };

export interface TaskRoute {
  readonly backend: string;
  readonly taskId: string;
}

export interface CallerTokens {
  sealCursor(caller: Caller, cursor: string): string;
  openCursor(caller: Caller, token: string): string | undefined;
  /** Undefined when the state is too large to travel. */
  sealState(caller: Caller, call: BoundCall, state: CallState): string | undefined;
  /** Undefined when it is not ours, not this caller's, not of this very call, or older than an hour; not told apart. */
  openState(caller: Caller, call: BoundCall, token: string): CallState | undefined;
  /** Undefined when the id is too long. */
  sealTask(caller: Caller, route: TaskRoute): string | undefined;
  openTask(caller: Caller, token: string): TaskRoute | undefined;
}

const stateBytesMax = 192 * 1024;
const stateMs = 60 * 60_000;

/** `keys`: the same on every replica. */
export function createCallerTokens(keys: Keys): CallerTokens {
  const states = createSealer(keys, "request-state", stateBytesMax);
  const tasks = createSealer(keys, "task-id");

  // Not sealed like the rest: what a cursor says is no secret, and the same page has the same cursor for the same caller.
  function sealCursor(caller: Caller, cursor: string, key: Key): string {
    const mac = createHmac("sha256", key.derive("list-cursor"))
      .update(JSON.stringify([bound(caller), cursor]))
      .digest("base64url");
    return `${cursor}.${key.id}${mac.slice(0, 22)}`;
  }

  return {
    sealCursor: (caller, cursor) => sealCursor(caller, cursor, keys.active),
    openCursor(caller, token) {
      const dot = Math.max(0, token.lastIndexOf("."));
      const cursor = token.slice(0, dot);
      const key = keys.find(token.slice(dot + 1, dot + 3));
      return key && isEqual(sealCursor(caller, cursor, key), token) ? cursor : undefined;
    },
    sealState(caller, call, state) {
      const payload = Buffer.from(JSON.stringify({ ...state, untilMs: Date.now() + stateMs }));
      return payload.length <= stateBytesMax ? states.seal(payload, bound(caller, digestOf(call))) : undefined;
    },
    openState(caller, call, token) {
      const payload = states.open(token, bound(caller, digestOf(call)));
      if (!payload) return undefined;
      const { untilMs, ...state } = JSON.parse(payload.toString()) as CallState & { untilMs: number };
      return untilMs > Date.now() ? state : undefined;
    },
    sealTask(caller, { backend, taskId }) {
      const payload = Buffer.from(JSON.stringify([backend, taskId]));
      return payload.length <= payloadBytesMax ? tasks.seal(payload, bound(caller)) : undefined;
    },
    openTask(caller, token) {
      const payload = tasks.open(token, bound(caller));
      if (!payload) return undefined;
      const [backend, taskId] = JSON.parse(payload.toString()) as [string, string];
      return { backend, taskId };
    },
  };
}

function bound({ virtualServer, identity: { issuer, subject } }: Caller, ...more: readonly string[]): string {
  return JSON.stringify([virtualServer, issuer, subject, ...more]);
}

// What changes between the rounds of one call, and so is not part of what makes it the same.
const changing = new Set(["_meta", "inputResponses", "requestState"]);

/** Names what is called with which arguments, whatever the order of members. Numbers count as JSON.parse reads them. */
function digestOf({ method, params }: BoundCall): string {
  const asked = Object.entries(params).filter(([key]) => !changing.has(key));
  return createHash("sha256")
    .update(JSON.stringify([method, inOrder(Object.fromEntries(asked))]))
    .digest("base64url");
}

// Arrays and objects begin with different words, so that none of one kind looks like one of the other.
function inOrder(value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) return ["number", String(value)]; // else null
  if (Array.isArray(value)) return ["array", ...value.map(inOrder)];
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return ["object", ...members.map(([key, member]) => [key, inOrder(member)])];
}

function isEqual(a: string, b: string): boolean {
  const [one, other] = [Buffer.from(a), Buffer.from(b)];
  return one.length === other.length && timingSafeEqual(one, other);
}
