import assert from "node:assert/strict";
import { test } from "node:test";
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { effectsOf } from "./effects.ts";

const effects = (kind: string, json: JsonObject): string[] =>
  effectsOf(fromJson(ResourceSchema, { name: "x", [kind]: json })).map(({ severity, path }) => `${severity} ${path.join(".")}`);

test("what works is not mentioned", () => {
  const json = {
    name: "a",
    groupRef: "g",
    backends: [{ name: "b", url: "http://x", metadata: { k: "v" } }],
    incomingAuth: { type: "anonymous", authz: { type: "none" } },
    outgoingAuth: { source: "inline", default: { type: "unauthenticated" } },
    aggregation: { conflictResolution: "prefix", excludeAllTools: true, tools: [{ workload: "b", filter: ["x"] }] },
    operational: { timeouts: { default: "30s" }, failureHandling: { circuitBreaker: { enabled: true } } },
    sessionStorage: { provider: "memory" },
    codeMode: {},
    audit: { enabled: false },
    metadata: { k: "v" },
  };
  assert.deepEqual(effects("virtualServer", json), []);
});

test("callers are let in as declared, and backends shown what is declared", () => {
  const oidc = { issuer: "https://id.example.com", audience: "a", caBundlePath: "/etc/ssl/id.pem" };
  for (const incomingAuth of [{ type: "local" }, { type: "oidc", oidc }])
    assert.deepEqual(effects("authPolicy", { incomingAuth }), []);
  const backends = Object.fromEntries(
    ["header_injection", "token_exchange", "client_credentials", "pass_through", "upstream_oauth"].map((type) => [
      type,
      { type },
    ]),
  );
  assert.deepEqual(effects("authPolicy", { outgoingAuth: { backends } }), []);
});

test("protection that is not there is refused, wherever it is declared", () => {
  const refused = ["refused incomingAuth.authz.type"];
  for (const kind of ["virtualServer", "authPolicy"])
    assert.deepEqual(effects(kind, { incomingAuth: { type: "local", authz: { type: "cedar" } } }), refused);
});

test("there are no tokens of upstream providers to exchange", () => {
  const strategy = { type: "token_exchange", tokenExchange: { subjectProviderName: "okta" } };
  assert.deepEqual(effects("authPolicy", { outgoingAuth: { default: strategy } }), [
    "warning outgoingAuth.default.tokenExchange.subjectProviderName",
  ]);
});

test("each strategy that is not there is named", () => {
  const json = {
    outgoingAuth: {
      source: "discovered",
      default: { type: "xaa" },
      backends: { a: { type: "obo" }, b: { type: "unauthenticated" }, c: { type: "aws_sts" }, d: { type: "upstream_inject" } },
    },
  };
  assert.deepEqual(effects("authPolicy", json), [
    "warning outgoingAuth.source",
    "warning outgoingAuth.default.type",
    "warning outgoingAuth.backends.a.type",
    "warning outgoingAuth.backends.c.type",
    "warning outgoingAuth.backends.d.type",
  ]);
});

test("backends of a group are looked at too", () => {
  assert.deepEqual(effects("backend", { name: "a", type: "entry", caBundlePath: "/x.pem" }), [
    "warning type",
    "warning caBundlePath",
  ]);
});
