// Waits until every connected proxy runs a version, or says which one refused it and why.
import { type Proxy as ProxyRow, ProxyState, type WatchProxiesResponse } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import type { Connection } from "./connection.ts";
import { nackText } from "./nack.ts";
import type { Output } from "./output.ts";
import { isHeard } from "./proxy-states.ts";

export interface RolloutOptions {
  readonly connection: Connection;
  readonly version: string;
  readonly timeoutMs: number;
  /** When the change was sent. */
  readonly sinceMs: number;
  /** The change goes to proxies that keep an earlier version, too. Default: it does not. */
  readonly reachesHeld?: boolean;
  readonly output: Output;
}

/** Throws ExitError 1 when a proxy refused it, 75 when the time is over. */
export async function waitForProxies(options: RolloutOptions): Promise<void> {
  const { connection, version, timeoutMs, sinceMs, reachesHeld = false, output } = options;
  const revision = revisionOf(version);
  const runs = ({ liveVersion, state }: ProxyRow): boolean =>
    // A later version holds the change as well: several commits may become one snapshot.
    revisionOf(liveVersion) >= revision && state !== ProxyState.STALE && (state !== ProxyState.HELD || reachesHeld);
  let latest: readonly ProxyRow[] = [];
  const stream = connection.admin.watchProxies({}, { deadline: Date.now() + timeoutMs });
  const settled = new Promise<boolean>((resolve, reject) => {
    stream.on("data", (response: WatchProxiesResponse) => {
      latest = response.proxies.filter(isHeard);
      const isHalted = latest.some((proxy) => refused(proxy, revision));
      // What one refused goes no further, but for what reaches those that keep what they have.
      const isHeld = ({ state }: ProxyRow) => isHalted && state === ProxyState.HELD && !reachesHeld;
      if (latest.every((proxy) => runs(proxy) || refused(proxy, revision) || isHeld(proxy))) resolve(true);
    });
    stream.on("error", (error) => ("code" in error && error.code === deadlineExceeded ? resolve(false) : reject(error)));
    stream.on("end", () => resolve(false));
  });
  const inTime = await settled.finally(() => stream.cancel());
  const acked = latest.filter(runs).length;
  const nacked = latest.filter((proxy) => refused(proxy, revision));
  const count = `${acked}/${latest.length} ${latest.length === 1 ? "proxy" : "proxies"}`;
  if (nacked.length > 0) {
    const held = latest.filter(({ state }) => state === ProxyState.HELD).length;
    const others = held > 0 ? `; ${held} ${held === 1 ? "keeps" : "keep"} what was live until there is another revision` : "";
    const summary = `${count} acknowledged ${version}, ${nacked.length} refused it${others}`;
    throw new ExitError(exitCodes.failure, `${summary}\n${nacked.map(nackText).join("\n")}`);
  }
  if (!inTime) {
    const missing = latest.filter((proxy) => !runs(proxy)).map(({ node }) => node?.id);
    throw new ExitError(
      exitCodes.temporary,
      `${count} acknowledged ${version} within ${timeoutMs / 1000} s; waiting for ${missing.join(", ")}`,
    );
  }
  if (latest.length === 0) output.note(`no proxy is connected; ${version} goes to those that come\n`);
  else output.note(`${count} acknowledged ${version} in ${Date.now() - sinceMs} ms\n`);
}

const deadlineExceeded = 4;

function refused({ state, lastNack }: ProxyRow, revision: bigint): boolean {
  return state === ProxyState.NACKED && lastNack !== undefined && revisionOf(lastNack.version) >= revision;
}

/** -1 for a proxy that runs nothing. */
function revisionOf(version: string): bigint {
  const digits = /^r(\d+)-/.exec(version)?.[1];
  return digits === undefined ? -1n : BigInt(digits);
}
