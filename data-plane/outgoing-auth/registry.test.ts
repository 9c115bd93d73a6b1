import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { oneKey } from "../mcp/seal.ts";
import { NoCredentialError } from "./credential.ts";
import { createCredentials } from "./registry.ts";

const credentials = createCredentials({ log: pino({ level: "silent" }), keys: oneKey(randomBytes(32)) });
const recipient = {
  ...{ resource: "virtualServers/team/backends/one", backend: "one", url: "http://127.0.0.1:1" },
  ...{ virtualServer: "team", incomingAuth: undefined },
};

test("counters are of a strategy and a backend, and bounded however many there are", () => {
  const { metrics } = createCredentials({ log: pino({ level: "silent" }), keys: oneKey(randomBytes(32)) });
  const labels = { strategy: "token_exchange", virtualServer: "team" };
  metrics.of({ ...labels, backend: "one" }).obtained++;
  assert.equal(metrics.of({ ...labels, backend: "one" }).obtained, 1);
  assert.equal(metrics.of({ ...labels, backend: "two" }).obtained, 0);
  for (let i = 0; i < 5_000; i++) metrics.of({ ...labels, backend: `b${i}` }).misses++;
  const rows = metrics.snapshot();
  assert.ok(rows.length <= 4_097);
  assert.equal(
    rows.reduce((sum, { misses }) => sum + misses, 0),
    5_000,
  );
});

test("unauthenticated, and no strategy at all, show nothing", () => {
  assert.deepEqual(credentials.of(undefined, recipient).show(undefined), []);
  const strategy = create(OutgoingAuthStrategySchema, { type: "unauthenticated" });
  assert.deepEqual(credentials.of(strategy, recipient).show(undefined), []);
});

for (const type of ["aws_sts", "constructor", ""]) {
  test(`"${type}" is not implemented, so there is no credential`, () => {
    const credential = credentials.of(create(OutgoingAuthStrategySchema, { type }), recipient);
    assert.throws(() => credential.show(undefined), NoCredentialError);
  });
}
