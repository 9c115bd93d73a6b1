// The call ledgers: every call has a UUID, its client writes down what it meant and how it ended, its backend that it ran, before
// it answers. Joined afterwards, they show what was lost, run twice, mixed up, left hanging or told wrongly.
import { randomUUID } from "node:crypto";
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type Call, textResult } from "./backend.ts";

/** A backend ran a call. Times are of the machine's monotonic clock, in decimal, so that processes can be compared. */
export interface BackendEntry {
  readonly uuid: string;
  readonly backend: string;
  /** The backend's own session; absent without sessions. */
  readonly session?: string;
  readonly atNs: string;
}

/** A call is about to be sent. */
export interface Intent {
  readonly uuid: string;
  readonly kind: "intent";
  readonly atNs: string;
  /** Who asks. When given: no session of a backend may serve two of them. */
  readonly client?: string;
  /** The only backend that may run it. */
  readonly backend?: string;
  /** May run more than once, because it was declared safe to repeat. */
  readonly isRepeatable?: boolean;
}

/**
 * How a call ended: a result, with the UUID that it echoed; an error of the gateway, with what it says of the outcome; or
 * nothing of the protocol, such as a connection that broke or a bare HTTP status, from which nothing follows.
 */
export type CallEnd =
  | { readonly kind: "ok"; readonly echo: string }
  | { readonly kind: "error"; readonly outcome: "unknown" | "not_executed" }
  | { readonly kind: "failed"; readonly why: string };

export type ClientEntry = Intent | (CallEnd & { readonly uuid: string; readonly atNs: string });

/** Entries in the order they were written. */
export interface Ledger<Entry> extends Disposable {
  /** The entry is written when this returns. */
  append(entry: Entry): void;
  entries(): readonly Entry[];
}

/** A ledger that ends with this process. */
export function createMemoryLedger<Entry>(): Ledger<Entry> {
  const entries: Entry[] = [];
  return { append: (entry) => void entries.push(entry), entries: () => [...entries], [Symbol.dispose]: () => undefined };
}

/**
 * A ledger in a file, one line of JSON per entry, each of them a single write: several processes may share it, and what one wrote
 * outlives it. It also outlives the machine with `isSynced`, at the cost of a disk write per entry. Default false.
 */
export function openFileLedger<Entry>(path: string, options: { readonly isSynced?: boolean } = {}): Ledger<Entry> {
  const file = openSync(path, "a");
  return {
    append(entry) {
      writeSync(file, `${JSON.stringify(entry)}\n`);
      if (options.isSynced) fsyncSync(file);
    },
    // What follows the last line end is being written just now, or never was to its end.
    entries: () =>
      readFileSync(path, "utf8")
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Entry),
    [Symbol.dispose]: () => closeSync(file),
  };
}

/** The machine's monotonic clock, as entries hold it. */
export const nowNs = (): string => String(process.hrtime.bigint());

export interface WorkToolOptions {
  readonly ledger: Ledger<BackendEntry>;
  /** The backend's name in the ledger. */
  readonly backend: string;
  /** Told after the entry is written and before the answer: here a test ties a fault to a call. */
  readonly onRun?: (entry: BackendEntry) => void;
  /** The raw result that holds a text. Default as `backend.ts` has it; for a `stateless-backend.ts`, `completeText`. */
  readonly result?: (text: string) => string;
}

/**
 * A tool `work` with the arguments `uuid` and `ms`: writes the call into the ledger, waits `ms` milliseconds (default 0), and
 * answers with the uuid. For the script of a backend of either era: `{ tools: [work.tool], calls: { work: work.call } }`.
 */
export function createWorkTool({ ledger, backend, onRun, result = textResult }: WorkToolOptions) {
  const properties = { uuid: { type: "string" }, ms: { type: "number" } };
  return {
    tool: JSON.stringify({ name: "work", inputSchema: { type: "object", properties, required: ["uuid"] } }),
    async call({ params, session: state }: Pick<Call, "params"> & { readonly session?: Call["session"] }): Promise<string> {
      const { uuid, ms = 0 } = params.arguments as { uuid: string; ms?: number };
      const session = state && sessionName(state);
      const entry: BackendEntry = { uuid, backend, ...(session !== undefined && { session }), atNs: nowNs() };
      ledger.append(entry);
      onRun?.(entry);
      if (ms > 0) await sleep(ms);
      return result(uuid);
    },
  };
}

/** A scripted backend knows its sessions by their state alone. */
function sessionName(state: Map<string, unknown>): string {
  const name = String(state.get("work session") ?? randomUUID());
  state.set("work session", name);
  return name;
}

