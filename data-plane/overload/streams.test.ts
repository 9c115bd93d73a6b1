import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test } from "node:test";
import { createStreams } from "./streams.ts";

function responseWith(writableLength = 0) {
  const response = Object.assign(new EventEmitter(), {
    writableLength,
    isDestroyed: false,
    destroy() {
      response.isDestroyed = true;
      response.emit("close");
    },
  });
  return response;
}

test("streams are counted until they close, for the process and for each caller with a name", () => {
  const streams = createStreams({ most: 5, mostPerCaller: 2 });
  const [one, two] = [responseWith(), responseWith()];
  assert.equal(streams.open(one, "ada"), undefined);
  assert.equal(streams.open(two, "ada"), undefined);
  assert.equal(streams.open(responseWith(), "ada"), "too_many_streams_of_caller");
  for (let i = 0; i < 3; i++) assert.equal(streams.open(responseWith(), undefined), undefined);
  assert.equal(streams.open(responseWith(), "bob"), "too_many_streams");
  assert.deepEqual([streams.size, streams.mostOfOne], [5, 2]);
  one.emit("close");
  assert.equal(streams.open(responseWith(), "ada"), undefined);
});

test("those with the longest queues are cut until little enough waits", () => {
  const streams = createStreams({ most: 10, mostPerCaller: 10 });
  const responses = [10, 500, 30, 400, 0].map((bytes) => responseWith(bytes));
  for (const response of responses) streams.open(response, undefined);
  assert.equal(streams.cutLargest(1_000), 0);
  assert.equal(streams.cutLargest(100), 2);
  assert.deepEqual(
    responses.map(({ isDestroyed }) => isDestroyed),
    [false, true, false, true, false],
  );
  assert.equal(streams.queuedBytes(), 40);
});
