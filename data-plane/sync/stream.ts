// The proxy's end of the discovery stream: subscribes, applies, acknowledges or refuses, reports, reconnects.
// While no control plane answers, what is live stays live.
import { setTimeout as sleep } from "node:timers/promises";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack, durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { softwareVersion } from "../../common/version.ts";
import { BadRequestSchema } from "../../proto/gen/google/rpc/error_details_pb.ts";
import {
  DiscoveryService,
  NackReason,
  type SessionsQuery,
  type StreamSnapshotsRequestSchema,
  type StreamSnapshotsResponse,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type Client, createClient } from "../../proto/grpc.ts";
import { reasonOf } from "../backends/errors.ts";
import { type Runtime, SnapshotRefusedError } from "../runtime.ts";
import type { Live } from "./apply.ts";
import { digestOf, readSnapshot, readTerms } from "./content.ts";
import { createReporter } from "./report.ts";
import { type ListSessions, sessionsReport } from "./session-report.ts";

type Request = MessageInitShape<typeof StreamSnapshotsRequestSchema>;

const schemaVersion = 1;
const backoffMs = { first: 100, most: 5_000 };
const reportMs = { default: 30_000, least: 1_000 };
const reportSoonMs = 100;
const messageBytesMax = 32 * 1024 * 1024;

export interface SyncOptions {
  /** Addresses of control planes; tried in turn. */
  readonly controlPlanes: readonly string[];
  readonly node: { readonly id: string; readonly instanceId: string; readonly address: string };
  readonly live: Live;
  readonly sessions: { readonly size: number };
  /** Tells the control plane which sessions there are. Without it this proxy is not asked. */
  readonly listSessions?: ListSessions;
  readonly log: Log;
  /** Hears of every snapshot that went live. */
  readonly onLive: (version: string) => void;
  /** Hears of every snapshot that was refused. */
  readonly onRefused: (error: SnapshotRefusedError) => void;
}

export interface Sync extends AsyncDisposable {
  /** Something changed: report soon. */
  reportSoon(): void;
}

interface Known {
  version: string;
  digest: Uint8Array;
  /** The newest that came, also of a snapshot that was refused: its revocations are obeyed. */
  revision: bigint;
  storeUid: string;
}

