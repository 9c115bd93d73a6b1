// What a proxy knows of its configuration, and what it makes of what comes: checks it, puts it into force, keeps it on disk, and
// says what to answer. Which stream it came on, and whether there is one, is not its business.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { status as grpcStatus } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { BadRequestSchema } from "../../proto/gen/google/rpc/error_details_pb.ts";
import {
  ConfigSource,
  type Delta,
  NackReason,
  type SnapshotResource,
  type StreamSnapshotsRequestSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { reasonOf } from "../backends/errors.ts";
import { SnapshotRefusedError } from "../runtime.ts";
import type { Live } from "./apply.ts";
import { digestOf, readSnapshot, readTerms } from "./content.ts";
import type { LastGood } from "./last-good.ts";
import type { SavedSnapshot, SavedTerms } from "./last-good-format.ts";
import { isUnfit, type Unfit, type Whole } from "./parts.ts";

export type Request = MessageInitShape<typeof StreamSnapshotsRequestSchema>;

/** What this proxy runs. */
export interface Known {
  readonly version: string;
  readonly digest: Uint8Array;
  /** The newest that came, also of a snapshot that was refused: its revocations are obeyed. */
  readonly revision: bigint;
  readonly storeUid: string;
  readonly source: ConfigSource;
  /** When it went live here; undefined when nothing has. */
  readonly sinceMs: number | undefined;
  /** When a control plane last said that this is what to run. */
  readonly confirmedMs: number | undefined;
}

export interface ReceiverOptions {
  readonly live: Pick<Live, "apply" | "obey">;
  /** Where what is live is kept. Default: nowhere. */
  readonly lastGood?: Pick<LastGood, "save" | "directory"> | undefined;
  readonly log: Log;
  /** Hears of every snapshot that went live. */
  readonly onLive: (version: string) => void;
  /** Hears of every snapshot that was refused. */
  readonly onRefused: (error: SnapshotRefusedError) => void;
  /** Default: the system's. */
  readonly nowMs?: () => number;
}

export interface Receiver {
  known(): Known;
  /** Serves the first of these that can be put into force; false when none can. */
  start(saved: readonly SavedStart[]): Promise<boolean>;
  /** One after the other, in the order of the calls; gives what to answer. */
  take(response: Whole | Unfit): Promise<Request>;
  /** Resolves when everything that was taken is dealt with. */
  settled(): Promise<void>;
}

export interface SavedStart extends SavedSnapshot {
  readonly source: ConfigSource;
}

/** Knows nothing at first. */
export function createReceiver(options: ReceiverOptions): Receiver {
  const { live, lastGood, log, onLive, onRefused, nowMs = Date.now } = options;
  let known: Known = {
    ...{ version: "", digest: new Uint8Array(), revision: 0n, storeUid: "" },
    ...{ source: ConfigSource.NONE, sinceMs: undefined, confirmedMs: undefined },
  };
  let resources: readonly SnapshotResource[] = [];
  let liveRevision = 0n;
  let applying: Promise<unknown> = Promise.resolve();

  async function start(saved: readonly SavedStart[]): Promise<boolean> {
    for (const one of saved) {
      const { version, digest, revision, storeUid, createdMs, source, terms } = one;
      try {
        await live.apply(readSnapshot(one, one.resources), { isRestart: true });
      } catch (error) {
        if (error instanceof SnapshotRefusedError) onRefused(error);
        log.error({ version, reason: reasonOf(error) }, "a snapshot on disk can't be put into force");
        continue;
      }
      if (terms) obey({ version, storeUid, revision: terms.revision }, terms.revocations ? [terms.revocations] : []);
      [resources, liveRevision] = [one.resources, revision];
      const newest = terms ? terms.revision : revision;
      known = { ...{ version, digest, storeUid, source }, revision: newest, sinceMs: nowMs(), confirmedMs: createdMs };
      log.warn(
        { version, created: new Date(createdMs).toISOString() },
        "serving a snapshot from disk until a control plane answers",
      );
      onLive(version);
      return true;
    }
    return false;
  }

  /** First and by itself: a revoked session must not outlive a snapshot that takes long, or is refused. */
  function obey(header: Parameters<typeof readTerms>[0], from: readonly SnapshotResource[]): boolean {
    const terms = readTerms(header, from);
    if (terms) live.obey(terms);
    return terms !== undefined;
  }

  async function take(response: Whole): Promise<Request> {
    const startedMs = performance.now();
    const { payload } = response;
    if (payload.case === "upToDate") {
      known = { ...known, confirmedMs: nowMs() };
      return acknowledged(response, known.digest, startedMs);
    }
    const refusal = refusalOf(response);
    if (refusal) return refused(response, refusal);
    const wanted = payload.case === "delta" ? patched(resources, payload.value) : payload.resources;
    if (!Buffer.from(digestOf(wanted)).equals(response.digest))
      return refused(response, { reason: NackReason.DIGEST_MISMATCH, message: "the digest is not of this content" });
    const isObeyed = known.version !== "" && obey(response, wanted); // before the first, nobody is served
    if (isObeyed) known = { ...known, revision: response.revision };
    try {
      await live.apply(readSnapshot(response, wanted));
    } catch (error) {
      if (isObeyed) keep({ revision: response.revision, revocations: wanted.find(({ name }) => name === "revocations") });
      const message = reasonOf(error);
      if (!(error instanceof SnapshotRefusedError)) return refused(response, { reason: NackReason.INTERNAL, message });
      onRefused(error);
      return refused(response, { reason: NackReason.INVALID_RESOURCE, message, violations: error.violations });
    }
    const { version, digest, revision, storeUid } = response;
    [resources, liveRevision] = [wanted, revision];
    const now = nowMs();
    known = { ...{ version, digest, revision, storeUid }, source: ConfigSource.CONTROL_PLANE, sinceMs: now, confirmedMs: now };
    log.info({ version, milliseconds: Math.round(performance.now() - startedMs) }, "snapshot is live");
    onLive(version);
    keep(undefined);
    return acknowledged(response, digest, startedMs);
  }

  /** Why something is not even looked at. */
  function refusalOf({ revision, storeUid, payload }: Whole): Refusal | undefined {
    if (known.storeUid !== "" && known.storeUid !== storeUid) {
      // An emptied or exchanged database must not take a running fleet down with it.
      const way = lastGood ? `empty ${lastGood.directory} and restart this proxy` : "restart this proxy";
      return { reason: NackReason.FOREIGN_STORE, message: `it comes from another store (${storeUid}); to follow that, ${way}` };
    }
    if (known.storeUid !== "" && revision < known.revision)
      return {
        reason: NackReason.STALE_REVISION,
        message: `revision ${revision} is older than ${known.revision}, which came before`,
      };
    if (payload.case !== "delta") return undefined;
    const { baseVersion, upserts } = payload.value;
    if (baseVersion !== known.version) {
      const message = `it changes ${baseVersion}, and ${known.version || "nothing"} is live`;
      return { reason: NackReason.BASE_MISMATCH, message };
    }
    if (new Set(upserts.map(({ name }) => name)).size === upserts.length) return undefined;
    return { reason: NackReason.INVALID_RESOURCE, message: "a resource is there twice" };
  }

  /** Only what is live is kept, and with it what came since about sessions. */
  function keep(terms: SavedTerms | undefined): void {
    const { version, digest, storeUid } = known;
    if (version === "") return;
    lastGood?.save({ version, digest, storeUid, resources, terms, revision: liveRevision, createdMs: nowMs() });
  }

  function refused({ nonce, version }: Whole | Unfit, { reason, message, violations = [] }: Refusal): Request {
    log.error({ version, reason: message }, "snapshot refused; what was live stays live");
    const fieldViolations = violations.map(({ resource, field, description }) => ({
      field: field ? `${resource}: ${field}` : resource,
      description,
    }));
    const details = fieldViolations.length > 0 ? [anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations }))] : [];
    const error = { code: grpcStatus.INVALID_ARGUMENT, message, details };
    return { message: { case: "nack", value: { nonce, version, liveVersion: known.version, reason, error } } };
  }

  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = applying.then(work);
    applying = turn.catch(() => undefined);
    return turn;
  }

  return {
    known: () => known,
    start: (saved) => inTurn(() => start(saved)),
    take: (response) =>
      inTurn(async () => {
        if (!isUnfit(response)) return take(response);
        return refused(response, {
          reason: response.isTooLarge ? NackReason.TOO_LARGE : NackReason.INTERNAL,
          message: response.why,
        });
      }),
    settled: async () => void (await applying),
  };
}

interface Refusal {
  readonly reason: NackReason;
  readonly message: string;
  readonly violations?: SnapshotRefusedError["violations"];
}

/** Sorted by name, as a snapshot is. */
export function patched(base: readonly SnapshotResource[], { upserts, removals }: Delta): SnapshotResource[] {
  const byName = new Map(base.map((resource) => [resource.name, resource]));
  for (const name of removals) byName.delete(name);
  for (const resource of upserts) byName.set(resource.name, resource);
  return [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function acknowledged({ nonce, version }: Whole, digest: Uint8Array, startedMs: number): Request {
  const applyDuration = durationFromMs(Math.round(performance.now() - startedMs));
  return { message: { case: "ack", value: { nonce, version, digest, applyDuration } } };
}
