// Records in Redis, for any number of proxies. Nothing there is of use to whoever reads it: keys are hashes of session ids, owners
// are known by a keyed hash, and records are sealed, together with their key, version and end.
//
// Every change is one script on one key, so that it is atomic on a cluster too, and a reply that was lost can be asked for again.
import { Cluster, type Redis } from "ioredis";
import type { Log } from "../../common/log.ts";
import { createSealer, type Keys } from "../mcp/seal.ts";
import type { RedisAddress } from "../redis/address.ts";
import { connectRedis, type RedisClient } from "../redis/connection.ts";
import { readRecord, writeRecord } from "./record.ts";
import { type RecordStore, type StoredRecord, type StoreEvent, StoreUnavailableError } from "./record-store.ts";

export interface RedisStoreOptions {
  readonly address: RedisAddress;
  readonly caFile?: string | undefined;
  /** Before every key. Default `vmcp:`. */
  readonly prefix?: string;
  readonly keys: Keys;
  /** Short name of this replica, new with each start. */
  readonly replica: string;
  /** Hears what other replicas tell. */
  readonly onEvent: (event: StoreEvent) => void;
  readonly log: Log;
}

const recordBytesMax = 512 * 1024;
const ownerMs = 24 * 60 * 60_000;
const announceMs = 10_000;
const heartbeatMs = 2_000;

/** Connects in the background: until there is a connection, and whenever it is lost, everything throws StoreUnavailableError. */
export function createRedisStore({
  address,
  caFile,
  prefix = "vmcp:",
  keys,
  replica,
  onEvent,
  log,
}: RedisStoreOptions): RecordStore {
  const client = withScripts(connectRedis({ address, caFile, log }));
  const hearing = connectRedis({ address, caFile, log });
  const sealer = createSealer(keys, "session-record", recordBytesMax);
  const channel = `${prefix}events`;
  const recordKey = (key: string): string => `${prefix}s:${key}`;
  const timers = new Set<NodeJS.Timeout>();
  const withdrawals: (() => void)[] = [];

  hearing.on("ready", () => void hearing.subscribe(channel).catch(() => undefined)); // the next connection tries again
  hearing.on("message", (_channel: string, text: string) => {
    const event = readEvent(text, replica);
    if (event) onEvent(event);
  });
  // A subscriber sends nothing, so it would not notice that nobody is there any more.
  every(heartbeatMs, () => {
    if (hearing.status === "ready")
      hearing.ping().catch(() => {
        if (!(hearing instanceof Cluster)) hearing.disconnect(true);
      });
  });

  function every(ms: number, work: () => void): () => void {
    const timer = setInterval(work, ms).unref();
    timers.add(timer);
    return () => clearInterval(timer);
  }

  async function asked<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw new StoreUnavailableError("the session store is not available", { cause: error });
    }
  }

  /** For what may run twice. */
  function askedAgain<T>(work: () => Promise<T>): Promise<T> {
    return asked(() => work().catch(work));
  }

  function seal(key: string, { record, version, createdMs, endMs }: Omit<StoredRecord, "leftMs" | "idleLeftMs">): string {
    return sealer.seal(Buffer.from(`${createdMs} ${writeRecord(record)}`), contextOf(key, version, endMs));
  }

  function open(key: string, [version, end, data, seconds, microseconds, idleLeftMs]: Found): StoredRecord | undefined {
    const text = sealer.open(data, contextOf(key, version, end))?.toString();
    const space = text?.indexOf(" ") ?? 0;
    const record = text && readRecord(text.slice(space));
    if (!record) return undefined;
    const endMs = Number(end);
    const createdMs = Number(text.slice(0, space));
    const leftMs = endMs - toMs(seconds, microseconds);
    return { record, version: Number(version), createdMs, endMs, idleLeftMs, leftMs };
  }

  async function tell(event: StoreEvent): Promise<void> {
    await client.publish(channel, JSON.stringify({ ...event, from: replica })).catch(() => undefined);
  }

  return {
    isShared: true,
    tellsAll: false,
    async create(key, record, { pendingMs, absoluteMs }) {
      return asked(async () => {
        const [seconds = 0, microseconds = 0] = await client.time();
        const createdMs = toMs(seconds, microseconds);
        const stored = { record, version: 1, createdMs, endMs: createdMs + absoluteMs };
        await client.vmcpCreate(recordKey(key), stored.endMs, seal(key, stored), Math.min(pendingMs, absoluteMs));
        return { ...stored, idleLeftMs: pendingMs, leftMs: absoluteMs };
      });
    },
    async read(key) {
      const found = await askedAgain(() => client.vmcpRead(recordKey(key)));
      const stored = found ? open(key, found) : undefined;
      if (found && !stored) log.warn({ session: key.slice(0, 10) }, "a session record is not as it was written, and is not used");
      return stored && stored.leftMs > 0 ? stored : undefined;
    },
    async write(key, before, record) {
      const version = before.version + 1;
      const data = seal(key, { ...before, record, version });
      const event = JSON.stringify({ type: "changed", key, from: replica });
      return askedAgain(() => client.vmcpWrite(recordKey(key), before.version, version, data, channel, event));
    },
    touch: async (key, idleMs) => (await askedAgain(() => client.vmcpTouch(recordKey(key), idleMs))) === 1,
    async remove(key) {
      await askedAgain(() => client.unlink(recordKey(key)));
      await tell({ type: "ended", key });
      // What one server alone has forgotten comes back when another takes over.
      if (address.kind === "sentinel") await asked(() => client.wait(1, 100)).catch(() => undefined);
    },
    async enlist(owner, key, max) {
      const index = `${prefix}i:${owner}`;
      const members = await askedAgain(() => client.vmcpEnlist(index, key, ownerMs));
      if (members.length <= max) return [];
      const present = await asked(() => Promise.all(members.map((member) => client.exists(recordKey(member)))));
      const [alive, gone] = [1, 0].map((wanted) => members.filter((_, i) => present[i] === wanted)) as [string[], string[]];
      const beyond = alive.slice(0, Math.max(0, alive.length - max));
      const unlisted = [...gone, ...beyond];
      if (unlisted.length > 0) await asked(() => client.zrem(index, ...unlisted));
      return beyond;
    },
    async keys(max) {
      const nodes = client instanceof Cluster ? client.nodes("master") : [client];
      const found = await asked(() => Promise.all(nodes.map((node) => scan(node, recordKey(""), max))));
      return [...new Set(found.flat())].slice(0, max);
    },
    publish: (event) => void tell(event),
    announce(name, place) {
      const say = (): void => void client.set(`${prefix}r:${name}`, place, "PX", 3 * announceMs).catch(() => undefined);
      say();
      client.on("ready", say);
      withdrawals.push(() => client.off("ready", say), every(announceMs, say));
    },
    async withdraw(name) {
      for (const stop of withdrawals.splice(0)) stop();
      await asked(() => client.unlink(`${prefix}r:${name}`));
    },
    addressOf: async (name) => (await askedAgain(() => client.get(`${prefix}r:${name}`))) ?? undefined,
    async [Symbol.asyncDispose]() {
      for (const timer of timers) clearInterval(timer);
      client.disconnect();
      hearing.disconnect();
    },
  };
}

