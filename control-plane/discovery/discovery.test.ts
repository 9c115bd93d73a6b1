// The supervisor, over providers that a test scripts and a clock that it moves.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { pino } from "pino";
import { temporaryDirectory } from "../../test/support/processes.ts";
import type { Clock } from "../clock.ts";
import { createDiscovery, type Started } from "./discovery.ts";
import { fileMemory, type Memory } from "./memory.ts";
import { type Provider, ProviderError, type Sighting, type Workload } from "./provider.ts";

const log = pino({ level: "silent" });

const workload = (name: string, more: Partial<Workload> = {}): Workload => ({
  name,
  group: "g",
  url: `http://127.0.0.1:1/${name}`,
  transport: "streamable-http",
  isRunning: true,
  metadata: {},
  ...more,
});
const workloads = (...names: string[]): Workload[] => names.map((name) => workload(name));

test("the first answers are there when `use` returns, and nothing before", async () => {
  const { discovery, use, a } = setUp();
  const used = use(a);
  assert.deepEqual(shown(discovery), []);
  await a.sees(workloads("one"));
  await used;
  assert.deepEqual(shown(discovery), ["g/one"]);
  assert.deepEqual(discovery.current().groups, ["g"]);
});

test("who hangs is waited for 5 s, and shown when it answers", async () => {
  const { discovery, use, a, b, clock } = setUp();
  const used = use(a, b);
  await a.sees(workloads("one"));
  await clock.advance(4_999);
  assert.deepEqual(shown(discovery), []);
  await clock.advance(1);
  await used;
  assert.deepEqual(shown(discovery), ["g/one"]);
  assert.equal(discovery.status()[1]?.state, "failing");
  await b.sees(workloads("two"));
  await clock.advance(100);
  assert.deepEqual(shown(discovery), ["g/one", "g/two"]);
});

test("changes settle for 100 ms, and for 1 s at most", async () => {
  const { discovery, clock, a } = await running(workloads("0"));
  await a.sees(workloads("0", "1"));
  await clock.advance(99);
  assert.deepEqual(shown(discovery), ["g/0"]);
  await clock.advance(1);
  assert.deepEqual(shown(discovery), ["g/0", "g/1"]);
  let seen: Workload[] = workloads("0", "1");
  for (let at = 0; at < 1_000; at += 50) {
    assert.equal(shown(discovery).length, 2);
    seen = [...seen, workload(`more-${at}`)];
    await a.sees(seen);
    await clock.advance(50);
  }
  assert.equal(shown(discovery).length, 22);
});

test("sightings that say the same do not put a change off, nor wake anybody", async () => {
  const { discovery, clock, a } = await running(workloads("one"));
  await a.sees(workloads("one", "two"));
  await clock.advance(60);
  await a.sees(workloads("two", "one"));
  await clock.advance(40);
  assert.deepEqual(shown(discovery), ["g/one", "g/two"]);
  const before = discovery.current();
  await a.sees(workloads("one", "two"));
  await clock.advance(2_000);
  assert.equal(discovery.current(), before);
});

