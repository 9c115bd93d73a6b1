// What needs no token endpoint: headers that the operator wrote, and those of the caller's request.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { pino } from "pino";
import { OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { oneKey } from "../mcp/seal.ts";
import { Secret } from "../secrets.ts";
import { NoCredentialError } from "./credential.ts";
import { createCredentials } from "./registry.ts";

const lines: string[] = [];
const log = pino({ level: "info" }, { write: (line: string) => void lines.push(line) });
const credentials = createCredentials({ log, keys: oneKey(randomBytes(32)) });
const recipient = {
  ...{ resource: "virtualServers/team/backends/one", backend: "one", url: "http://127.0.0.1:1" },
  ...{ virtualServer: "team", incomingAuth: undefined },
};
const caller: Caller = {
  identity: { issuer: "i", subject: "ada", isAnonymous: false },
  token: { secret: new Secret("the-callers-own"), digest: "d", expiresAtMs: Date.now() + 60_000 },
  scopes: new Set(),
};

const of = (init: MessageInitShape<typeof OutgoingAuthStrategySchema>) =>
  credentials.of(create(OutgoingAuthStrategySchema, init), recipient);
const inject = (headerInjection: object) => of({ type: "header_injection", headerInjection });
const pass = (headers: string[], trustedWithAuthorization = false) =>
  of({ type: "pass_through", passThrough: { headers, trustedWithAuthorization } });

test("an injected header is the same for callers and for the gateway", () => {
  const credential = inject({ headerName: "X-Api-Key", headerValue: "s3cret" });
  for (const who of [undefined, caller]) assert.deepEqual(credential.show(who, {}), ["X-Api-Key", "s3cret"]);
  assert.equal(credential.gatewayShows, "the same as callers");
  assert.equal(credential.contextOf(caller), undefined);
});

test("its value may be in the environment or in a file, and a value that changed is used by the next snapshot", async () => {
  await using directory = await temporaryDirectory();
  const headerValueFile = await directory.write("value", "from a file\n");
  assert.deepEqual(inject({ headerName: "x", headerValueFile }).show(undefined), ["x", "from a file"]);
  process.env.VMCP_TEST_INJECTED = "one";
  const config = { headerName: "x", headerValueEnv: "VMCP_TEST_INJECTED" };
  const before = inject(config);
  assert.deepEqual(before.show(undefined), ["x", "one"]);
  assert.equal(inject(config), before, "one configuration has one credential");
  process.env.VMCP_TEST_INJECTED = "two";
  assert.deepEqual(inject(config).show(undefined), ["x", "two"]);
  assert.deepEqual(before.show(undefined), ["x", "one"]);
});

const wrong: [what: string, config: object, words: RegExp][] = [
  ["no value", { headerName: "x" }, /no value for header "x"/],
  ["a variable that is not set", { headerName: "x", headerValueEnv: "VMCP_TEST_NOT_SET" }, /VMCP_TEST_NOT_SET is not set/],
  ["a file that is not there", { headerName: "x", headerValueFile: "/nowhere" }, /\/nowhere can't be read/],
  ["a line break", { headerName: "x", headerValue: "s3cret\r\nevil: 1" }, /can't, or line breaks/],
  ["a NUL", { headerName: "x", headerValue: "s3cret\0" }, /can't, or line breaks/],
  ["a character beyond Latin-1", { headerName: "x", headerValue: "s3cret\u20ac" }, /can't, or line breaks/],
  ["a name that is none", { headerName: "x y", headerValue: "s3cret" }, /no name of a header/],
  ["a name of the protocol", { headerName: "Mcp-Session-Id", headerValue: "s3cret" }, /belongs to the connection/],
];
for (const [what, config, words] of wrong)
  test(`${what} is said to the operator, without the value`, () => {
    assert.throws(
      () => inject(config),
      (error: Error) => words.test(error.message) && !error.message.includes("s3cret"),
    );
  });

test("headers of the caller's request pass through as they came, and only those named", () => {
  const credential = pass(["X-Tenant", "x-trace", "x-absent"]);
  assert.deepEqual(credential.clientHeaders, ["x-tenant", "x-trace", "x-absent"]);
  const headers = { "x-tenant": "blue", "x-trace": "é", "x-absent": "", authorization: "Bearer t", cookie: "c" };
  assert.deepEqual(credential.show(caller, headers), ["x-tenant", "blue", "x-trace", "é"]);
  assert.deepEqual(credential.show(caller), []);
  assert.equal(credential.contextOf(caller), undefined);
});

test("the gateway's own requests carry nothing of a caller", () => {
  const credential = pass(["x-tenant"]);
  assert.deepEqual(credential.show(undefined, { "x-tenant": "blue" }), []);
  assert.equal(credential.gatewayShows, "nothing");
});

for (const value of ["a\r\nb", "a\0", "a".repeat(4_097), "\u20ac"])
  test(`${JSON.stringify(value.slice(0, 8))} does not pass, and nothing is sent without it`, () =>
    assert.throws(() => pass(["x-tenant"]).show(caller, { "x-tenant": value }), NoCredentialError));

const never = ["Authorization", "Cookie", "Host", "Connection", "Transfer-Encoding", "TE", "Upgrade", "Mcp-Session-Id"];
const neverEither = ["MCP-Protocol-Version", "Content-Type", "Content-Length", "Forwarded", "X-Forwarded-For", "X-Real-IP"];
for (const name of [...never, ...neverEither, "Proxy-Authorization", "Last-Event-ID", "DPoP", "x y", ""])
  test(`header "${name}" never passes through`, () => assert.throws(() => pass(["x-tenant", name]), /can't pass on/));

test("a backend that is trusted with Authorization gets it, and the log says so", () => {
  lines.length = 0;
  const credential = pass(["authorization"], true);
  assert.deepEqual(credential.show(caller, { authorization: "Bearer t" }), ["authorization", "Bearer t"]);
  assert.match(lines.join(""), /"level":40.*callers' own tokens/);
  assert.throws(() => pass(["cookie"], true), /can't pass on/);
});

test("a program is shown nothing, so whatever is wanted fails in clear words", () => {
  for (const type of ["header_injection", "pass_through", "token_exchange", "client_credentials"]) {
    const strategy = create(OutgoingAuthStrategySchema, { type });
    const credential = credentials.of(strategy, { ...recipient, url: undefined });
    assert.throws(() => credential.show(caller), /nowhere to show a credential to a program/);
  }
  const free = create(OutgoingAuthStrategySchema, { type: "unauthenticated" });
  assert.deepEqual(credentials.of(free, { ...recipient, url: undefined }).show(caller), []);
});
