// What each discovery provider looks at, as a world that a test changes: the row of a provider says how, and what can't be asked of it.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pino } from "pino";
import { createDockerProvider } from "../../control-plane/discovery/docker.ts";
import { createFileProvider } from "../../control-plane/discovery/file.ts";
import { createKubernetesProvider } from "../../control-plane/discovery/kubernetes.ts";
import type { Provider } from "../../control-plane/discovery/provider.ts";
import { createToolhiveProvider } from "../../control-plane/discovery/toolhive.ts";
import { createToolhiveFilesProvider } from "../../control-plane/discovery/toolhive-files.ts";
import { type FakeContainer, fakeContainer, startDockerApi } from "./docker-api.ts";
import { fakeObject, startKubernetesApi } from "./kubernetes-api.ts";
import { temporaryDirectory } from "./processes.ts";
import { startToolhive, toolhiveFiles } from "./toolhive.ts";

const log = pino({ level: "silent" });

/** A server of the world that a provider looks at: reached at `http://127.0.0.1:PORT/mcp`. */
export interface Place {
  readonly name: string;
  readonly group: string;
  readonly port: number;
}

/** What goes wrong with those that are asked, or with the files. */
type Fault = "slow" | "hung" | "malformed" | "unauthorized" | "cut off";

/** What a provider looks at. */
export interface World extends AsyncDisposable {
  readonly provider: Provider;
  /** Exactly these run. */
  set(places: readonly Place[]): Promise<void>;
  /** Something stands among them that is no workload. */
  addMalformed(): Promise<void>;
  /** Nothing can be seen, as when the server that is asked went away. */
  break(): Promise<void>;
  mend(): Promise<void>;
  /** From now on that, and it is looked at soon; until `suffer()`. */
  suffer(fault?: Fault): Promise<void>;
  /** Makes a change and tells nobody of it; where versions are kept, those of before are forgotten. */
  setUntold?(places: readonly Place[]): Promise<void>;
}

interface ProviderRow {
  readonly open: () => Promise<World>;
  /** What operators are told of each fault; or, in quotes, why there is none. A slow one is none. */
  readonly faults: Readonly<Record<Exclude<Fault, "slow">, RegExp | string>>;
  /** Why it can't be slow, or can't leave changes untold; undefined when it can. */
  readonly never: { readonly slow?: string; readonly untold?: string };
}

const atOnce = "a file is read at once, or not at all";
const ofRest = {
  faults: {
    hung: /does not answer in time/,
    malformed: /no JSON/,
    unauthorized: /wants a sign-in \(401\)/,
    "cut off": /does not answer \(UND_ERR_SOCKET\)/,
  },
  never: { untold: "it is polled, and never tells" },
};
const ofFiles = { never: { slow: atOnce, untold: "the system tells of every change" } };
const noSignIn = "files want no sign-in";

export const providerRows: Record<string, ProviderRow> = {
  "toolhive over http": { open: () => toolhive(false), ...ofRest },
  "toolhive over a socket": { open: () => toolhive(true), ...ofRest },
  "toolhive-files": {
    open: toolhiveOnDisk,
    ...ofFiles,
    faults: {
      hung: atOnce,
      malformed: /workload "one" counts as it was: .* no JSON/,
      unauthorized: noSignIn,
      "cut off": /workload "one" counts as it was: .* no JSON/,
    },
  },
  "a directory of files": {
    open: files,
    ...ofFiles,
    faults: { hung: atOnce, malformed: /counts as it was/, unauthorized: noSignIn, "cut off": /counts as it was/ },
  },
  docker: {
    open: docker,
    never: {},
    faults: {
      hung: /^Docker at unix:.* did not answer in 800 ms/,
      malformed: /answers with what is no JSON/,
      unauthorized: /refuses this reader \(HTTP 401\)/,
      "cut off": /the connection broke|terminated|aborted/,
    },
  },
  kubernetes: {
    open: kubernetes,
    never: {},
    faults: {
      hung: /^Kubernetes at http:.* did not answer in 800 ms/,
      malformed: /answers with what is no JSON/,
      unauthorized: /does not accept the credentials \(HTTP 401\)/,
      "cut off": /the connection broke|terminated|aborted/,
    },
  },
};

