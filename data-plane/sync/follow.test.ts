// What a proxy makes of what a control plane sends about sessions. The control plane is scripted; the stream is real.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { test } from "node:test";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type ServerDuplexStream } from "@grpc/grpc-js";
import { pino } from "pino";
import { resourceDigest, snapshotDigest } from "../../common/snapshot-digest.ts";
import {
  DiscoveryService,
  NackReason,
  RevocationsSchema,
  type SnapshotResource,
  SnapshotResourceSchema,
  type StreamSnapshotsRequest,
  type StreamSnapshotsResponseSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { addService } from "../../proto/grpc.ts";
import { createAuthenticators } from "../incoming-auth/registry.ts";
import { oneKey } from "../mcp/seal.ts";
import { createCredentials } from "../outgoing-auth/registry.ts";
import type { ListedSession } from "../session/listing.ts";
import { createLive, type Live } from "./apply.ts";
import { startSync } from "./follow.ts";
import { plainLink } from "./link.ts";
import { stateOf } from "./report.ts";
import type { ListSessions } from "./session-report.ts";

const log = pino({ level: "silent" });
const key = "k".repeat(22);

type Response = MessageInitShape<typeof StreamSnapshotsResponseSchema>;

test("revocations are in force with the snapshot, and gone with one that has none", async () => {
  const live = quietLive();
  await using plane = await start({ live });
  await plane.next();
  plane.send(snapshot(7, [revocations({ epoch: 5n, session: key }, { epoch: 6n, all: true, virtualServer: "dev" })]));
  assert.equal((await plane.next()).case, "ack");
  assert.deepEqual(live.runtime.revocations, [
    { epoch: 5, session: key, all: false },
    { epoch: 6, all: true, virtualServer: "dev" },
  ]);
  assert.deepEqual([live.runtime.revision, live.runtime.storeUid], [7, "store"]);
  plane.send(snapshot(8, []));
  assert.equal((await plane.next()).case, "ack");
  assert.deepEqual([live.runtime.revision, live.runtime.revocations], [8, []]);
});

test("the revocations of a snapshot that is refused are obeyed, and it stays refused", async () => {
  let heard = 0;
  const live = quietLive(() => {
    heard += 1;
  });
  await using plane = await start({ live });
  await plane.next();
  plane.send(snapshot(3, []));
  await plane.next();
  const before = heard;
  plane.send(snapshot(4, [unknownResource, revocations({ epoch: 4n, issuer: "https://idp", subject: "alice" })]));
  assert.equal((await plane.next()).case, "nack");
  const { version, revision, revocations: obeyed } = live.runtime;
  assert.deepEqual([version, revision], ["r3", 4]);
  assert.deepEqual(obeyed, [{ epoch: 4, issuer: "https://idp", subject: "alice", all: false }]);
  assert.equal(heard, before + 1);
  // What another control plane has not heard of yet must not come back.
  plane.send(snapshot(3, []));
  const answer = await plane.next();
  assert.deepEqual([answer.case, answer.case === "nack" && answer.value.reason], ["nack", NackReason.STALE_REVISION]);
  assert.equal(live.runtime.revocations.length, 1);
});

test("revocations that can't be read refuse the snapshot, and those in force stay", async () => {
  const live = quietLive();
  await using plane = await start({ live });
  await plane.next();
  plane.send(snapshot(1, [revocations({ epoch: 1n, all: true })]));
  await plane.next();
  plane.send(snapshot(2, [resource("revocations", RevocationsSchema.typeName, Buffer.from([0xff]))]));
  assert.equal((await plane.next()).case, "nack");
  assert.deepEqual(live.runtime.revocations, [{ epoch: 1, all: true }]);
});

test("sessions are told at once, also while a snapshot waits for backends, and by key alone", async () => {
  const applying = Promise.withResolvers<void>();
  const live = { ...quietLive(), apply: () => applying.promise };
  const asked: unknown[] = [];
  const listSessions: ListSessions = async ({ virtualServer, subject, keyPrefix }) => {
    asked.push({ virtualServer, subject, keyPrefix });
    return { isShared: true, sessions: [listed(key, 1_000), listed("l".repeat(22), 2_000, { isHeld: false })] };
  };
  await using plane = await start({ live, listSessions });
  const hello = await plane.next();
  assert.deepEqual(hello.case === "hello" && hello.value.features, ["sessions-query", "delta", "parts"]);
  plane.send(snapshot(1, []));
  const filter = { virtualServer: "dev", subject: "alice", keyPrefix: "k", limit: 10 };
  plane.send({ payload: { case: "sessionsQuery", value: { id: 9n, ...filter } } });
  const answer = await plane.next();
  assert.equal(answer.case, "sessions");
  assert.deepEqual(asked, [{ virtualServer: "dev", subject: "alice", keyPrefix: "k" }]);
  const { queryId, isShared, hasMore, sessions } = answer.value;
  assert.deepEqual([queryId, isShared, hasMore], [9n, true, false]);
  assert.deepEqual(
    sessions.map((session) => [session.key[0], session.proxies, session.lastUseTime?.seconds, session.clientName]),
    [
      ["l", [], 2n, "inspector"],
      ["k", ["p"], 1n, "inspector"],
    ],
  );
  applying.resolve();
  assert.equal((await plane.next()).case, "ack");
});

test("a report keeps to the limit and to the size of a message, whatever clients call themselves", async () => {
  const many = Array.from({ length: 5_000 }, (_, at) => {
    const clientInfo = ["[]", "null", "no JSON", JSON.stringify({ name: "x".repeat(9_000) }), '{"name":5}'][at % 5] as string;
    return listed(String(at).padStart(22, "0"), at, { subject: "s".repeat(4_000), clientInfo });
  });
  await using plane = await start({ live: quietLive(), listSessions: async () => ({ isShared: false, sessions: many }) });
  await plane.next();
  for (const [limit, wanted] of [
    [3, 3],
    [100_000, 380],
  ] as const) {
    plane.send({ payload: { case: "sessionsQuery", value: { id: 1n, limit } } });
    const answer = await plane.next();
    assert.equal(answer.case, "sessions");
    assert.equal(answer.value.hasMore, true);
    assert.ok(Math.abs(answer.value.sessions.length - wanted) < 20, String(answer.value.sessions.length));
    assert.equal(answer.value.sessions[0]?.key, "4999".padStart(22, "0"));
  }
});

test("a proxy that can't list says nothing rather than that there are none", async () => {
  const failing: ListSessions = () => Promise.reject(new Error("Redis is away"));
  await using plane = await start({ live: quietLive(), listSessions: failing });
  await plane.next();
  plane.send({ payload: { case: "sessionsQuery", value: { id: 1n, limit: 10 } } });
  plane.send(snapshot(1, []));
  assert.equal((await plane.next()).case, "ack");
});

test("a proxy without a list of sessions does not ask to be asked", async () => {
  await using plane = await start({ live: quietLive() });
  const hello = await plane.next();
  assert.deepEqual(hello.case === "hello" && hello.value.features, ["delta", "parts"]);
});

interface Plane extends AsyncDisposable {
  send(response: Response): void;
  /** The next message of the proxy, reports of its status apart. */
  next(): Promise<StreamSnapshotsRequest["message"]>;
}

async function start({ live, listSessions }: { live: Live; listSessions?: ListSessions }): Promise<Plane> {
  const arrived: StreamSnapshotsRequest["message"][] = [];
  const arrivals = new EventEmitter();
  let stream: ServerDuplexStream<StreamSnapshotsRequest, Response> | undefined;
  const server = new Server();
  addService(server, DiscoveryService, {
    streamSnapshots(call) {
      stream = call as typeof stream;
      call.on("error", () => undefined); // the proxy leaves
      call.on("data", ({ message }: StreamSnapshotsRequest) => {
        if (message.case === "status") return;
        arrived.push(message);
        arrivals.emit("message");
      });
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, at) => (error ? reject(error) : resolve(at))),
  );
  const sync = startSync({
    link: plainLink,
    controlPlanes: [`127.0.0.1:${port}`],
    node: { id: "p", instanceId: "1", address: "" },
    live,
    state: () => stateOf(live.runtime, { size: 0 }),
    ...(listSessions && { listSessions }),
    log,
    onLive: () => undefined,
    onRefused: () => undefined,
  });
  return {
    send: (response) => void stream?.write(response),
    async next() {
      if (arrived.length === 0) await once(arrivals, "message", { signal: AbortSignal.timeout(5_000) });
      return arrived.shift() as StreamSnapshotsRequest["message"];
    },
    async [Symbol.asyncDispose]() {
      await sync[Symbol.asyncDispose]();
      server.forceShutdown();
    },
  };
}

function quietLive(onRevocations: () => void = () => undefined): Live {
  const sessions = { all: () => [], end: () => undefined };
  const nothing = () => undefined;
  const auth = { incoming: createAuthenticators({ log }), outgoing: createCredentials({ log, keys: oneKey(randomBytes(32)) }) };
  return createLive({ ...auth, sessions, log, allowStdio: false, onMessage: nothing, onChange: nothing, onRevocations });
}

function snapshot(revision: number, resources: SnapshotResource[]): Response {
  const version = `r${revision}`;
  const digest = snapshotDigest(resources);
  const value = { resources, part: 0, parts: 1 };
  const header = { nonce: BigInt(revision), version, revision: BigInt(revision), digest, storeUid: "store" };
  return { ...header, payload: { case: "snapshot", value } };
}

const unknownResource = resource("teapots/a", "vmcp.Teapot", Buffer.alloc(0));

function revocations(...entries: (MessageInitShape<typeof RevocationsSchema>["entries"] & {})[number][]): SnapshotResource {
  const value = toBinary(RevocationsSchema, create(RevocationsSchema, { entries }));
  return resource("revocations", RevocationsSchema.typeName, value);
}

function resource(name: string, type: string, value: Uint8Array): SnapshotResource {
  const body = { typeUrl: `type.googleapis.com/${type}`, value };
  return create(SnapshotResourceSchema, { name, digest: resourceDigest(value), body });
}

function listed(key: string, lastUseTimeMs: number, more: Partial<ListedSession> = {}): ListedSession {
  const facts = { virtualServer: "dev", issuer: "", subject: "alice", clientInfo: '{"name":"inspector","version":"1"}' };
  const use = { createTimeMs: 500, lastUseTimeMs, isHeld: true, streams: 1, calls: 0 };
  return { key, ...facts, protocolVersion: "2025-11-25", ...use, ...more };
}
