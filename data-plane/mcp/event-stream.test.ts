import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createEventParser, EventTooLargeError } from "./event-stream.ts";

function parse(chunks: readonly Buffer[]) {
  const parser = createEventParser(1_000_000);
  return chunks.flatMap((chunk) => parser.push(chunk)).map(({ type, data, id }) => ({ type, data: data.toString(), id }));
}

const cases: [string, string, object[]][] = [
  ["a message", "data: a\n\n", [{ type: "message", data: "a", id: undefined }]],
  ["type, id and several lines", "event: x\nid: 7\ndata: a\ndata:b\n\n", [{ type: "x", data: "a\nb", id: "7" }]],
  [
    "CRLF and CR",
    "data: a\r\n\r\ndata: b\r\rdata: c\n\n",
    ["a", "b", "c"].map((data) => ({ type: "message", data, id: undefined })),
  ],
  ["comments and unknown fields", ": hello\nretry: 5\nfoo\ndata: a\n\n", [{ type: "message", data: "a", id: undefined }]],
  ["a byte order mark", "\u{feff}data: a\n\n", [{ type: "message", data: "a", id: undefined }]],
  ["an id that stays", "id: 1\ndata: a\n\ndata: b\n\n", ["a", "b"].map((data) => ({ type: "message", data, id: "1" }))],
  ["empty data", "id: 1\ndata:\n\n", [{ type: "message", data: "", id: "1" }]],
  ["an event without data and one without end", "event: x\n\ndata: a\n", []],
];
for (const [name, stream, events] of cases) test(`reads ${name}`, () => assert.deepEqual(parse([Buffer.from(stream)]), events));

test("gives the same events however the bytes are cut", () => {
  const line = fc.oneof(
    fc.string({ unit: "grapheme" }).map((data) => `data: ${data}`),
    fc.constantFrom("", "", "id: 1", "event: x", ": c", "data"),
  );
  const end = fc.constantFrom("\n", "\r\n", "\r");
  const stream = fc.array(fc.tuple(line, end)).map((lines) => Buffer.from(`${lines.flat().join("")}\n`));
  fc.assert(
    fc.property(stream, fc.array(fc.nat(20)), (bytes, sizes) => {
      const chunks: Buffer[] = [];
      let at = 0;
      for (const size of sizes) {
        chunks.push(bytes.subarray(at, at + size));
        at += size;
      }
      assert.deepEqual(parse([...chunks, bytes.subarray(at)]), parse([bytes]));
    }),
    { numRuns: 3_000 },
  );
});

test("refuses an event that is too large, before it is whole", () => {
  const parser = createEventParser(100);
  assert.throws(() => parser.push(Buffer.from(`data: ${"a".repeat(200)}`)), EventTooLargeError);
});
