// Who is asked for sessions, and whose answers count. The proxies are scripted; the streams are real.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { pino } from "pino";
import { DiscoveryService, type SessionInfo, SessionInfoSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { addService } from "../../proto/grpc.ts";
import { connectFakeProxy, type FakeProxy } from "./fake-proxy.ts";
import { createFleet, type Fleet, type FleetSessions } from "./fleet.ts";
import { discoveryHandlers } from "./server.ts";
import { createSessionQueries } from "./session-queries.ts";
import { createTarget } from "./target.ts";

const log = pino({ level: "silent" });
const everything = { virtualServer: "", subject: "", keyPrefix: "", limit: 10 };

test("every connected proxy that can be asked is asked, and its sessions name it", async () => {
  await using plane = await start();
  using one = await plane.connect("one");
  using two = await plane.connect("two");
  using _old = await plane.connect("old", []);
  const found = plane.ask({ ...everything, virtualServer: "dev", subject: "alice", keyPrefix: "k" });
  const query = await queryOf(one);
  assert.deepEqual(
    [query.virtualServer, query.subject, query.keyPrefix, query.limit, query.id === (await queryOf(two)).id],
    ["dev", "alice", "k", 10, true],
  );
  one.sessions({ queryId: query.id, sessions: [session("k1", { lastUseTime: timestampFromMs(1_000) })] });
  two.sessions({ queryId: query.id, sessions: [session("k2", { lastUseTime: timestampFromMs(2_000) }), session("other")] });
  const { sessions, missing, unable, hasMore } = await found;
  assert.deepEqual(rows(sessions), [
    [keyOf("k2"), ["two"]],
    [keyOf("k1"), ["one"]],
  ]);
  assert.deepEqual([missing, unable, hasMore], [[], ["old"], false]);
});

test("a session that several proxies report is one row with all of them", async () => {
  await using plane = await start();
  using one = await plane.connect("one");
  using two = await plane.connect("two");
  using three = await plane.connect("three");
  const found = plane.ask(everything);
  const { id: queryId } = await queryOf(one);
  const [early, late] = [timestampFromMs(1_000), timestampFromMs(2_000)];
  one.sessions({ queryId, sessions: [session("k", { streams: 1, calls: 2, lastUseTime: early, protocolVersion: "old" })] });
  two.sessions({ queryId, sessions: [session("k", { streams: 2, calls: 3, lastUseTime: late, protocolVersion: "new" })] });
  // It knows the session from the shared store, and holds it not.
  three.sessions({ queryId, isShared: true, sessions: [session("k", { streams: 9, lastUseTime: early })] });
  const [row] = (await found).sessions;
  assert.deepEqual(
    [row?.proxies, row?.streams, row?.calls, row?.protocolVersion, row?.lastUseTime?.seconds],
    [["one", "two"], 3, 5, "new", 2n],
  );
});

test("of a shared store a proxy says only for itself what it holds", async () => {
  await using plane = await start();
  using one = await plane.connect("one");
  const found = plane.ask(everything);
  const { id: queryId } = await queryOf(one);
  const sessions = [session("held", { proxies: ["one", "two"] }), session("theirs", { proxies: ["two"] })];
  one.sessions({ queryId, isShared: true, sessions });
  assert.deepEqual(rows((await found).sessions), [
    [keyOf("held"), ["one"]],
    [keyOf("theirs"), []],
  ]);
});

test("who does not answer within 3 s, or leaves, is named, and the rest is shown", async () => {
  const clock = manualClock();
  const asked: unknown[] = [];
  const queries = createSessionQueries<{ id: string; send: (message: unknown) => void }>({ clock, idOf: ({ id }) => id });
  const [one, two, three] = ["one", "two", "three"].map((id) => ({ id, send: (message: unknown) => asked.push(message) }));
  assert.ok(one && two && three);
  const found = queries.ask([one, two, three], everything);
  assert.equal(asked.length, 3);
  queries.answer(two, report(1n, ["k"]));
  queries.gone(three);
  clock.advance(2_999);
  queries.answer(two, report(1n, ["again"]));
  clock.advance(1);
  queries.answer(one, report(1n, ["late"]));
  const done = await found;
  assert.deepEqual([rows(done?.sessions ?? []), done?.missing], [[[keyOf("k"), ["two"]]], ["one", "three"]]);
});

test("an answer of who was not asked, twice, late or to another query does nothing", async () => {
  await using plane = await start();
  using one = await plane.connect("one");
  using two = await plane.connect("two");
  using foreign = await plane.connect("foreign", []);
  const found = plane.ask(everything);
  const { id: queryId } = await queryOf(one);
  foreign.sessions({ queryId, sessions: [session("foreign")] });
  await plane.heard(foreign);
  one.sessions({ queryId: queryId + 1n, sessions: [session("guessed")] });
  one.sessions({ queryId, sessions: [session("k")] });
  one.sessions({ queryId, sessions: [session("again")] });
  await plane.heard(one);
  two.sessions({ queryId, sessions: [] });
  assert.deepEqual(rows((await found).sessions), [[keyOf("k"), ["one"]]]);
  two.sessions({ queryId, sessions: [session("late")] });
  await plane.heard(two);
});

test("another stream of a proxy does not answer for the one that was asked", async () => {
  await using plane = await start();
  using one = await plane.connect("one");
  const found = plane.ask(everything);
  const { id: queryId } = await queryOf(one);
  using again = await plane.connect("one");
  again.sessions({ queryId, sessions: [session("k")] });
  const { sessions, missing } = await found;
  assert.deepEqual([sessions, missing], [[], ["one"]]);
});

test("what was not asked for, has no key, is too long or has no date is left out", async () => {
  await using plane = await start();
  using one = await plane.connect("one");
  const found = plane.ask({ ...everything, subject: "alice", limit: 20 });
  const { id: queryId } = await queryOf(one);
  const beyond = { $typeName: "google.protobuf.Timestamp", seconds: 10n ** 15n, nanos: 0 } as const;
  one.sessions({
    queryId,
    sessions: [
      session("good", { lastUseTime: beyond }),
      session("bob", { subject: "bob" }),
      { ...session("id"), key: "the-id-itself-or-anything" },
      session("long", { clientName: "x".repeat(5_000) }),
    ],
  });
  const { sessions } = await found;
  assert.deepEqual(rows(sessions), [[keyOf("good"), ["one"]]]);
  assert.equal(sessions[0]?.lastUseTime, undefined);
});

test("no more than the limit, however much is reported, and it says so", async () => {
  await using plane = await start();
  using one = await plane.connect("one");
  using two = await plane.connect("two");
  const found = plane.ask({ ...everything, limit: 3 });
  const { id: queryId } = await queryOf(one);
  const used = (ms: number) => session(`k${ms}`, { lastUseTime: timestampFromMs(ms) });
  one.sessions({ queryId, sessions: [used(9), used(3), used(1)] });
  two.sessions({ queryId, sessions: [used(8), used(2), used(7), used(100)] });
  const { sessions, hasMore } = await found;
  assert.deepEqual(
    sessions.map(({ key }) => key),
    [keyOf("k9"), keyOf("k8"), keyOf("k7")],
  );
  assert.equal(hasMore, true);
});

test("16 may ask at once; with nobody to ask the answer is there", async () => {
  const clock = manualClock();
  const queries = createSessionQueries<{ id: string; send: () => void }>({ clock, idOf: ({ id }) => id });
  const proxy = { id: "p", send: () => undefined };
  const waiting = Array.from({ length: 16 }, () => queries.ask([proxy], everything));
  assert.equal(queries.ask([proxy], everything), undefined);
  clock.advance(3_000);
  await Promise.all(waiting);
  assert.deepEqual(await queries.ask([], everything), { sessions: [], missing: [], hasMore: false });
});

test("a question needs no Ack and does not stand in the way of a snapshot", async () => {
  await using plane = await start();
  using one = await plane.connect("one");
  const found = plane.ask(everything);
  const { id: queryId } = await queryOf(one);
  plane.fleet.retarget(target(2));
  const next = await one.next();
  assert.equal(next.version, "r2");
  one.sessions({ queryId, sessions: [] });
  await found;
  one.ack(next);
  await plane.until(() => plane.fleet.proxies()[0]?.liveVersion === "r2");
});

interface Plane extends AsyncDisposable {
  readonly fleet: Fleet;
  /** A proxy that runs what it should. */
  connect(id: string, features?: string[]): Promise<FakeProxy>;
  ask(filter: Parameters<Fleet["sessions"]>[0]): Promise<FleetSessions>;
  /** Resolves when everything that the proxy has sent was handled. */
  heard(proxy: FakeProxy): Promise<void>;
  until(holds: () => boolean): Promise<void>;
}

async function start(): Promise<Plane> {
  const fleet = createFleet({ log });
  fleet.retarget(target(1));
  const server = new Server();
  addService(server, DiscoveryService, discoveryHandlers(fleet, log));
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, at) => (error ? reject(error) : resolve(at))),
  );
  const until = async (holds: () => boolean) => {
    const late = AbortSignal.timeout(5_000);
    while (!holds()) {
      if (late.aborted) throw new Error("it did not come to hold");
      await fleet.changes.next(late);
    }
  };
  let marks = 0;
  return {
    fleet,
    until,
    async connect(id, features = ["sessions-query"]) {
      const proxy = connectFakeProxy(`127.0.0.1:${port}`, id);
      proxy.hello({ features });
      proxy.ack(await proxy.next());
      await until(() => fleet.proxies().some(({ node, liveVersion }) => node?.id === id && liveVersion === "r1"));
      return proxy;
    },
    ask(filter) {
      const answer = fleet.sessions(filter);
      assert.ok(answer);
      return answer;
    },
    async heard(proxy) {
      marks += 1;
      const mark = marks;
      proxy.report({ activeSessions: mark });
      await until(() => fleet.proxies().some(({ activeSessions }) => activeSessions === mark));
    },
    async [Symbol.asyncDispose]() {
      fleet.close();
      server.forceShutdown();
    },
  };
}

