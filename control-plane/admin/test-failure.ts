// What a call of a test failed with.
import assert from "node:assert/strict";
import type { ServiceError } from "@grpc/grpc-js";

/** The error of a call that must fail. */
export async function failure(call: Promise<unknown>): Promise<ServiceError> {
  return call.then(
    () => assert.fail("it succeeded"),
    (error: ServiceError) => error,
  );
}
