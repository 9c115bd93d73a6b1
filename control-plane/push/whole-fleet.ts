// The proxies of all control planes on one store. Each tells the others through the store what it sees of its own, and hears what they
// see: a change within moments, and every 5 s that it is still there.
import { setTimeout as delay } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Log } from "../../common/log.ts";
import {
  type ControlPlane,
  ControlPlaneSchema,
  type GetRolloutResponse,
  type Proxy as ProxyRow,
  ProxySchema,
  ProxyState,
  RolloutState,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { type ChangeFeed, createChangeFeed } from "../change-feed.ts";
import { type Store, StoreError } from "../store/store.ts";
import { type Fleet, rememberedMs } from "./fleet.ts";
import { isHeard, isSameContent } from "./rows.ts";

// Three tellings may be late or lost.
const ttlMs = 15_000;
const stillThereMs = 5_000;

// Acknowledgements of a fleet come in a burst, and are told together. What only changes numbers waits for longer.
const burstMs = 100;
const calmMs = 2_000;

/** Kind of the records that name proxies which are to take no new work. */
export const drainKind = "drains";

const goodbyeMs = 1_000;

const forgetEveryMs = 60 * 60_000;

export interface WholeFleetOptions {
  readonly store: Pick<Store, "peers" | "records">;
  readonly fleet: Fleet;
  readonly log: Log;
}

/** This control plane. */
export type Self = Pick<ControlPlane, "id" | "instanceId" | "address" | "softwareVersion">;

/** Goes on with what it knows while the store is away. When it is disposed, the others are told that this control plane is gone. */
export interface WholeFleet extends AsyncDisposable {
  /** Begins to tell and to hear. Before that there are no others. */
  begin(self: Self): void;
  /** Sorted by id. */
  proxies(): ProxyRow[];
  /** This one first, the others sorted by id. */
  controlPlanes(): ControlPlane[];
  /** Empty before there is one. */
  targetVersion(): string;
  rollout(): GetRolloutResponse;
  /** Looks now who is to take no new work. Throws StoreError. */
  readDrains(): Promise<void>;
  readonly changes: Pick<ChangeFeed, "next">;
}

interface Heard {
  number: bigint;
  controlPlane: ControlPlane;
  isThere: boolean;
  heardMs: number;
  readonly rows: Map<string, ProxyRow>;
}

export function createWholeFleet({ store, fleet, log }: WholeFleetOptions): WholeFleet {
  const { peers, records } = store;
  const feed = createChangeFeed();
  const stop = new AbortController();
  /** By instance id. */
  const heard = new Map<string, Heard>();
  /** What the others know of ours: id → row. */
  const told = new Map<string, Uint8Array>();
  let self: Self = { id: "", instanceId: "", address: "", softwareVersion: "" };
  let following: Promise<void> | undefined;
  let toldLines = "";
  let toldMs = 0;
  let number = 0n;
  let forgotMs = 0;
  let hasTwin = false;

  /** As the others are told. */
  function ownBody(): Uint8Array {
    const rollout = { ...fleet.rollout(), refused: [] };
    return toBinary(ControlPlaneSchema, create(ControlPlaneSchema, { ...self, live: true, rollout }));
  }

  async function tell(): Promise<void> {
    const rows = fleet.proxies();
    const lines = rows.map(lineOf).join("\n");
    const sinceMs = performance.now() - toldMs;
    if (number > 0n && lines === toldLines && sinceMs < calmMs) return;
    const encoded = new Map(rows.map((row) => [row.node?.id ?? "", toBinary(ProxySchema, row)]));
    const proxies = new Map([...encoded].filter(([id, row]) => Buffer.compare(row, told.get(id) ?? nothing) !== 0));
    const forgotten = [...told.keys()].filter((id) => !encoded.has(id));
    if (number > 0n && proxies.size + forgotten.length === 0 && sinceMs < stillThereMs) return;
    number += 1n;
    await peers.tell(self.instanceId, { number, body: ownBody(), ttlMs, proxies, forgotten });
    for (const [id, row] of proxies) told.set(id, row);
    for (const id of forgotten) told.delete(id);
    [toldLines, toldMs] = [lines, performance.now()];
  }

  async function hear(): Promise<void> {
    let isNews = false;
    const present = await peers.hear(new Map([...heard].map(([id, { number }]) => [id, number])));
    for (const peer of present) {
      if (peer.id === self.instanceId) continue;
      const known = heard.get(peer.id);
      isNews ||= known?.number !== peer.number || known.isThere !== peer.isThere;
      if (known?.controlPlane.id === self.id && peer.number > known.number) warnOfTwin();
      const rows = known?.rows ?? new Map<string, ProxyRow>();
      for (const [id, row] of peer.proxies) rows.set(id, fromBinary(ProxySchema, row));
      heard.set(peer.id, { ...peer, controlPlane: fromBinary(ControlPlaneSchema, peer.body), rows });
    }
    const ids = new Set(present.map(({ id }) => id));
    for (const id of heard.keys()) if (!ids.has(id)) isNews = heard.delete(id);
    fleet.heed(rolloutsOfOthers().find(({ state }) => state === RolloutState.HALTED)?.reason);
    if (isNews) feed.wake();
  }

  /** Each takes the other for its own past, and the other's proxies for lost. */
  function warnOfTwin(): void {
    if (!hasTwin) log.warn({ id: self.id }, "two control planes have the same name; give each its own with --id");
    hasTwin = true;
  }

  /** Of those that are there, about what is the newest here. */
  function rolloutsOfOthers(): GetRolloutResponse[] {
    const version = fleet.target()?.version ?? "";
    return [...heard.values()].flatMap((peer) => {
      const { rollout } = peer.controlPlane;
      return isThere(peer) && rollout && isSameContent(rollout.targetVersion, version) ? [rollout] : [];
    });
  }

  /** One that was started again under its name is not there as what it was before. */
  function isThere({ controlPlane: { id }, isThere, heardMs }: Heard): boolean {
    const isLater = (other: Heard) => other.controlPlane.id === id && other.heardMs > heardMs;
    return isThere && id !== self.id && ![...heard.values()].some(isLater);
  }

  async function readDrains(): Promise<void> {
    fleet.drainProxies(new Set((await records.list(drainKind)).map(({ id }) => id)));
  }

  async function forget(): Promise<void> {
    if (performance.now() - forgotMs < forgetEveryMs && forgotMs > 0) return;
    await peers.forget(rememberedMs);
    forgotMs = performance.now();
  }

  async function follow(): Promise<void> {
    let isAway = false;
    while (!stop.signal.aborted) {
      const round = new AbortController();
      const signal = AbortSignal.any([stop.signal, round.signal, AbortSignal.timeout(calmMs)]);
      const changed = Promise.race([fleet.changes.next(signal), peers.changes.next(signal)]);
      try {
        await tell();
        await hear();
        await readDrains();
        await forget();
        isAway = false;
      } catch (error) {
        if (stop.signal.aborted) break;
        if (!(error instanceof StoreError))
          log.error({ err: error }, "other control planes could not be told of the proxies here");
        else if (!isAway)
          log.warn({ reason: error.message }, "other control planes are not heard of, nor told of the proxies here");
        isAway = true;
      }
      await changed;
      round.abort();
      await delay(burstMs, undefined, { signal: stop.signal }).catch(() => undefined);
    }
  }

  async function sayGoodbye(following: Promise<void>): Promise<void> {
    await following;
    number += 1n;
    const telling = { number, body: ownBody(), ttlMs: 0, proxies: new Map(), forgotten: [] };
    await peers
      .tell(self.instanceId, telling)
      .catch((error) => log.debug({ reason: error.message }, "nobody was told that this control plane ends"));
  }

  function sightings(): Sighting[] {
    const own = fleet.proxies().map((row) => ({ row: { ...row, controlPlane: self.id }, atMs: lastMs(row), isOwn: true }));
    const others = [...heard.values()].flatMap((peer) => {
      const { controlPlane, heardMs } = peer;
      const facts = { controlPlane: controlPlane.id, heardTime: timestampFromMs(heardMs) };
      return [...peer.rows.values()].map((row): Sighting => {
        if (isThere(peer) || !isHeard(row)) return { row: { ...row, ...facts }, atMs: lastMs(row), isOwn: false };
        return { row: { ...row, ...facts, state: ProxyState.SERVING_STALE }, atMs: heardMs, isOwn: false };
      });
    });
    const oldestMs = Date.now() - rememberedMs;
    return [...own, ...others].filter(({ row, atMs }) => isHeard(row) || atMs > oldestMs);
  }

  const proxies = (): ProxyRow[] => newestOfEach(sightings());

  return {
    begin(who) {
      self = who;
      following = follow();
    },
    proxies,
    readDrains,
    controlPlanes() {
      const last = new Map<string, Heard>();
      for (const peer of [...heard.values()].sort((a, b) => a.heardMs - b.heardMs)) last.set(peer.controlPlane.id, peer);
      last.delete(self.id);
      const others = [...last.values()].map((peer) => ({
        ...peer.controlPlane,
        live: isThere(peer),
        heardTime: timestampFromMs(peer.heardMs),
      }));
      return [create(ControlPlaneSchema, { ...self, live: true }), ...others.sort((a, b) => (a.id < b.id ? -1 : 1))];
    },
    targetVersion: () => fleet.target()?.version ?? "",
    rollout: () => fleet.rollout({ rows: proxies(), others: rolloutsOfOthers() }),
    changes: { next: (signal) => nextOf([fleet.changes, feed], signal) },
    async [Symbol.asyncDispose]() {
      stop.abort();
      // A store that hangs is not waited for; the others notice by themselves.
      if (following === undefined) return;
      await Promise.race([sayGoodbye(following), delay(goodbyeMs, undefined, { ref: false })]);
    },
  };
}

const nothing = new Uint8Array();

/** One control plane's word on a proxy. */
interface Sighting {
  readonly row: ProxyRow;
  /** Since when, or at which time, it was so. */
  readonly atMs: number;
  readonly isOwn: boolean;
}

/** Of each proxy the word that counts: of one that hears from it, the newest, and rather ours than another's. */
function newestOfEach(sightings: readonly Sighting[]): ProxyRow[] {
  const best = new Map<string, Sighting>();
  const rank = ({ row, atMs, isOwn }: Sighting): readonly number[] => [isHeard(row) ? 1 : 0, atMs, isOwn ? 1 : 0];
  for (const sighting of sightings) {
    const id = sighting.row.node?.id ?? "";
    const other = best.get(id);
    if (other === undefined || isAfter(rank(sighting), rank(other))) best.set(id, sighting);
  }
  return [...best].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { row }]) => row);
}

function isAfter(one: readonly number[], other: readonly number[]): boolean {
  const at = one.findIndex((value, index) => value !== other[index]);
  return at >= 0 && (one[at] as number) > (other[at] as number);
}

/** When it came, or, of one that left, when it did. */
function lastMs({ connectTime, disconnectTime }: ProxyRow): number {
  const time: Timestamp | undefined = disconnectTime ?? connectTime;
  return time === undefined ? 0 : timestampMs(time);
}

/** What others should hear of at once. */
function lineOf({ node, state, liveVersion, targetVersion, drain, lastNack }: ProxyRow): string {
  return `${node?.id} ${node?.instanceId} ${state} ${liveVersion} ${targetVersion} ${drain} ${lastNack?.version ?? ""}`;
}

async function nextOf(feeds: readonly Pick<ChangeFeed, "next">[], signal: AbortSignal): Promise<void> {
  const done = new AbortController();
  const either = AbortSignal.any([signal, done.signal]);
  await Promise.race(feeds.map((one) => one.next(either)));
  done.abort();
}
