// Each code with a declaration that deserves it, and one that deserves none.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { BackendStatusSchema, VirtualServerViewSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { loadConfig } from "../config/load.ts";
import { type AnalyzeOptions, analyze } from "./analyze.ts";
import { codes, type FindingCode } from "./findings.ts";

const good = `
kind: Group
name: tools
backends:
  - { name: fetch, url: "https://fetch.example.com/mcp" }
  - { name: other, url: "http://127.0.0.1:9/mcp" }
---
kind: AuthPolicy
name: staff
incomingAuth: { type: oidc, oidc: { issuer: "https://idp.example.com", audience: gateway } }
outgoingAuth: { source: inline, default: { type: unauthenticated } }
---
kind: VirtualServer
name: dev
groupRef: tools
authPolicyRef: staff
aggregation: { conflictResolution: prefix }
`;

const inline = "incomingAuth: { type: anonymous }\noutgoingAuth: { source: inline, default: { type: unauthenticated } }";
const header = "{ type: header_injection, headerInjection: { headerName: X-Key, headerValueEnv: KEY } }";
const shown = (auth: string) => good.replace("default: { type: unauthenticated }", auth);
const aggregated = (rules: string) =>
  good.replace("aggregation: { conflictResolution: prefix }", `aggregation: { conflictResolution: prefix, ${rules} }`);
const scoped = (tool: string) =>
  good.replace("audience: gateway", `audience: gateway, toolScopes: [{ tool: ${tool}, scopes: [x] }]`);
const observed = (entries: object[], more: Partial<NonNullable<AnalyzeOptions["observed"]>> = {}): AnalyzeOptions => ({
  observed: { views: [create(VirtualServerViewSchema, { virtualServer: "dev", entries })], proxies: [], changed: [], ...more },
});
const entry = (backend: string, original: string, exposed: string, decidedBy = "prefix") => ({
  kind: "tool",
  backend,
  original,
  exposed,
  decidedBy,
});
const listed = [entry("fetch", "get", "fetch_get"), entry("other", "get", "other_get")];
const proxy = (address: string, state = "healthy") => ({
  id: "edge",
  address,
  backends: [create(BackendStatusSchema, { name: "groups/tools/backends/fetch", state })],
});

