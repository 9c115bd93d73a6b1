import assert from "node:assert/strict";
import { test } from "node:test";
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { validateResources } from "./validate.ts";

const spec = {
  groupRef: "team",
  incomingAuth: { type: "anonymous" },
  outgoingAuth: { source: "inline" },
  aggregation: { conflictResolution: "prefix" },
};

const resource = (name: string, kind: string, json: JsonObject): Resource => fromJson(ResourceSchema, { name, [kind]: json });
const server = (json: JsonObject = {}, name = "dev"): Resource =>
  resource(`virtualServers/${name}`, "virtualServer", { name, ...spec, ...json });
const group = resource("groups/team", "group", {});
const backend = (name: string): Resource =>
  resource(`groups/team/backends/${name}`, "backend", { name, url: "http://127.0.0.1:1/mcp" });

function problems(resources: Resource[], partial = false): string[] {
  return validateResources(resources, { partial }).map(
    ({ severity, resource: name, path, message }) => `${severity} ${name} ${path.join(".")}: ${message}`,
  );
}

test("a sound set has no problems", () => {
  assert.deepEqual(
    problems([
      group,
      backend("a"),
      server({ aggregation: { conflictResolution: "priority", conflictResolutionConfig: { priorityOrder: ["a"] } } }),
    ]),
    [],
  );
});

test("shapes are checked as those of files are", () => {
  const found = problems([
    group,
    backend("a"),
    server({ aggregation: { conflictResolution: "best" }, operational: { timeouts: { default: "0s" } } }),
  ]);
  assert.deepEqual(found, [
    'error virtualServers/dev aggregation.conflictResolution: found "best", wanted one of prefix, priority, manual',
    'error virtualServers/dev operational.timeouts.default: found "0s", wanted a duration above zero, such as 30s or 1m30s',
  ]);
});

test("a server that says nothing lacks what it must say", () => {
  const found = problems([resource("virtualServers/dev", "virtualServer", {})]);
  assert.deepEqual(
    found.map((line) => line.split(" ")[2]),
    ["aggregation:", "groupRef:", "incomingAuth:", "outgoingAuth:"],
  );
});

test("a name comes from the resource when the spec leaves it out, and must agree when not", () => {
  assert.deepEqual(problems([group, backend("a"), resource("virtualServers/dev", "virtualServer", spec)]), []);
  assert.match(
    problems([group, resource("groups/team/backends/a", "backend", { name: "b", url: "http://x" })]).join(),
    /the spec is named "b"/,
  );
});

test("names fit their kinds", () => {
  for (const [name, kind] of [
    ["virtualServers/dev", "group"],
    ["groups/a/b", "group"],
    ["groups/A", "group"],
    ["dev", "authPolicy"],
    ["groups/a/backends/", "backend"],
    ["virtualServers/a b", "virtualServer"],
  ] as const) {
    assert.match(problems([resource(name, kind, {})]).join(), /is not a name for this kind/, name);
  }
});

const key = "a".repeat(22);
for (const [what, json, wanted] of [
  ["a session", { session: key }, ""],
  ["an identity", { issuer: "https://idp", subject: "alice" }, ""],
  ["a subject of any issuer", { subject: "alice" }, ""],
  ["all of a virtual server", { all: true, virtualServer: "dev", reason: "leaked" }, ""],
  ["nobody", {}, "no session is named"],
  ["two", { session: key, all: true }, "found session and all, wanted one of them"],
  ["an issuer alone", { issuer: "i", all: true }, "issuer goes with a subject"],
  ["a virtual server alone", { subject: "s", virtualServer: "v" }, "virtualServer goes with all"],
  ["half a key", { session: "abc" }, 'found "abc", wanted the key of a session'],
  ["a long subject", { subject: "x".repeat(1025) }, "wanted text of 1 to 1024 characters"],
] as const) {
  test(`a revocation of ${what} is ${wanted === "" ? "sound" : "refused"}`, () => {
    const found = problems([resource("revocations/r1", "revocation", json)]).join();
    if (wanted === "") assert.equal(found, "");
    else assert.ok(found.includes(wanted), found);
  });
}

