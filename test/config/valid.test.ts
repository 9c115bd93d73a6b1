// Configurations that must be accepted: the samples of the original's README, everything at once, and our examples.
import assert from "node:assert/strict";
import { globSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { create, type DescMessage, fromBinary, toBinary, toJson } from "@bufbuild/protobuf";
import { stringify } from "yaml";
import { loadConfig } from "../../control-plane/config/load.ts";
import { formatReport, hasErrors } from "../../control-plane/resources/problems.ts";
import { validateResources } from "../../control-plane/resources/validate.ts";
import { IncomingAuthSchema } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";

const valid = new URL("./valid/", import.meta.url);
const examples = new URL("../../deploy/examples/", import.meta.url);

function load(path: URL) {
  const result = loadConfig(readFileSync(path), { file: path.pathname.split("/").at(-1) ?? "" });
  assert.ok(!hasErrors(result.problems), formatReport(result.problems));
  return result;
}

function virtualServer(resources: readonly Resource[]) {
  const spec = resources[0]?.spec;
  assert.equal(spec?.case, "virtualServer");
  return spec.value;
}

for (const folder of [valid, examples]) {
  for (const name of readdirSync(folder).filter((entry) => entry.endsWith(".yaml"))) {
    test(`${name} is valid, as a file and as resources of the admin API`, () => {
      const { resources } = load(new URL(name, folder));
      assert.ok(resources.length > 0);
      const sent = resources.map((resource) => fromBinary(ResourceSchema, toBinary(ResourceSchema, resource)));
      const errors = validateResources(sent).filter(({ severity }) => severity === "error");
      assert.deepEqual(errors, []);
    });
  }
}

test("resources written as documents are read back as they were", () => {
  for (const folder of [valid, examples]) {
    for (const name of readdirSync(folder)) {
      const { resources } = load(new URL(name, folder));
      const again = loadConfig(resources.map(documentOf).join("---\n"), { file: name, partial: true });
      assert.deepEqual(
        again.resources.map((resource) => toJson(ResourceSchema, resource)),
        resources.map((resource) => toJson(ResourceSchema, resource)),
        name,
      );
    }
  }
});

/** As `vmcpctl get -o yaml` shows a resource. */
function documentOf(resource: Resource): string {
  const { name, ...rest } = toJson(ResourceSchema, resource) as Record<string, Record<string, unknown>> & { name: string };
  const [kindOfSpec = "", spec = {}] = Object.entries(rest)[0] ?? [];
  const kind = `${kindOfSpec.charAt(0).toUpperCase()}${kindOfSpec.slice(1)}`;
  const [, first, below] = name.split("/");
  return stringify({ kind, ...(below === undefined ? { name: first } : { group: first }), ...spec });
}

test("every example works without warnings", () => {
  for (const path of globSync("*.yaml", { cwd: examples }))
    assert.equal(formatReport(load(new URL(path, examples)).problems), "");
});

test("the quick start declares its virtual server", () => {
  const { resources, problems } = load(new URL("readme-quick-start.yaml", valid));
  assert.deepEqual(
    resources.map(({ name }) => name),
    ["virtualServers/my-vmcp"],
  );
  assert.deepEqual(
    problems.map(({ severity, path }) => [severity, path]),
    [["warning", ["groupRef"]]],
  );
  assert.equal(virtualServer(resources).aggregation?.conflictResolutionConfig?.prefixFormat, "{workload}_");
});

test("the sample with sign-in is served as it is", () => {
  const { problems } = load(new URL("readme-oidc.yaml", valid));
  assert.deepEqual(
    problems.map(({ severity, path }) => [severity, path]),
    [["warning", ["groupRef"]]],
  );
});

test("scalars are read as Go reads them", () => {
  const server = virtualServer(load(new URL("go-scalars.yaml", valid)).resources);
  assert.deepEqual(server.metadata, { version: "1.10", enabled: "true", empty: "" });
  assert.equal(server.telemetry?.samplingRate, "0.05");
  assert.equal(server.audit, undefined);
  assert.equal(server.operational?.timeouts?.default?.seconds, 90n);
  assert.equal(server.operational?.failureHandling?.partialFailureMode, "best_effort");
});

test("anchors and merge keys are followed", () => {
  const { backends, outgoingAuth } = virtualServer(load(new URL("anchors.yaml", valid)).resources);
  assert.deepEqual(
    backends.map(({ name, url, transport }) => [name, url, transport]),
    [
      ["github", "http://127.0.0.1:3001/mcp", "streamable-http"],
      ["jira", "http://127.0.0.1:3001/mcp", "streamable-http"],
    ],
  );
  assert.equal(outgoingAuth?.backends.jira?.type, "unauthenticated");
});

test("documents with kinds become resources with names", () => {
  const { resources } = load(new URL("mesh.yaml", examples));
  assert.deepEqual(
    resources.map(({ name }) => name),
    [
      "groups/my-team",
      "groups/my-team/backends/github",
      "groups/my-team/backends/jira",
      "groups/my-team/backends/slack",
      "authPolicies/open",
      "virtualServers/everyone",
      "virtualServers/readers",
    ],
  );
});

test("no key of the file is lost on the way", () => {
  const { resources } = load(new URL("every-key.yaml", valid));
  const text = readFileSync(new URL("every-key.yaml", valid), "utf8");
  const json = JSON.stringify(toJson(ResourceSchema, resources[0] as Resource));
  const keys = [...text.matchAll(/([A-Za-z]+):/g)].map((match) => match[1] ?? "");
  const unset = ["excludeAllTools", "insecureAllowHttp", "metricsOnTransportPort", "includeResponseData", "null"]; // false is proto's unset
  for (const key of new Set(keys.filter((entry) => /^[a-z]+[A-Z]/.test(entry) && !unset.includes(entry))))
    assert.ok(json.includes(`"${key}"`), key);
});

test("the file with every key has every key of the two auth boundaries", () => {
  const server = virtualServer(load(new URL("every-key.yaml", valid)).resources);
  const strategies = Object.values(server.outgoingAuth?.backends ?? {});
  const json = JSON.stringify([
    toJson(IncomingAuthSchema, server.incomingAuth ?? create(IncomingAuthSchema)),
    ...strategies.map((strategy) => toJson(OutgoingAuthStrategySchema, strategy)),
  ]);
  const literal = ["headerValue", "clientSecret", "idpClientSecret", "targetClientSecret"]; // a literal excludes the others
  const wanted = [...keysOf(IncomingAuthSchema), ...keysOf(OutgoingAuthStrategySchema)].filter((key) => !literal.includes(key));
  assert.deepEqual(
    wanted.filter((key) => !json.includes(`"${key}"`)),
    [],
  );
});

function keysOf({ fields }: DescMessage): string[] {
  return fields.flatMap(({ jsonName, message }) => [
    jsonName,
    ...(message === undefined || message.file.name.startsWith("google/") ? [] : keysOf(message)),
  ]);
}

test("each key without effect is named once", () => {
  const { problems } = load(new URL("every-key.yaml", valid));
  const named = problems.map(({ path }) => path.join("."));
  assert.equal(new Set(named).size, named.length);
  for (const key of [
    "compositeTools",
    "telemetry",
    "audit",
    "optimizer",
    "codeMode",
    "rateLimiting",
    "operational.logLevel",
    "outgoingAuth.backends.aws.type",
    "outgoingAuth.backends.jira.tokenExchange.subjectProviderName",
    "backends.0.type",
    "sessionStorage.provider",
  ]) {
    assert.ok(named.includes(key), key);
  }
});
