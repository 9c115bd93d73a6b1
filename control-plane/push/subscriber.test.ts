// Any order of targets, answers and silence: the rules of the protocol hold. push.test.ts tells the single stories.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import {
  NackReason,
  type StreamSnapshotsRequest,
  StreamSnapshotsRequestSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { createSubscriber } from "./subscriber.ts";
import { createTarget, type Sendable, type Target } from "./target.ts";

type Step = "retarget" | "ack" | "nack" | "wrong digest" | "stale ack" | "silence";

const steps = fc.array(fc.constantFrom<Step>("retarget", "ack", "nack", "wrong digest", "stale ack", "silence"), {
  maxLength: 40,
});

test("property: one response at a time, never back, never a refused version again, and the newest in the end", () => {
  fc.assert(
    fc.property(steps, (script) => {
      const stream = openStream();
      for (const step of script) if (!stream.closed()) stream.take(step);
      if (stream.closed()) return;
      // A proxy that takes everything from here on ends with the newest, unless that is what it refused.
      while (stream.outstanding()) stream.take("ack");
      const { state, liveVersion } = stream.status();
      if (stream.refused.has(stream.newest())) assert.equal(state, "nacked");
      else assert.deepEqual([state, liveVersion], ["synced", stream.newest()]);
    }),
    { numRuns: 500 },
  );
});

function openStream() {
  let nonce = 0n;
  let revision = 0;
  let nowMs = 0;
  let closed = false;
  let alarm: { atMs: number; callback: () => void } | undefined;
  /** What the proxy has received and not answered; a second sending of the same version replaces the first. */
  let received: { target: Target; nonce: bigint } | undefined;
  let answered = 0n;
  const refused = new Set<string>();
  const targets = new Map<string, Target>();
  let newest = nextTarget();

  function nextTarget(): Target {
    revision += 1;
    const version = `r${revision}`;
    const content = { version, revision: BigInt(revision), digest: Buffer.alloc(32, revision), storeUid: "s", resources: [] };
    const target = createTarget(content, () => {
      nonce += 1n;
      return nonce;
    });
    targets.set(version, target);
    return target;
  }

  function onSend(sendable: Sendable): void {
    const target = [...targets.values()].find((one) => one.full() === sendable || one.fullAgain() === sendable);
    assert.ok(target);
    assert.equal(target.version, newest.version, "only the newest is sent");
    assert.ok(!refused.has(target.version), `${target.version} was refused`);
    received = { target, nonce: sendable.nonce };
  }

  const subscriber = createSubscriber({
    send: onSend,
    close: () => {
      closed = true;
    },
    onHello: () => newest,
    onStatus: () => undefined,
    onSessions: () => undefined,
    onChange: () => undefined,
    limits: { helloMs: 10_000, ackMs: 30_000 },
    clock: {
      nowMs: () => nowMs,
      after(delayMs, callback) {
        const mine = { atMs: nowMs + delayMs, callback };
        alarm = mine;
        return () => {
          if (alarm === mine) alarm = undefined;
        };
      },
    },
  });
  const say = (message: StreamSnapshotsRequest["message"]) =>
    subscriber.receive(create(StreamSnapshotsRequestSchema, { message }));
  const node = {
    $typeName: "vmcp.discovery.v1.Node",
    id: "p",
    instanceId: "1",
    softwareVersion: "",
    labels: {},
    address: "",
  } as const;
  subscriber.receive(create(StreamSnapshotsRequestSchema, { message: { case: "hello", value: { node } } }));

  function take(step: Step): void {
    if (step === "retarget") {
      const before = received;
      newest = nextTarget();
      subscriber.retarget(newest);
      if (before) assert.equal(received, before, "nothing is sent while something is on the way");
    } else if (step === "silence") {
      const due = alarm;
      nowMs += 30_000;
      if (due && due.atMs <= nowMs) due.callback();
    } else if (step === "stale ack") {
      say(ack({ nonce: answered, version: "r0", digest: Buffer.alloc(32) }));
    } else if (received) {
      const { target, nonce: of } = received;
      received = undefined;
      answered = of;
      if (step === "ack") say(ack({ nonce: of, version: target.version, digest: target.digest }));
      else if (step === "wrong digest") say(ack({ nonce: of, version: target.version, digest: Buffer.alloc(32, 255) }));
      else {
        refused.add(target.version);
        say(nack({ nonce: of, version: target.version }));
      }
      if (step === "wrong digest" && subscriber.status().lastNack?.nack.version === target.version) refused.add(target.version);
    }
  }

  return {
    take,
    refused,
    closed: () => closed,
    outstanding: () => received !== undefined,
    newest: () => newest.version,
    status: () => subscriber.status(),
  };
}

function ack(value: { nonce: bigint; version: string; digest: Uint8Array }): StreamSnapshotsRequest["message"] {
  return { case: "ack", value: { $typeName: "vmcp.discovery.v1.Ack", warnings: [], ...value } };
}

function nack(value: { nonce: bigint; version: string }): StreamSnapshotsRequest["message"] {
  const rest = { liveVersion: "", reason: NackReason.INVALID_RESOURCE };
  return { case: "nack", value: { $typeName: "vmcp.discovery.v1.Nack", ...rest, ...value } };
}
