// Where Redis is, as operators write it.
import { readFileSync } from "node:fs";

export interface RedisAddress {
  readonly kind: "single" | "sentinel" | "cluster";
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  /** What Sentinels call the group of servers. */
  readonly primaryName: string;
  readonly db: number;
  readonly isTls: boolean;
  readonly username: string | undefined;
  readonly password: string | undefined;
}

/** Says what is wrong with an address, and nothing of the password in it. */
export class RedisAddressError extends Error {
  override name = "RedisAddressError";
}

const wanted =
  "wanted: redis://[user:password@]host:port[/db], redis+sentinel://host:port,host:port/primary-name[/db] or redis+cluster://host:port,host:port; rediss… for TLS";
const pattern = /^(rediss?)(?:\+(sentinel|cluster))?:\/\/(?:([^@/]*)@)?([^/?#]+)(?:\/([^?#]*))?$/;

/**
 * Reads an address. The password comes from the address, or from VMCP_REDIS_PASSWORD, VMCP_REDIS_PASSWORD_FILE or
 * THV_SESSION_REDIS_PASSWORD. Throws RedisAddressError.
 */
export function readRedisAddress(text: string, env: Readonly<Record<string, string | undefined>> = {}): RedisAddress {
  const [, scheme, kind = "single", user, hosts = "", path = ""] = pattern.exec(text) ?? [];
  if (scheme === undefined) throw new RedisAddressError(`the address of Redis can't be read; ${wanted}`);
  const isSentinel = kind === "sentinel";
  const parts = path === "" ? [] : path.split("/");
  const primaryName = isSentinel ? parts.shift() : "";
  const [db = "0", ...rest] = parts;
  if (primaryName === undefined || rest.length > 0 || !/^\d{1,4}$/.test(db))
    throw new RedisAddressError(`the path in the address of Redis can't be read; ${wanted}`);
  if (kind === "cluster" && db !== "0") throw new RedisAddressError("a Redis cluster has only database 0");
  if (kind === "single" && hosts.includes(","))
    throw new RedisAddressError(`several hosts need +sentinel or +cluster; ${wanted}`);
  const [username, password] = user === undefined ? [] : user.split(/:(.*)/s).map(decoded);
  return {
    kind: kind as RedisAddress["kind"],
    nodes: hosts.split(",").map((host) => readNode(host, isSentinel ? 26379 : 6379)),
    primaryName,
    db: Number(db),
    isTls: scheme === "rediss",
    username: username || undefined,
    password: password || passwordOf(env),
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new RedisAddressError(`the user in the address of Redis is not percent-encoded; ${wanted}`);
  }
}

function readNode(text: string, portDefault: number): { host: string; port: number } {
  const [, host, port] = /^(\[[0-9a-fA-F:]+\]|[^:]+)(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (host === undefined || Number(port ?? 0) > 65_535)
    throw new RedisAddressError(`a host in the address of Redis can't be read; ${wanted}`);
  return { host: host.replace(/^\[|\]$/g, ""), port: port === undefined ? portDefault : Number(port) };
}

function passwordOf(env: Readonly<Record<string, string | undefined>>): string | undefined {
  const file = env.VMCP_REDIS_PASSWORD_FILE;
  if (!file) return env.VMCP_REDIS_PASSWORD || env.THV_SESSION_REDIS_PASSWORD || undefined;
  try {
    return readFileSync(file, "utf8").trim() || undefined;
  } catch (error) {
    throw new RedisAddressError(`VMCP_REDIS_PASSWORD_FILE can't be read: ${(error as NodeJS.ErrnoException).code ?? "failed"}`);
  }
}
