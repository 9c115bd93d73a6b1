import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { readMessage } from "../mcp/json-rpc.ts";
import { createHandedOut, noteUris } from "./handed-out.ts";

const answer = (result: string) => readMessage(Buffer.from(`{"jsonrpc":"2.0","id":1,"result":${result}}`));

const results: [string, string, string[]][] = [
  ["a link", '{"content":[{"type":"text","text":"x"},{"type":"resource_link","uri":"a:1","name":"n"}]}', ["a:1"]],
  ["an embedded resource", '{"content":[{"type":"resource","resource":{"uri":"a:1","text":"\\"uri\\""}}]}', ["a:1"]],
  ["contents that were read", '{"contents":[{"uri":"a:1","text":""},{"uri":"a:2","blob":""}]}', ["a:1", "a:2"]],
  [
    "messages of a prompt, one block or many",
    '{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"a:1"}}},{"content":[{"uri":"a:2"}]}]}',
    ["a:1", "a:2"],
  ],
  ["escapes", '{"content":[{"uri":"a:\\u00fc\\/x"}]}', ["a:ü/x"]],
  [
    "a URI that is only mentioned",
    '{"structuredContent":{"uri":"a:1"},"content":[{"type":"text","text":"\\"uri\\":\\"a:2\\""}]}',
    [],
  ],
  ["what is not a URI", '{"content":[{"uri":7},{"uri":{"uri":"a:1"}},null,[{"uri":"a:1"}],"uri"],"contents":{"uri":null}}', []],
  ["what is not JSON", '{"content":[{"uri":"a:\\x"}]}', []],
];
for (const [name, result, wanted] of results) {
  test(`${name}: ${wanted.length > 0 ? wanted.join(" and ") : "nothing"} is noted`, () => {
    const handedOut = createHandedOut();
    noteUris(handedOut, "docs", answer(result));
    const known = ["a:1", "a:2", "a:ü/x", "7"].filter((uri) => handedOut.ownerOf(uri) === "docs");
    assert.deepEqual(known, wanted);
  });
}

test("who handed a URI out last owns it", () => {
  const handedOut = createHandedOut();
  for (const backend of ["a", "b", "a", "b"]) noteUris(handedOut, backend, answer('{"content":[{"uri":"x:1"}]}'));
  assert.equal(handedOut.ownerOf("x:1"), "b");
});

test("the URI that was not used for longest makes room", () => {
  const handedOut = createHandedOut(2);
  handedOut.note("x:1", "a");
  handedOut.note("x:2", "a");
  handedOut.ownerOf("x:1");
  handedOut.note("x:3", "a");
  assert.deepEqual(
    ["x:1", "x:2", "x:3"].map((uri) => handedOut.ownerOf(uri)),
    ["a", undefined, "a"],
  );
});

test("a URI too long to be one takes no room", () => {
  const handedOut = createHandedOut();
  const long = `data:${"x".repeat(3_000)}`;
  noteUris(handedOut, "a", answer(JSON.stringify({ content: [{ uri: long }] })));
  assert.equal(handedOut.ownerOf(long), undefined);
});

test("no result makes noting throw", () => {
  const check = fc.property(
    fc.jsonValue(),
    fc.constantFrom("content", "contents", "messages"),
    fc.nat(200),
    (value, key, cut) => {
      const whole = `{"uri":1,"${key}":${JSON.stringify(value)}}`;
      noteUris(createHandedOut(), "a", answer(whole));
      const json = answer(whole).json;
      const broken = Buffer.concat([json.subarray(0, json.length - 1 - (cut % (whole.length - 1))), Buffer.from("x")]);
      noteUris(createHandedOut(), "a", { ...answer(whole), json: broken });
    },
  );
  fc.assert(check, { numRuns: 2_000 });
});