async function toolhive(isSocket: boolean): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const fake = stack.use(await startToolhive({ directory: path, isSocket }));
  let present: readonly Place[] = [];
  const listed = () => present.map(({ name, group, port }) => ({ name, group, port, url: `http://127.0.0.1:${port}/mcp` }));
  const owned = stack.move();
  return {
    provider: createToolhiveProvider({ log, serverFile: fake.serverFile, pollMs: 50, answerMs: 800 }),
    async set(places) {
      present = places;
      fake.set(listed());
    },
    addMalformed: async () => fake.set([...listed(), null, { name: 7 }, { name: "odd", group: "Bad Group!", url: "ftp://x" }]),
    break: () => fake.behave("down"),
    mend: () => fake.behave("none"),
    suffer: (fault) => fake.behave(fault ? restFaults[fault] : "none"),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const restFaults = {
  slow: "slow",
  hung: "hung",
  malformed: "malformed",
  unauthorized: "unauthorized",
  "cut off": "cut",
} as const satisfies Record<Fault, unknown>;

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
    suffer: async (fault) => (fault ? fake.tear("one", fault === "malformed" ? "\u0000 hello" : undefined) : set(present)),
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
    async suffer(fault) {
      const [text = ""] = fault ? [await readFile(join(path, "all.yaml"), "utf8")] : [];
      if (!fault) await write();
      else await writeFile(join(path, "all.yaml"), fault === "malformed" ? "{{" : text.slice(0, text.indexOf("url: ") + 9));
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

async function docker(): Promise<World> {
  const fake = await startDockerApi();
  let present: { readonly place: Place; readonly container: FakeContainer }[] = [];
  const make = (place: Place) => {
    const labels = { "vmcp.enable": "true", "vmcp.group": place.group, "vmcp.name": place.name };
    return { place, container: fakeContainer(`${place.group}-${place.name}`, labels, { publishedAs: place.port }) };
  };
  /** Those that go and those that come. */
  function exchange(places: readonly Place[]) {
    const gone = present.filter(({ place }) => !places.some((other) => isSame(place, other)));
    const come = places.filter((place) => !present.some((other) => isSame(place, other.place))).map(make);
    present = [...present.filter((one) => !gone.includes(one)), ...come];
    return { gone, come };
  }
  return {
    provider: createDockerProvider({ log, host: fake.address, environment: {}, answerMs: 800 }),
    async set(places) {
      const { gone, come } = exchange(places);
      for (const { container } of gone) fake.destroy(container);
      for (const { container } of come) fake.start(container);
    },
    async setUntold(places) {
      for (const stream of fake.eventStreams()) stream.end();
      exchange(places);
      fake.containers.splice(0, Number.POSITIVE_INFINITY, ...present.map(({ container }) => container));
    },
    async addMalformed() {
      fake.oddities.push(null, { Id: "0123456789abcdef", State: 1 });
      fake.start(fakeContainer("odd", { "vmcp.enable": "true", "vmcp.group": "Bad Group!" }));
    },
    break: fake.down,
    mend: fake.up,
    async suffer(fault) {
      const met = fault && apiFaults[fault];
      fake.misbehave(met && (({ url }) => (fault === "slow" || url.pathname.endsWith("/json") ? met : undefined)));
      for (const { container } of present.slice(0, 1)) fake.say("update", container); // so that it is asked
    },
    [Symbol.asyncDispose]: () => fake[Symbol.asyncDispose](),
  };
}

async function kubernetes(): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const fake = stack.use(await startKubernetesApi());
  const directory = stack.use(await temporaryDirectory());
  const [cluster, context] = [{ server: fake.address }, { cluster: "c", namespace: "mcp" }];
  const config = { "current-context": "t", clusters: [{ name: "c", cluster }], contexts: [{ name: "t", context }] };
  const kubeconfig = await directory.write("config", JSON.stringify(config));
  let present: readonly Place[] = [];
  const make = ({ name, group, port }: Place) =>
    fakeObject("MCPServer", name, {
      spec: { image: "i", transport: "stdio", groupRef: { name: group } },
      status: { phase: "Ready", url: `http://127.0.0.1:${port}/mcp` },
    });
  async function set(places: readonly Place[]): Promise<void> {
    for (const place of present) if (!places.some(({ name }) => name === place.name)) fake.remove(make(place));
    for (const place of places) if (!present.some((other) => isSame(place, other))) fake.put(make(place));
    present = places;
  }
  const owned = stack.move();
  return {
    provider: createKubernetesProvider({ log, kubeconfig, environment: {}, answerMs: 800 }),
    set,
    async setUntold(places) {
      fake.misbehave(() => "hang up");
      fake.endWatches();
      await set(places);
      fake.compact(); // whoever goes on from where it was gets 410
      fake.misbehave();
    },
    async addMalformed() {
      fake.oddities.push(null, { metadata: { name: 5 } });
      fake.put(fakeObject("MCPServer", "odd", { spec: { groupRef: { name: "Bad Group!" } }, status: { url: "ftp://x" } }));
    },
    break: fake.down,
    mend: fake.up,
    async suffer(fault) {
      const met = fault && apiFaults[fault];
      fake.misbehave(met && (({ url }) => (fault === "slow" || !url.searchParams.has("watch") ? met : undefined)));
      fake.compact();
      fake.endWatches();
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const apiFaults = {
  slow: { delayMs: 300 },
  hung: "hang",
  malformed: { status: 200, body: '[{"Id":' },
  unauthorized: { status: 401 },
  "cut off": "hang up halfway",
} as const satisfies Record<Fault, unknown>;

function isSame(a: Place, b: Place): boolean {
  return a.name === b.name && a.group === b.group && a.port === b.port;
}