/** Makes one call under a new UUID and writes down both ends of it. What `perform` throws counts as `failed`. */
export async function recordCall(
  ledger: Ledger<ClientEntry>,
  perform: (uuid: string) => Promise<CallEnd>,
  intent: Pick<Intent, "client" | "backend" | "isRepeatable"> = {},
): Promise<CallEnd> {
  const uuid = randomUUID();
  ledger.append({ ...intent, uuid, kind: "intent", atNs: nowNs() });
  const end = await perform(uuid).catch((error: unknown): CallEnd => ({ kind: "failed", why: String(error) }));
  ledger.append({ ...end, uuid, atNs: nowNs() });
  return end;
}

/** A promise that was broken, by its number in the list of invariants. */
export interface Violation {
  /**
   * I1: an acknowledged call is in exactly the right backend's ledger. I2: no call runs twice. I3: nobody gets what is another's.
   * I4: every call ends, once and in time. I11: an error says "not executed" only of what did not run.
   */
  readonly invariant: "I1" | "I2" | "I3" | "I4" | "I11";
  readonly uuid: string;
  readonly what: string;
}

/** Every promise that these ledgers show as broken. With `endsWithinMs`, also the calls that took longer. */
export function checkLedgers(
  clientEntries: readonly ClientEntry[],
  backendEntries: readonly BackendEntry[],
  options: { readonly endsWithinMs?: number } = {},
): Violation[] {
  const intents = clientEntries.filter((entry) => entry.kind === "intent");
  const ends = Map.groupBy(
    clientEntries.filter((entry) => entry.kind !== "intent"),
    ({ uuid }) => uuid,
  );
  const runs = Map.groupBy(backendEntries, ({ uuid }) => uuid);
  return [
    ...intents.flatMap((intent) => {
      const own = { intent, ends: ends.get(intent.uuid) ?? [], runs: runs.get(intent.uuid) ?? [] };
      const found = [...unlikeRuns(own), ...unlikeEnds(own, options.endsWithinMs)];
      return found.map(([invariant, what]): Violation => ({ invariant, uuid: intent.uuid, what }));
    }),
    ...strangers(intents, [...ends.keys(), ...runs.keys()]),
    ...sharedSessions(intents, backendEntries),
  ];
}

interface OneCall {
  readonly intent: Intent;
  readonly ends: readonly Exclude<ClientEntry, Intent>[];
  readonly runs: readonly BackendEntry[];
}

type Finding = readonly [Violation["invariant"], string];

/** What the backends' side of a call shows. */
function* unlikeRuns({ intent, ends, runs }: OneCall): Generator<Finding> {
  const places = runs.map(({ backend }) => backend);
  const isOk = ends.some(({ kind }) => kind === "ok");
  if (isOk && runs.length === 0) yield ["I1", "acknowledged, and no backend ran it"];
  if (isOk && new Set(places).size > 1) yield ["I1", `acknowledged, and several backends ran it: ${places.join(", ")}`];
  if (runs.length > 1 && !intent.isRepeatable) yield ["I2", `ran ${runs.length} times: ${places.join(", ")}`];
  const wrong = places.find((place) => intent.backend !== undefined && place !== intent.backend);
  if (wrong !== undefined) yield ["I1", `meant for ${intent.backend}, and ${wrong} ran it`];
}

/** What the client's side shows. */
function* unlikeEnds({ intent, ends, runs }: OneCall, endsWithinMs = Number.POSITIVE_INFINITY): Generator<Finding> {
  if (ends.length === 0) yield ["I4", "never ended"];
  if (ends.length > 1) yield ["I4", `ended ${ends.length} times`];
  for (const end of ends) {
    const tookMs = Number(BigInt(end.atNs) - BigInt(intent.atNs)) / 1e6;
    if (tookMs > endsWithinMs) yield ["I4", `ended after ${Math.round(tookMs)} ms`];
    if (end.kind === "ok" && end.echo !== intent.uuid) yield ["I3", `got the answer to ${end.echo}`];
    if (end.kind === "error" && end.outcome === "not_executed" && runs.length > 0)
      yield ["I11", `said not to be executed, and ${runs[0]?.backend} ran it`];
  }
}

/** Calls that somebody answered or ran, and nobody made. */
function strangers(intents: readonly Intent[], seen: readonly string[]): Violation[] {
  const made = new Set(intents.map(({ uuid }) => uuid));
  const unmade = [...new Set(seen)].filter((uuid) => !made.has(uuid));
  return unmade.map((uuid) => ({ invariant: "I3", uuid, what: "nobody made this call" }));
}

/** Sessions of a backend in which more than one client's calls ran. */
function sharedSessions(intents: readonly Intent[], runs: readonly BackendEntry[]): Violation[] {
  const clients = new Map(intents.map(({ uuid, client }) => [uuid, client]));
  const owners = new Map<string, string>();
  return runs.flatMap(({ uuid, backend, session }) => {
    const client = clients.get(uuid);
    if (client === undefined || session === undefined) return [];
    const key = JSON.stringify([backend, session]);
    const owner = owners.get(key) ?? client;
    owners.set(key, owner);
    return owner === client ? [] : [{ invariant: "I3", uuid, what: `${client} ran in a session of ${owner} at ${backend}` }];
  });
}