test("a failing provider is tried after 1, 2, 4 … 30 s, and shows what it saw last", async () => {
  const { discovery, clock, a } = await running(workloads("one", "two"));
  const waits: number[] = [];
  for (let i = 0; i < 7; i++) {
    await a.fails("gone");
    assert.equal(discovery.status()[0]?.state, "stale");
    const tries = a.tries;
    let waited = 0;
    for (; a.tries === tries && waited < 40_000; waited += 500) await clock.advance(500);
    waits.push(waited);
  }
  assert.deepEqual(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  assert.deepEqual(shown(discovery), ["g/one", "g/two"]);
  assert.deepEqual([discovery.status()[0]?.error, discovery.status()[0]?.workloads], ["gone", 2]);
  await a.sees(workloads("one", "two", "three"));
  await clock.advance(100);
  assert.equal(discovery.status()[0]?.state, "ok");
  assert.equal(shown(discovery).length, 3);
  const { tries } = a;
  await a.fails("gone again");
  await clock.advance(1_000);
  assert.equal(a.tries, tries + 1, "it was well in between");
});

test("nonsense is a failure: what was seen before stays", async () => {
  const { discovery, clock, a } = await running(workloads("one"));
  for (const nonsense of [undefined, null, {}, { workloads: "none" }, 7]) {
    await a.answers(nonsense as unknown as Sighting);
    assert.equal(discovery.status()[0]?.state, "stale");
    await clock.advance(40_000);
    assert.deepEqual(shown(discovery), ["g/one"]);
  }
});

test("a provider that ends by itself is started again", async () => {
  const { discovery, clock, a } = await running(workloads("one"));
  await a.ends();
  assert.match(discovery.status()[0]?.error ?? "", /ended/);
  await clock.advance(1_000);
  assert.equal(a.tries, 2);
});

test("an empty answer is believed when it repeats 5 s later", async () => {
  const { discovery, clock, a } = await running(workloads("one", "two"));
  await a.sees([]);
  await clock.advance(2_000);
  await a.sees([]); // a repetition, but too soon
  await clock.advance(2_900);
  assert.equal(shown(discovery).length, 2);
  assert.equal(discovery.status()[0]?.state, "stale");
  assert.match(discovery.status()[0]?.error ?? "", /gone at once/);
  await clock.advance(100); // who does not repeat is asked again
  assert.equal(a.tries, 2);
  assert.equal(shown(discovery).length, 2);
  await a.sees([]);
  await clock.advance(100);
  assert.deepEqual(shown(discovery), []);
  assert.deepEqual([discovery.status()[0]?.state, discovery.status()[0]?.error], ["ok", ""]);
});

test("an empty answer that does not repeat has taken nothing", async () => {
  const { discovery, clock, a } = await running(workloads("one", "two", "three"));
  await a.sees([]);
  await clock.advance(3_000);
  await a.sees(workloads("one", "two", "three"));
  assert.equal(discovery.status()[0]?.state, "ok");
  await clock.advance(60_000);
  await a.sees(workloads("one", "two", "three"));
  assert.equal(shown(discovery).length, 3);
});

for (const [what, before, after, isAtOnce] of [
  ["half of them", ["a", "b", "c", "d"], ["a", "b"], true],
  ["more than half", ["a", "b", "c", "d", "e"], ["a", "b"], false],
  ["one of two", ["a", "b"], ["b"], true],
  ["the only one", ["a"], [], false],
] as const) {
  test(`losing ${what} counts ${isAtOnce ? "at once" : "only when it is seen again"}; what joins counts at once`, async () => {
    const { discovery, clock, a } = await running(workloads(...before));
    await a.sees(workloads(...after, "new"));
    await clock.advance(100);
    const wanted = [...new Set([...(isAtOnce ? [] : before), ...after, "new"])].sort().map((name) => `g/${name}`);
    assert.deepEqual(shown(discovery), wanted);
  });
}

test("a group that loses all it had is doubted, however large the others are", async () => {
  const many = Array.from({ length: 20 }, (_, i) => workload(`w${i}`, { group: "large" }));
  const { discovery, clock, a } = await running([...many, ...workloads("one", "two")]);
  await a.sees(many.slice(1));
  await clock.advance(100);
  assert.equal(shown(discovery).filter((name) => name.startsWith("large/")).length, 19);
  assert.equal(shown(discovery).filter((name) => name.startsWith("g/")).length, 2);
});

test("when more than half of everything is gone, nothing of it leaves at once", async () => {
  const large = Array.from({ length: 10 }, (_, i) => workload(`w${i}`, { group: "large" }));
  const { discovery, clock, a } = await running([...large, ...workloads("one", "two", "three", "four")]);
  await a.sees(workloads("one", "two"));
  await clock.advance(100);
  assert.equal(shown(discovery).length, 14);
});

test("one that is stopped stays, one that is removed leaves", async () => {
  const { discovery, clock, a } = await running(workloads("one", "two"));
  const before = discovery.current();
  await a.sees([workload("one"), workload("two", { isRunning: false })]);
  await clock.advance(1_000);
  assert.equal(discovery.current(), before);
  await a.sees(workloads("one"));
  await clock.advance(1_000);
  assert.deepEqual(shown(discovery), ["g/one"]);
});

test("of two providers that have a name the first keeps it, and that is said", async () => {
  const { discovery, use, a, b } = setUp();
  const used = use(a, b);
  await b.sees([workload("same", { url: "http://127.0.0.1:2/b" }), workload("other")]);
  await a.sees([workload("same", { url: "http://127.0.0.1:1/a" })]);
  await used;
  assert.deepEqual(shown(discovery), ["g/other", "g/same"]);
  assert.deepEqual(urlsOf(discovery, "same"), ["http://127.0.0.1:1/a"]);
  assert.equal(discovery.current().sources.get("groups/g/backends/same"), "a");
  assert.deepEqual(
    discovery.status().map(({ problems }) => problems),
    [[], ["g/same of b is left out: a has one of that name"]],
  );
});

test("one that stands in counts while the other sees nothing, without a clash", async () => {
  const { discovery, use, a, b, clock } = setUp();
  const used = use(a, { ...b, standsInFor: "a" });
  await b.sees(workloads("one", "two"));
  await a.fails("no server");
  await used;
  assert.deepEqual(shown(discovery), ["g/one", "g/two"]);
  assert.deepEqual(
    discovery.status().map(({ isUsed }) => isUsed),
    [false, true],
  );

  await clock.advance(1_000);
  await a.sees(workloads("one", "two", "three"));
  await clock.advance(100);
  assert.deepEqual(shown(discovery), ["g/one", "g/three", "g/two"]);
  assert.deepEqual(
    discovery.status().map(({ isUsed, problems }) => [isUsed, problems.length]),
    [
      [true, 0],
      [false, 0],
    ],
  );

  await a.fails("restarts"); // for a moment
  await clock.advance(1_000);
  assert.deepEqual(
    discovery.status().map(({ isUsed }) => isUsed),
    [true, false],
  );
  await clock.advance(4_000);
  assert.deepEqual(
    discovery.status().map(({ isUsed }) => isUsed),
    [false, true],
  );
  await clock.advance(100);
  assert.deepEqual(shown(discovery), ["g/one", "g/two"]);
});

test("when both fail, who was used last is", async () => {
  const { discovery, use, a, b, clock } = setUp();
  const used = use(a, { ...b, standsInFor: "a" });
  await a.sees(workloads("one"));
  await b.sees(workloads("one", "two"));
  await used;
  await a.fails("gone");
  await clock.advance(5_000);
  await clock.advance(100);
  assert.deepEqual(shown(discovery), ["g/one", "g/two"]);
  await b.fails("gone too");
  await clock.advance(5_100);
  await clock.advance(60_000);
  assert.deepEqual(shown(discovery), ["g/one", "g/two"]);
  assert.deepEqual(
    discovery.status().map(({ isUsed, state }) => [isUsed, state]),
    [
      [false, "stale"],
      [true, "stale"],
    ],
  );
});

test("taking over does not empty a group by accident either", async () => {
  const { discovery, use, a, b, clock } = setUp();
  const used = use(a, { ...b, standsInFor: "a" });
  await a.sees(workloads("one", "two", "three"));
  await b.sees([]);
  await used;
  await a.fails("gone");
  await clock.advance(5_100);
  assert.equal(shown(discovery).length, 3);
});

test("several of one name are one backend in several places", async () => {
  const { discovery } = await running([
    workload("many", { url: "http://127.0.0.1:2/mcp" }),
    workload("many", { url: "http://127.0.0.1:1/mcp" }),
    workload("many", { url: "http://127.0.0.1:3/mcp", isRunning: false }),
    workload("old", { transport: "sse", url: "http://127.0.0.1:4/sse#old" }),
    workload("old", { transport: "sse", url: "http://127.0.0.1:5/sse" }),
  ]);
  assert.deepEqual(urlsOf(discovery, "many"), ["http://127.0.0.1:1/mcp", "http://127.0.0.1:2/mcp"]);
  assert.deepEqual(urlsOf(discovery, "old"), ["http://127.0.0.1:4/sse"]);
  assert.match(discovery.status()[0]?.problems.join() ?? "", /"old".*HTTP\+SSE/);
});

for (const [what, bad, problem] of [
  ["no map", null, /no map/],
  ["no name", workload(""), /no usable name/],
  ["a bad group", workload("x", { group: "Not A Group" }), /"Not A Group" is no name of a group/],
  ["credentials in its address", workload("x", { url: "http://user:hunter2@127.0.0.1/" }), /without credentials/],
  ["another scheme", workload("x", { url: "file:///etc/passwd" }), /http or https/],
  ["an address without end", workload("x", { url: `http://a/${"x".repeat(3_000)}` }), /http or https/],
  ["another transport", workload("x", { transport: "stdio" as "sse" }), /"stdio" is not known/],
] as const) {
  test(`a workload with ${what} is left out, and the others stay`, async () => {
    const { discovery } = await running([workload("good"), bad as Workload]);
    assert.deepEqual(shown(discovery), ["g/good"]);
    const problems = discovery.status()[0]?.problems.join("\n") ?? "";
    assert.match(problems, problem);
    assert.doesNotMatch(problems, /hunter2/);
  });
}

test("names that backends can't have are mapped, always alike, and never onto another's", async () => {
  const { discovery } = await running([
    workload("a/b"),
    workload("a b", { url: "http://127.0.0.1:1/space" }),
    workload("a-b"),
    workload("über"),
    workload("x".repeat(80)),
    workload("…"),
  ]);
  const names = shown(discovery);
  assert.ok(names.includes("g/a-b") && names.includes("g/u-ber"), names.join());
  assert.deepEqual(urlsOf(discovery, "a-b"), ["http://127.0.0.1:1/a-b"]);
  assert.ok(names.every((name) => /^g\/[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)));
  assert.equal(names.length, 4);
  assert.equal(discovery.status()[0]?.problems.filter((problem) => problem.includes("one with another")).length, 2);
});

test("5,000 workloads and 500 groups are the most, and problems are 20 lines", async () => {
  const many = Array.from({ length: 5_100 }, (_, i) => workload(`w${String(i).padStart(4, "0")}`));
  const groups = Array.from({ length: 600 }, (_, i) => `group${String(i).padStart(3, "0")}`);
  const { discovery, a, clock } = await running(many);
  assert.equal(shown(discovery).length, 5_000);
  assert.match(discovery.status()[0]?.problems[0] ?? "", /5100 workloads/);
  await a.answers({ workloads: many.slice(0, 10), groups });
  await clock.advance(1_000);
  assert.equal(discovery.current().groups.length, 500);
  await a.sees(Array.from({ length: 100 }, () => workload("")));
  assert.equal(discovery.status()[0]?.problems.length, 20);
});

test("the end does not wait for a provider that hangs", async () => {
  const { discovery, use, clock } = setUp();
  const hung: Provider = {
    name: "hung",
    watch: () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) }),
  };
  const used = use({ provider: hung });
  await clock.advance(5_000);
  await used;
  await discovery[Symbol.asyncDispose]();
});

