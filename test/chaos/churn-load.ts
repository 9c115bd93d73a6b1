// Clients of both eras that call at a steady rate what stays, and now and then what comes and goes.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { openRawSession, type RawSession } from "../support/client.ts";
import { callTool } from "../support/stateless-client.ts";

export interface ChurnLoad {
  /** To what stays, that have ended. */
  calls(): number;
  /** This one joins now: it is called as soon as it is listed, and again when it may have left. */
  expect(name: string): void;
  resume(): void;
  /** Settles when no call is in flight. */
  pause(): Promise<void>;
  /** Forgets what was counted. */
  reset(): void;
  /** Throws when a call to what stays failed, a session lost its state, or a guest was answered dishonestly. */
  check(): void;
  summary(): string;
}

const clients = { session: 20, stateless: 5 };
const listMs = 50;
// It stays for three seconds at a hundred joins a minute; asked a second later, it has left.
const guestMs = 4_000;

/** Paused at first. */
export async function startChurnLoad({ url, callsPerSecond }: { url: string; callsPerSecond: number }): Promise<ChurnLoad> {
  const everyMs = ((clients.session + clients.stateless) * 1_000) / callsPerSecond;
  const sessions = await Promise.all(Array.from({ length: clients.session }, () => openRawSession(url)));
  const guest = await openRawSession(url);
  const counts = sessions.map(() => 0);
  const failures: string[] = [];
  const answers = new Map<string, number>();
  const joinedMs: number[] = [];
  let slowestMs = 0;
  let calls = 0;
  let running: Promise<unknown> = Promise.resolve();
  let stop = new AbortController();
  let expected: { readonly name: string; readonly sinceMs: number }[] = [];
  let guests: Promise<void>[] = [];

  async function steadily(call: () => Promise<string | undefined>, { signal }: AbortController): Promise<void> {
    await sleep(Math.random() * everyMs);
    for (let dueMs = performance.now(); !signal.aborted; dueMs += everyMs) {
      const startedMs = performance.now();
      const failure = await call().catch((error: Error) => String(error));
      slowestMs = Math.max(slowestMs, performance.now() - startedMs);
      calls++;
      if (failure !== undefined) failures.push(failure);
      await sleep(Math.max(0, dueMs + everyMs - performance.now()));
    }
  }

  async function inSession(i: number): Promise<string | undefined> {
    const session = sessions[i] as RawSession;
    const answer = await session.result("tools/call", `{"name":"stable${i % 2}_counter"}`);
    const count = Number(/"text":"(\d+)"/.exec(answer)?.[1]);
    const wanted = (counts[i] as number) + 1;
    counts[i] = count;
    return count === wanted ? undefined : `${wanted} was to come: ${answer}`;
  }

  async function withoutSession(): Promise<string | undefined> {
    const { text, body } = await callTool(url, "stable2_say");
    return text === "said" ? undefined : body;
  }

  /** Looks which guests are listed by now, and calls them. */
  async function receive({ signal }: AbortController): Promise<void> {
    while (!signal.aborted) {
      await sleep(listMs);
      if (expected.length === 0) continue;
      const listed = await guest.result("tools/list");
      const here = expected.filter(({ name }) => listed.includes(`"${name}_where"`));
      expected = expected.filter((one) => !here.includes(one));
      for (const { name, sinceMs } of here) {
        joinedMs.push(performance.now() - sinceMs);
        guests.push(visit(name, signal));
      }
    }
  }

  async function visit(name: string, signal: AbortSignal): Promise<void> {
    const ask = async () => {
      const answer = await guest.result("tools/call", `{"name":"${name}_where"}`);
      const what = /"reason":"(\w+)"/.exec(answer)?.[1] ?? (answer.includes('"text":"here"') ? "answered" : answer);
      answers.set(what, (answers.get(what) ?? 0) + 1);
    };
    await ask();
    await sleep(guestMs, undefined, { signal }).catch(() => undefined);
    if (!signal.aborted) await ask();
  }

  return {
    calls: () => calls,
    expect: (name) => void expected.push({ name, sinceMs: performance.now() }),
    resume() {
      const round = new AbortController();
      stop = round;
      running = Promise.all([
        ...sessions.map((_, i) => steadily(() => inSession(i), round)),
        ...Array.from({ length: clients.stateless }, () => steadily(withoutSession, round)),
        receive(round),
      ]);
    },
    async pause() {
      stop.abort();
      await running;
      await Promise.all(guests);
      guests = [];
      expected = [];
    },
    reset() {
      calls = 0;
      slowestMs = 0;
      failures.length = 0;
      joinedMs.length = 0;
      answers.clear();
    },
    check() {
      assert.deepEqual(failures.slice(0, 5), [], `${failures.length} of ${calls} calls failed`);
      const odd = [...answers.keys()].filter((what) => what !== "answered" && what !== "backend_gone");
      assert.deepEqual(odd, [], "what guests were answered with");
      assert.ok((answers.get("answered") ?? 0) > 0 && (answers.get("backend_gone") ?? 0) > 0, "guests were met and missed");
    },
    summary() {
      const sorted = joinedMs.toSorted((a, b) => a - b);
      const at = (part: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0);
      const met = [...answers].map(([what, times]) => `${times} ${what}`).join(", ");
      const listed = `a guest is listed after ${at(0.5)} ms (p50), ${at(0.99)} ms (p99)`;
      return `slowest ${Math.round(slowestMs)} ms; ${listed}; calls to guests: ${met}`;
    },
  };
}