type Found = [version: string, end: string, data: string, seconds: string, microseconds: string, idleLeftMs: number];

interface Scripts {
  vmcpCreate(key: string, endMs: number, data: string, idleMs: number): Promise<number>;
  vmcpRead(key: string): Promise<Found | null>;
  vmcpWrite(
    key: string,
    before: number,
    version: number,
    data: string,
    channel: string,
    event: string,
  ): Promise<"written" | "changed" | "gone">;
  vmcpTouch(key: string, idleMs: number): Promise<number>;
  vmcpEnlist(key: string, member: string, ownerMs: number): Promise<string[]>;
}

// Fields of a record: `v` its version, `until` its end (milliseconds), `data` the rest, sealed. Redis ends what is idle by itself.
const scripts: Readonly<Record<keyof Scripts, string>> = {
  vmcpCreate: `
    redis.call('HSET', KEYS[1], 'v', 1, 'until', ARGV[1], 'data', ARGV[2])
    return redis.call('PEXPIRE', KEYS[1], ARGV[3])`,
  vmcpRead: `
    local found = redis.call('HMGET', KEYS[1], 'v', 'until', 'data')
    if not (found[1] and found[2] and found[3]) then return false end
    local now = redis.call('TIME')
    return {found[1], found[2], found[3], now[1], now[2], redis.call('PTTL', KEYS[1])}`,
  vmcpWrite: `
    local version = redis.call('HGET', KEYS[1], 'v')
    if not version then return 'gone' end
    if version == ARGV[2] and redis.call('HGET', KEYS[1], 'data') == ARGV[3] then return 'written' end
    if version ~= ARGV[1] then return 'changed' end
    redis.call('HSET', KEYS[1], 'v', ARGV[2], 'data', ARGV[3])
    redis.call('PUBLISH', ARGV[4], ARGV[5])
    return 'written'`,
  vmcpTouch: `
    local last = redis.call('HGET', KEYS[1], 'until')
    if not last then return 0 end
    local now = redis.call('TIME')
    local left = tonumber(last) - (now[1] * 1000 + math.floor(now[2] / 1000))
    if left <= 0 then redis.call('UNLINK', KEYS[1]) return 0 end
    redis.call('PEXPIRE', KEYS[1], math.floor(math.min(left, tonumber(ARGV[1]))))
    return 1`,
  vmcpEnlist: `
    local now = redis.call('TIME')
    redis.call('ZADD', KEYS[1], string.format('%.0f', now[1] * 1000000 + now[2]), ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return redis.call('ZRANGE', KEYS[1], 0, -1)`,
};

function withScripts(client: RedisClient): RedisClient & Scripts {
  for (const [name, lua] of Object.entries(scripts)) client.defineCommand(name, { numberOfKeys: 1, lua });
  return client as RedisClient & Scripts;
}

async function scan(node: Pick<Redis, "scan">, prefix: string, max: number): Promise<string[]> {
  const found: string[] = [];
  let cursor = "0";
  do {
    const [next, keys] = await node.scan(cursor, "MATCH", `${prefix.replace(/[?*[\]\\]/g, "\\$&")}*`, "COUNT", 1_000);
    found.push(...keys.map((key) => key.slice(prefix.length)));
    cursor = next;
  } while (cursor !== "0" && found.length < max);
  return found;
}

function readEvent(text: string, replica: string): StoreEvent | undefined {
  try {
    const { from, ...event } = JSON.parse(text) as StoreEvent & { from: string };
    return from === replica || typeof event.key !== "string" ? undefined : event;
  } catch {
    return undefined;
  }
}

function contextOf(key: string, version: number | string, endMs: number | string): string {
  return `${key} ${version} ${endMs}`;
}

function toMs(seconds: number | string, microseconds: number | string): number {
  return Number(seconds) * 1_000 + Math.floor(Number(microseconds) / 1_000);
}
