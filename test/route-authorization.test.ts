// What `vmcpctl route` says about who may call is what the proxies decide: the same tokens, of a real issuer, before both.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { authorize } from "../control-plane/analysis/authorize.ts";
import { indexServers } from "../control-plane/analysis/servers.ts";
import { callerOf, createSigningKey, goodClaims, issue, open, startIssuer } from "../data-plane/incoming-auth/test-issuer.ts";
import { ResourceSchema } from "../proto/gen/vmcp/resource/v1/resource_pb.ts";

const key = createSigningKey("k1");

const changes: readonly Record<string, unknown>[] = [
  {},
  { scope: "read" },
  { scope: "write" },
  { scope: "" },
  { scope: undefined },
  { scope: undefined, scp: ["read", "write"] },
  { scope: "read", scp: "write" },
  { scope: ["read", "write"] },
  { aud: "https://other.example" },
  { aud: ["https://other.example", "https://mcp.example/team"] },
  { iss: "https://nobody.example" },
  { email: "ada@example.com" },
];

for (const [what, config] of [
  ["nothing is asked for", {}],
  ["a scope is asked for", { requiredScopes: ["read"] }],
  ["a tool asks for another", { requiredScopes: ["read"], toolScopes: [{ tool: "drop", scopes: ["write"] }] }],
  ["a claim is asked for", { requiredClaims: ["email"] }],
] as const) {
  test(`where ${what}, both let the same callers in`, async () => {
    await using issuer = await startIssuer(key);
    const oidc = { issuer: issuer.url, audience: "https://mcp.example/team", ...config };
    const { authenticator, ask, clock } = open(oidc as never);
    const value = { name: "dev", incomingAuth: { type: "oidc", oidc } };
    const [server] = indexServers([
      create(ResourceSchema, { name: "virtualServers/dev", spec: { case: "virtualServer", value: value as never } }),
    ]);
    assert.ok(server);
    let allowed = 0;
    for (const change of changes) {
      const claims = JSON.parse(JSON.stringify({ ...goodClaims(issuer.url, clock.nowMs()), ...change }));
      const caller = callerOf(await ask(`Bearer ${issue(key, claims)}`));
      for (const tool of ["drop", "list"]) {
        const isLetIn = caller !== undefined && authenticator.scopesFor(tool).every((scope) => caller.scopes?.has(scope));
        const { isAllowed, said } = authorize(server, tool, claims);
        assert.equal(isAllowed, isLetIn, `${JSON.stringify(change)} for ${tool}: ${said}`);
        if (isAllowed) allowed += 1;
      }
    }
    assert.ok(allowed > 0 && allowed < changes.length * 2, `${allowed} were let in`);
  });
}
