// Runs the real programs: our two binaries from their sources, and the public MCP servers. Each ends when its owner lets go.
import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "./eventually.ts";

export const root = join(import.meta.dirname, "../..");
const startMs = 30_000;
const outputCharactersMax = 4 * 1024 * 1024;

/** A program that runs until it is stopped. */
export interface RunningProcess extends AsyncDisposable {
  readonly pid: number;
  stdout(): string;
  stderr(): string;
  /** Exit code once it ended; -1 when a signal ended it. */
  readonly ended: Promise<number>;
  /** SIGTERM, then SIGKILL after 10 s. Gives the exit code. */
  stop(): Promise<number>;
  kill(signal: NodeJS.Signals): void;
}

export interface ProcessOptions {
  readonly env?: Record<string, string>;
  readonly cwd?: string;
}

// Snapshots of one test are nothing to start from for another.
const ownEnv = { VMCP_STATE_DIR: "none" };

const running = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** Starts a program. It is killed when this process exits, whatever happens. */
export function startProcess(command: string, args: readonly string[], options: ProcessOptions = {}): RunningProcess {
  const child = spawn(command, [...args], {
    cwd: options.cwd ?? root,
    env: { ...process.env, ...ownEnv, ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = { stdout: capture(child, "stdout"), stderr: capture(child, "stderr") };
  running.add(child);
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      running.delete(child);
      resolve(code ?? -1);
    });
  });
  ended.catch(() => undefined); // who waits for it sees it
  async function stop(): Promise<number> {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
    return ended.finally(() => clearTimeout(timer));
  }
  return {
    pid: child.pid ?? -1,
    ...output,
    ended,
    stop,
    kill: (signal) => void child.kill(signal),
    [Symbol.asyncDispose]: async () => void (await stop()),
  };
}

function capture(child: ChildProcess, name: "stdout" | "stderr"): () => string {
  let text = "";
  child[name]?.on("data", (chunk: Buffer) => {
    text = (text + chunk).slice(-outputCharactersMax);
  });
  return () => text;
}

/** What a program that ran to its end left. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, at most `ms` (default 60,000). */
export async function runProcess(
  command: string,
  args: readonly string[],
  options: ProcessOptions & { ms?: number } = {},
): Promise<Finished> {
  const child = startProcess(command, args, options);
  const timer = setTimeout(() => child.kill("SIGKILL"), options.ms ?? 60_000);
  const code = await child.ended.finally(() => clearTimeout(timer));
  return { code, stdout: child.stdout(), stderr: child.stderr() };
}

/** Runs `vmcp …` to its end. */
export const runVmcp = (args: readonly string[], options: ProcessOptions & { ms?: number } = {}): Promise<Finished> =>
  runProcess(process.execPath, [join(root, "cli/vmcp.ts"), ...args], options);

/** Runs `vmcpctl … ` against a control plane to its end. */
export const runVmcpctl = (server: string, args: readonly string[]): Promise<Finished> =>
  runProcess(process.execPath, [join(root, "cli/vmcpctl.ts"), ...args], { env: { VMCP_SERVER: server } });

/** A `vmcp serve`, `control-plane` or `proxy` that listens. */
export interface RunningVmcp extends RunningProcess {
  /** Of the proxy, `http://127.0.0.1:PORT`; empty for a control plane. */
  readonly address: string;
  /** Of the control plane, `HOST:PORT`; empty for a proxy. */
  readonly adminAddress: string;
  /** Every log line so far, parsed. */
  logs(): LogLine[];
}

export type LogLine = Record<string, unknown> & { readonly msg?: string };

