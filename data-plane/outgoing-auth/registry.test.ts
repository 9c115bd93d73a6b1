import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { credentialOf } from "./registry.ts";
import { NoCredentialError } from "./strategy.ts";

test("unauthenticated, and no strategy at all, show nothing", async () => {
  assert.deepEqual(await credentialOf(undefined)(), {});
  assert.deepEqual(await credentialOf(create(OutgoingAuthStrategySchema, { type: "unauthenticated" }))(), {});
});

for (const type of ["token_exchange", "header_injection", "constructor", ""]) {
  test(`"${type}" is not implemented, so there is no credential`, async () => {
    await assert.rejects(credentialOf(create(OutgoingAuthStrategySchema, { type }))(), NoCredentialError);
  });
}
