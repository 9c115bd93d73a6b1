// Records in the memory of this process, for a proxy that is alone. They end with it.
import type { SessionRecord } from "./record.ts";
import type { RecordStore, StoreEvent } from "./record-store.ts";

interface Kept {
  record: SessionRecord;
  version: number;
  readonly createdMs: number;
  readonly endMs: number;
  /** Both by the monotonic clock. */
  readonly lastMs: number;
  idleEndMs: number;
}

export interface MemoryStoreOptions {
  /** The monotonic clock, milliseconds. */
  readonly nowMs?: () => number;
  /** Hears what the others would be told. */
  readonly onEvent?: (event: StoreEvent) => void;
}

export interface MemoryStore extends RecordStore {
  /** Records that are kept; one that has just ended may be among them. */
  readonly size: number;
}

const sweepMs = 10_000;

/** Empty. Bounded by whoever keeps sessions in it. */
export function createMemoryStore({ nowMs = () => performance.now(), onEvent }: MemoryStoreOptions = {}): MemoryStore {
  const records = new Map<string, Kept>();
  // Keys of an owner, unused for longest first.
  const owners = new Map<string, Set<string>>();
  const sweep = setInterval(() => {
    for (const key of records.keys()) alive(key);
    for (const [owner, keys] of owners) prune(owner, keys);
  }, sweepMs).unref();

  function alive(key: string): Kept | undefined {
    const kept = records.get(key);
    if (kept && nowMs() < Math.min(kept.lastMs, kept.idleEndMs)) return kept;
    records.delete(key);
    return undefined;
  }

  function prune(owner: string, keys: Set<string>): void {
    for (const key of keys) if (!alive(key)) keys.delete(key);
    if (keys.size === 0) owners.delete(owner);
  }

  return {
    isShared: false,
    tellsAll: true,
    get size() {
      return records.size;
    },
    async create(key, record, { pendingMs, absoluteMs }) {
      const now = nowMs();
      const createdMs = Date.now();
      const stored = { record, version: 1, createdMs, endMs: createdMs + absoluteMs };
      records.set(key, { ...stored, lastMs: now + absoluteMs, idleEndMs: now + pendingMs });
      return { ...stored, idleLeftMs: pendingMs, leftMs: absoluteMs };
    },
    async read(key) {
      const kept = alive(key);
      if (!kept) return undefined;
      const { record, version, createdMs, endMs, lastMs, idleEndMs } = kept;
      const now = nowMs();
      return { record, version, createdMs, endMs, idleLeftMs: idleEndMs - now, leftMs: lastMs - now };
    },
    async write(key, before, record) {
      const kept = alive(key);
      if (!kept) return "gone";
      if (kept.version !== before.version) return "changed";
      Object.assign(kept, { record, version: kept.version + 1 });
      onEvent?.({ type: "changed", key });
      return "written";
    },
    async touch(key, idleMs) {
      const kept = alive(key);
      if (kept) kept.idleEndMs = nowMs() + idleMs;
      return kept !== undefined;
    },
    async remove(key) {
      records.delete(key);
      onEvent?.({ type: "ended", key });
    },
    async enlist(owner, key, max) {
      const keys = owners.get(owner) ?? new Set();
      owners.set(owner, keys);
      keys.delete(key);
      keys.add(key);
      prune(owner, keys);
      const beyond = [...keys].slice(0, Math.max(0, keys.size - max));
      for (const one of beyond) keys.delete(one);
      return beyond;
    },
    keys: async (max) => [...records.keys()].filter(alive).slice(0, max),
    publish: (event) => onEvent?.(event),
    announce: () => undefined,
    withdraw: async () => undefined,
    addressOf: async () => undefined,
    async [Symbol.asyncDispose]() {
      clearInterval(sweep);
      records.clear();
      owners.clear();
    },
  };
}
