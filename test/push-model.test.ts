// Random histories of a control plane and its proxies: commits, answers in any order, refusals, losses on the wire, silence,
// disconnects and restarts. The fleet and the proxies' receivers are the real ones; the wire between them is a queue.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { pino } from "pino";
import { resourceDigest, snapshotDigest, snapshotVersion } from "../common/snapshot-digest.ts";
import { type Connection, createFleet } from "../control-plane/push/fleet.ts";
import { createTarget, type Target } from "../control-plane/push/target.ts";
import { manualClock } from "../control-plane/push/test-plane.ts";
import { SnapshotRefusedError } from "../data-plane/runtime.ts";
import type { SavedSnapshot } from "../data-plane/sync/last-good-format.ts";
import { createParts, isUnfit } from "../data-plane/sync/parts.ts";
import { createReceiver, patched, type Receiver } from "../data-plane/sync/receiver.ts";
import { ProxyState } from "../proto/gen/vmcp/admin/v1/admin_pb.ts";
import {
  ConfigSource,
  NackReason,
  RevocationsSchema,
  type SnapshotResource,
  SnapshotResourceSchema,
  StreamSnapshotsRequestSchema,
  type StreamSnapshotsResponse,
  StreamSnapshotsResponseSchema,
} from "../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { BackendSchema } from "../proto/gen/vmcp/resource/v1/backend_pb.ts";

const log = pino({ level: "silent" });
const storeUid = "store";
const proxyCount = 4;
const stepsWanted = 20_000;

type Step =
  | { readonly do: "commit"; readonly key: number; readonly value: number; readonly revokes: boolean }
  | { readonly do: "answer"; readonly proxy: number; readonly how: "take" | "refuse" | "lose a resource" | "say a wrong digest" }
  | { readonly do: "connect" | "disconnect" | "restart" | "repeat the last answer"; readonly proxy: number }
  | { readonly do: "wait"; readonly ms: number };

const proxy = fc.nat(proxyCount - 1);
const how = fc.oneof(
  { weight: 8, arbitrary: fc.constant("take" as const) },
  { weight: 1, arbitrary: fc.constantFrom("refuse" as const, "lose a resource" as const, "say a wrong digest" as const) },
);
const isRevocation = fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("commit" as const), key: fc.nat(7), value: fc.nat(5), revokes: isRevocation }),
  },
  { weight: 12, arbitrary: fc.record({ do: fc.constant("answer" as const), proxy, how }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("connect" as const), proxy }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constantFrom("disconnect" as const, "restart" as const, "repeat the last answer" as const),
      proxy,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.constantFrom(500, 2_000, 30_000) }) },
);

test("property: SYNCED means the same digest, no revision goes back, changes upon a base make the whole", async () => {
  let steps = 0;
  let deltas = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 200, maxLength: 400, size: "max" }), async (script) => {
      const world = createWorld();
      for (const one of script) await world.take(one);
      await world.end();
      steps += script.length;
      deltas += world.deltas();
    }),
    { numRuns: 200, endOnFailure: true },
  );
  assert.ok(steps >= stepsWanted, `only ${steps} steps`);
  assert.ok(deltas > 1_000, `only ${deltas} deltas`);
});

