import assert from "node:assert/strict";
import { test } from "node:test";
import { create, equals, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { loadConfig } from "../../control-plane/index.ts";
import { ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { toYaml } from "./documents.ts";

const resources: MessageInitShape<typeof ResourceSchema>[] = [
  { name: "groups/g", spec: { case: "group", value: { description: "for people: yes" } } },
  {
    name: "groups/g/backends/web",
    spec: {
      case: "backend",
      value: { name: "web", url: "http://127.0.0.1:3001/mcp", transport: "sse", metadata: { b: "1", a: "on" } },
    },
  },
  {
    name: "groups/g/backends/local",
    spec: { case: "backend", value: { name: "local", command: "node", args: ["-e", "1"], env: { TOKEN: "env:TOKEN" } } },
  },
  {
    name: "virtualServers/dev",
    spec: {
      case: "virtualServer",
      value: {
        name: "dev",
        groupRef: "g",
        incomingAuth: { type: "anonymous" },
        outgoingAuth: { source: "inline", default: { type: "unauthenticated" } },
        aggregation: {
          conflictResolution: "manual",
          tools: [{ workload: "web", filter: ["a"], overrides: { a: { name: "b", annotations: { readOnlyHint: false } } } }],
        },
        operational: {
          timeouts: { default: durationFromMs(1_500), perWorkload: { web: durationFromMs(90_000) } },
          failureHandling: { circuitBreaker: { enabled: false } },
        },
      },
    },
  },
  {
    name: "authPolicies/open",
    spec: {
      case: "authPolicy",
      value: { incomingAuth: { type: "anonymous" }, outgoingAuth: { source: "inline", default: { type: "unauthenticated" } } },
    },
  },
];

for (const init of resources) {
  test(`${init.name}: what get prints, apply reads back unchanged`, () => {
    const resource = create(ResourceSchema, init);
    const { resources: read, problems } = loadConfig(toYaml([resource]), { file: "printed.yaml", partial: true });
    assert.deepEqual(
      problems.filter(({ severity }) => severity === "error"),
      [],
    );
    const [back] = read;
    assert.ok(back);
    assert.ok(equals(ResourceSchema, back, resource), toYaml([back]));
  });
}

test("several documents are one file", () => {
  const all = resources.map((init) => create(ResourceSchema, init));
  const { resources: read } = loadConfig(toYaml(all), { file: "all.yaml", partial: true });
  assert.deepEqual(
    read.map(({ name }) => name),
    resources.map(({ name }) => name),
  );
});
