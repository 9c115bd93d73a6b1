import assert from "node:assert/strict";
import { test } from "node:test";
import { readRequest } from "./read-request.ts";

const ping = (id: string) => `{"jsonrpc":"2.0","id":${id},"method":"ping"}`;
const read = (body: string) => readRequest(Buffer.from(body));

const ids = [
  "0",
  "-1",
  "9007199254740991",
  "-9007199254740992",
  "12345678901234567890",
  '""',
  '"é"',
  '"\\u00e9"',
  `"${"x".repeat(256)}"`,
];
for (const id of ids) {
  test(`a request may have the id ${id.slice(0, 30)}, and keeps it as it is written`, () => {
    const one = read(ping(id));
    assert.ok("params" in one);
    assert.equal(one.message.id, id);
  });
}

const badIds = [
  ...["null", "1.0", "1.5", "1e2", "1E2", "-0", "9".repeat(40)],
  ...["{}", "[]", "true", `"${"x".repeat(257)}"`, `"${"é".repeat(129)}"`],
];
for (const id of badIds) {
  test(`a request with the id ${id.slice(0, 30)} is refused`, () => {
    for (const body of [ping(id), `[${ping("1")},${ping(id)}]`]) {
      const refused = read(body);
      assert.ok("status" in refused, body);
      assert.deepEqual([refused.status, refused.code], [400, -32600]);
      assert.match(refused.message, /"id"/);
    }
  });
}

test("an answer may have any id: it is the one that was asked with", () => {
  for (const id of [`"${"x".repeat(2_000)}"`, "null"])
    assert.ok("params" in read(`{"jsonrpc":"2.0","id":${id},"error":{"code":1,"message":"no"}}`));
});

test("a message without an id is a notification", () => {
  const one = read('{"jsonrpc":"2.0","method":"notifications/initialized"}');
  assert.ok("params" in one);
  assert.equal(one.message.id, undefined);
});