test("what was seen before a start counts until the provider has seen more, and large losses are doubted then too", async () => {
  await using directory = await temporaryDirectory();
  const memory = () => fileMemory(join(directory.path, "seen"), log);
  const first = setUp(memory());
  const used = first.use(first.a);
  await first.a.sees([...workloads("one", "two"), workload("two", { url: "http://127.0.0.1:2/two" })]);
  await used;
  await first.discovery[Symbol.asyncDispose]();

  const { discovery, use, a, clock } = setUp(memory());
  const again = use(a);
  await a.fails("not up yet");
  await again;
  assert.deepEqual(shown(discovery), ["g/one", "g/two"]);
  assert.deepEqual(urlsOf(discovery, "two"), ["http://127.0.0.1:1/two", "http://127.0.0.1:2/two"]);
  assert.equal(discovery.status()[0]?.state, "stale");
  await clock.advance(1_000);
  await a.sees([]);
  await clock.advance(1_000);
  assert.equal(shown(discovery).length, 2);
  await clock.advance(5_000);
  await a.sees([]);
  await clock.advance(100);
  assert.deepEqual(shown(discovery), []);
});

test("a memory that somebody spoiled is no memory", async () => {
  await using directory = await temporaryDirectory();
  for (const text of ["", "{", "7", '{"a":7}', '{"a":{"workloads":{}}}']) {
    const { discovery, use, a } = setUp(fileMemory(await directory.write("seen", text), log));
    const used = use(a);
    await a.fails("no");
    await used;
    assert.deepEqual([shown(discovery), discovery.status()[0]?.state], [[], "failing"]);
  }
});

