// Any order of targets, answers and silence: the rules of the protocol hold. push.test.ts tells the single stories.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import {
  HelloSchema,
  NackReason,
  type StreamSnapshotsRequest,
  StreamSnapshotsRequestSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { createPlaces } from "./places.ts";
import { createSubscriber } from "./subscriber.ts";
import type { Sendable, Target } from "./target.ts";
import { createTargets, manualClock } from "./test-plane.ts";

type Step = "retarget" | "ack" | "nack" | "wrong base" | "wrong digest" | "stale ack" | "silence";

const steps = fc.array(fc.constantFrom<Step>("retarget", "ack", "nack", "wrong base", "wrong digest", "stale ack", "silence"), {
  maxLength: 40,
});

for (const features of [[], ["delta"]]) {
  const how = features.length > 0 ? "in deltas" : "whole";
  test(`property: ${how}, one response at a time, never back, never a refused version again, the newest in the end`, () => {
    fc.assert(
      fc.property(steps, (script) => {
        const stream = openStream(features);
        for (const step of script) if (!stream.closed()) stream.take(step);
        if (stream.closed()) return;
        // A proxy that takes everything from here on ends with the newest, unless that is what it refused.
        while (stream.outstanding()) stream.take("ack");
        const { standing, liveVersion } = stream.status();
        if (stream.refused.has(stream.newest())) assert.equal(standing, "nacked");
        else assert.deepEqual([standing, liveVersion], ["synced", stream.newest()]);
      }),
      { numRuns: 500 },
    );
  });
}

function openStream(features: string[]) {
  let revision = 0;
  let closed = false;
  const clock = manualClock();
  const targetOf = createTargets();
  /** What the proxy has received and not answered; a second sending of the same version replaces the first. */
  let received: { target: Target; nonce: bigint; isDelta: boolean } | undefined;
  let answered = 0n;
  let live: Target | undefined;
  /** It said that it has something else than it was thought to have. */
  let isDoubted = true;
  const refused = new Set<string>();
  const targets: Target[] = [];
  let newest = nextTarget();

  function nextTarget(): Target {
    revision += 1;
    const target = targetOf(revision, { large: "x".repeat(200), changing: String(revision) });
    targets.push(target);
    return target;
  }

  function onSend(sendable: Sendable): void {
    const isDelta =
      live !== undefined && targets.some((one) => live && one.since(live, false) === sendable && one.full(false) !== sendable);
    const target = targets.find(
      (one) => one.full(false) === sendable || one.fullAgain(false) === sendable || (live && one.since(live, false) === sendable),
    );
    assert.ok(target);
    assert.equal(target.version, newest.version, "only the newest is sent");
    assert.ok(!refused.has(target.version), `${target.version} was refused`);
    assert.equal(isDelta && isDoubted, false, "no delta to a base that is in doubt");
    if (features.length === 0) assert.equal(isDelta, false);
    received = { target, nonce: sendable.nonce, isDelta };
  }

  const subscriber = createSubscriber({
    send: onSend,
    close: () => {
      closed = true;
    },
    onHello: () => ({ newest, target: newest, base: undefined }),
    onGreeted: () => undefined,
    onCalls: () => undefined,
    onAck: () => undefined,
    onNack: () => undefined,
    onStatus: () => undefined,
    onSessions: () => undefined,
    onCatalog: () => undefined,
    onChange: () => undefined,
    limits: { helloMs: 10_000, ackMs: 30_000 },
    places: createPlaces(clock),
    clock,
  });
  const say = (message: StreamSnapshotsRequest["message"]) =>
    subscriber.receive(create(StreamSnapshotsRequestSchema, { message }));
  say({ case: "hello", value: create(HelloSchema, { node: { id: "p", instanceId: "1" }, features }) });

  function take(step: Step): void {
    if (step === "retarget") {
      const before = received;
      newest = nextTarget();
      subscriber.retarget(newest);
      if (before) assert.equal(received, before, "nothing is sent while something is on the way");
    } else if (step === "silence") {
      clock.advance(30_000);
    } else if (step === "stale ack") {
      say(ack({ nonce: answered, version: "r0", digest: Buffer.alloc(32) }));
    } else if (received) answer(step, received);
  }

  function answer(step: Step, { target, nonce: of }: { target: Target; nonce: bigint }): void {
    received = undefined;
    answered = of;
    if (step === "ack") {
      [live, isDoubted] = [target, false];
      say(ack({ nonce: of, version: target.version, digest: target.digest }));
      return;
    }
    if (step === "wrong digest" || step === "wrong base") isDoubted = true;
    if (step === "wrong digest") say(ack({ nonce: of, version: target.version, digest: Buffer.alloc(32, 255) }));
    else if (step === "wrong base") say(nack({ nonce: of, version: target.version, reason: NackReason.BASE_MISMATCH }));
    else {
      refused.add(target.version);
      say(nack({ nonce: of, version: target.version, reason: NackReason.INVALID_RESOURCE }));
    }
    if (subscriber.status().lastNack?.nack.version === target.version) refused.add(target.version);
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

function nack(value: { nonce: bigint; version: string; reason: NackReason }): StreamSnapshotsRequest["message"] {
  return { case: "nack", value: { $typeName: "vmcp.discovery.v1.Nack", liveVersion: "", ...value } };
}
