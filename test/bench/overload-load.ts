// A process that loads a gateway over raw sockets, because a client that does more would be the bottleneck itself. Calls come at a
// rate, whatever becomes of those before them; one for which no connection is idle is counted as unsent. Reads a `LoadPlan` as JSON
// from its argument, prints a `GroupReport`.
import { connect, type Socket } from "node:net";

export interface LoadPlan {
  readonly port: number;
  readonly seconds: number;
  readonly group: LoadGroup;
  /** Milliseconds since 1970; connections are opened before. */
  readonly startsAtMs: number;
}

export interface LoadGroup {
  readonly name: string;
  /** Calls a second; 0: as many as the connections take, one after the other. */
  readonly rate: number;
  readonly connections: number;
  /** Header lines of each caller; connections take turns. */
  readonly callers: readonly string[];
  readonly body: string;
  /** Whoever is refused waits as told before the next call on that connection. Default: not at all. */
  readonly isPatient?: boolean;
  /** When it begins and ends, seconds. Default: all the time. */
  readonly from?: number;
  readonly to?: number;
}

export interface GroupReport {
  readonly ok: number;
  readonly status429: number;
  readonly status503: number;
  readonly failed: number;
  readonly unsent: number;
  readonly okMs: Quantiles;
  readonly shedMs: Quantiles;
  /** Those of the first second, in which a limit adapts. */
  readonly firstShedMs: Quantiles;
  /** Not ok, by the quarter of a second in which they were answered. */
  readonly badByQuarter: readonly number[];
}

interface Quantiles {
  readonly p50: number;
  readonly p99: number;
}

interface Line {
  readonly socket: Socket;
  readonly bytes: Buffer;
  sentMs: number;
  isBusy: boolean;
  /** What has come of an answer that is not whole. */
  rest: Buffer | undefined;
}

async function main(plan: LoadPlan): Promise<void> {
  const report = await load(plan, plan.group, plan.startsAtMs - performance.timeOrigin);
  process.stdout.write(JSON.stringify(report), () => process.exit());
}

async function load({ port, seconds }: LoadPlan, group: LoadGroup, startMs: number): Promise<GroupReport> {
  const counts = { ok: 0, status429: 0, status503: 0, failed: 0, unsent: 0 };
  const okMs: number[] = [];
  const shedMs: number[] = [];
  const firstShedMs: number[] = [];
  const badByQuarter: number[] = Array.from({ length: seconds * 4 + 1 }, () => 0);
  const idle: Line[] = []; // who was idle longest comes first
  const endMs = startMs + (group.to ?? seconds) * 1_000;
  const isOver = (): boolean => performance.now() >= endMs;

  function open(bytes: Buffer): Line {
    const socket = connect(port, "127.0.0.1").setNoDelay(true);
    const line: Line = { socket, bytes, sentMs: 0, isBusy: false, rest: undefined };
    socket.on("data", (chunk) => hear(line, line.rest ? Buffer.concat([line.rest, chunk]) : chunk));
    socket.on("error", () => undefined);
    socket.on("close", () => {
      if (line.isBusy) note(line, 0);
      const at = idle.indexOf(line);
      if (at >= 0) idle.splice(at, 1);
      if (!isOver()) free(open(bytes));
    });
    return line;
  }

  function hear(line: Line, bytes: Buffer): void {
    const headEnd = bytes.indexOf("\r\n\r\n");
    const head = headEnd < 0 ? "" : bytes.toString("latin1", 0, headEnd);
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    line.rest = headEnd < 0 || bytes.length < headEnd + 4 + length ? bytes : undefined;
    if (line.rest) return;
    note(line, Number(head.slice(9, 12)));
    const afterSeconds = group.isPatient ? /retry-after: (\d+)/i.exec(head)?.[1] : undefined;
    if (afterSeconds === undefined) free(line);
    else setTimeout(() => free(line), Number(afterSeconds) * 1_000);
  }

  function note(line: Line, status: number): void {
    const now = performance.now();
    line.isBusy = false;
    if (status === 200) {
      counts.ok++;
      okMs.push(now - line.sentMs);
      return;
    }
    if (status === 429) counts.status429++;
    else if (status === 503) counts.status503++;
    else counts.failed++;
    if (status !== 0) (now - startMs < 1_000 ? firstShedMs : shedMs).push(now - line.sentMs);
    const quarter = Math.min(badByQuarter.length - 1, Math.floor((now - startMs) / 250));
    badByQuarter[quarter] = (badByQuarter[quarter] ?? 0) + 1;
  }

  function free(line: Line): void {
    if (group.rate === 0 && !isOver() && performance.now() >= startMs) ask(line);
    else idle.push(line);
  }

  function ask(line: Line): void {
    line.isBusy = true;
    line.sentMs = performance.now();
    line.socket.write(line.bytes);
  }

  for (let i = 0; i < group.connections; i++) free(open(requestOf(group, i, port)));
  const beginMs = startMs + (group.from ?? 0) * 1_000;
  await sleepUntil(beginMs);
  if (group.rate === 0) for (const line of idle.splice(0)) ask(line);
  let sent = 0;
  while (group.rate > 0 && !isOver()) {
    const due = Math.floor(((performance.now() - beginMs) / 1_000) * group.rate);
    for (; sent < due; sent++) {
      const line = idle.shift();
      if (!line) break;
      ask(line);
    }
    counts.unsent += due - sent;
    sent = due;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await sleepUntil(endMs + 1_000);
  return { ...counts, okMs: quantiles(okMs), shedMs: quantiles(shedMs), firstShedMs: quantiles(firstShedMs), badByQuarter };
}

function requestOf({ callers, body }: LoadGroup, i: number, port: number): Buffer {
  const head = `POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n`;
  return Buffer.from(
    `${head}${callers[i % callers.length]}\r\n${body.replace("@id", `${i}`)}`.replace(
      /content-length: \d+/,
      `content-length: ${Buffer.byteLength(body.replace("@id", `${i}`))}`,
    ),
  );
}

function quantiles(times: number[]): Quantiles {
  times.sort((a, b) => a - b);
  const at = (part: number): number => times[Math.min(times.length - 1, Math.floor(times.length * part))] ?? 0;
  return { p50: at(0.5), p99: at(0.99) };
}

async function sleepUntil(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, ms - performance.now())));
}

if (process.argv[2]) await main(JSON.parse(process.argv[2]) as LoadPlan);
