import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
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

const tooLarge: [string, string][] = [
  ["one line", "a".repeat(20)],
  ["many lines", "data: aaaaaaaa\n"],
  ["many lines without data", "data\n"],
  ["many types", "event: aaaaaaa\n"],
  ["many ids", "id: 1\n"],
];
for (const [name, piece] of tooLarge) {
  test(`refuses an event that is too large by ${name}, in pieces`, () => {
    const parser = createEventParser(1_000);
    assert.throws(() => {
      for (let i = 0; i < 201; i++) parser.push(Buffer.from(piece));
    }, EventTooLargeError);
  });
}

test("comments count for nothing, so that a quiet stream may stay open for ever", () => {
  const parser = createEventParser(100);
  for (let i = 0; i < 1_000; i++) parser.push(Buffer.from(": ping\n"));
  assert.equal(parser.push(Buffer.from("data: a\n\n")).length, 1);
});

test("a line that ends with CR needs no next byte", () => {
  const parser = createEventParser(100);
  assert.equal(parser.push(Buffer.from("data: a\r\n\r")).length, 1);
  assert.equal(parser.push(Buffer.from("\ndata: b\r\r")).length, 1);
});

test("goes on after the last whole event, not after one that was cut off", () => {
  const parser = createEventParser(1_000);
  parser.push(Buffer.from("id: 1\ndata: a\n\nid: 2\ndata: b\n"));
  assert.equal(parser.lastEventId, "1");
  parser.push(Buffer.from("\n"));
  assert.equal(parser.lastEventId, "2");
});

for (const [said, meant] of [
  ["0", 250],
  ["3000", 3_000],
  ["999999999", 300_000],
  ["9999999999", undefined],
  ["-1", undefined],
] as const) {
  test(`retry: ${said} means ${meant ?? "nothing"}`, () => {
    const parser = createEventParser(1_000);
    parser.push(Buffer.from(`retry: ${said}\n\n`));
    assert.equal(parser.retryMs, meant);
  });
}

const event = { type: "message", data: "a\nb", id: undefined };

test("what it keeps is its own, so that no chunk outlives its push", () => {
  const parser = createEventParser(1_000);
  const chunks = ["data: a\nda", "ta: b", "\n"].map((text) => Buffer.from(text));
  for (const chunk of chunks) {
    parser.push(chunk);
    chunk.fill("!");
  }
  const [read] = parser.push(Buffer.from("\n"));
  assert.deepEqual({ ...read, data: read?.data.toString() }, event);
});

test("holds about as many bytes as the data has, whatever comes with them", () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const parser = createEventParser(8 * 1024 * 1024);
  const held = () => {
    collect();
    const { arrayBuffers, heapUsed } = process.memoryUsage();
    return arrayBuffers + heapUsed;
  };
  const before = held();
  for (let i = 0; i < 1_000; i++) parser.push(Buffer.from(`data: x\n:${"c".repeat(65_000)}\n`)); // 65 MB
  for (let i = 0; i < 100; i++) parser.push(Buffer.from("data\n".repeat(13_000))); // 1.3 million lines
  assert.ok(held() - before < 8 * 1024 * 1024);
  assert.equal(parser.push(Buffer.from("\n"))[0]?.data.length, 2_000 + 1_300_000 - 1);
});

const streams: [string, (n: number) => Buffer[]][] = [
  ["a line in tiny chunks", (n) => [Buffer.from("data: "), ...Array<Buffer>(n).fill(Buffer.from("xxxxxxxx"))]],
  ["a chunk of CRs", (n) => [Buffer.alloc(n * 8, "\r")]],
  ["a chunk of LFs before one CR", (n) => [Buffer.concat([Buffer.alloc(n * 8, "\n"), Buffer.from("\r")])]],
  ["many lines of data", (n) => Array<Buffer>(n).fill(Buffer.from("data: x\n"))],
];
for (const [name, chunks] of streams) {
  test(`reads ${name} in time that grows as the stream does`, () => {
    cpuMs(chunks(20_000)); // warm
    const small = cpuMs(chunks(20_000));
    const large = cpuMs(chunks(160_000));
    assert.ok(large < 30 * Math.max(small, 2), `8 times the bytes took ${large} ms instead of ${small} ms`); // quadratic: 64 times
  });
}

function cpuMs(chunks: readonly Buffer[]): number {
  const parser = createEventParser(100_000_000);
  const started = process.cpuUsage();
  for (const chunk of chunks) parser.push(chunk);
  const { user, system } = process.cpuUsage(started);
  return (user + system) / 1_000;
}
