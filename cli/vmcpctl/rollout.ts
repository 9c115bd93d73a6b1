// Waits until every connected proxy runs a version, or says which one refused it and why.
import { type Proxy as ProxyRow, ProxyState, type WatchProxiesResponse } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import type { Connection } from "./connection.ts";
import { nackText } from "./nack.ts";
import type { Output } from "./output.ts";

export interface RolloutOptions {
  readonly connection: Connection;
  readonly version: string;
  readonly timeoutMs: number;
  /** When the change was sent. */
  readonly sinceMs: number;
  readonly output: Output;
}

/** Throws ExitError 1 when a proxy refused it, 75 when the time is over. */
export async function waitForProxies(options: RolloutOptions): Promise<void> {
  const { connection, version, timeoutMs, sinceMs, output } = options;
  const revision = revisionOf(version);
  let latest: readonly ProxyRow[] = [];
  const stream = connection.admin.watchProxies({}, { deadline: Date.now() + timeoutMs });
  const settled = new Promise<boolean>((resolve, reject) => {
    stream.on("data", (response: WatchProxiesResponse) => {
      latest = response.proxies.filter(({ state }) => state !== ProxyState.DISCONNECTED);
      if (latest.every((proxy) => runs(proxy, revision) || refused(proxy, revision))) resolve(true);
    });
    stream.on("error", (error) => ("code" in error && error.code === deadlineExceeded ? resolve(false) : reject(error)));
    stream.on("end", () => resolve(false));
  });
  const inTime = await settled.finally(() => stream.cancel());
  const acked = latest.filter((proxy) => runs(proxy, revision)).length;
  const nacked = latest.filter((proxy) => refused(proxy, revision));
  const count = `${acked}/${latest.length} ${latest.length === 1 ? "proxy" : "proxies"}`;
  if (nacked.length > 0) {
    throw new ExitError(
      exitCodes.failure,
      `${count} acknowledged ${version}, ${nacked.length} refused it\n${nacked.map(nackText).join("\n")}`,
    );
  }
  if (!inTime) {
    const missing = latest.filter((proxy) => !runs(proxy, revision)).map(({ node }) => node?.id);
    throw new ExitError(
      exitCodes.temporary,
      `${count} acknowledged ${version} within ${timeoutMs / 1000} s; waiting for ${missing.join(", ")}`,
    );
  }
  if (latest.length === 0) output.note(`no proxy is connected; ${version} goes to those that come\n`);
  else output.note(`${count} acknowledged ${version} in ${Date.now() - sinceMs} ms\n`);
}

const deadlineExceeded = 4;

/** A later version holds the change as well: several commits may become one snapshot. */
function runs({ liveVersion, state }: ProxyRow, revision: bigint): boolean {
  return state !== ProxyState.STALE && revisionOf(liveVersion) >= revision;
}

function refused({ state, lastNack }: ProxyRow, revision: bigint): boolean {
  return state === ProxyState.NACKED && lastNack !== undefined && revisionOf(lastNack.version) >= revision;
}

/** -1 for a proxy that runs nothing. */
function revisionOf(version: string): bigint {
  const digits = /^r(\d+)-/.exec(version)?.[1];
  return digits === undefined ? -1n : BigInt(digits);
}
