// A server that we start ourselves and speak to over its standard input and output, one JSON message per line.
// Source: MCP 2025-11-25, transports, stdio; and basic/lifecycle, shutdown (close stdin, SIGTERM, SIGKILL).
//
// The SDK's transport parses and re-serialises every message, which changes integers beyond 2^53; and it ends one process, while
// `npx some-server` is several. So the framing is ours, on bytes, and the child leads a process group that dies as a whole.
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import { createLineReader, printable } from "./lines.ts";
import type { Pipe, PipeEvents } from "./pipe.ts";

/** What to start. */
export interface StdioOptions {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Added to a minimal environment; the proxy's own is never handed on, it may hold secrets. */
  readonly env: Readonly<Record<string, string>>;
  /** Default: the proxy's own. */
  readonly cwd?: string | undefined;
  readonly log: Log;
  /** Milliseconds a server gets to end by itself, and again after SIGTERM. Default 2000. */
  readonly graceMs?: number;
}

const messageBytesMax = 16 * 1024 * 1024;
const stderrLineBytesMax = 64 * 1024;
const drainMs = 500;
const inherited = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "TZ", "TMPDIR", "TEMP", "TMP"];

/** Starts the program; rejects with a sentence when it does not start. It is not restarted: `onClose` tells that it ended. */
export async function openStdio(options: StdioOptions, events: PipeEvents): Promise<Pipe> {
  const { name, command, args, log, graceMs = 2_000 } = options;
  const child = spawn(command, [...args], {
    cwd: options.cwd,
    env: { ...minimalEnvironment(), ...options.env },
    detached: true, // leads a process group of its own
    shell: false,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const pid = await started(child, options);
  const ownLog = log.child({ backend: name, pid });
  let isEnding = false;
  let failure: Error | undefined;
  let lastWords: string | undefined;
  livingGroups.add(pid);
  killGroupsWithProcess();

  function fail(error: Error): void {
    failure ??= error;
    signalGroup(pid, "SIGKILL");
  }

  const readStdout = createLineReader(messageBytesMax, (line) => {
    if (isEnding || failure) return;
    if (looksLikeMessage(line)) events.onMessage(line);
    else ownLog.debug({ line: printable(line) }, "not a message on standard output, skipped");
  });
  child.stdout.on("data", (chunk: Buffer) => {
    if (!failure) attempt(() => readStdout(chunk), fail);
  });
  const readStderr = createLineReader(stderrLineBytesMax, (line) => {
    lastWords = printable(line);
    ownLog.debug({ line: lastWords }, "standard error");
  });
  let isStderrRead = true;
  child.stderr.on("data", (chunk: Buffer) => {
    // Past its bound the rest is drained unread: a full pipe would stop the server.
    if (isStderrRead) {
      attempt(
        () => readStderr(chunk),
        () => {
          isStderrRead = false;
        },
      );
    }
  });
  for (const stream of [child.stdin, child.stdout, child.stderr]) {
    stream.on("error", (error) => ownLog.debug({ err: error }, "a standard stream broke"));
  }

  const ended = new Promise<void>((resolve) => {
    child.once("exit", (code, signal) => {
      // What the leader started must not outlive it, nor hold the pipes open.
      signalGroup(pid, "SIGKILL");
      livingGroups.delete(pid);
      const reason = failure ?? new Error(`"${name}" ended ${signal ? `by signal ${signal}` : `with exit code ${code}`}`);
      void isSettledWithin(streamsClosed(child), drainMs).then(() => {
        if (!isEnding) ownLog.warn({ reason: reason.message, lastWords }, "stdio server ended");
        events.onClose(isEnding ? undefined : reason);
        resolve();
      });
    });
  });

  child.stdout.once("end", async () => {
    if (!(await isSettledWithin(ended, graceMs))) fail(new Error(`"${name}" closed its standard output`));
  });

  async function end(): Promise<void> {
    isEnding = true;
    child.stdin.end();
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      if (await isSettledWithin(ended, graceMs)) return;
      signalGroup(pid, signal);
    }
    await isSettledWithin(ended, drainMs + drainMs);
  }

  let ending: Promise<void> | undefined;
  return {
    send: (message) => write(child, name, message),
    close: () => {
      ending ??= end();
      return ending;
    },
  };
}

function minimalEnvironment(): Record<string, string> {
  const entries = inherited.map((key) => [key, process.env[key]] as const);
  return Object.fromEntries(entries.filter((entry): entry is [string, string] => entry[1] !== undefined));
}

async function started(child: ChildProcessWithoutNullStreams, options: StdioOptions): Promise<number> {
  const failure = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    child.once("spawn", () => resolve(undefined));
    child.once("error", resolve);
  });
  if (!failure && child.pid !== undefined) return child.pid;
  throw new Error(`cannot start "${options.name}": ${await explain(failure, options)}`, { cause: failure });
}