test("a provider that runs is not started twice", async () => {
  const { use, a } = await running(workloads("one"));
  await use(a);
  assert.equal(a.tries, 1);
});

function setUp(memory?: Memory) {
  const clock = manualClock();
  const discovery = createDiscovery({ log, clock, wallMs: () => 1, random: () => 1, memory });
  const use = (...started: Started[]) => discovery.use(started);
  return { clock, discovery, use, a: scripted("a"), b: scripted("b") };
}

async function running(first: Workload[]) {
  const all = setUp();
  const used = all.use(all.a);
  await all.a.sees(first);
  await used;
  return all;
}

function shown({ current }: { current: ReturnType<typeof createDiscovery>["current"] }): string[] {
  return current().resources.flatMap(({ name, spec }) => {
    const [, group, , backend] = name.split("/");
    return spec.case === "backend" ? [`${group}/${backend}`] : [];
  });
}

function urlsOf({ current }: { current: ReturnType<typeof createDiscovery>["current"] }, backend: string): string[] {
  const spec = current().resources.find(({ name }) => name === `groups/g/backends/${backend}`)?.spec;
  if (spec?.case !== "backend") return [];
  return spec.value.url === "" ? spec.value.endpoints.map(({ url }) => url) : [spec.value.url];
}

/** A provider that sees, fails and ends when it is told to. */
function scripted(name: string) {
  let steps: PromiseWithResolvers<() => Sighting | undefined> = Promise.withResolvers();
  let tries = 0;
  const provider: Provider = {
    name,
    async *watch(signal) {
      tries += 1;
      const aborted = new Promise<() => undefined>((resolve) =>
        signal.addEventListener("abort", () => resolve(() => undefined), { once: true }),
      );
      while (!signal.aborted) {
        const next = (await Promise.race([steps.promise, aborted]))();
        if (next === undefined && isEnding) return;
        if (!signal.aborted) yield next as Sighting;
      }
    },
  };
  let isEnding = false;
  async function step(make: () => Sighting | undefined): Promise<void> {
    const current = steps;
    steps = Promise.withResolvers();
    current.resolve(make);
    for (let i = 0; i < 5; i++) await turn();
  }
  return {
    provider,
    get tries() {
      return tries;
    },
    sees: (seen: readonly Workload[]) => step(() => ({ workloads: seen })),
    answers: (sighting: Sighting) => step(() => sighting),
    fails: (reason: string) =>
      step(() => {
        throw new ProviderError(reason);
      }),
    async ends() {
      isEnding = true;
      await step(() => undefined);
      isEnding = false;
    },
  };
}

function manualClock(): Omit<Clock, "advance"> & { advance(ms: number): Promise<void> } {
  let nowMs = 0;
  const waiting = new Set<{ readonly atMs: number; readonly callback: () => void }>();
  return {
    nowMs: () => nowMs,
    after(delayMs, callback) {
      const entry = { atMs: nowMs + delayMs, callback };
      waiting.add(entry);
      return () => void waiting.delete(entry);
    },
    async advance(ms) {
      nowMs += ms;
      const due = [...waiting].filter(({ atMs }) => atMs <= nowMs);
      for (const entry of due) if (waiting.delete(entry)) entry.callback();
      for (let i = 0; i < 5; i++) await turn();
    },
  };
}