/** Starts `vmcp …` and waits until it listens; with `isReady` (default, when it has a proxy) also until `/readyz` says so. */
export async function startVmcp(
  args: readonly string[],
  options: ProcessOptions & { isReady?: boolean } = {},
): Promise<RunningVmcp> {
  const child = startProcess(process.execPath, [join(root, "cli/vmcp.ts"), ...args], options);
  const logs = () => child.stderr().split("\n").flatMap(parseLine);
  let code: number | undefined;
  child.ended.then(
    (ended) => {
      code = ended;
    },
    () => {
      code = -1;
    },
  );
  // A program that ended will never do what is waited for.
  const until = async <T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>): Promise<T> => {
    const value = await eventually<T | "ended">(what, async () => (code === undefined ? probe() : "ended"), startMs);
    if (value === "ended") throw new Error(`vmcp ${args.join(" ")} ended with ${code}: ${child.stdout()}`);
    return value;
  };
  try {
    const { address, adminAddress } = await until(`vmcp ${args[0]} listens`, () => findAddresses(args[0], logs()));
    if (address && options.isReady !== false) {
      await until(`${address}/readyz answers 200`, async () => (await fetch(`${address}/readyz`)).status === 200);
    }
    return { ...child, address, adminAddress, logs };
  } catch (error) {
    await child.stop();
    throw new Error(`${(error as Error).message}\n${child.stderr().slice(-4_000)}`, { cause: error });
  }
}

function findAddresses(command: string | undefined, logs: readonly LogLine[]) {
  const address = String(logs.find(({ msg }) => msg === "listening")?.address ?? "");
  const adminAddress = String(logs.find((line) => line.adminAddress !== undefined)?.adminAddress ?? "");
  const isUp = (command === "control-plane" || address !== "") && (command === "proxy" || adminAddress !== "");
  return isUp ? { address, adminAddress } : undefined;
}

function parseLine(line: string): LogLine[] {
  try {
    return line.startsWith("{") ? [JSON.parse(line) as LogLine] : [];
  } catch {
    return [];
  }
}

/** A server in a process of its own. */
export interface RunningServer extends RunningProcess {
  readonly url: string;
  readonly port: number;
}

/** A real `server-everything` over streamable HTTP. */
export const startEverything = (): Promise<RunningServer> => startEverythingAs("streamableHttp", "/mcp");

/** A real `server-everything` over HTTP+SSE. */
export const startEverythingSse = (): Promise<RunningServer> => startEverythingAs("sse", "/sse");

async function startEverythingAs(transport: string, path: string): Promise<RunningServer> {
  const port = await freePort();
  const script = join(root, "node_modules/@modelcontextprotocol/server-everything/dist/index.js");
  const child = startProcess(process.execPath, [script, transport], { env: { PORT: String(port) } });
  // Any answer will do: the root is a route of neither transport.
  await eventually("server-everything answers", async () => (await fetch(`http://127.0.0.1:${port}/`)).status > 0, startMs);
  return { ...child, url: `http://127.0.0.1:${port}${path}`, port };
}

/** The command and arguments of an installed stdio server. */
export function stdioServer(
  name: "memory" | "filesystem" | "everything",
  ...args: string[]
): { command: string; args: string[] } {
  return {
    command: process.execPath,
    args: [join(root, `node_modules/@modelcontextprotocol/server-${name}/dist/index.js`), ...args],
  };
}

/** A port that was free a moment ago, for programs that can't be told "any". */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/**
 * A free port for a server that will go away and come back on it. Outgoing connections get their ports from 32,768 on; this one
 * is below, so that none of them takes it meanwhile.
 */
export async function lastingPort(): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 32_000);
    const server = createServer().listen(port, "127.0.0.1");
    const isFree = await once(server, "listening").then(
      () => true,
      () => false,
    );
    server.close();
    if (isFree) return port;
  }
}

/** A directory that goes away with its owner. */
export async function temporaryDirectory(): Promise<
  AsyncDisposable & { readonly path: string; write(name: string, text: string): Promise<string> }
> {
  const path = await mkdtemp(join(tmpdir(), "vmcp-test-"));
  return {
    path,
    write: async (name, text) => {
      await writeFile(join(path, name), text);
      return join(path, name);
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}
