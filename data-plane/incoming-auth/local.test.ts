import assert from "node:assert/strict";
import { userInfo } from "node:os";
import { test } from "node:test";
import { createLocal } from "./local.ts";

const ask = (remoteAddress: string | undefined, headers = {}) =>
  createLocal().authenticate({ headers, method: "POST", url: "http://localhost/", remoteAddress });

test("a connection from this machine is its user's, whatever it shows", async () => {
  for (const address of ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"]) {
    const verdict = await ask(address, { authorization: "Bearer x" });
    assert.ok(!verdict.refusal);
    const { caller } = verdict;
    assert.deepEqual(caller.identity, { issuer: "vmcp-local", subject: userInfo().username, isAnonymous: false });
    assert.equal(caller.token, undefined);
  }
});

test("a connection from elsewhere is refused, whatever it shows", async () => {
  for (const address of [
    "192.0.2.1",
    "::ffff:192.0.2.1",
    "fe80::1",
    "10.0.0.1",
    "128.0.0.1",
    "",
    "localhost",
    "127.1",
    undefined,
  ]) {
    const { refusal } = await ask(address, { "x-forwarded-for": "127.0.0.1", forwarded: "for=127.0.0.1" });
    assert.equal(refusal?.status, 401);
    assert.match(refusal?.description ?? "", /only connections from the machine itself/);
  }
});
