import assert from "node:assert/strict";
import { test } from "node:test";
import type { Caller } from "../incoming-auth/caller.ts";
import { Secret } from "../secrets.ts";
import { endWithToken } from "./stream-expiry.ts";

const minuteMs = 60_000;

function callerUntil(expiresAtMs: number): Caller {
  const identity = { issuer: "i", subject: "s", isAnonymous: false };
  return { identity, token: { secret: new Secret("t"), digest: "d", expiresAtMs }, scopes: new Set() };
}

function open(caller: Caller | undefined) {
  const closed = new AbortController();
  const session = { caller };
  endWithToken(session, { end: () => closed.abort(), closed: closed.signal });
  return { session, closed };
}

test("a stream ends when its caller's token is over, half a minute later", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const { closed } = open(callerUntil(minuteMs));
  t.mock.timers.tick(minuteMs + 29_000);
  assert.equal(closed.signal.aborted, false);
  t.mock.timers.tick(1_000);
  assert.equal(closed.signal.aborted, true);
});

test("a newer token carries the stream on", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const { session, closed } = open(callerUntil(minuteMs));
  session.caller = callerUntil(3 * minuteMs);
  t.mock.timers.tick(2 * minuteMs);
  assert.equal(closed.signal.aborted, false);
  t.mock.timers.tick(2 * minuteMs);
  assert.equal(closed.signal.aborted, true);
});

test("a token that is over ends the stream at once, and one of years is no matter", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  t.mock.timers.tick(10 * minuteMs);
  assert.equal(open(callerUntil(minuteMs)).closed.signal.aborted, true);
  const { closed } = open(callerUntil(10 * 365 * 24 * 60 * minuteMs));
  t.mock.timers.tick(100);
  assert.equal(closed.signal.aborted, false);
});

test("a caller without a token has a stream for as long as wanted", () => {
  assert.equal(open({ ...callerUntil(0), token: undefined }).closed.signal.aborted, false);
  assert.equal(open(undefined).closed.signal.aborted, false);
});
