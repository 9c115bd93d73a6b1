// How proxies stand, in words.
import { DrainState, type Proxy as ProxyRow, ProxyState } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { Output } from "./output.ts";

/** `stale`: it runs, or seems to run, what is no longer wanted. */
export type FailOn = "stale" | "disconnected" | "nacked";

/** What `--fail-on` looks for. */
export const failOns: Readonly<Record<FailOn, readonly ProxyState[]>> = {
  stale: [ProxyState.STALE, ProxyState.SERVING_STALE],
  disconnected: [ProxyState.DISCONNECTED],
  nacked: [ProxyState.NACKED],
};

/** Whether some control plane hears from it. */
export function isHeard({ state }: Pick<ProxyRow, "state">): boolean {
  return state !== ProxyState.DISCONNECTED && state !== ProxyState.SERVING_STALE;
}

/** `SYNCED`, or `SYNCED,DRAINING` for one that takes no new work. */
export function stateText({ state, drain }: Pick<ProxyRow, "state" | "drain">): string {
  return [nameIn(ProxyState, state), ...(drain === DrainState.UNSPECIFIED ? [] : [drainWords[drain]])].join(",");
}

// One that has not said so yet is told, or will be when it comes.
const drainWords: Readonly<Partial<Record<DrainState, string>>> = {
  [DrainState.WANTED]: "DRAIN_WANTED",
  [DrainState.DRAINING]: "DRAINING",
  [DrainState.DRAINED]: "DRAINED",
};

/** The same table with the states that want somebody's attention in colour. */
export function painted(table: string, { paint }: Pick<Output, "paint">): string {
  return table.replace(/ (NACKED|SERVING_STALE|DISCONNECTED|STALE|HELD)(?=[ ,])/g, (_, state: string) => {
    return ` ${paint(state === "HELD" || state === "STALE" ? "yellow" : "red", state)}`;
  });
}

function nameIn(all: Readonly<Record<string, number | string>>, wanted: number): string {
  return Object.entries(all).find(([, value]) => value === wanted)?.[0] ?? String(wanted);
}
