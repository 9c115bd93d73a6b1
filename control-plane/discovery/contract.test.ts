// What every provider promises, over a fake of what it asks. A new provider is a row.
import assert from "node:assert/strict";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { pino } from "pino";
import { eventually } from "../../test/support/eventually.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { startToolhive, toolhiveFiles } from "../../test/support/toolhive.ts";
import { createDiscovery, type Discovery } from "./discovery.ts";
import { createFileProvider } from "./file.ts";
import type { Provider, Sighting } from "./provider.ts";
import { createToolhiveProvider } from "./toolhive.ts";
import { createToolhiveFilesProvider } from "./toolhive-files.ts";

const log = pino({ level: "silent" });

/** A server of the world that a provider looks at: reached at `http://127.0.0.1:PORT/mcp`. */
interface Place {
  readonly name: string;
  readonly group: string;
  readonly port: number;
}

/** What a provider looks at. */
interface World extends AsyncDisposable {
  readonly provider: Provider;
  /** Exactly these run. */
  set(places: readonly Place[]): Promise<void>;
  /** Something stands among them that is no workload. */
  addMalformed(): Promise<void>;
  /** Nothing can be seen, as when the server that is asked went away. */
  break(): Promise<void>;
  mend(): Promise<void>;
}

const rows: Record<string, () => Promise<World>> = {
  "toolhive over http": () => toolhive(false),
  "toolhive over a socket": () => toolhive(true),
  "toolhive-files": toolhiveOnDisk,
  "a directory of files": () => files(),
};

async function toolhive(isSocket: boolean): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const fake = stack.use(await startToolhive({ directory: path, isSocket }));
  let present: readonly Place[] = [];
  const listed = () => present.map(({ name, group, port }) => ({ name, group, port, url: `http://127.0.0.1:${port}/mcp` }));
  const owned = stack.move();
  return {
    provider: createToolhiveProvider({ log, serverFile: fake.serverFile, pollMs: 50, answerMs: 2_000 }),
    async set(places) {
      present = places;
      fake.set(listed());
    },
    addMalformed: async () => fake.set([...listed(), null, { name: 7 }, { name: "odd", group: "Bad Group!", url: "ftp://x" }]),
    break: () => fake.behave("down"),
    mend: () => fake.behave("none"),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function toolhiveOnDisk(): Promise<World> {
  const directory = await temporaryDirectory();
  let fake = await toolhiveFiles(directory.path);
  let present: readonly Place[] = [];
  async function set(places: readonly Place[]): Promise<void> {
    for (const { name } of present) if (!places.some((place) => place.name === name)) await fake.remove(name);
    present = places;
    for (const { name, group, port } of places) {
      await fake.group(group);
      await fake.workload(name, { group, port }, { status: "running", process_id: process.pid });
    }
  }
  return {
    provider: createToolhiveFilesProvider({ log, paths: fake.paths, pollMs: 200 }),
    set,
    async addMalformed() {
      await fake.tear("torn");
      await fake.workload("portless", { group: "a", port: 0 });
    },
    break: () => rm(join(directory.path, "state"), { recursive: true }),
    async mend() {
      fake = await toolhiveFiles(directory.path);
      await set(present);
    },
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

async function files(): Promise<World> {
  const directory = await temporaryDirectory();
  const path = join(directory.path, "backends");
  await mkdir(path);
  let present: readonly Place[] = [];
  const write = async (more = "") => {
    const groups = [...new Set(present.map(({ group }) => group))].map((name) => `kind: Group\nname: ${name}\n`);
    const members = present.map(
      ({ name, group, port }) => `kind: Backend\nname: ${name}\ngroup: ${group}\nurl: http://127.0.0.1:${port}/mcp\n`,
    );
    const text = present.length === 0 ? "" : [...groups, ...members].join("---\n");
    await rm(join(path, "all.yaml"), { force: true });
    if (text + more !== "") await writeFile(join(path, "all.yaml"), text + more);
  };
  return {
    provider: createFileProvider({ log, path, pollMs: 200 }),
    async set(places) {
      present = places;
      await write();
    },
    addMalformed: () => writeFile(join(path, "bad.yaml"), "kind: Backend\nname: odd\ngroup: a\nurl: ftp://x\n"),
    break: () => rm(path, { recursive: true }),
    async mend() {
      await mkdir(path);
      await write();
    },
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

const [one, two, three, four]: Place[] = [
  { name: "one", group: "a", port: 21_001 },
  { name: "two", group: "a", port: 21_002 },
  { name: "three", group: "b", port: 21_003 },
  { name: "four", group: "b", port: 21_004 },
] as const;

for (const [row, open] of Object.entries(rows)) {
  const promise = (name: string, body: (world: World) => Promise<void>) =>
    test(`${row}: ${name}`, async () => {
      await using world = await open();
      await body(world);
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
