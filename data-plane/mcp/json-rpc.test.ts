import assert from "node:assert/strict";
import { test } from "node:test";
import { errorResponse, readMessage, request, resultResponse, withId } from "./json-rpc.ts";
import { JsonTextError } from "./scan.ts";

test("reads requests, notifications and responses", () => {
  const call = readMessage(Buffer.from('{"jsonrpc":"2.0","method":"a/b","id":7,"params":{"x":1}}\n'));
  assert.deepEqual([call.method, call.id], ["a/b", "7"]);
  assert.equal(readMessage(Buffer.from('{"jsonrpc":"2.0","method":"n"}')).id, undefined);
  assert.equal(readMessage(Buffer.from('{"jsonrpc":"2.0","id":"7","result":{}}')).id, '"7"');
  assert.equal(readMessage(Buffer.from('{"jsonrpc":"2.0","id":null,"error":{}}')).id, undefined);
});

const broken: [string, string][] = [
  ["an array", "[]"],
  ["another version", '{"jsonrpc":"1.0","method":"a"}'],
  ["no version", '{"method":"a"}'],
  ["an object id", '{"jsonrpc":"2.0","id":{},"method":"a"}'],
  ["a method that is no string", '{"jsonrpc":"2.0","method":1}'],
  ["neither method nor result", '{"jsonrpc":"2.0","id":1}'],
  ["two values", '{"jsonrpc":"2.0","method":"a"}{}'],
  ["text behind", '{"jsonrpc":"2.0","method":"a"} x'],
];
for (const [name, json] of broken)
  test(`refuses ${name}`, () => assert.throws(() => readMessage(Buffer.from(json)), JsonTextError));

test("puts another id without touching anything else", () => {
  const message = readMessage(Buffer.from('{"id": 1 ,"jsonrpc":"2.0","result":{"n":1e400}}'));
  const renamed = withId(message, '"x"');
  assert.equal(renamed.id, '"x"');
  assert.equal(renamed.json.toString("utf8", renamed.result?.start, renamed.result?.end), '{"n":1e400}');
  assert.equal(renamed.json.toString(), '{"id": "x" ,"jsonrpc":"2.0","result":{"n":1e400}}');
  assert.equal(withId(message, "1"), message);
});

test("writes messages", () => {
  assert.equal(request("m", undefined).toString(), '{"jsonrpc":"2.0","method":"m"}');
  assert.equal(request("m", '{"a":1}', '"i"').toString(), '{"jsonrpc":"2.0","id":"i","method":"m","params":{"a":1}}');
  assert.equal(resultResponse("1", "{}").toString(), '{"jsonrpc":"2.0","id":1,"result":{}}');
  assert.equal(
    errorResponse(undefined, { code: -1, message: "no" }).toString(),
    '{"jsonrpc":"2.0","error":{"code":-1,"message":"no"}}',
  );
});
