import assert from "node:assert/strict";
import { test } from "node:test";
import { createLimit } from "../backends/limit.ts";
import { createLocalSessions } from "./local-sessions.ts";
import type { Session } from "./session.ts";

const minuteMs = 60_000;

const busy: [what: string, isEnded: boolean, use: (session: Session) => void][] = [
  ["nothing open", true, () => undefined],
  ["a call in flight", false, (session) => void session.calls.set("1", createLimit())],
  [
    "an open stream",
    false,
    (session) => {
      session.stream = { send: () => undefined, end: () => undefined, closed: new AbortController().signal };
    },
  ],
  [
    "been used just now",
    false,
    (session) => {
      session.usedAtMs = performance.now();
    },
  ],
];
for (const [what, isEnded, use] of busy) {
  test(`a session that has ${what} ${isEnded ? "makes room" : "is kept"} when all places are taken`, async () => {
    await using sessions = newStore(1);
    const old = open(sessions) as Session;
    old.usedAtMs -= minuteMs;
    use(old);
    const next = open(sessions);
    assert.equal(sessions.find(old.id, "v"), isEnded ? undefined : old);
    assert.equal(next !== undefined, isEnded);
    assert.equal(sessions.size, 1);
  });
}

test("the one unused for longest makes room first", async () => {
  await using sessions = newStore(3);
  const [first, second, third] = [open(sessions), open(sessions), open(sessions)] as Session[];
  assert.ok(first && second && third);
  sessions.find(first.id, "v");
  for (const session of [first, second, third]) session.usedAtMs -= minuteMs;
  assert.ok(open(sessions));
  assert.deepEqual(
    [first, second, third].map(({ id }) => sessions.find(id, "v") !== undefined),
    [true, false, true],
  );
});

const newStore = (sessionsMax: number) => createLocalSessions({ idleMs: 30 * minuteMs, sessionsMax });

const open = (sessions: ReturnType<typeof newStore>) =>
  sessions.create({
    virtualServer: "v",
    identity: { issuer: "i", subject: "s", isAnonymous: false },
    era: "session",
    protocolVersion: "2025-11-25",
    clientInfo: "{}",
    capabilities: "{}",
  });