function createWorld() {
  const clock = manualClock();
  const fleet = createFleet({ log, clock });
  const targets = createTargetSource();
  const proxies = Array.from({ length: proxyCount }, (_, i) => createProxy(`p${i}`));
  let deltas = 0;

  function createProxy(id: string) {
    let saved: SavedSnapshot | undefined;
    let refuses = false;
    let receiver = newReceiver();
    let parts = createParts();
    let connection: Connection | undefined;
    let arrived: StreamSnapshotsResponse[] = [];
    let lastAnswer: Parameters<Connection["receive"]>[0] | undefined;
    let instance = 0;
    /** On this stream: every 30 s of silence something is sent again. */
    let waitedMs = 0;
    let revision = 0n;
    let live: readonly SnapshotResource[] = [];
    const refusedHere = new Set<string>();

    function keep(snapshot: SavedSnapshot): void {
      saved = snapshot;
    }

    function newReceiver(): Receiver {
      return createReceiver({
        live: {
          apply: async () => {
            if (refuses) throw new SnapshotRefusedError([{ resource: "a", field: "", description: "not here" }]);
          },
          obey: () => undefined,
        },
        lastGood: { directory: "", save: keep },
        log,
        onLive: () => undefined,
        onRefused: () => undefined,
        nowMs: clock.nowMs,
      });
    }

    function connect(): void {
      if (connection) return;
      arrived = [];
      waitedMs = 0;
      parts = createParts();
      lastAnswer = undefined; // a nonce means something on its own stream only
      refusedHere.clear();
      const mine = fleet.connect({
        send: ({ messages }) => {
          for (const { bytes } of messages) arrived.push(fromBinary(StreamSnapshotsResponseSchema, bytes));
          const responses = arrived.filter(({ payload }) => payload.case !== "upToDate").length;
          assert.ok(responses <= 1 + waitedMs / 30_000, `${responses} are on the way, after ${waitedMs} ms`);
          for (const { version, payload } of arrived.slice(-1))
            assert.ok(payload.case === "upToDate" || !refusedHere.has(version), `${version} was refused on this stream`);
        },
        close: () => {
          if (connection === mine) disconnect();
        },
      });
      connection = mine;
      const known = receiver.known();
      const hello = {
        node: { id, instanceId: String(instance) },
        knownVersion: known.version,
        knownDigest: known.digest,
        storeUid: known.storeUid,
        features: ["delta", "parts"],
      };
      mine.receive(create(StreamSnapshotsRequestSchema, { message: { case: "hello", value: hello } }));
    }

    function disconnect(): void {
      connection?.ended();
      connection = undefined;
      arrived = [];
    }

    async function restart(): Promise<void> {
      disconnect();
      instance += 1;
      receiver = newReceiver();
      refuses = false;
      if (saved) await receiver.start([{ ...saved, source: ConfigSource.DISK }]);
      else revision = 0n; // it has served nothing yet
    }

    async function answer(how: "take" | "refuse" | "lose a resource" | "say a wrong digest"): Promise<void> {
      const response = arrived.shift();
      if (response === undefined || connection === undefined) return;
      const damaged = how === "lose a resource" ? without(response) : response;
      const whole = parts.add(damaged);
      if (whole === undefined) return;
      refuses = how === "refuse";
      const request = create(StreamSnapshotsRequestSchema, await receiver.take(whole));
      refuses = false;
      const { message } = request;
      if (message.case === "ack" && !isUnfit(whole)) {
        if (whole.payload.case === "delta") {
          deltas += 1;
          live = patched(live, whole.payload.value);
        } else if (whole.payload.case === "snapshot") live = whole.payload.resources;
        assert.deepEqual(snapshotDigest(live), Buffer.from(receiver.known().digest), "changes upon a base make the whole");
        if (how === "say a wrong digest") message.value.digest = Buffer.alloc(32, 9);
      }
      const known = receiver.known();
      assert.ok(known.revision >= revision, `${id} went from ${revision} back to ${known.revision}`);
      revision = known.revision;
      // It is in doubt only where something was lost, or said wrongly: with the fallback alone deltas would look right always.
      if (message.case === "nack" && message.value.reason === NackReason.DIGEST_MISMATCH) assert.equal(how, "lose a resource");
      if (message.case === "nack" && message.value.reason === NackReason.INVALID_RESOURCE) refusedHere.add(message.value.version);
      lastAnswer = request;
      connection?.receive(request);
    }

    return {
      id,
      connect,
      disconnect,
      restart,
      answer,
      known: () => receiver.known(),
      noteWait(ms: number): void {
        waitedMs += ms;
      },
      isConnected: () => connection !== undefined,
      hasArrived: () => arrived.length > 0,
      repeat: () => lastAnswer && connection?.receive(lastAnswer),
    };
  }

  function check(): void {
    const newest = fleet.target();
    for (const { node, state, liveVersion } of fleet.proxies()) {
      const known = proxies.find(({ id }) => id === node?.id)?.known();
      if (state !== ProxyState.SYNCED || !known || !newest) continue;
      assert.deepEqual([liveVersion, known.version], [newest.version, newest.version]);
      assert.deepEqual(Buffer.from(known.digest), Buffer.from(newest.digest));
    }
  }

  return {
    deltas: () => deltas,
    async take(one: Step): Promise<void> {
      if (one.do === "commit") fleet.retarget(targets.next(one, fleet.target()));
      else if (one.do === "wait") {
        for (const subject of proxies) subject.noteWait(one.ms);
        clock.advance(one.ms);
      } else {
        const { [one.proxy]: subject } = proxies;
        if (one.do === "answer") await subject?.answer(one.how);
        else if (one.do === "connect") subject?.connect();
        else if (one.do === "disconnect") subject?.disconnect();
        else if (one.do === "restart") await subject?.restart();
        else subject?.repeat();
      }
      check();
    },
    /** Another revision, and proxies that take whatever comes: all of them run it. */
    async end(): Promise<void> {
      fleet.retarget(targets.next({ key: 0, value: 99, revokes: false }, fleet.target()));
      for (let rounds = 0; rounds < 20; rounds++) {
        for (const subject of proxies) {
          subject.connect();
          while (subject.hasArrived()) await subject.answer("take");
        }
        check();
        if (fleet.proxies().every(({ state }) => state === ProxyState.SYNCED)) break;
        clock.advance(2_000);
      }
      const states = fleet.proxies().map(({ node, state, lastNack }) => [node?.id, state, lastNack?.error?.message]);
      assert.deepEqual(
        states,
        proxies.map(({ id }) => [id, ProxyState.SYNCED, undefined]),
      );
    },
  };
}

