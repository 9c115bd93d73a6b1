// Every outcome, and every rule that may decide.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type JsonObject } from "@bufbuild/protobuf";
import { BackendStatusSchema, VirtualServerViewSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { loadConfig } from "../config/load.ts";
import { explainRoute, type Outcome } from "./route.ts";
import { indexServers } from "./servers.ts";

const anonymous = "{ type: anonymous }";
const oidc = `
  type: oidc
  oidc:
    issuer: https://idp.example.com
    audience: gateway
    requiredScopes: [use]
    requiredClaims: [email]
    toolScopes: [{ tool: a_put, scopes: [write] }]
    additionalIssuers: [{ issuer: "https://other.example.com", audience: gateway }]
`;

const entries = [
  entry("a", "get", "a_get", "prefix"),
  entry("a", "put", "a_put", "prefix"),
  entry("a", "secret", "", "filter"),
  entry("a", "old", "a_new", "prefix"),
  entry("b", "list", "", "shadowed"),
  entry("c", "x", "", "excluded"),
  entry("b", "sick", "", "unhealthy"),
  entry("b", "poisoned", "", "quarantine"),
];

const claims = { sub: "alice", scope: "use", email: "a@example.com" };

const cases: readonly (readonly [
  what: string,
  ask: { tool: string; claims?: JsonObject; auth?: string; state?: string; noViews?: boolean },
  outcome: Outcome,
  said: RegExp,
])[] = [
  ["a tool that is there", { tool: "a_get" }, "routed", /^it is tool "get" of "a"$/],
  ["a renamed one", { tool: "a_new" }, "routed", /^it is tool "old" of "a"$/],
  [
    "a filtered one, by its own name",
    { tool: "secret" },
    "hidden",
    /"secret" of "a" is kept from clients: the filter does not list "secret"/,
  ],
  ["a filtered one, as it would be called", { tool: "a_secret" }, "hidden", /filter/],
  ["one whose name another has", { tool: "list" }, "hidden", /stands before this in priorityOrder has it/],
  ["one of a backend that is left out", { tool: "x" }, "hidden", /all tools of "c" are excluded/],
  [
    "one of a backend that is hidden while it is unhealthy",
    { tool: "b_sick" },
    "unavailable",
    /unhealthy, and its tools are hidden meanwhile/,
  ],
  ["one that is not what was approved", { tool: "b_poisoned" }, "hidden", /in quarantine until it is approved again/],
  ["one that clients know under another name", { tool: "get" }, "not-found", /under another name/],
  ["one that nobody has", { tool: "nope" }, "not-found", /no backend of "dev" lists it/],
  ["one that nobody can use now", { tool: "a_get", state: "unhealthy" }, "unavailable", /no proxy can use "a"/],
  [
    "before any report, by its prefix",
    { tool: "a_whatever", noViews: true },
    "unknown",
    /by its prefix it would be "whatever" of "a"/,
  ],
  ["before any report, without one", { tool: "whatever", noViews: true }, "unknown", /no backend has a prefix like that/],
  ["nobody signed in", { tool: "a_get", auth: oidc }, "denied", /callers must sign in/],
  ["with what every call needs", { tool: "a_get", auth: oidc, claims }, "routed", /get/],
  ["without the scope", { tool: "a_get", auth: oidc, claims: { ...claims, scope: "" } }, "denied", /"alice" lacks the scope use/],
  ["without the scope of the tool", { tool: "a_put", auth: oidc, claims }, "denied", /"alice" lacks the scope write/],
  ["with both", { tool: "a_put", auth: oidc, claims: { ...claims, scp: ["write"] } }, "routed", /put/],
  ["without a claim", { tool: "a_get", auth: oidc, claims: { sub: "alice", scope: "use" } }, "denied", /lacks email/],
  [
    "of an issuer that does not count",
    { tool: "a_get", auth: oidc, claims: { ...claims, iss: "https://x" } },
    "denied",
    /"https:\/\/x" don't count/,
  ],
  [
    "of another issuer",
    { tool: "a_get", auth: oidc, claims: { sub: "bob", scope: "use", iss: "https://other.example.com" } },
    "routed",
    /get/,
  ],
  ["for somebody else", { tool: "a_get", auth: oidc, claims: { ...claims, aud: ["x", "y"] } }, "denied", /not for "gateway"/],
  ["from this machine", { tool: "a_get", auth: "{ type: local }" }, "routed", /get/],
];

for (const [what, { tool, claims: shown, auth = anonymous, state = "healthy", noViews = false }, outcome, said] of cases) {
  test(`${outcome}: ${what}`, () => {
    const route = ask(tool, { shown, auth, state, noViews });
    assert.deepEqual([route.outcome, said.test(route.reason)], [outcome, true], route.reason);
    assert.equal(route.steps[0]?.rule, "authorization");
  });
}

test("the steps say which rule decided what, and where it stands", () => {
  const { steps, backend, health } = ask("a_new", {});
  assert.equal(backend, "groups/g/backends/a");
  assert.deepEqual(health, [{ proxy: "edge", state: "healthy", error: "" }]);
  assert.deepEqual(
    steps.map(({ rule, said, where }) => `${rule}: ${said} (${where})`),
    [
      "authorization: everybody may call (virtualServers/dev: incomingAuth.type)",
      'override: it is renamed to "new" (virtualServers/dev: aggregation.tools[0].overrides.old)',
      'visibility: the filter lists "new" (virtualServers/dev: aggregation.tools[0].filter)',
      'name: strategy prefix puts "{workload}_" before it: "a_new" (virtualServers/dev: aggregation.conflictResolution)',
      "credential: the backend is shown header_injection (virtualServers/dev: outgoingAuth.backends.a)",
      "deadline: the call may take 5 s (virtualServers/dev: operational.timeouts.perWorkload.a)",
    ],
  );
});

test("a name that is nearly right is suggested", () => {
  assert.deepEqual(ask("a_gte", {}).suggestions, ["a_get"]);
  assert.deepEqual(ask("get", {}).suggestions, ["a_get"]);
});

interface Asked {
  readonly shown?: JsonObject | undefined;
  readonly auth?: string;
  readonly state?: string;
  readonly noViews?: boolean;
}

function ask(tool: string, { shown, auth = anonymous, state = "healthy", noViews = false }: Asked) {
  const yaml = `
kind: Group
name: g
backends: [{ name: a, url: "https://a.example.com/mcp" }, { name: b, url: "https://b.example.com/mcp" }, { name: c, url: "https://c.example.com/mcp" }]
---
kind: VirtualServer
name: dev
groupRef: g
incomingAuth: ${auth}
outgoingAuth: { source: inline, backends: { a: { type: header_injection, headerInjection: { headerName: X-Key, headerValueEnv: KEY } } } }
operational: { timeouts: { perWorkload: { a: 5s } } }
aggregation:
  conflictResolution: prefix
  tools:
    - { workload: a, filter: [get, put, new], overrides: { old: { name: new } } }
    - { workload: c, excludeAll: true }
`;
  const { resources, problems } = loadConfig(yaml, { file: "test.yaml", partial: true });
  assert.deepEqual(
    problems.filter(({ severity }) => severity === "error"),
    [],
  );
  const [server] = indexServers(resources);
  assert.ok(server);
  const views = noViews ? [] : [create(VirtualServerViewSchema, { virtualServer: "dev", entries })];
  const backends = [create(BackendStatusSchema, { name: "groups/g/backends/a", state })];
  return explainRoute({
    server,
    tool,
    claims: shown,
    observed: { views, proxies: [{ id: "edge", address: "", backends }], changed: [] },
  });
}

function entry(backend: string, original: string, exposed: string, decidedBy: string) {
  return { kind: "tool", backend, original, exposed, decidedBy };
}
