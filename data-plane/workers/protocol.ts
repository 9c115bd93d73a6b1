// What a worker and the process that leads it ask each other.
import type { CallsQuery } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { OwnStatus } from "../ingress/probes.ts";
import type { UserTokens } from "../outgoing-auth/user-tokens.ts";
import type { SessionTerms, SnapshotContent, Violation } from "../runtime.ts";
import type { ServingOptions } from "../serving.ts";
import type { SessionFilter } from "../session/listing.ts";
import type { RecordStore, StoreEvent } from "../session/record-store.ts";
import type { ApplyOptions } from "../sync/apply.ts";
import type { ProxyState } from "../sync/report.ts";
import type { SessionListing } from "../sync/session-report.ts";
import type { Duties } from "../sync/watch-duty.ts";
import type { Family } from "../telemetry/exposition.ts";
import type { CallsReport } from "../telemetry/tap.ts";

/** How a worker is to serve. */
export interface WorkerOptions extends Omit<ServingOptions, "log"> {
  /** From 1 on; in logs. */
  readonly worker: number;
  readonly allowStdio: boolean;
  /** The secret that all workers make keys of, where the operator gave none. */
  readonly secret: string | undefined;
}

/** What a worker answers. */
export interface WorkerAnswers {
  /** Once, before everything else: listens where only this worker does; gives `http://host:port`. */
  start(options: WorkerOptions): Promise<string>;
  /** Builds a snapshot aside; gives what is wrong with it. */
  prepare(content: SnapshotContent, how: ApplyOptions): Promise<readonly Violation[]>;
  /** Puts what was prepared last into force. */
  enter(): void;
  drop(): void;
  obey(terms: SessionTerms): void;
  watch(duties: Duties): void;
  /** See Engine. */
  listing(catalog: string): Uint8Array | undefined;
  /** Listens where all workers do; gives `http://host:port`. */
  join(): Promise<string>;
  /** Its event loop turns. */
  alive(): void;
  status(): OwnStatus;
  metrics(): readonly Family[];
  sessions(filter: SessionFilter): Promise<SessionListing>;
  /** Another worker has changed something. */
  heard(event: StoreEvent): void;
  /** Takes no new work, or takes it again. */
  setDrained(isWanted: boolean): void;
  /** Tells of calls from now on, or no longer (undefined), under a number of the leader's. */
  tap(number: number, query: CallsQuery | undefined): void;
  /** Stops serving; answers when nothing is in hand any more. */
  drain(): Promise<void>;
}

type Named<P extends string, T> = { readonly [K in keyof T & string as `${P}.${K}`]: T[K] };

/** What the leader answers. Sessions and users' tokens are kept there, when not in Redis. */
export interface LeaderAnswers
  extends Named<"records", Omit<RecordStore, "isShared" | "tellsAll" | typeof Symbol.asyncDispose>>,
    Named<"tokens", Omit<UserTokens, "lock" | typeof Symbol.asyncDispose>> {
  /** How the worker is; views only when they are others than before. */
  report(state: ProxyState): void;
  /** What answers a query of that number. */
  calls(number: number, report: CallsReport): void;
  /** Of the whole proxy. */
  status(): Promise<object>;
  metrics(): Promise<string>;
  /** Whether it was free. */
  "tokens.lock"(key: string): Promise<boolean>;
  "tokens.unlock"(key: string): Promise<void>;
}
