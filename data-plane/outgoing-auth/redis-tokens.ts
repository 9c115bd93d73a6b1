// Tokens that replicas share through Redis. Nothing there is of use to whoever reads it: keys are keyed hashes, and values are
// sealed together with their key, so that none can be put in another's place. Redis is a short cut, never needed.
import { randomBytes } from "node:crypto";
import type { Log } from "../../common/log.ts";
import { createSealer, type Keys } from "../mcp/seal.ts";
import type { RedisAddress } from "../redis/address.ts";
import { connectRedis, type RedisClient } from "../redis/connection.ts";
import { parseObject } from "./token-answer.ts";
import type { SharedToken, SharedTokens } from "./token-cache.ts";

export interface RedisTokensOptions {
  readonly address: RedisAddress;
  readonly caFile?: string | undefined;
  /** Before every key. */
  readonly prefix: string;
  readonly keys: Keys;
  readonly log: Log;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
}

const valueBytesMax = 20 * 1024;
/** As long as an exchange may take, and some more. */
const lockMs = 10_000;

/** Connects in the background. A command takes 400 ms at most; without an answer it is "unavailable". */
export function createRedisTokens({ address, caFile, prefix, keys, log, nowMs }: RedisTokensOptions): SharedTokens {
  const client = withScript(connectRedis({ address, caFile, log }));
  const sealer = createSealer(keys, "token-cache", valueBytesMax);
  const place = (key: string): string => `${prefix}t:${key}`;

  async function found(key: string): Promise<{ readonly text: string; readonly value: SharedToken | undefined } | "none"> {
    const text = await client.get(place(key));
    if (text === null) return "none";
    const value = readValue(sealer.open(text, key)?.toString());
    if (!value) log.warn("a token in Redis is not as it was written, and is not used");
    return { text, value };
  }

  return {
    async read(key) {
      try {
        const one = await found(key);
        return one === "none" ? one : (one.value ?? "none");
      } catch {
        return "unavailable";
      }
    },
    async write(key, value) {
      const lifeMs = Math.floor(value.untilMs - nowMs());
      if (lifeMs <= 0) return;
      const text = sealer.seal(Buffer.from(JSON.stringify(value)), key);
      await client.set(place(key), text, "PX", lifeMs).catch(() => undefined);
    },
    async remove(key, token) {
      try {
        const one = await found(key);
        if (one !== "none" && one.value?.token === token) await client.vmcpRemoveIf(place(key), one.text);
      } catch {
        // It ends by itself; here it is not used any more.
      }
    },
    async lock(key) {
      const name = `${place(key)}:lock`;
      const mine = randomBytes(12).toString("base64url");
      try {
        if ((await client.set(name, mine, "PX", lockMs, "NX")) === null) return "taken";
      } catch {
        return "unavailable";
      }
      return () =>
        client.vmcpRemoveIf(name, mine).then(
          () => undefined,
          () => undefined, // it ends by itself
        );
    },
    async [Symbol.asyncDispose]() {
      client.disconnect();
    },
  };
}

interface Script {
  vmcpRemoveIf(key: string, value: string): Promise<number>;
}

function withScript(client: RedisClient): RedisClient & Script {
  const lua = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end return 0";
  client.defineCommand("vmcpRemoveIf", { numberOfKeys: 1, lua });
  return client as RedisClient & Script;
}

function readValue(text: string | undefined): SharedToken | undefined {
  const { token, obtainedMs, untilMs } = parseObject(text ?? "") ?? {};
  const isWhole = typeof token === "string" && typeof obtainedMs === "number" && typeof untilMs === "number";
  return isWhole ? { token, obtainedMs, untilMs } : undefined;
}
