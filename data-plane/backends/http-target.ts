// One URL, and the connections to it that all sessions and calls share.
import { Pool } from "undici";
import type { Log } from "../../common/log.ts";
import type { Credential } from "../outgoing-auth/credential.ts";
import { createTurnstile } from "../session/turnstile.ts";

/** Connections to one origin. */
export interface HttpPool extends Pool {
  /** Without TLS: what is written goes to the system as it is, one request at a time. */
  readonly isPlain: boolean;
}

export interface HttpTarget {
  /** For calls, as many at a time as a backend may have in flight. */
  readonly calls: HttpPool;
  /** For streams, which hold their connections for hours, and for answers that calls wait for: neither may wait for calls. */
  readonly streams: HttpPool;
  readonly path: string;
  readonly credential: Credential;
  readonly log: Log;
  /** Runs the work that ends a session, a few at a time: thousands may end in the same moment. */
  ending<T>(work: () => Promise<T>): Promise<T>;
  /** Drops every connection. */
  close(): Promise<void>;
}

// Timeouts of calls are ours (one deadline per call), so undici's are off; connecting has its own, short one.
const settings = { connect: { timeout: 2_000 }, headersTimeout: 0, bodyTimeout: 0, pipelining: 1, keepAliveTimeout: 4_000 };

/** Calls that one backend may have in flight. */
export const callsMax = 256;

const endingsMax = 16;

/** Nothing is opened before the first request. */
export function createHttpTarget({ url, credential, log }: { url: string; credential: Credential; log: Log }): HttpTarget {
  const { origin, protocol, pathname, search } = new URL(url);
  const isPlain = protocol === "http:";
  const calls = Object.assign(new Pool(origin, { ...settings, connections: callsMax }), { isPlain });
  const streams = Object.assign(new Pool(origin, settings), { isPlain });
  return {
    calls,
    streams,
    path: pathname + search,
    credential,
    log,
    ending: createTurnstile(endingsMax),
    async close() {
      await Promise.all([calls.destroy(), streams.destroy()]);
    },
  };
}
