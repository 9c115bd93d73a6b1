// What every provider promises, over a fake of what it asks. A new provider is a row in test/support/discovery-worlds.ts.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { type Place, providerRows, type World } from "../../test/support/discovery-worlds.ts";
import { eventually } from "../../test/support/eventually.ts";
import { createDiscovery, type Discovery } from "./discovery.ts";
import type { Provider, Sighting, Workload } from "./provider.ts";

const log = pino({ level: "silent" });

const [one, two, three, four]: Place[] = [
  { name: "one", group: "a", port: 21_001 },
  { name: "two", group: "a", port: 21_002 },
  { name: "three", group: "b", port: 21_003 },
  { name: "four", group: "b", port: 21_004 },
] as const;

for (const [row, { open, faults, never }] of Object.entries(providerRows)) {
  /** `skip` is why it can't be asked of this one. */
  const promise = (name: string, body: (world: World, t: TestContext) => Promise<void>, skip?: string) =>
    test(`${row}: ${name}`, { skip: skip ?? false }, async (t) => {
      await using world = await open();
      await body(world, t);
    });

  promise("the first sighting is whole, and comes at once", async (world) => {
    await world.set([one, two, three] as Place[]);
    using watch = look(world.provider);
    assert.deepEqual(placesOf(await watch.next()), ["a/one 21001", "a/two 21002", "b/three 21003"]);
  });

  promise("what joins, moves and leaves is seen", async (world) => {
    await world.set([one, two] as Place[]);
    using watch = look(world.provider);
    await watch.until(["a/one 21001", "a/two 21002"]);
    await world.set([one, two, three] as Place[]);
    await watch.until(["a/one 21001", "a/two 21002", "b/three 21003"]);
    await world.set([one, { ...two, port: 22_002 } as Place, three] as Place[]);
    await watch.until(["a/one 21001", "a/two 22002", "b/three 21003"]);
    await world.set([one, three] as Place[]);
    await watch.until(["a/one 21001", "b/three 21003"]);
    await world.set([]);
    await watch.until([]);
  });

  promise("a malformed entry is left out with a word, the others stay", async (world) => {
    await world.set([one, two] as Place[]);
    await world.addMalformed();
    await using discovery = createDiscovery({ log });
    await discovery.use([{ provider: world.provider }]);
    assert.deepEqual(found(discovery), ["a/one 21001", "a/two 21002"]);
    const [status] = discovery.status();
    assert.equal(status?.state, "ok");
    assert.ok((status?.problems.length ?? 0) > 0);
  });

  promise("who sees nothing says why, and sees again", async (world) => {
    await world.set([one] as Place[]);
    await world.break();
    using failing = look(world.provider);
    await assert.rejects(failing.next(), { name: "ProviderError" });
    await world.mend();
    using watch = look(world.provider);
    assert.deepEqual(placesOf(await watch.next()), ["a/one 21001"]);
  });

  promise("when it fails, what it saw last stays; then it goes on", async (world) => {
    await world.set([one, two] as Place[]);
    await using discovery = createDiscovery({ log, random: () => 0 });
    await discovery.use([{ provider: world.provider }]);
    assert.deepEqual(found(discovery), ["a/one 21001", "a/two 21002"]);
    await world.break();
    await eventually("it fails", () => discovery.status()[0]?.state === "stale");
    assert.deepEqual(found(discovery), ["a/one 21001", "a/two 21002"]);
    assert.match(discovery.status()[0]?.error ?? "", /./);
    await world.mend();
    await world.set([one, two, four] as Place[]);
    await eventually("it is seen", () => found(discovery).length === 3);
    await eventually("it works", () => discovery.status()[0]?.state === "ok");
  });

  const slowly = async (world: World) => {
    await world.set([one, two] as Place[]);
    await world.suffer("slow");
    const startedMs = performance.now();
    using watch = look(world.provider);
    assert.deepEqual(placesOf(await watch.next()), ["a/one 21001", "a/two 21002"]);
    assert.ok(performance.now() - startedMs >= 300, "it was not slow");
    await world.set([one, three] as Place[]);
    await watch.until(["a/one 21001", "b/three 21003"]);
  };
  promise("who is slow is waited for", slowly, never.slow);

  for (const [fault, said] of Object.entries(faults) as [keyof typeof faults, RegExp | string][]) {
    const hurt = async (world: World) => {
      await world.set([one, two] as Place[]);
      await using discovery = createDiscovery({ log, random: () => 0 });
      await discovery.use([{ provider: world.provider }]);
      await world.suffer(fault);
      const told = () => [discovery.status()[0]?.error ?? "", ...(discovery.status()[0]?.problems ?? [])].join("\n");
      await eventually("it is told", () => told() !== "");
      assert.match(told(), said as RegExp);
      assert.deepEqual(found(discovery), ["a/one 21001", "a/two 21002"]);
      await world.suffer();
      await world.set([one, two, four] as Place[]);
      await eventually("it is seen", () => found(discovery).length === 3);
      await eventually("all is well", () => discovery.status()[0]?.state === "ok" && told() === "");
    };
    promise(
      `${fault}: nothing leaves, it is said, and what changes later is seen`,
      hurt,
      typeof said === "string" ? said : undefined,
    );
  }

  const untold = async (world: World) => {
    assert.ok(world.setUntold);
    await world.set([one, two] as Place[]);
    using watch = look(world.provider);
    await watch.until(["a/one 21001", "a/two 21002"]);
    await world.setUntold([two, three] as Place[]);
    await watch.until(["a/two 21002", "b/three 21003"]);
    await world.set([two, four] as Place[]);
    await watch.until(["a/two 21002", "b/four 21004"]);
  };
  promise("what changed while nobody was told, and is forgotten since, is seen", untold, never.untold);

  promise("a clock that jumps an hour ahead and two back changes nothing", async (world, t) => {
    await world.set([one, two] as Place[]);
    await using discovery = createDiscovery({ log, random: () => 0 });
    await discovery.use([{ provider: world.provider }]);
    const realMs = Date.now.bind(Date);
    for (const [hours, places] of [
      [1, [one, two, three]],
      [-1, [one, two, three, four]],
    ] as const) {
      t.mock.method(Date, "now", () => realMs() + hours * 3_600_000);
      await world.set([...places] as Place[]);
      await eventually("a change is seen", () => found(discovery).length === places.length);
      assert.equal(discovery.status()[0]?.state, "ok");
      await world.break();
      await eventually("a failure is noticed", () => discovery.status()[0]?.state === "stale");
      assert.equal(found(discovery).length, places.length);
      await world.mend();
      await eventually("it is tried again soon", () => discovery.status()[0]?.state === "ok");
    }
  });

  promise("of a name that another provider has too, the first one's counts, and the other is told", async (world) => {
    await world.set([one, two] as Place[]);
    const other: Workload = {
      ...{ group: "a", name: "one", url: "http://127.0.0.1:9/mcp", transport: "streamable-http", isRunning: true, metadata: {} },
    };
    const rival: Provider = {
      name: "rival",
      async *watch(signal) {
        yield { workloads: [other] };
        await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      },
    };
    for (const [providers, kept] of [
      [[world.provider, rival], "a/one 21001"],
      [[rival, world.provider], "a/one 9"],
    ] as const) {
      await using discovery = createDiscovery({ log });
      await discovery.use(providers.map((provider) => ({ provider })));
      assert.deepEqual(found(discovery), [kept, "a/two 21002"]);
      const [first, second] = providers.map(({ name }) => name);
      const wanted = `a/one of ${second} is left out: ${first} has one of that name`;
      assert.deepEqual(
        discovery.status().map(({ problems }) => problems.includes(wanted)),
        [false, true],
      );
    }
  });

  promise("an empty answer where there were backends is believed when it repeats", async (world) => {
    await world.set([one, two, three] as Place[]);
    await using discovery = createDiscovery({ log, confirmMs: 700 });
    await discovery.use([{ provider: world.provider }]);
    await world.set([]);
    await eventually("it is doubted", () => discovery.status()[0]?.state === "stale");
    assert.equal(found(discovery).length, 3);
    await eventually("it is believed", () => found(discovery).length === 0);
    assert.equal(discovery.status()[0]?.state, "ok");
  });

  promise("500 workloads in 20 groups are seen, and one more", async (world) => {
    const many = Array.from({ length: 500 }, (_, i) => ({ name: `w${i}`, group: `g${i % 20}`, port: 10_000 + i }));
    await world.set(many);
    await using discovery = createDiscovery({ log });
    await discovery.use([{ provider: world.provider }]);
    assert.equal(found(discovery).length, 500);
    assert.equal(discovery.current().groups.length, 20);
    await world.set([...many, one] as Place[]);
    await eventually("the 501st", () => found(discovery).includes("a/one 21001"));
  });

  promise("an abort ends everything", async (world) => {
    await world.set([one] as Place[]);
    const before = resources();
    const watch = look(world.provider);
    await watch.next();
    watch[Symbol.dispose]();
    assert.equal(await watch.ended, true);
    await eventually("nothing is left open", () => resources() <= before, 2_000);
  });

  promise("an abort before anything was seen ends it too", async (world) => {
    await world.set([one] as Place[]);
    const watch = look(world.provider);
    watch[Symbol.dispose]();
    assert.equal(await watch.ended, true);
  });
}