/** Starts to follow; runs until disposed. */
export function startSync(options: SyncOptions): Sync {
  const { live, log } = options;
  const stop = new AbortController();
  const known: Known = { version: "", digest: new Uint8Array(), revision: 0n, storeUid: "" };
  let reportSoon: () => void = () => undefined;
  // Snapshots are applied one after the other, also across two streams.
  let applying: Promise<void> = Promise.resolve();

  async function run(): Promise<void> {
    for (let attempt = 0, at = 0; !stop.signal.aborted; at++) {
      const address = options.controlPlanes[at % options.controlPlanes.length] as string;
      const startedMs = performance.now();
      const reason = await followOne(address);
      if (stop.signal.aborted) return;
      attempt = performance.now() - startedMs > 30_000 ? 0 : attempt + 1;
      log.warn({ controlPlane: address, reason }, "no stream to the control plane; serving what is live");
      const most = Math.min(backoffMs.most, backoffMs.first * 2 ** attempt);
      await sleep(Math.random() * most, undefined, { signal: stop.signal }).catch(() => undefined);
    }
  }

  /** Follows one control plane; gives the reason why the stream ended. */
  function followOne(address: string): Promise<string> {
    const client: Client<typeof DiscoveryService> = createClient(
      DiscoveryService,
      address,
      grpc.credentials.createInsecure(),
      channelOptions,
    );
    const call = client.streamSnapshots();
    const report = createReporter(options.sessions);
    let soon: NodeJS.Timeout | undefined;
    const sendReport = (): void =>
      void call.write({ message: { case: "status", value: report(live.runtime) } } satisfies Request);
    let periodic: NodeJS.Timeout | undefined;
    const sendInTime = (): void => {
      periodic = setTimeout(
        () => {
          sendReport();
          sendInTime();
        },
        reportEveryMs(live.runtime) * (0.8 + Math.random() * 0.4),
      );
    };
    sendInTime();
    reportSoon = () => {
      soon ??= setTimeout(() => {
        soon = undefined;
        sendReport();
      }, reportSoonMs);
    };

    return new Promise((resolve) => {
      const end = (reason: string): void => {
        clearTimeout(periodic);
        clearTimeout(soon);
        reportSoon = () => undefined;
        stop.signal.removeEventListener("abort", cancel);
        client.close();
        resolve(reason);
      };
      const cancel = (): void => call.cancel();
      stop.signal.addEventListener("abort", cancel, { once: true });
      call.on("data", (response: StreamSnapshotsResponse) => {
        const { payload } = response;
        if (payload.case === "drain") return void call.end();
        // Not in line with the snapshots: whoever asks does not wait for backends.
        if (payload.case === "sessionsQuery") return void answer(payload.value, (report) => call.writable && call.write(report));
        applying = applying.then(async () => {
          const answer = await take(response);
          if (answer) call.write(answer);
          reportSoon();
        });
      });
      call.on("error", (error: grpc.ServiceError) => end(error.details || error.message));
      call.on("end", () => end("the control plane ended the stream"));
      call.write(hello(options, known));
    });
  }

  /** Silence is an answer too: the control plane says then that this proxy's sessions are missing. */
  async function answer(query: SessionsQuery, send: (report: Request) => void): Promise<void> {
    try {
      const listing = await options.listSessions?.(query);
      if (listing) send({ message: { case: "sessions", value: sessionsReport(query, listing, options.node.id) } });
    } catch (error) {
      log.warn({ reason: reasonOf(error) }, "the sessions could not be listed");
    }
  }

  /** Applies a response; gives what to answer. */
  async function take(response: StreamSnapshotsResponse): Promise<Request | undefined> {
    const { nonce, version, payload } = response;
    const startedMs = performance.now();
    try {
      if (payload.case === "upToDate") return acknowledge(nonce, version, known.digest, startedMs);
      if (payload.case !== "snapshot")
        return refuse(response, NackReason.INTERNAL, new Error(`payload ${payload.case} is not supported`));
      if (known.storeUid !== "" && known.storeUid === response.storeUid && response.revision < known.revision) {
        return refuse(
          response,
          NackReason.STALE_REVISION,
          new Error(`revision ${response.revision} is older than ${known.revision}, which came before`),
        );
      }
      if (known.storeUid !== "" && known.storeUid !== response.storeUid) {
        // An emptied or exchanged database must not take a running fleet down with it.
        return refuse(
          response,
          NackReason.FOREIGN_STORE,
          new Error(`it comes from another store (${response.storeUid}); restart this proxy to follow that`),
        );
      }
      const { resources } = payload.value;
      const digest = digestOf(resources);
      if (!Buffer.from(digest).equals(response.digest))
        return refuse(response, NackReason.DIGEST_MISMATCH, new Error("the digest is not of this content"));
      // First and by itself: a revoked session must not outlive a snapshot that takes long, or is refused.
      const terms = readTerms(response, resources);
      if (terms) {
        live.obey(terms);
        known.revision = response.revision;
      }
      await live.apply(readSnapshot(response, resources));
      Object.assign(known, { version, digest, revision: response.revision, storeUid: response.storeUid });
      log.info({ version, milliseconds: Math.round(performance.now() - startedMs) }, "snapshot is live");
      options.onLive(version);
      return acknowledge(nonce, version, digest, startedMs);
    } catch (error) {
      if (error instanceof SnapshotRefusedError) options.onRefused(error);
      const isInvalid = error instanceof SnapshotRefusedError;
      return refuse(response, isInvalid ? NackReason.INVALID_RESOURCE : NackReason.INTERNAL, error as Error);
    }
  }

  function refuse({ nonce, version }: StreamSnapshotsResponse, reason: NackReason, error: Error): Request {
    log.error({ version, reason: reasonOf(error) }, "snapshot refused; what was live stays live");
    const violations = error instanceof SnapshotRefusedError ? error.violations : [];
    const fieldViolations = violations.map(({ resource, field, description }) => ({
      field: field ? `${resource}: ${field}` : resource,
      description,
    }));
    const details = fieldViolations.length > 0 ? [anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations }))] : [];
    const status = { code: grpc.status.INVALID_ARGUMENT, message: reasonOf(error), details };
    return { message: { case: "nack", value: { nonce, version, liveVersion: known.version, reason, error: status } } };
  }

  const running = run();
  return {
    reportSoon: () => reportSoon(),
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
      await applying;
    },
  };
}

function hello({ node, listSessions }: SyncOptions, known: Known): Request {
  const value = {
    node: { ...node, softwareVersion },
    knownVersion: known.version,
    knownDigest: known.digest,
    storeUid: known.storeUid,
    schemaMin: schemaVersion,
    schemaMax: schemaVersion,
    features: listSessions ? ["sessions-query"] : [],
  };
  return { message: { case: "hello", value } };
}

function acknowledge(nonce: bigint, version: string, digest: Uint8Array, startedMs: number): Request {
  const applyDuration = durationFromMs(Math.round(performance.now() - startedMs));
  return { message: { case: "ack", value: { nonce, version, digest, applyDuration } } };
}

// A frozen control plane is noticed within 15 s, and retries are ours (they would hide a broken stream).
const channelOptions: grpc.ChannelOptions = {
  "grpc.max_receive_message_length": messageBytesMax,
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.initial_reconnect_backoff_ms": 200,
  "grpc.max_reconnect_backoff_ms": 2_000,
  "grpc.enable_retries": 0,
  "grpc-node.flow_control_window": 1024 * 1024,
};

/** As often as the virtual server wants that wants it most often. */
function reportEveryMs({ virtualServers }: Runtime): number {
  const wanted = [...virtualServers.values()].flatMap(({ spec }) => {
    const interval = spec.operational?.failureHandling?.statusReportingInterval;
    return interval ? [durationMs(interval)] : [];
  });
  return Math.max(reportMs.least, Math.min(reportMs.default, ...wanted));
}
