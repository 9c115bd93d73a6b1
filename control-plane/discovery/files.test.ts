// What is particular to providers that read files: half-written ones, words of ToolHive, and lists of desktop clients.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { pino } from "pino";
import { eventually } from "../../test/support/eventually.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { toolhiveFiles } from "../../test/support/toolhive.ts";
import { createFileProvider } from "./file.ts";
import type { Provider, Sighting } from "./provider.ts";
import { createToolhiveFilesProvider } from "./toolhive-files.ts";

const log = pino({ level: "silent" });

/** Follows a provider; `latest` is what it saw last. */
async function follow(provider: Provider) {
  const abort = new AbortController();
  let latest: Sighting | undefined;
  const ended = (async () => {
    for await (const sighting of provider.watch(abort.signal)) latest = sighting;
  })();
  ended.catch(() => undefined);
  await eventually("the first sighting", () => latest);
  return {
    names: () =>
      latest?.workloads
        .map(({ name }) => name)
        .sort()
        .join(),
    latest: () => latest as Sighting,
    ended,
    [Symbol.asyncDispose]: async () => {
      abort.abort();
      await ended.catch(() => undefined);
    },
  };
}

test("ToolHive's run configs say where a workload is reached", async () => {
  await using directory = await temporaryDirectory();
  const fake = await toolhiveFiles(directory.path);
  await fake.group("team");
  await fake.group("empty");
  const group = "team";
  await fake.workload("plain", { group, port: 1, container_labels: { a: "b" } }, { status: "running" });
  await fake.workload("stdio", { group, port: 2, transport: "stdio", proxy_mode: "" });
  await fake.workload("stdio-sse", { group, port: 3, transport: "stdio", proxy_mode: "sse", host: "0.0.0.0" });
  await fake.workload("sse", { group, port: 4, transport: "sse", proxy_mode: "streamable-http" }, { status: "stopped" });
  await fake.workload("remote", { port: 5, remote_url: "https://example.com/v1/api?key=hunter2" }, { status: "running" });
  await fake.workload("inspector", { group, port: 6, transport: "inspector" });
  const { pid } = spawnSync("true");
  await fake.workload("died", { group, port: 7 }, { status: "running", process_id: pid });
  await fake.workload("lives", { group, port: 8 }, { status: "running", process_id: process.pid });
  await using watch = await follow(createToolhiveFilesProvider({ log, paths: fake.paths }));
  const rows = watch
    .latest()
    .workloads.map(({ group: of, name, url, transport, isRunning }) => [of, name, url, transport, isRunning]);
  assert.deepEqual(rows, [
    ["team", "died", "http://127.0.0.1:7/mcp", "streamable-http", false],
    ["team", "lives", "http://127.0.0.1:8/mcp", "streamable-http", true],
    ["team", "plain", "http://127.0.0.1:1/mcp", "streamable-http", true],
    ["default", "remote", "http://127.0.0.1:5/v1/api", "streamable-http", true],
    ["team", "sse", "http://127.0.0.1:4/sse", "sse", false],
    ["team", "stdio-sse", "http://127.0.0.1:3/sse", "sse", true],
    ["team", "stdio", "http://127.0.0.1:2/mcp", "streamable-http", true],
  ]);
  assert.deepEqual(watch.latest().groups, ["empty", "team"]);
  assert.deepEqual(watch.latest().problems, ['workload "inspector" is left out: its transport "inspector" is not known']);
});

test("a torn file counts as it was, and as it is when it is whole again", async () => {
  await using directory = await temporaryDirectory();
  const fake = await toolhiveFiles(directory.path);
  await fake.workload("a", { group: "g", port: 1 });
  await fake.workload("b", { group: "g", port: 2 });
  await using watch = await follow(createToolhiveFilesProvider({ log, paths: fake.paths, pollMs: 60_000 }));
  await fake.tear("a");
  await fake.workload("c", { group: "g", port: 3 });
  await eventually("c", () => watch.names() === "a,b,c");
  await fake.workload("a", { group: "g", port: 4 });
  await eventually("a is elsewhere", () => watch.latest().workloads[0]?.url === "http://127.0.0.1:4/mcp");
  await writeFile(join(fake.paths.runConfigs, ".d.json.tmp-1"), '{"port":5,"transport":"sse"}');
  await writeFile(join(fake.paths.runConfigs, "d.json.lock"), "");
  await fake.remove("b");
  await eventually("b is gone", () => watch.names() === "a,c");
});

test("a secret in a file that can't be read is not told", async () => {
  await using directory = await temporaryDirectory();
  const fake = await toolhiveFiles(directory.path);
  await writeFile(join(fake.paths.runConfigs, "a.json"), '{"env_vars":{"KEY":"hunter2"} oops');
  await using watch = await follow(createToolhiveFilesProvider({ log, paths: fake.paths }));
  assert.deepEqual(watch.latest().problems, ['workload "a" is left out: its file can\'t be read: it is no JSON']);
});

test("a process that dies is noticed by looking", async () => {
  await using directory = await temporaryDirectory();
  const fake = await toolhiveFiles(directory.path);
  const { startProcess } = await import("../../test/support/processes.ts");
  await using child = startProcess("sleep", ["60"]);
  await fake.workload("a", { group: "g", port: 1 }, { status: "running", process_id: child.pid });
  await using watch = await follow(createToolhiveFilesProvider({ log, paths: fake.paths, pollMs: 50 }));
  assert.equal(watch.latest().workloads[0]?.isRunning, true);
  await child.stop();
  await eventually("it is noticed", () => watch.latest().workloads[0]?.isRunning === false);
});