async function explain(failure: NodeJS.ErrnoException | undefined, { command, cwd }: StdioOptions): Promise<string> {
  if (failure?.code === "EACCES") return `no permission to run "${command}"`;
  if (failure?.code !== "ENOENT") return failure?.message ?? "the system gave no reason";
  // The system reports a missing working directory as a missing program.
  if (cwd !== undefined && !(await isDirectory(cwd))) return `its working directory "${cwd}" does not exist`;
  return command.includes("/") ? `"${command}" does not exist` : `"${command}" is not on the PATH`;
}

async function isDirectory(path: string): Promise<boolean> {
  const entry = await stat(path).catch(() => undefined);
  return entry?.isDirectory() ?? false;
}

function write(child: ChildProcessWithoutNullStreams, name: string, message: Buffer): Promise<void> {
  const { stdin } = child;
  if (!stdin.writable) return Promise.reject(new Error(`"${name}" no longer reads`));
  if (stdin.writableLength + message.length > messageBytesMax) {
    return Promise.reject(new Error(`"${name}" does not read what it is sent: ${stdin.writableLength} bytes wait`));
  }
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  stdin.write(Buffer.concat([onOneLine(message), newline]), (error) => (error ? reject(error) : resolve()));
  return promise;
}

// Inside JSON a bare line end is white space only. Left in, it would let a sender smuggle in a second message.
function onOneLine(message: Buffer): Buffer {
  if (!message.includes(0x0a) && !message.includes(0x0d)) return message;
  return Buffer.from(message.map((byte) => (byte === 0x0a || byte === 0x0d ? 0x20 : byte)));
}
const newline = Buffer.from("\n");

// Programs print banners; only what can be a JSON object is handed on, and its reader judges the rest.
function looksLikeMessage(line: Buffer): boolean {
  const text = line.toString("latin1", 0, 16).trimStart();
  return (
    text.startsWith("{") &&
    line
      .toString("latin1", Math.max(0, line.length - 16))
      .trimEnd()
      .endsWith("}")
  );
}

function streamsClosed(child: ChildProcessWithoutNullStreams): Promise<void> {
  return new Promise((resolve) => {
    child.once("close", () => resolve());
  });
}

async function isSettledWithin(promise: Promise<void>, ms: number): Promise<boolean> {
  const timer = new AbortController();
  const late = sleep(ms, false, { signal: timer.signal, ref: false }).catch(() => false);
  const isSettled = await Promise.race([promise.then(() => true), late]);
  timer.abort();
  return isSettled;
}

function attempt(step: () => void, onError: (error: Error) => void): void {
  try {
    step();
  } catch (error) {
    onError(error instanceof Error ? error : new Error(String(error)));
  }
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: nobody is left in the group.
  }
}

// A process has one exit, so its groups are known in one place. A proxy that is killed outright cannot do this; then its
// children read the end of their input, which tells them to stop.
const livingGroups = new Set<number>();
let isWatchingExit = false;

function killGroupsWithProcess(): void {
  if (isWatchingExit) return;
  isWatchingExit = true;
  process.once("exit", () => {
    for (const pid of livingGroups) signalGroup(pid, "SIGKILL");
  });
}
