// Sessions and users' tokens of workers without Redis: kept by the process that leads them, asked over the channel.
import { createMemoryTokens, StoreDownError, type UserTokens } from "../outgoing-auth/user-tokens.ts";
import { createMemoryStore } from "../session/memory-store.ts";
import { type RecordStore, StoreUnavailableError } from "../session/record-store.ts";
import type { Channel } from "./channel.ts";
import type { LeaderAnswers, WorkerAnswers } from "./protocol.ts";

/** What the leader answers for one worker. */
type StoreAnswers = Omit<LeaderAnswers, "report" | "calls" | "status" | "metrics">;

type Worker = Pick<Channel<WorkerAnswers, LeaderAnswers>, "ask">;

export interface SharedStores extends AsyncDisposable {
  answersFor(worker: Worker): StoreAnswers;
  /** Lets go of what only that worker could. */
  forget(worker: Worker): void;
  /** Sessions that are kept. */
  readonly sessions: number;
}

/** For the leader. `workers`: all that are there, to be told of changes. Beyond `sessionsMax` no session can be opened. */
export function createSharedStores(workers: () => Iterable<Worker>, sessionsMax: number): SharedStores {
  const records = createMemoryStore();
  const tokens = createMemoryTokens({ nowMs: Date.now });
  const places = new Map<string, { readonly address: string; readonly worker: Worker }>();
  const locks = new Map<string, { readonly unlock: () => Promise<void>; readonly worker: Worker }>();

  return {
    answersFor(worker) {
      const tell = (...event: Parameters<WorkerAnswers["heard"]>): void => {
        for (const other of workers()) if (other !== worker) other.ask("heard", ...event).catch(() => undefined); // it has gone
      };
      return {
        async "records.create"(key, record, times) {
          if (records.size >= sessionsMax) throw new StoreUnavailableError(`${sessionsMax} sessions are kept already`);
          return records.create(key, record, times);
        },
        "records.read": records.read,
        async "records.write"(key, before, record) {
          const outcome = await records.write(key, before, record);
          if (outcome === "written") tell({ type: "changed", key });
          return outcome;
        },
        "records.touch": records.touch,
        async "records.remove"(key) {
          await records.remove(key);
          tell({ type: "ended", key });
        },
        "records.enlist": records.enlist,
        "records.keys": records.keys,
        "records.publish": tell,
        "records.announce": (replica, address) => void places.set(replica, { address, worker }),
        "records.withdraw": async (replica) => void places.delete(replica),
        "records.addressOf": async (replica) => places.get(replica)?.address,
        "tokens.read": tokens.read,
        "tokens.write": tokens.write,
        "tokens.remove": tokens.remove,
        "tokens.claim": tokens.claim,
        async "tokens.lock"(key) {
          const unlock = await tokens.lock(key);
          if (unlock) locks.set(key, { unlock, worker });
          return unlock !== undefined;
        },
        async "tokens.unlock"(key) {
          const lock = locks.get(key);
          if (lock?.worker !== worker) return;
          locks.delete(key);
          await lock.unlock();
        },
      };
    },
    forget(worker) {
      for (const [replica, place] of places) if (place.worker === worker) places.delete(replica);
      for (const [key, lock] of locks) {
        if (lock.worker !== worker) continue;
        locks.delete(key);
        void lock.unlock();
      }
    },
    get sessions() {
      return records.size;
    },
    async [Symbol.asyncDispose]() {
      await records[Symbol.asyncDispose]();
      await tokens[Symbol.asyncDispose]();
    },
  };
}

type Leader = Pick<Channel<LeaderAnswers, WorkerAnswers>, "ask">;

/** For a worker: every other worker has the same records. */
export function recordsOf({ ask }: Leader): RecordStore {
  const asked = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      throw new StoreUnavailableError("the process that keeps the sessions does not answer", { cause: error });
    }
  };
  const untold = (work: Promise<unknown>): void => void work.catch(() => undefined);
  return {
    isShared: true,
    tellsAll: true,
    create: (key, record, times) => asked(ask("records.create", key, record, times)),
    read: (key) => asked(ask("records.read", key)),
    write: (key, before, record) => asked(ask("records.write", key, before, record)),
    touch: (key, idleMs) => asked(ask("records.touch", key, idleMs)),
    remove: (key) => asked(ask("records.remove", key)),
    enlist: (owner, key, max) => asked(ask("records.enlist", owner, key, max)),
    keys: (max) => asked(ask("records.keys", max)),
    publish: (event) => untold(ask("records.publish", event)),
    announce: (replica, address) => untold(ask("records.announce", replica, address)),
    withdraw: (replica) => asked(ask("records.withdraw", replica)),
    addressOf: (replica) => asked(ask("records.addressOf", replica)),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

/** For a worker. */
export function userTokensOf({ ask }: Leader): UserTokens {
  const asked = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      throw new StoreDownError(error);
    }
  };
  return {
    read: (key) => asked(ask("tokens.read", key)),
    write: (key, token) => asked(ask("tokens.write", key, token)),
    remove: (key, token) => asked(ask("tokens.remove", key, token)),
    claim: (id, ms) => asked(ask("tokens.claim", id, ms)),
    async lock(key) {
      if (!(await asked(ask("tokens.lock", key)))) return undefined;
      return () => ask("tokens.unlock", key).catch(() => undefined); // the leader gives it back when this process ends
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}
