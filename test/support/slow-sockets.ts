// A program: `slow-sockets.ts <port> <count>` opens so many connections that get on slowly, a third each that say nothing, trickle
// headers, and trickle the body of a call without a session. It tells on standard output, as JSON, how long each kind was let live.
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const kinds = ["silent", "headers", "body"] as const;
export type SlowKind = (typeof kinds)[number];

/** What became of one kind. */
export interface SlowReport {
  readonly opened: number;
  /** From when the connection stood until it was closed, milliseconds. */
  readonly shortestMs: number;
  readonly longestMs: number;
  /** Statuses of answers, each once. */
  readonly statuses: readonly string[];
}

const headers = "Host: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
const beginnings: Record<SlowKind, string> = {
  silent: "",
  headers: "POST /mcp HTTP/1.1\r\nHost: localhost\r\n",
  body: `POST /mcp HTTP/1.1\r\n${headers}Content-Length: 100000\r\n\r\n{`,
};
const more: Record<SlowKind, string> = { silent: "", headers: "X-A: 1\r\n", body: " " };
const perSecond = 1_000;
const trickleMs = 2_000;

interface Life {
  readonly ms: number;
  readonly status: string;
}

function live(port: number, kind: SlowKind): Promise<Life | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    let sinceMs: number | undefined;
    let status = "none";
    let trickle: NodeJS.Timeout | undefined;
    socket.on("connect", () => {
      sinceMs = performance.now();
      socket.write(beginnings[kind]);
      trickle = setInterval(() => socket.writable && socket.write(more[kind]), trickleMs);
    });
    socket.on("data", (chunk) => {
      status = chunk.toString("latin1", 9, 12);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearInterval(trickle);
      resolve(sinceMs === undefined ? undefined : { ms: performance.now() - sinceMs, status });
    });
  });
}

function reportOf(lives: readonly (Life | undefined)[]): SlowReport {
  const opened = lives.filter((life) => life !== undefined);
  const times = opened.map(({ ms }) => ms);
  return {
    opened: opened.length,
    shortestMs: Math.round(Math.min(...times)),
    longestMs: Math.round(Math.max(...times)),
    statuses: [...new Set(opened.map(({ status }) => status))].sort(),
  };
}

if (import.meta.main) {
  const [port, count] = process.argv.slice(2).map(Number) as [number, number];
  const lives: Record<SlowKind, Promise<Life | undefined>[]> = { silent: [], headers: [], body: [] };
  for (let i = 0; i < count; i++) {
    const kind = kinds[i % kinds.length] as SlowKind;
    lives[kind].push(live(port, kind));
    if (i % (perSecond / 20) === 0) await sleep(50);
  }
  const reports = await Promise.all(kinds.map(async (kind) => [kind, reportOf(await Promise.all(lives[kind]))] as const));
  process.stdout.write(JSON.stringify(Object.fromEntries(reports)));
}
