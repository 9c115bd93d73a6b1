// Users' tokens in Redis, for any number of proxies. Nothing there is of use to whoever reads it: keys are keyed hashes, and values
// are sealed together with their key, so that none can be put in another's place.
import { createHash, randomBytes } from "node:crypto";
import { createSealer } from "../mcp/seal.ts";
import { connectRedis, type RedisClient } from "../redis/connection.ts";
import type { RedisTokensOptions } from "./redis-tokens.ts";
import { parseObject } from "./token-answer.ts";
import { lifeEndMs, lockMs, StoreDownError, type UserToken, type UserTokens, unusedMs } from "./user-tokens.ts";

const valueBytesMax = 40 * 1024;

/** Connects in the background. A command takes 400 ms at most. */
export function createRedisUserTokens(options: RedisTokensOptions): UserTokens {
  const { address, caFile, prefix, keys, log, nowMs } = options;
  const client = withScript(connectRedis({ address, caFile, log }));
  const sealer = createSealer(keys, "user-token", valueBytesMax);
  const place = (key: string): string => `${prefix}u:${key}`;

  async function found(key: string): Promise<{ readonly text: string; readonly token: UserToken } | undefined> {
    const text = await asked(() => client.get(place(key)));
    if (text === null) return undefined;
    const token = readToken(sealer.open(text, key)?.toString());
    if (!token) log.warn("a user's token in Redis is not as it was written, and is not used");
    return token && { text, token };
  }

  return {
    async read(key) {
      const token = (await found(key))?.token;
      if (token?.refresh !== undefined) await asked(() => client.pexpire(place(key), unusedMs));
      return token;
    },
    async write(key, token) {
      const lifeMs = Math.floor(lifeEndMs(token, nowMs()) - nowMs());
      if (lifeMs <= 0) return;
      const text = sealer.seal(Buffer.from(JSON.stringify(token)), key);
      await asked(() => client.set(place(key), text, "PX", lifeMs));
    },
    async remove(key, { access }) {
      const one = await found(key);
      if (one?.token.access === access) await asked(() => client.vmcpForgetIf(place(key), one.text));
    },
    async lock(key) {
      const name = `${place(key)}:lock`;
      const mine = randomBytes(12).toString("base64url");
      if ((await asked(() => client.set(name, mine, "PX", lockMs, "NX"))) === null) return undefined;
      return () =>
        client.vmcpForgetIf(name, mine).then(
          () => undefined,
          () => undefined, // it ends by itself
        );
    },
    async claim(id, ms) {
      const name = `${prefix}once:${createHash("sha256").update(id).digest("base64url")}`;
      return (await asked(() => client.set(name, "1", "PX", ms, "NX"))) !== null;
    },
    async [Symbol.asyncDispose]() {
      client.disconnect();
    },
  };
}

async function asked<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new StoreDownError(error);
  }
}

interface Script {
  vmcpForgetIf(key: string, value: string): Promise<number>;
}

function withScript(client: RedisClient): RedisClient & Script {
  const lua = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end return 0";
  client.defineCommand("vmcpForgetIf", { numberOfKeys: 1, lua });
  return client as RedisClient & Script;
}

function readToken(text: string | undefined): UserToken | undefined {
  const { access, refresh, issuer, clientId, obtainedMs, endsMs } = parseObject(text ?? "") ?? {};
  const hasTimes = typeof obtainedMs === "number" && typeof endsMs === "number";
  const isWhole = typeof access === "string" && typeof issuer === "string" && typeof clientId === "string";
  if (!isWhole || !hasTimes) return undefined;
  return { access, refresh: typeof refresh === "string" ? refresh : undefined, issuer, clientId, obtainedMs, endsMs };
}
