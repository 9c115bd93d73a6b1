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

test("protection that is not there is refused, wherever it is declared", () => {
  assert.deepEqual(effects("virtualServer", { incomingAuth: { type: "oidc" } }), ["refused incomingAuth.type"]);
  assert.deepEqual(effects("authPolicy", { incomingAuth: { type: "local", authz: { type: "cedar" } } }), [
    "refused incomingAuth.type",
    "refused incomingAuth.authz.type",
  ]);
});

test("each strategy that is not there is named", () => {
  const json = {
    outgoingAuth: {
      source: "discovered",
      default: { type: "xaa" },
      backends: { a: { type: "obo" }, b: { type: "unauthenticated" } },
    },
  };
  assert.deepEqual(effects("authPolicy", json), [
    "warning outgoingAuth.source",
    "warning outgoingAuth.default.type",
    "warning outgoingAuth.backends.a.type",
  ]);
});

test("backends of a group are looked at too", () => {
  assert.deepEqual(effects("backend", { name: "a", type: "entry", caBundlePath: "/x.pem" }), [
    "warning type",
    "warning caBundlePath",
  ]);
});