const cases: readonly (readonly [code: FindingCode, yaml: string, where: string, options?: AnalyzeOptions])[] = [
  [
    "VMCP0002",
    good.replace("audience: gateway }", "audience: gateway }, authz: { type: cedar, policies: [permit] }"),
    "authPolicies/staff incomingAuth.authz.type",
  ],
  ["VMCP0003", good.replace("aggregation:", "audit: { enabled: true }\naggregation:"), "virtualServers/dev audit"],
  [
    "VMCP0004",
    aggregated('conflictResolutionConfig: { prefixFormat: "all_" }'),
    "virtualServers/dev aggregation.conflictResolutionConfig.prefixFormat",
  ],
  ["VMCP0101", good.replace("authPolicyRef: staff", "authPolicyRef: staf"), "virtualServers/dev authPolicyRef"],
  ["VMCP0102", `${good}---\nkind: Group\nname: old\n`, "groups/old "],
  ["VMCP0103", good.replace("authPolicyRef: staff", inline), "authPolicies/staff "],
  [
    "VMCP0104",
    `${good}---\nkind: Group\nname: empty\n---\nkind: VirtualServer\nname: none\ngroupRef: empty\n${inline}\naggregation: { conflictResolution: prefix }`,
    "virtualServers/none groupRef",
  ],
  [
    "VMCP0105",
    good.replace("authPolicyRef", 'backends: [{ name: own, url: "https://own.example.com/mcp" }]\nauthPolicyRef'),
    "virtualServers/dev groupRef",
  ],
  [
    "VMCP0201",
    aggregated(
      "conflictResolutionConfig: { prefixFormat: all_ }, tools: [{ workload: fetch, overrides: { a: { name: x } } }, { workload: other, overrides: { b: { name: x } } }]",
    ),
    "virtualServers/dev aggregation.tools.1.overrides.b.name",
  ],
  [
    "VMCP0201",
    good,
    "virtualServers/dev aggregation.conflictResolution",
    observed([...listed, entry("fetch", "x", "x_-0123456789", "conflict")]),
  ],
  [
    "VMCP0202",
    good,
    "virtualServers/dev aggregation.conflictResolution",
    observed([...listed, entry("fetch", "x", "", "shadowed")]),
  ],
  [
    "VMCP0203",
    good,
    "virtualServers/dev aggregation.conflictResolution",
    observed([...listed, entry("fetch", "x y", "x_y_-0123456789", "shortened")]),
  ],
  [
    "VMCP0301",
    aggregated("tools: [{ workload: fetch, filter: [a], overrides: { b: { name: c } } }]"),
    "virtualServers/dev aggregation.tools.0.overrides.b",
  ],
  [
    "VMCP0301",
    aggregated("tools: [{ workload: fetch, excludeAll: true, filter: [a] }]"),
    "virtualServers/dev aggregation.tools.0",
  ],
  [
    "VMCP0302",
    aggregated("tools: [{ workload: fetch, filter: [get, put] }]"),
    "virtualServers/dev aggregation.tools.0.filter.1",
    observed(listed),
  ],
  ["VMCP0303", scoped("get"), "authPolicies/staff incomingAuth.oidc.toolScopes.0.tool"],
  ["VMCP0303", scoped("fetch_put"), "authPolicies/staff incomingAuth.oidc.toolScopes.0.tool", observed(listed)],
  [
    "VMCP0304",
    good,
    "groups/tools/backends/fetch ",
    observed(listed, { changed: [{ backend: "groups/tools/backends/fetch", tool: "get" }] }),
  ],
  ["VMCP0401", good, "groups/tools/backends/fetch ", observed(listed, { proxies: [proxy("127.0.0.1:4483", "unhealthy")] })],
  ["VMCP0402", good.replace("http://127.0.0.1:9/mcp", "https://fetch.example.com/mcp"), "groups/tools/backends/other url"],
  [
    "VMCP0501",
    shown(`backends: { fetch: ${header} }`).replace("https://fetch", "http://fetch"),
    "groups/tools/backends/fetch url",
  ],
  [
    "VMCP0502",
    good.replace("authPolicyRef: staff", inline),
    "virtualServers/dev incomingAuth.type",
    observed(listed, { proxies: [proxy("http://10.0.0.7:4483")] }),
  ],
  [
    "VMCP0503",
    shown("backends: { fetch: { type: header_injection, headerInjection: { headerName: X-Key, headerValue: canary } } }").replace(
      "authPolicyRef: staff",
      "authPolicyRef: staff",
    ),
    "virtualServers/dev outgoingAuth.backends.fetch.headerInjection.headerValue",
  ],
  [
    "VMCP0504",
    good.replace('issuer: "https://idp', 'insecureAllowHttp: true, issuer: "http://idp'),
    "authPolicies/staff incomingAuth.oidc.insecureAllowHttp",
  ],
  ["VMCP0505", shown(`default: ${header}`), "authPolicies/staff outgoingAuth.default"],
  [
    "VMCP0506",
    good.replace("authPolicyRef: staff", inline.replace("default: { type: unauthenticated }", `backends: { fetch: ${header} }`)),
    "virtualServers/dev incomingAuth.type",
  ],
  [
    "VMCP0507",
    good.replace("audience: gateway", "audience: gateway, maxTokenAge: 48h"),
    "authPolicies/staff incomingAuth.oidc.maxTokenAge",
  ],
  [
    "VMCP0507",
    good.replace("audience: gateway", "audience: gateway, clockSkew: 2m"),
    "authPolicies/staff incomingAuth.oidc.clockSkew",
  ],
  [
    "VMCP0601",
    good.replace("aggregation:", "operational: { failureHandling: { circuitBreaker: { enabled: false } } }\naggregation:"),
    "virtualServers/dev operational.failureHandling.circuitBreaker.enabled",
  ],
];

for (const [code, yaml, where, options] of cases) {
  test(`${code} ${codes[code][1]}: ${where}`, () => {
    const found = analyze(declared(yaml), options);
    const places = found.filter((one) => one.code === code).map(({ resource, path }) => `${resource} ${path.join(".")}`);
    assert.deepEqual(places, [where], JSON.stringify(found));
    assert.doesNotMatch(JSON.stringify(found), /canary/);
  });
}

test("VMCP0001 InvalidResource: what no file could declare", () => {
  const virtualServer = declared(good).find(({ name }) => name === "virtualServers/dev");
  assert.ok(virtualServer);
  const found = analyze([{ ...virtualServer, name: "virtualServers/another" }]);
  assert.ok(found.some(({ code, path }) => code === "VMCP0001" && path.join(".") === "name"));
});

test("every code is found by a case above", () => {
  assert.deepEqual(new Set(["VMCP0001", ...cases.map(([code]) => code)]), new Set(Object.keys(codes)));
});

test("nothing is found where nothing is wrong, offline and with what is seen", () => {
  assert.deepEqual(analyze(declared(good)), []);
  assert.deepEqual(analyze(declared(scoped("fetch_get")), observed(listed, { proxies: [proxy("http://10.0.0.7:4483")] })), []);
});

test("what discovery knows counts as there, and may be what is missing", () => {
  const discovered = declared(good).filter(({ name }) => name.startsWith("groups/"));
  const rest = declared(good).filter(({ name }) => !name.startsWith("groups/"));
  assert.deepEqual(
    analyze(rest).map(({ code }) => code),
    ["VMCP0101", "VMCP0104"],
  );
  assert.deepEqual(analyze(rest, { discovered }), []);
});

test("a rule for a tool is not called wrong while a backend lists nothing", () => {
  const found = analyze(declared(scoped("fetch_put")), observed([entry("other", "get", "other_get")]));
  assert.deepEqual(found, []);
});

function declared(yaml: string) {
  return loadConfig(yaml, { file: "test.yaml", partial: true }).resources;
}