/** Watches, holding every sighting until it is asked for. */
function look(provider: Provider) {
  const abort = new AbortController();
  const iterator = provider.watch(abort.signal)[Symbol.asyncIterator]();
  const ended = Promise.withResolvers<boolean>();
  let latest: Promise<IteratorResult<Sighting>> | undefined;
  return {
    ended: ended.promise,
    async next(): Promise<Sighting> {
      latest = iterator.next();
      const step = await latest;
      assert.ok(!step.done, "it ended");
      return step.value;
    },
    async until(wanted: readonly string[]): Promise<void> {
      let seen: readonly string[] = [];
      for (const deadlineMs = performance.now() + 5_000; performance.now() < deadlineMs; ) {
        seen = placesOf(await this.next());
        if (seen.join() === wanted.join()) return;
      }
      assert.deepEqual(seen, wanted);
    },
    [Symbol.dispose](): void {
      abort.abort();
      iterator.next().then(
        ({ done }) => ended.resolve(done === true),
        () => ended.resolve(true),
      );
    },
  };
}

function placesOf({ workloads }: Sighting): string[] {
  return workloads.map(({ group, name, url }) => `${group}/${name} ${new URL(url).port}`).sort();
}

function found(discovery: Discovery): string[] {
  return discovery
    .current()
    .resources.flatMap(({ spec, name }) => {
      if (spec.case !== "backend") return [];
      const [, group] = name.split("/");
      return [`${group}/${spec.value.name} ${new URL(spec.value.url).port}`];
    })
    .sort();
}

/** Watches, sockets and timers of this process. */
function resources(): number {
  return process.getActiveResourcesInfo().filter((kind) => /FSEvent|TCPSocket|Pipe|Timeout/.test(kind)).length;
}