test("a directory that is replaced, as config maps are, is followed in its new place", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "backends");
  for (const name of ["v1", "v2"]) {
    await mkdir(join(directory.path, name));
    await symlink(join(directory.path, name), name === "v1" ? path : join(directory.path, "next"));
  }
  await writeFile(join(directory.path, "v2", "team.json"), '{"mcpServers":{"a":{"url":"http://127.0.0.1:1/mcp"}}}');
  await using watch = await follow(createFileProvider({ log, path, pollMs: 60_000 }));
  assert.equal(watch.names(), "");
  await rename(join(directory.path, "next"), path);
  await eventually("a", () => watch.names() === "a");
  await writeFile(join(path, "more.json"), '{"mcpServers":{"b":{"url":"http://127.0.0.1:2/mcp"}}}');
  await eventually("b", () => watch.names() === "a,b");
});

test("a directory that comes later is found by looking", async () => {
  await using directory = await temporaryDirectory();
  const fake = await toolhiveFiles(directory.path);
  await rm(fake.paths.runConfigs, { recursive: true });
  await using watch = await follow(createToolhiveFilesProvider({ log, paths: fake.paths, pollMs: 100 }));
  await mkdir(fake.paths.runConfigs);
  await fake.workload("a", { group: "g", port: 1 });
  await eventually("a", () => watch.names() === "a");
});

test("a desktop client's list is a group named like its file; programs and what is disabled are left out", async () => {
  await using directory = await temporaryDirectory();
  const path = await directory.write(
    "My-Team.json",
    JSON.stringify({
      mcpServers: {
        web: { url: "https://example.com/mcp", headers: { Authorization: "Bearer hunter2" } },
        old: { type: "sse", url: "http://127.0.0.1:1/sse" },
        off: { url: "http://127.0.0.1:2/mcp", disabled: true },
        local: { command: "npx", args: ["server"] },
      },
    }),
  );
  await using watch = await follow(createFileProvider({ log, path }));
  const { workloads, groups, problems = [] } = watch.latest();
  assert.deepEqual(
    workloads.map(({ group, name, transport }) => [group, name, transport]),
    [
      ["my-team", "web", "streamable-http"],
      ["my-team", "old", "sse"],
    ],
  );
  assert.deepEqual(groups, ["my-team"]);
  assert.equal(problems.length, 3);
  assert.doesNotMatch(problems.join(), /hunter2/);
  await writeFile(path, '{"mcpServers":{}}');
  await eventually("it is empty", () => watch.names() === "");
});

test("documents: a fault keeps the file as it was, what is not discovered is said", async () => {
  await using directory = await temporaryDirectory();
  const good = `kind: Group
name: team
backends:
  - { name: a, url: "http://127.0.0.1:1/mcp", metadata: { tier: x } }
  - { name: many, endpoints: [{ url: "http://127.0.0.1:2/mcp" }, { url: "http://127.0.0.1:3/mcp" }] }
  - { name: program, transport: stdio, command: rm }
  - { name: bundled, url: "https://example.com/mcp", type: entry, caBundlePath: /etc/ca.pem }
---
kind: VirtualServer
name: v
groupRef: team
incomingAuth: { type: anonymous }
outgoingAuth: { source: inline, default: { type: unauthenticated } }
aggregation: { conflictResolution: prefix }
`;
  const path = await directory.write("team.yaml", good);
  await using watch = await follow(createFileProvider({ log, path }));
  assert.equal(watch.names(), "a,many,many");
  assert.deepEqual(watch.latest().workloads[0]?.metadata, { tier: "x" });
  assert.match(
    watch.latest().problems?.join("\n") ?? "",
    /program is left out: a program is not started[\s\S]*virtualServers\/v is left out/,
  );
  await writeFile(path, good.replace("127.0.0.1:1", "127.0.0.1:9").replace("name: many", "nam: many"));
  await eventually("the fault is told", () => watch.latest().problems?.some((problem) => problem.includes("as it was before")));
  assert.deepEqual([watch.names(), watch.latest().workloads[0]?.url], ["a,many,many", "http://127.0.0.1:1/mcp"]);
  await writeFile(path, "");
  await eventually("that it is empty is told", () =>
    watch.latest().problems?.some((problem) => problem.includes("declares nothing")),
  );
  assert.equal(watch.names(), "a,many,many");
  await writeFile(path, good.replace("127.0.0.1:1", "127.0.0.1:9"));
  await eventually("a has moved", () => watch.latest().workloads[0]?.url === "http://127.0.0.1:9/mcp");
});

test("a file that goes away is a failure, and one in a directory leaves", async () => {
  await using directory = await temporaryDirectory();
  const path = await directory.write("team.json", '{"mcpServers":{"a":{"url":"http://127.0.0.1:1/mcp"}}}');
  await using single = await follow(createFileProvider({ log, path }));
  await using whole = await follow(createFileProvider({ log, path: directory.path }));
  await rm(path);
  await assert.rejects(single.ended, { name: "ProviderError", message: /no such file/ });
  await eventually("it has left", () => whole.names() === "");
});
