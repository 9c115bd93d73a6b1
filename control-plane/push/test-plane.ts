// For tests: the real discovery server over loopback, with targets and a clock of the test's own.
import { create } from "@bufbuild/protobuf";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { pino } from "pino";
import { resourceDigest, snapshotDigest } from "../../common/snapshot-digest.ts";
import { ProxyState } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import {
  DiscoveryService,
  type SnapshotResource,
  SnapshotResourceSchema,
  type StreamSnapshotsResponse,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { addService } from "../../proto/grpc.ts";
import type { Clock } from "../clock.ts";
import { connectFakeProxy, type FakeProxy } from "./fake-proxy.ts";
import { createFleet, type Fleet, type FleetOptions } from "./fleet.ts";
import { discoveryHandlers } from "./server.ts";
import { createTarget, type Target } from "./target.ts";

const log = pino({ level: "silent" });

export interface TestPlane extends AsyncDisposable {
  readonly fleet: Fleet;
  /** `r<revision>`; by default one resource that is another in every revision. */
  target(revision: number, content?: Readonly<Record<string, string>>): Target;
  connect(id: string, instanceId?: string): FakeProxy;
  /** Waits for a state of a proxy and gives its name; fails after 5 s. */
  state(id: string, wanted: ProxyState): Promise<string | undefined>;
  until(holds: () => boolean): Promise<void>;
}

export async function startTestPlane(options: Partial<FleetOptions> = {}): Promise<TestPlane> {
  const fleet = createFleet({ log, ...options });
  const server = new Server();
  addService(server, DiscoveryService, discoveryHandlers(fleet, log));
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const until = async (holds: () => boolean) => {
    const late = AbortSignal.timeout(5_000);
    while (!holds()) {
      if (late.aborted) throw new Error("it did not come to hold");
      await fleet.changes.next(late);
    }
  };
  return {
    fleet,
    until,
    target: createTargets(),
    connect: (id, instanceId) => connectFakeProxy(`127.0.0.1:${port}`, id, instanceId),
    async state(id, wanted) {
      const stateOf = () => fleet.proxies().find(({ node }) => node?.id === id)?.state;
      await until(() => stateOf() === wanted);
      return Object.entries(ProxyState).find(([, value]) => value === stateOf())?.[0];
    },
    async [Symbol.asyncDispose]() {
      fleet.close();
      server.forceShutdown();
    },
  };
}

/** Makes targets of one store, which share a counter of nonces. */
export function createTargets(): (revision: number, content?: Readonly<Record<string, string>>) => Target {
  let nonce = 0n;
  const nextNonce = () => {
    nonce += 1n;
    return nonce;
  };
  return (revision, content = { only: `of r${revision}` }) => {
    const resources = Object.entries(content)
      .map(([name, text]) => snapshotResource(name, text))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    const header = { version: `r${revision}`, revision: BigInt(revision), digest: snapshotDigest(resources), storeUid: "store" };
    return createTarget({ ...header, resources }, nextNonce);
  };
}

export function snapshotResource(name: string, text: string): SnapshotResource {
  const value = Buffer.from(text);
  const body = { typeUrl: "type.googleapis.com/test.Text", value };
  return create(SnapshotResourceSchema, { name, digest: resourceDigest(value), body });
}

/** Proves that the control plane has handled everything this proxy said so far. */
export async function heard(plane: TestPlane, proxy: FakeProxy): Promise<void> {
  const mark = Math.floor(Math.random() * 1_000_000) + 1;
  proxy.report({ activeSessions: mark });
  await plane.until(() => plane.fleet.proxies().some(({ activeSessions }) => activeSessions === mark));
}

export function summary({ version, payload }: StreamSnapshotsResponse): string {
  return `${version} ${payload.case}`;
}

export interface ManualClock extends Clock {
  advance(ms: number): void;
  /** Resolves when somebody waits for this clock. */
  waited(): Promise<void>;
}

export function manualClock(): ManualClock {
  let nowMs = 0;
  const waiting = new Set<{ readonly atMs: number; readonly callback: () => void }>();
  const first = Promise.withResolvers<void>();
  return {
    nowMs: () => nowMs,
    waited: () => first.promise,
    after(delayMs, callback) {
      const entry = { atMs: nowMs + delayMs, callback };
      waiting.add(entry);
      first.resolve();
      return () => void waiting.delete(entry);
    },
    advance(ms) {
      nowMs += ms;
      for (const entry of [...waiting].filter(({ atMs }) => atMs <= nowMs)) {
        if (waiting.delete(entry)) entry.callback();
      }
    },
  };
}
