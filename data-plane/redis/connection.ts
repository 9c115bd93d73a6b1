// How we talk to Redis: alone, behind Sentinels, or a cluster. The settings are those that were measured to neither run a command
// twice, nor hang on a server that is gone, nor stay with one that was demoted.
import { readFileSync } from "node:fs";
import { Cluster, type ClusterOptions, Redis, type RedisOptions } from "ioredis";
import type { Log } from "../../common/log.ts";
import type { RedisAddress } from "./address.ts";

export interface RedisConnectionOptions {
  readonly address: RedisAddress;
  /** PEM file of the authorities that may vouch for the servers. */
  readonly caFile?: string | undefined;
  readonly log: Log;
}

export type RedisClient = Redis | Cluster;

/** Connects, and connects again whenever the connection is lost; never rejects. */
export function connectRedis({ address, caFile, log }: RedisConnectionOptions): RedisClient {
  const { kind, nodes, primaryName, db, username, password, isTls } = address;
  const tls = isTls ? { tls: caFile === undefined ? {} : { ca: readFileSync(caFile) } } : {};
  const who = { ...(username === undefined ? {} : { username }), ...(password === undefined ? {} : { password }) };
  const common = { ...safe, ...tls, ...who };
  const [first = { host: "127.0.0.1", port: 6379 }] = nodes;
  const client =
    kind === "cluster"
      ? new Cluster([...nodes], { ...clusterSettings, redisOptions: common })
      : new Redis({
          ...common,
          ...alone,
          ...(kind === "sentinel" ? { ...sentinelSettings, sentinels: [...nodes], name: primaryName } : first),
          ...(kind === "sentinel" && isTls ? { enableTLSForSentinelMode: true } : {}),
          db,
        });
  let isUp = true;
  client.on("error", (error: Error) => {
    // One line for an outage, however often it is tried to end it.
    if (isUp) log.warn({ reason: error.message.slice(0, 200) }, "Redis is not available");
    isUp = false;
  });
  client.on("ready", () => {
    if (!isUp) log.info("Redis is available again");
    isUp = true;
  });
  return client;
}

const safe = {
  // A command whose reply was lost may have run: it is not sent again, and whoever waits for it hears at once.
  autoResendUnfulfilledCommands: false,
  // Whoever listens does so again by himself: what the library sends for it fails with nobody to hear of it.
  autoResubscribe: false,
  maxRetriesPerRequest: 0,
  // Timers fire before answers are read: were it shorter, a process that was busy for a moment would take a good server for one
  // that is gone.
  commandTimeout: 400,
  connectTimeout: 1_000,
  // A server that stopped answering is left, where a command's own timeout would stay with it.
  socketTimeout: 1_000,
  // A server that was demoted says so in the answer to a write.
  reconnectOnError: (error: Error) => /^(READONLY|MASTERDOWN)/.test(error.message),
} satisfies RedisOptions;

const alone = { enableOfflineQueue: false, retryStrategy: pauseMs } satisfies RedisOptions;

const sentinelSettings = {
  failoverDetector: true,
  sentinelCommandTimeout: 500,
  sentinelRetryStrategy: pauseMs,
  sentinelMaxConnections: 5,
} satisfies RedisOptions;

const clusterSettings = {
  enableOfflineQueue: false,
  slotsRefreshTimeout: 1_000,
  clusterRetryStrategy: pauseMs,
} satisfies ClusterOptions;

function pauseMs(attempt: number): number {
  return Math.min(1_000, 50 * 2 ** Math.min(attempt, 10)) * (0.75 + Math.random() / 4);
}
