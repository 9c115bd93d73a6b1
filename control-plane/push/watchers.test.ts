// Who watches which backend, and when somebody else does.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { pino } from "pino";
import {
  BackendStatusSchema,
  CatalogReportSchema,
  StreamSnapshotsResponseSchema,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { TakenReport } from "../catalogs/keeper.ts";
import { openSqliteStore } from "../store/sqlite.ts";
import type { Leases } from "../store/store.ts";
import { type ManualClock, manualClock } from "./test-plane.ts";
import { createWatchers, type WatchMember } from "./watchers.ts";

const log = pino({ level: "silent" });

test("each backend is given to one proxy, evenly, and stays there when more come", async () => {
  await using world = await start();
  const a = world.join("a", ["one", "two"]);
  await world.pass(100);
  assert.deepEqual(a.watches, ["one", "two"]);
  const b = world.join("b", ["one", "two", "three"]);
  a.says({ names: ["one", "two", "three"] });
  await world.pass(100);
  assert.deepEqual([a.watches, b.watches], [["one", "two"], ["three"]]);
});

test("one that leaves is replaced at once, and others hear how a backend is", async () => {
  await using world = await start();
  const a = world.join("a", ["one"]);
  await world.pass(100);
  const b = world.join("b", ["one"]);
  a.says({ names: ["one"], state: "degraded", error: "slow", watched: true });
  await world.pass(100);
  assert.deepEqual([a.watches, b.watches], [["one"], []]);
  assert.deepEqual(b.others, ["one degraded slow"]);
  a.member.left();
  await world.pass(100);
  assert.deepEqual(b.watches, ["one"]);
});

test("one that does not reach it for 3 s gives it to another, and when nobody does it stays", async () => {
  await using world = await start();
  const a = world.join("a", ["one"]);
  await world.pass(100);
  const b = world.join("b", ["one"]);
  await world.pass(100);
  a.says({ names: ["one"], state: "unhealthy", error: "refused", watched: true });
  await world.pass(1_000);
  assert.deepEqual([a.watches, b.watches], [["one"], []], "one bad moment");
  await world.pass(4_000);
  assert.deepEqual([a.watches, b.watches], [[], ["one"]]);
  b.says({ names: ["one"], state: "unhealthy", error: "refused", watched: true });
  await world.pass(6_000);
  assert.deepEqual([a.watches, b.watches], [[], ["one"]], "a was tried a moment ago");
});

test("of two control planes one gives a backend out; the other does when the first is gone", async () => {
  await using store = await openSqliteStore({ file: ":memory:", nowMs: () => clock.nowMs() });
  const clock = manualClock();
  await using one = await start({ clock, leases: store.leases });
  await using two = await start({ clock, leases: store.leases });
  const a = one.join("a", ["x"]);
  await one.pass(100);
  const b = two.join("b", ["x"]);
  await two.pass(100);
  assert.deepEqual([a.watches, b.ordered], [["x"], false], "b watches by itself until it is known that another's claim lives");
  for (let at = 0; at < 10; at++) await one.pass(1_000);
  assert.deepEqual([a.watches, b.watches], [["x"], []]);
  await one[Symbol.asyncDispose](); // lets go
  for (let at = 0; at < 3; at++) await two.pass(1_000);
  assert.deepEqual(b.watches, ["x"]);
});

test("the watcher is asked for what is not kept, once, and nobody else", async () => {
  await using world = await start();
  const a = world.join("a", ["one"]);
  await world.pass(100);
  const b = world.join("b", ["one"]);
  a.says({ names: ["one"], digest: "aa", watched: true });
  b.says({ names: ["one"], digest: "bb", watched: true });
  a.says({ names: ["one"], digest: "aa", watched: true });
  assert.deepEqual([a.queries, b.queries], [["one"], []]);
  b.member.listed(create(CatalogReportSchema, { catalog: "one", listing: Buffer.from("b") }));
  assert.deepEqual(world.taken, [], "nobody asked b");
  a.member.listed(create(CatalogReportSchema, { catalog: "one", listing: Buffer.from("a") }));
  await world.pass(10);
  assert.deepEqual(
    world.taken.map(({ proxy, digest }) => `${proxy} ${digest}`),
    ["a aa"],
  );
  a.says({ names: ["one"], digest: "aa", watched: true });
  a.says({ names: ["one"], digest: "cc", watched: true });
  assert.deepEqual(a.queries, ["one"], "an unchanged one is not sent again, and a changed one a second later");
  await world.pass(2_000);
  assert.deepEqual(a.queries, ["one", "one"]);
});

test("what could not be kept is asked for again after 10 s", async () => {
  await using world = await start({ isFull: true });
  const a = world.join("a", ["one"]);
  await world.pass(100);
  a.says({ names: ["one"], digest: "aa", watched: true });
  const report = create(CatalogReportSchema, { catalog: "one", listing: Buffer.from("a") });
  a.member.listed(report);
  a.member.listed(report);
  assert.equal(world.taken.length, 1, "an answer counts once");
  for (let at = 0; at < 4; at++) await world.pass(2_000);
  assert.deepEqual(a.queries, ["one"]);
  for (let at = 0; at < 2; at++) await world.pass(2_000);
  assert.deepEqual(a.queries, ["one", "one"]);
});

interface Said {
  readonly names: readonly string[];
  readonly state?: string;
  readonly error?: string;
  /** Of its listing, in hex. */
  readonly digest?: string;
  readonly watched?: boolean;
}

interface TestProxy {
  readonly member: WatchMember;
  readonly ordered: boolean;
  readonly watches: readonly string[];
  readonly others: readonly string[];
  readonly queries: readonly string[];
  says(said: Said): void;
}

interface World extends AsyncDisposable {
  readonly taken: readonly TakenReport[];
  join(id: string, names: readonly string[]): TestProxy;
  /** Lets time pass, and what waits for the store happen. */
  pass(ms: number): Promise<void>;
}

async function start(given: { clock?: ManualClock; leases?: Leases; isFull?: boolean } = {}): Promise<World> {
  const { clock = manualClock() } = given;
  const store = await openSqliteStore({ file: ":memory:", nowMs: () => clock.nowMs() });
  const taken: TakenReport[] = [];
  const keeper = {
    digestOf: (catalog: string) => (given.isFull ? undefined : taken.findLast((one) => one.catalog === catalog)?.digest),
    take: async (report: TakenReport) => void taken.push(report),
  };
  const watchers = createWatchers({ keeper, leases: given.leases ?? store.leases, clock, log });
  return {
    taken,
    join(id, names) {
      const seen = { orders: undefined as readonly string[] | undefined, others: [] as string[], queries: [] as string[] };
      const member = watchers.join(id, ({ messages }) => {
        for (const { bytes } of messages) {
          const { payload } = fromBinary(StreamSnapshotsResponseSchema, bytes);
          if (payload.case === "catalogQuery") seen.queries.push(...payload.value.catalogs);
          if (payload.case !== "watchOrders") continue;
          seen.orders = payload.value.catalogs;
          seen.others = payload.value.others.map(({ catalog, state, error }) => `${catalog} ${state} ${error}`);
        }
      });
      const says = ({ names: of, state = "healthy", error = "", digest = "", watched = false }: Said) =>
        member.reported(of.map((catalog) => status({ catalog, state, error, watched, listingDigest: digest })));
      says({ names });
      return {
        member,
        says,
        get ordered() {
          return seen.orders !== undefined;
        },
        get watches() {
          return seen.orders ?? [];
        },
        get others() {
          return seen.others;
        },
        get queries() {
          return seen.queries;
        },
      };
    },
    async pass(ms) {
      clock.advance(ms);
      await new Promise((resolve) => setTimeout(resolve, 5));
    },
    async [Symbol.asyncDispose]() {
      await watchers[Symbol.asyncDispose]();
      await store[Symbol.asyncDispose]();
    },
  };
}

function status(init: MessageInitShape<typeof BackendStatusSchema>) {
  return fromBinary(BackendStatusSchema, toBinary(BackendStatusSchema, create(BackendStatusSchema, init)));
}