let nonces = 0n;

function target(revision: number) {
  const digest = Buffer.alloc(32, revision);
  const content = { version: `r${revision}`, revision: BigInt(revision), digest, storeUid: "store", resources: [] };
  return createTarget(content, () => {
    nonces += 1n;
    return nonces;
  });
}

async function queryOf(proxy: FakeProxy) {
  const { payload } = await proxy.next();
  assert.equal(payload.case, "sessionsQuery");
  return payload.value;
}

function keyOf(word: string): string {
  return word.padEnd(22, "-");
}

function session(word: string, more: Partial<SessionInfo> = {}): SessionInfo {
  return create(SessionInfoSchema, { key: keyOf(word), virtualServer: "dev", subject: "alice", ...more } as SessionInfo);
}

function report(queryId: bigint, words: readonly string[]) {
  const sessions = words.map((word) => session(word));
  return { $typeName: "vmcp.discovery.v1.SessionsReport", queryId, sessions, isShared: false, hasMore: false } as const;
}

function rows(sessions: readonly SessionInfo[]): [string, string[]][] {
  return sessions.map(({ key, proxies }) => [key, proxies]);
}

function manualClock() {
  let nowMs = 0;
  const waiting = new Set<{ readonly atMs: number; readonly callback: () => void }>();
  return {
    nowMs: () => nowMs,
    after(delayMs: number, callback: () => void) {
      const entry = { atMs: nowMs + delayMs, callback };
      waiting.add(entry);
      return () => void waiting.delete(entry);
    },
    advance(ms: number) {
      nowMs += ms;
      for (const entry of [...waiting].filter(({ atMs }) => atMs <= nowMs)) if (waiting.delete(entry)) entry.callback();
    },
  };
}
