// Follows the control planes for as long as the proxy runs. As a drawing:
//
//   starting (from disk, if there is something) ──▶ connecting ──an answer──▶ streaming ──the stream ends──▶ waiting ──▶ connecting
//                                      streaming ──asked to go──▶ connecting elsewhere; the old stream ends when the new one serves
//
// While no control plane answers, what is live stays live.
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import { ConfigSource } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { reasonOf } from "../backends/errors.ts";
import { createBackoff } from "./backoff.ts";
import { type LastGood, openLastGood, readSnapshotFile } from "./last-good.ts";
import type { Link } from "./link.ts";
import { createReceiver, type Receiver, type ReceiverOptions, type SavedStart } from "./receiver.ts";
import { openStream, type Stream, type StreamOptions } from "./stream.ts";

// Those that are asked to go don't all come to the next one in the same moment.
const moveMsMax = 500;

export interface SyncOptions
  extends Pick<StreamOptions, "node" | "state" | "listSessions" | "setDrained" | "openTap" | "catalogs">,
    Pick<ReceiverOptions, "live" | "onLive" | "onRefused"> {
  /** Addresses of control planes; tried in turn, in an order of this process's own. */
  readonly controlPlanes: readonly string[];
  readonly link: Link;
  /** Where snapshots are kept for the next start. Default: nowhere. */
  readonly stateDirectory?: string | undefined;
  /** A file as it is kept there, to start from when there is nothing newer. */
  readonly bootstrapSnapshot?: string | undefined;
  readonly log: Log;
}

export interface Sync extends AsyncDisposable {
  /** Something changed: report soon. */
  reportSoon(): void;
  /** Where what is served comes from. */
  status(): SyncStatus;
}

export interface SyncStatus {
  readonly source: "none" | "control plane" | "disk" | "bootstrap";
  /** When it went live here. */
  readonly sinceMs: number | undefined;
  /** When a control plane last said that this is what to run; undefined: now, or never. */
  readonly confirmedMs: number | undefined;
  /** The control plane that is followed right now. */
  readonly controlPlane: string | undefined;
  /** When the certificate ends that control planes know this proxy by; undefined: it has none. */
  readonly certificateEndsMs: number | undefined;
}

/** Starts to follow; runs until disposed. */
export function startSync(options: SyncOptions): Sync {
  const { log } = options;
  const stop = new AbortController();
  let receiver: Receiver | undefined;
  let current: Stream | undefined;
  let followed: string | undefined;

  async function run(): Promise<void> {
    await using lastGood = options.stateDirectory ? await openLastGood(options.stateDirectory, log) : undefined;
    receiver = createReceiver({ ...options, lastGood });
    await receiver.start(await savedStarts(lastGood, options));
    await follow(receiver);
    await receiver.settled();
  }

  async function follow(receiver: Receiver): Promise<void> {
    const addresses = shuffled(options.controlPlanes);
    const backoffMs = createBackoff();
    let leaving: Stream | undefined;
    for (let at = 0; !stop.signal.aborted; at++) {
      const security = options.link.security();
      if (security === undefined) {
        await options.link.changed(stop.signal);
        continue;
      }
      const startedMs = performance.now();
      const address = addresses[at % addresses.length] as string;
      const stream = openStream(address, { ...options, receiver, security });
      current = stream;
      stop.signal.addEventListener("abort", stream.close, { once: true });
      void stream.answered.then(() => {
        if (current !== stream) return;
        followed = address;
        leaving?.close();
      });
      const moved = new AbortController();
      const renewed = options.link
        .changed(AbortSignal.any([stop.signal, moved.signal]))
        .then(() => ({ name: "renewed" }) as const);
      const outcome = await Promise.race([stream.outcome, renewed]);
      moved.abort();
      if (stop.signal.aborted) break;
      if (outcome.name === "renewed") {
        // The same control plane; what was opened with the certificate before lives until the new stream is answered.
        leaving?.close();
        leaving = stream;
        at -= 1;
        continue;
      }
      followed = undefined;
      if (outcome.name === "draining" && addresses.length > 1) {
        log.info({ controlPlane: address }, "the control plane is going away; following another");
        leaving = stream;
        await pause(Math.random() * Math.min(moveMsMax, outcome.graceMs / 2));
        continue;
      }
      stream.close();
      options.catalogs?.lost();
      stop.signal.removeEventListener("abort", stream.close);
      const ended = outcome.name === "ended" ? outcome : { ...elsewhere, reason: "it is going away" };
      if (ended.isUnauthenticated) options.link.refused();
      log.warn({ controlPlane: address, reason: ended.reason }, "no stream to the control plane; serving what is live");
      await pause(backoffMs({ ...ended, lastedMs: performance.now() - startedMs }));
    }
    leaving?.close();
  }

  const pause = (ms: number): Promise<void> => sleep(ms, undefined, { signal: stop.signal }).catch(() => undefined);

  const running = run();
  return {
    reportSoon: () => current?.reportSoon(),
    status() {
      const known = receiver?.known();
      const isFollowing = followed !== undefined;
      return {
        source: nameOf(known?.source),
        sinceMs: known?.sinceMs,
        confirmedMs: isFollowing ? undefined : known?.confirmedMs,
        controlPlane: followed,
        certificateEndsMs: options.link.endsMs(),
      };
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

const elsewhere = { isUnreachable: true, isUnauthenticated: false, retryMs: undefined };

function nameOf(source: ConfigSource | undefined): SyncStatus["source"] {
  switch (source) {
    case ConfigSource.CONTROL_PLANE:
      return "control plane";
    case ConfigSource.DISK:
      return "disk";
    case ConfigSource.BOOTSTRAP:
      return "bootstrap";
    default:
      return "none";
  }
}

/** What there is to start from, best first: what was live last, unless the operator's file is newer. */
async function savedStarts(lastGood: LastGood | undefined, { bootstrapSnapshot, log }: SyncOptions): Promise<SavedStart[]> {
  const onDisk = ((await lastGood?.load()) ?? []).map((saved) => ({ ...saved, source: ConfigSource.DISK }));
  if (bootstrapSnapshot === undefined) return onDisk;
  try {
    const given = { ...(await readSnapshotFile(bootstrapSnapshot)), source: ConfigSource.BOOTSTRAP };
    const [last] = onDisk;
    const isNewer = last?.storeUid === given.storeUid && given.revision > last.revision;
    return isNewer ? [given, ...onDisk] : [...onDisk, given];
  } catch (error) {
    log.error({ file: bootstrapSnapshot, reason: reasonOf(error) }, "the bootstrap snapshot can't be used");
    return onDisk;
  }
}

/** Proxies of a fleet are told the same list, and don't all come to its first. */
function shuffled(addresses: readonly string[]): string[] {
  const keyed = addresses.map((address) => ({ address, key: Math.random() }));
  return keyed.sort((a, b) => a.key - b.key).map(({ address }) => address);
}
