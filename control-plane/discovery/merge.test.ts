// What is discovered, laid over what is declared, as the compiler gets it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { compile } from "../compiler/compile.ts";
import { checkSighting } from "./checked.ts";
import { merge, overlay } from "./merge.ts";
import type { Workload } from "./provider.ts";

const workload = (group: string, name: string, more: Partial<Workload> = {}): Workload => {
  const usual = { url: `http://127.0.0.1:1/${name}`, transport: "streamable-http", isRunning: true, metadata: {} } as const;
  return { group, name, ...usual, ...more };
};
const found = (...workloads: Workload[]) => merge([{ provider: "p", ...checkSighting({ workloads }) }]);
const server = (groupRef: string): Resource =>
  create(ResourceSchema, { name: "virtualServers/v", spec: { case: "virtualServer", value: { name: "v", groupRef } } });
const declared = (name: string, url: string): Resource =>
  create(ResourceSchema, { name, spec: { case: "backend", value: { url } } });
const namesOf = (resources: readonly { name: string }[]) => resources.map(({ name }) => name);

test("a virtual server gets the discovered backends of its group, also when the group's name has spaces", () => {
  for (const group of ["team", "platform team", "_x"]) {
    const compiled = compile(overlay([server(group)], found(workload(group, "b"), workload(group, "a"), workload("other", "c"))));
    assert.deepEqual(namesOf(compiled.resources), [
      `groups/${group}/backends/a`,
      `groups/${group}/backends/b`,
      "virtualServers/v",
    ]);
  }
});

test("a declared backend wins over a discovered one of its name, and the others join", () => {
  const own = declared("groups/g/backends/a", "http://127.0.0.1:9/own");
  const all = overlay([own, server("g")], found(workload("g", "a"), workload("g", "b")));
  assert.deepEqual(namesOf(all), ["groups/g", "groups/g/backends/a", "groups/g/backends/b", "virtualServers/v"]);
  assert.equal(all[1], own);
});

test("labels, the order of sightings and a stop change no byte of the snapshot; an address does", () => {
  const digestOf = (...workloads: Workload[]) =>
    Buffer.from(compile(overlay([server("g")], found(...workloads))).digest).toString("hex");
  const [a, b] = [workload("g", "a"), workload("g", "b")];
  const first = digestOf(a, b);
  assert.equal(digestOf(b, a), first);
  assert.equal(digestOf({ ...a, metadata: { workload_status: "stopped" } }, { ...b, isRunning: false }), first);
  assert.notEqual(digestOf({ ...a, url: "http://127.0.0.1:2/a" }, b), first);
});

test("nothing found leaves the declared as they are", () => {
  const all = [server("g")];
  assert.equal(overlay(all, found()), all);
});
