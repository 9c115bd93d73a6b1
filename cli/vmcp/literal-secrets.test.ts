import assert from "node:assert/strict";
import { test } from "node:test";
import { toJson } from "@bufbuild/protobuf";
import { pino } from "pino";
import { loadConfig, startControlPlane } from "../../control-plane/index.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { moveLiteralSecrets } from "./literal-secrets.ts";

const text = `
kind: Group
name: team
backends:
${["a", "b", "c", "d", "e", "f"].map((name) => `  - { name: ${name}, url: "http://127.0.0.1:1/mcp" }\n`).join("")}
---
kind: AuthPolicy
name: shared
incomingAuth: { type: anonymous }
outgoingAuth:
  source: inline
  default: { type: header_injection, headerInjection: { headerName: Authorization, headerValue: Bearer hunter2-0 } }
---
kind: VirtualServer
name: policed
groupRef: team
authPolicyRef: shared
aggregation: { conflictResolution: prefix }
---
kind: VirtualServer
name: dev
groupRef: team
incomingAuth: { type: oidc, oidc: { issuer: "https://id.example.com", audience: vmcp, clientId: vmcp } }
outgoingAuth:
  source: inline
  backends:
    a: { type: token_exchange, tokenExchange: { clientId: vmcp, clientSecret: hunter2-1 } }
    b: { type: client_credentials, clientCredentials: { clientId: vmcp, clientSecret: hunter2-2 } }
    c: { type: upstream_oauth, upstreamOauth: { clientId: vmcp, clientSecret: hunter2-3 } }
    d:
      type: xaa
      xaa:
        idpTokenUrl: https://id.example.com/token
        idpClientId: vmcp
        idpClientSecret: hunter2-4
        targetTokenUrl: https://api.example.com/token
        targetClientId: vmcp
        targetClientSecret: hunter2-5
        targetAudience: api
    e: { type: obo, obo: { tokenUrl: "https://id.example.com/token", clientId: vmcp, clientSecret: hunter2-6 } }
    f: { type: header_injection, headerInjection: { headerName: X-Key, headerValueEnv: X_KEY } }
aggregation: { conflictResolution: prefix }
`;

function load(source = text): Resource[] {
  const { resources, problems } = loadConfig(source, { file: "x.yaml" });
  assert.deepEqual(
    problems.filter(({ severity }) => severity !== "warning"),
    [],
  );
  return resources;
}

function shown(resources: readonly Resource[]): string {
  return JSON.stringify(resources.map((resource) => toJson(ResourceSchema, resource)));
}

function namesIn(resources: readonly Resource[]): string[] {
  return shown(resources).match(/VMCP_LITERAL_[0-9A-F]{32}/g) ?? [];
}

test("what is declared holds no secret, and names where each one is", () => {
  const environment: NodeJS.ProcessEnv = {};
  const moved = moveLiteralSecrets(load(), environment);
  assert.doesNotMatch(shown(moved), /hunter2/);
  assert.deepEqual(
    namesIn(moved).map((name) => environment[name]),
    ["Bearer hunter2-0", ...[1, 2, 3, 4, 5, 6].map((index) => `hunter2-${index}`)],
  );
  assert.match(shown(moved), /"headerValueEnv":"X_KEY"/);
});

test("names stay while nothing changes, and differ where a place or a secret does", () => {
  const environment: NodeJS.ProcessEnv = {};
  const names = namesIn(moveLiteralSecrets(load(), environment));
  assert.deepEqual(namesIn(moveLiteralSecrets(load(), environment)), names);
  const same = namesIn(moveLiteralSecrets(load(text.replaceAll(/hunter2-\d/g, "hunter2")), environment));
  assert.equal(new Set([...names, ...same]).size, 2 * names.length);
});

test("the control plane takes what was moved, and has nothing to warn of", async () => {
  await using plane = await startControlPlane({ listen: "127.0.0.1:0", store: ":memory:", log: pino({ level: "silent" }) });
  const { warnings } = await plane.replaceAll(moveLiteralSecrets(load(), {}), "test");
  assert.doesNotMatch(warnings.join("\n"), /literal/);
  const { warnings: literal } = await plane.replaceAll(load(), "test");
  assert.match(literal.join("\n"), /a literal credential is not sent to the proxies of a mesh; only `vmcp serve` uses it/);
});