test("a resource is declared once and has a spec", () => {
  assert.deepEqual(problems([group, group]), ["error groups/team : groups/team is declared twice"]);
  assert.deepEqual(problems([fromJson(ResourceSchema, { name: "groups/team" })]), [
    "error groups/team : the resource has no spec",
  ]);
});

test("what is named must be declared, unless more is declared elsewhere", () => {
  const set = [backend("a"), server({ authPolicyRef: "open", incomingAuth: null, outgoingAuth: null })];
  assert.deepEqual(problems(set), [
    'error groups/team/backends/a group: group "team" is not declared',
    'warning virtualServers/dev groupRef: group "team" is not declared here, so it has no backends unless discovery finds them',
    'error virtualServers/dev authPolicyRef: auth policy "open" is not declared',
  ]);
  assert.deepEqual(problems(set, true), []);
});

test("a backend that a server names is one of its own, or of its group", () => {
  const named = { operational: { timeouts: { perWorkload: { b: "1s" } } } };
  assert.match(problems([group, backend("a"), server(named)]).join(), /group "team" has no backend "b"/);
  assert.match(
    problems([group, backend("b"), server({ ...named, backends: [{ name: "a", url: "http://x" }] })]).join(),
    /no backend is named "b"/,
  );
  assert.deepEqual(problems([group, server(named)]), [], "an empty group may be filled by discovery");
});

test("where discovery runs, what nobody declared is a warning until it is found", () => {
  const with_ = (groups: string[], ...resources: Resource[]) =>
    validateResources(resources, { discovered: new Set(groups) }).map(({ severity, message }) => `${severity} ${message}`);
  const named = server({ operational: { timeouts: { perWorkload: { b: "1s" } } } });
  assert.deepEqual(with_(["team"], server()), []);
  assert.deepEqual(with_(["other"], server()), ['warning group "team" is not declared, and no discovery provider knows it yet']);
  assert.deepEqual(with_(["team"], group, backend("a"), named), ['warning group "team" has no backend "b"']);
  const own = server({ operational: { timeouts: { perWorkload: { b: "1s" } } }, backends: [{ name: "a", url: "http://x" }] });
  assert.deepEqual(with_(["team"], group, own), ['error no backend is named "b"']);
});

test("outgoing auth of a server, or of its policy, is for a backend that is there", () => {
  const outgoingAuth = { source: "inline", backends: { b: { type: "unauthenticated" } } };
  const auth = { incomingAuth: spec.incomingAuth, outgoingAuth };
  const policy = resource("authPolicies/open", "authPolicy", auth);
  const served = (name: string, json: JsonObject = {}) =>
    server({ authPolicyRef: "open", incomingAuth: null, outgoingAuth: null, ...json }, name);
  assert.match(problems([group, backend("a"), server({ outgoingAuth })]).join(), /group "team" has no backend "b"/);
  assert.deepEqual(problems([group, backend("a"), policy]), [], "nobody uses it yet");
  assert.deepEqual(problems([group, backend("a"), policy, served("one")]), [
    'error authPolicies/open outgoingAuth.backends.b: no virtual server with this policy has a backend "b"',
  ]);
  const other = served("two", { backends: [{ name: "b", url: "http://x" }] });
  assert.deepEqual(problems([group, backend("a"), policy, served("one"), other]), [], "one of its servers has it");
  assert.deepEqual(problems([group, policy, served("one")]), [], "an empty group may be filled by discovery");
  assert.deepEqual(problems([backend("a"), policy, served("one"), server({ outgoingAuth })], true), [], "it may be elsewhere");
});

test("values that have no JSON form are a problem, not a crash", () => {
  const broken = server();
  assert.equal(broken.spec.case, "virtualServer");
  const { aggregation } = broken.spec.value;
  assert.ok(aggregation !== undefined);
  aggregation.conflictResolution = 5 as unknown as string;
  assert.match(problems([broken]).join(), /^error virtualServers\/dev/);
});
