import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { edited, readMessage } from "./json-rpc.ts";
import { members } from "./scan.ts";

test("an edited message is what its bytes would be read as", () => {
  const text = fc.string({ unit: "binary", maxLength: 12 });
  const params = fc.dictionary(text, fc.jsonValue(), { minKeys: 1, maxKeys: 5 });
  const property = fc.property(params, fc.integer(), text, fc.jsonValue(), fc.boolean(), (before, id, key, value, isLast) => {
    const message = {
      jsonrpc: "2.0",
      ...(isLast ? {} : { id }),
      method: "tools/call",
      params: before,
      ...(isLast ? { id } : {}),
    };
    const read = readMessage(Buffer.from(JSON.stringify({ ...message, [`x${key}`]: value })));
    const all = members(read.json, read.params?.start);
    const edits = all
      .filter((_, i) => i % 2 === 0)
      .map(({ start, end }) => ({ start, end, text: JSON.stringify({ [key]: value }) }));
    assert.deepEqual(edited(read, edits), readMessage(edited(read, edits).json));
    const whole = edited(read, [{ start: read.params?.start ?? 0, end: read.params?.end ?? 0, text: "{}" }]);
    assert.deepEqual(whole, readMessage(whole.json));
    assert.equal(edited(read, []), read);
  });
  fc.assert(property, { numRuns: 500 });
});

for (const [what, json] of [
  ["two objects", '{"jsonrpc":"2.0","id":1,"result":{}}{}'],
  ["an object that goes on", '{"jsonrpc":"2.0","id":1,"result":{}} x'],
  ["another version", '{"jsonrpc":"1.0","id":1,"result":{}}'],
  ["no version", '{"id":1,"result":{}}'],
  ["neither request nor response", '{"jsonrpc":"2.0","id":1}'],
  ["an id that is an object", '{"jsonrpc":"2.0","id":{},"result":{}}'],
  ["a method that is a number", '{"jsonrpc":"2.0","id":1,"method":1}'],
])
  test(`${what} is no message`, () => assert.throws(() => readMessage(Buffer.from(`${json}`)), { name: "JsonTextError" }));

test("the last of a member that comes twice counts, as in JSON.parse, and names of Object's own are just names", () => {
  const read = readMessage(
    Buffer.from('{"jsonrpc":"2.0","id":1,"id":2,"constructor":1,"__proto__":{"method":"x"},"result":{},"result":[1]} \n'),
  );
  assert.equal(read.id, "2");
  assert.equal(read.method, undefined);
  assert.equal(read.json.toString("utf8", read.result?.start, read.result?.end), "[1]");
});
