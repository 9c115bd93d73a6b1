// Who may import whom. The tables are the rule: to break it, change the table and say why in the same commit.
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";

const root = join(import.meta.dirname, "..");

/** Top-level folder → what its files may import, by path prefix. */
const planes: Record<string, readonly string[]> = {
  proto: ["proto/"],
  common: ["proto/", "common/"],
  "control-plane": ["proto/", "common/", "control-plane/"],
  "data-plane": ["proto/", "common/", "data-plane/"],
  // The guess is pure; through the door of the plane every command would wait for all of it.
  cli: ["proto/", "common/", "cli/", "control-plane/index.ts", "control-plane/resources/nearest.ts", "data-plane/index.ts"],
  test: ["proto/", "common/", "control-plane/", "data-plane/", "cli/", "deploy/", "test/"],
  deploy: ["deploy/", "test/support/"],
};

/** Rooms of each plane, highest first: a room imports only from lines below its own. A file beside the rooms is one by its name. */
const layers: Record<string, readonly (readonly string[])[]> = {
  "control-plane": [
    ["index"],
    ["admin"],
    ["reconcile"],
    ["push", "discovery", "analysis"],
    ["catalogs"],
    ["trust", "compiler", "config"],
    ["store"],
    ["resources"],
    ["resource-names", "canonical", "errors", "problems", "change-feed", "clock"],
  ],
  "data-plane": [
    ["index"],
    ["workers"],
    ["engine"],
    ["serving", "collect-sooner"],
    ["sync", "ingress"],
    ["methods"],
    ["runtime"],
    ["virtual-server"],
    ["aggregation"],
    ["relay"],
    ["backends"],
    ["outgoing-auth", "session"],
    ["incoming-auth"],
    ["mcp", "telemetry", "redis", "outbound", "secrets"],
    ["overload"], // it knows nothing of MCP: what it counts, and what becomes of a refusal, is the ingress's
  ],
};

const sdkPlaces = ["data-plane/backends/sse.ts", "test/support/", "test/bench/", "test/conformance/", "deploy/demo/"];
const sdkWhy = "its typed schemas lose members they don't know, so they stay off the data path";

/** Packages that belong to certain places, and why. `*.test.ts` may use anything. */
const packages: Record<string, { readonly only: readonly string[]; readonly why: string }> = {
  koa: {
    only: ["data-plane/ingress/"],
    why: "rooms below the ingress take headers and messages, so that they can be tested without HTTP",
  },
  ioredis: {
    only: ["data-plane/redis/", "data-plane/session/redis-", "data-plane/outgoing-auth/redis-"],
    why: "other stores must fit behind the same interface",
  },
  opossum: { only: ["data-plane/backends/"], why: "one breaker per backend, wrapped once" },
  "@modelcontextprotocol/sdk/client": { only: sdkPlaces, why: sdkWhy },
  "@modelcontextprotocol/sdk/server": { only: sdkPlaces, why: sdkWhy },
  "@modelcontextprotocol/sdk/types.js": { only: sdkPlaces, why: sdkWhy },
  "node:child_process": {
    only: ["data-plane/backends/stdio.ts", "test/support/", "deploy/demo/", "proto/check-generated.ts"],
    why: "programs are started only from operator configuration",
  },
  "node:cluster": {
    only: ["data-plane/workers/member.ts"],
    why: "one place starts workers; nothing else asks which process it is in",
  },
  pg: { only: ["control-plane/store/postgres"], why: "other stores must fit behind the same interface" },
  "node:sqlite": { only: ["control-plane/store/"], why: "other stores must fit behind the same interface" },
  // A kubeconfig is YAML too.
  yaml: {
    only: ["control-plane/config/", "control-plane/discovery/kubernetes-credentials.ts", "cli/", "test/"],
    why: "a proxy never sees YAML",
  },
  "@grpc/grpc-js": {
    only: [
      "proto/grpc.ts",
      "control-plane/push/",
      "control-plane/admin/",
      "control-plane/index.ts",
      "data-plane/sync/",
      "cli/vmcpctl/",
      "test/support/proxy-streams.ts",
      "test/support/trusted-plane.ts",
      "test/support/admin-plane.ts",
    ],
    why: "the planes meet over the contract and nowhere else",
  },
};

type Sources = ReadonlyMap<string, string>;

const sources: Sources = new Map(
  globSync(`{${Object.keys(planes).join(",")}}/**/*.ts`, { cwd: root })
    .filter((path) => path !== "test/architecture.test.ts") // plants wrong imports, below
    .map((path) => [path, readFileSync(join(root, path), "utf8")]),
);

test("planes import only what they may", () => assert.deepEqual(planeProblems(sources), []));
test("inside a plane imports point down", () => assert.deepEqual(layerProblems(sources), []));
test("packages stay where they belong", () => assert.deepEqual(packageProblems(sources), []));
test("a file is in common/ only while both planes import it", () => assert.deepEqual(commonProblems(sources), []));
test("nothing imports itself, however far round", () => assert.deepEqual(cycles(sources), []));

