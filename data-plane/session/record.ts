// What a session is, for every replica: what a store keeps of it.
import type { SessionVersion } from "../mcp/versions.ts";
import type { Binding } from "./binding.ts";

export interface SessionRecord {
  /** Name of the virtual server it was opened on; its id is void on any other. */
  readonly virtualServer: string;
  /** Whose it is, for lists and revocations; whether a caller is that one, the binding says. */
  readonly issuer: string;
  readonly subject: string;
  readonly binding: Binding;
  /** The configuration that was live when it was opened: later revocations end it. */
  readonly epoch: Epoch;
  readonly protocolVersion: SessionVersion;
  /** JSON text of the client's clientInfo. */
  readonly clientInfo: string;
  /** JSON text of what the client declared it can do. */
  readonly capabilities: string;
  readonly state: SessionState;
}

/** A revision, and whose: those of two stores can't be compared. */
export interface Epoch {
  readonly revision: number;
  readonly storeUid: string;
}

/** The part that changes. */
export interface SessionState {
  /** Level of `logging/setLevel`, as JSON text; undefined until the client set one. */
  readonly logLevel: string | undefined;
  /** Resources the client wants to hear of: its URI → who owns it. */
  readonly subscriptions: ReadonlyMap<string, { readonly backend: string; readonly original: string }>;
  /** Its sessions with backends, by backend name. */
  readonly legs: ReadonlyMap<string, StoredLeg>;
  /** URIs that backends gave the client in results → which backend, oldest first. */
  readonly links: ReadonlyMap<string, string>;
}

/** An open session with a backend, as far as another replica needs to know it to go on with it. */
export interface StoredLeg {
  /** Names the server and the credential; a leg to another place is nobody's any more. */
  readonly place: string;
  /** The server's id for it. */
  readonly sessionId: string;
  readonly protocolVersion: SessionVersion;
  /** As the server declared them. */
  readonly capabilities: Readonly<Record<string, unknown>>;
}

export const emptyState: SessionState = { logLevel: undefined, subscriptions: new Map(), legs: new Map(), links: new Map() };

const version = 1;

/** As JSON text. */
export function writeRecord(record: SessionRecord): string {
  const { state, ...facts } = record;
  const { logLevel, subscriptions, legs, links } = state;
  return JSON.stringify({
    version,
    ...facts,
    state: { logLevel, subscriptions: [...subscriptions], legs: [...legs], links: [...links] },
  });
}

/** What was written; undefined when it was written by a version that we do not know. */
export function readRecord(text: string): SessionRecord | undefined {
  const { version: written, state, ...facts } = JSON.parse(text) as WrittenRecord;
  if (written !== version) return undefined;
  return {
    ...facts,
    state: {
      logLevel: state.logLevel,
      subscriptions: new Map(state.subscriptions),
      legs: new Map(state.legs),
      links: new Map(state.links),
    },
  };
}

interface WrittenRecord extends Omit<SessionRecord, "state"> {
  readonly version: number;
  readonly state: {
    readonly logLevel: string | undefined;
    readonly subscriptions: [string, { backend: string; original: string }][];
    readonly legs: [string, StoredLeg][];
    readonly links: [string, string][];
  };
}

/** The map with an entry more, or another; undefined as value takes it out. */
export function withEntry<V>(map: ReadonlyMap<string, V>, key: string, value: V | undefined): ReadonlyMap<string, V> {
  const changed = new Map(map);
  if (value === undefined) changed.delete(key);
  else changed.set(key, value);
  return changed;
}