/** Targets as commits make them: the content of the one before, with one thing changed. */
function createTargetSource() {
  const content = new Map<string, SnapshotResource>();
  for (let key = 0; key < 8; key++) content.set(`groups/g/backends/b${key}`, backend(key, 0));
  let revision = 0n;
  let nonce = 0n;
  const nextNonce = () => {
    nonce += 1n;
    return nonce;
  };
  return {
    next({ key, value, revokes }: { key: number; value: number; revokes: boolean }, previous: Target | undefined): Target {
      revision += 1n;
      const name = `groups/g/backends/b${key}`;
      if (revokes) content.set("revocations", revocations(revision));
      else if (value === 0) content.delete(name);
      else content.set(name, backend(key, Number(revision) * 10 + value));
      const resources = [...content.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
      const digest = snapshotDigest(resources);
      const target = createTarget(
        { version: snapshotVersion(revision, digest), revision, digest, storeUid, resources },
        nextNonce,
        previous,
      );
      return target;
    },
  };
}

function backend(key: number, value: number): SnapshotResource {
  const spec = create(BackendSchema, { name: `b${key}`, url: `http://127.0.0.1/${value}`, transport: "streamable-http" });
  return resource(`groups/g/backends/b${key}`, BackendSchema.typeName, toBinary(BackendSchema, spec));
}

function revocations(epoch: bigint): SnapshotResource {
  const value = toBinary(RevocationsSchema, create(RevocationsSchema, { entries: [{ epoch, all: true }] }));
  return resource("revocations", RevocationsSchema.typeName, value);
}

function resource(name: string, type: string, value: Uint8Array): SnapshotResource {
  const body = { typeUrl: `type.googleapis.com/${type}`, value };
  return create(SnapshotResourceSchema, { name, digest: resourceDigest(value), body });
}

/** The same response, one resource short. */
function without(response: StreamSnapshotsResponse): StreamSnapshotsResponse {
  const { payload } = response;
  if (payload.case === "delta")
    return { ...response, payload: { case: "delta", value: { ...payload.value, upserts: payload.value.upserts.slice(1) } } };
  if (payload.case !== "snapshot") return response;
  return { ...response, payload: { case: "snapshot", value: { ...payload.value, resources: payload.value.resources.slice(1) } } };
}