// The rules are worth something only if they refuse; each line plants one import that must be found.
for (const [what, check, path, text] of [
  [
    "the data plane importing the control plane",
    planeProblems,
    "data-plane/runtime.ts",
    `import { x } from "../control-plane/index.ts";`,
  ],
  ["the contract importing plumbing", planeProblems, "proto/grpc.ts", `import type { Log } from "../common/log.ts";`],
  ["the CLI going round a plane's door", planeProblems, "cli/vmcp/x.ts", `import { x } from "../../data-plane/runtime.ts";`],
  ["a plane importing a test's support", planeProblems, "data-plane/mcp/x.ts", `import { x } from "../../test/support/json.ts";`],
  ["an import that points up", layerProblems, "data-plane/backends/x.ts", `export { x } from "../methods/y.ts";`],
  ["a late import that points up", layerProblems, "data-plane/mcp/x.ts", `const x = await import("../session/y.ts");`],
  ["two rooms of one line", layerProblems, "control-plane/push/x.ts", `import "../admin/y.ts";`],
  ["a room that nobody placed", layerProblems, "data-plane/helpers/x.ts", `import "../mcp/y.ts";`],
  ["Koa below the ingress", packageProblems, "data-plane/session/x.ts", `import type { Context } from "koa";`],
  [
    "the SDK on the data path",
    packageProblems,
    "data-plane/methods/x.ts",
    `import { z } from "@modelcontextprotocol/sdk/types.js";`,
  ],
  ["a file in common/ for one plane", commonProblems, "common/lonely.ts", ""],
  ["a cycle", cycles, "data-plane/mcp/x.ts", `import type { X } from "./x.ts";`],
] as const) {
  test(`${what} is found`, () => {
    const before = check(sources);
    const after = check(new Map([...sources, [path, text]]));
    assert.notDeepEqual(
      after.filter((problem) => !before.includes(problem)),
      [],
    );
  });
}

function planeProblems(files: Sources): string[] {
  return problems(files, (path, target) => {
    const allowed = planes[path.split("/")[0] as string] ?? [];
    const isTestSupport = path.endsWith(".test.ts") && target.startsWith("test/support/");
    if (isTestSupport || allowed.some((prefix) => target.startsWith(prefix))) return undefined;
    return `may import only ${allowed.join(", ")}`;
  });
}

function layerProblems(files: Sources): string[] {
  return problems(files, (path, target) => {
    const [plane, room] = roomOf(path);
    const [targetPlane, targetRoom] = roomOf(target);
    const order = layers[plane];
    if (!order || plane !== targetPlane || room === targetRoom || path.endsWith(".test.ts")) return undefined;
    const from = order.findIndex((line) => line.includes(room));
    const to = order.findIndex((line) => line.includes(targetRoom));
    if (from < 0 || to < 0) return `${from < 0 ? room : targetRoom} has no place in the layers of ${plane}`;
    return from < to ? undefined : `${room} does not stand above ${targetRoom}`;
  });
}

function packageProblems(files: Sources): string[] {
  return [...files].flatMap(([path, text]) =>
    Object.entries(packages)
      .filter(([name]) => specifiers(text).some((specifier) => specifier === name || specifier.startsWith(`${name}/`)))
      .filter(([_name, { only }]) => !path.endsWith(".test.ts") && !only.some((prefix) => path.startsWith(prefix)))
      .map(([name, { why }]) => `${path} imports ${name}: ${why}`),
  );
}

function commonProblems(files: Sources): string[] {
  const users = (target: string, plane: string) =>
    [...files].filter(
      ([path, text]) => path.startsWith(plane) && !path.endsWith(".test.ts") && imports(path, text).includes(target),
    );
  const shared = [...files.keys()].filter((path) => path.startsWith("common/") && !path.endsWith(".test.ts"));
  return shared.flatMap((path) =>
    ["control-plane/", "data-plane/"]
      .filter((plane) => users(path, plane).length === 0)
      .map((plane) => `${plane} does not import ${path}`),
  );
}

function cycles(files: Sources): string[] {
  const graph = new Map([...files].map(([path, text]) => [path, imports(path, text)]));
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) found.push([...trail.slice(trail.indexOf(path)), path].join(" → "));
    if (done.has(path) || trail.includes(path)) return;
    for (const target of graph.get(path) ?? []) visit(target, [...trail, path]);
    done.add(path);
  };
  for (const path of graph.keys()) visit(path, []);
  return found;
}

/** One line for every import that `judge` objects to. */
function problems(files: Sources, judge: (path: string, target: string) => string | undefined): string[] {
  return [...files].flatMap(([path, text]) =>
    imports(path, text).flatMap((target) => {
      const objection = judge(path, target);
      return objection ? [`${path} imports ${target}: ${objection}`] : [];
    }),
  );
}

/** Our own files that a file imports, as paths from the root. */
function imports(path: string, text: string): string[] {
  return specifiers(text)
    .filter((specifier) => specifier.startsWith(".") && specifier.endsWith(".ts"))
    .map((specifier) => normalize(join(dirname(path), specifier)));
}

function specifiers(text: string): string[] {
  const code = text.replace(/^\s*(\/\/|\*).*$/gm, "");
  return [...code.matchAll(/(?:^(?:import|export|\})[^"`']*?|\bimport\()\s*"([^"]+)"/gm)].map((match) => match[1] as string);
}

function roomOf(path: string): [plane: string, room: string] {
  const [plane = "", room = ""] = path.split("/");
  return [plane, room.replace(/(\.test)?\.ts$/, "")];
}
