// Real Redis servers on loopback, each a process of its own: one alone, a primary with a replica watched by Sentinels, a cluster.
// They keep nothing on disk: a server that was stopped or killed comes back empty.
import { connect } from "node:net";
import { programPath } from "./debian.ts";
import { eventually } from "./eventually.ts";
import { lastingPort, type RunningProcess, startProcess, temporaryDirectory } from "./processes.ts";

/** A Redis server, which may be down meanwhile. */
export interface RedisServer extends AsyncDisposable {
  /** `redis://127.0.0.1:PORT` */
  readonly url: string;
  readonly port: number;
  /** Of the process that was started last. */
  readonly pid: number;
  /** SIGSTOP and SIGCONT make it hang and go on; SIGKILL is over only when `ended` is. */
  kill(signal: NodeJS.Signals): void;
  /** Settles once the process that was started last is gone. */
  readonly ended: Promise<unknown>;
  /** Ends it in its own good time. */
  stop(): Promise<void>;
  /** Kills it if it still runs, and starts it on the same port. */
  restart(): Promise<void>;
}

export interface RedisOptions {
  /** Further arguments of redis-server, such as `["--maxmemory", "2mb"]`. */
  readonly args?: readonly string[];
  /** Default: a free one. */
  readonly port?: number;
}

const startMs = 10_000;

/** Starts a server and waits until it answers. */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const port = options.port ?? (await lastingPort());
  const memoryOnly = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
  return startServer(port, () => ["--port", String(port), ...memoryOnly, ...(options.args ?? [])]);
}

/** `argsIn` gives the arguments, from the path of the server's own directory. */
async function startServer(port: number, argsIn: (directory: string) => readonly string[]): Promise<RedisServer> {
  const program = await programPath("redis-server", "redis-server");
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const args = [...argsIn(path), "--dir", path, "--bind", "127.0.0.1"];
  let child: RunningProcess;

  async function start(): Promise<void> {
    child = startProcess(program, args, { cwd: path });
    try {
      await eventually(`redis ${port} answers`, async () => (await askRedis(port, ["PING"])) === "PONG", startMs);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${child.stdout().slice(-2_000)}`, { cause: error });
    }
  }

  // Nothing is lost by haste, and a polite end would wait for replicas that hang.
  async function end(): Promise<void> {
    child?.kill("SIGKILL");
    await child?.ended;
  }

  stack.defer(end);
  await start();
  const owned = stack.move();
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    get pid() {
      return child.pid;
    },
    get ended() {
      return child.ended;
    },
    kill: (signal) => child.kill(signal),
    stop: async () => void (await child.stop()),
    restart: async () => {
      await end();
      await start();
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** A primary, its replica, and three Sentinels of which two must agree. */
export interface SentinelSetup extends AsyncDisposable {
  /** `127.0.0.1:PORT` of each Sentinel. */
  readonly sentinels: readonly string[];
  /** What the Sentinels call the primary. */
  readonly name: string;
  /** The one that began as primary, then the one that began as replica. */
  readonly servers: readonly [RedisServer, RedisServer];
  /** The processes of `sentinels`, in the same order. */
  readonly sentinelServers: readonly RedisServer[];
  /** Who is primary now, as the Sentinels say that answer. It may be down, until another is promoted. */
  primary(): Promise<RedisServer>;
  /** The other one. */
  replica(): Promise<RedisServer>;
}

const sentinelName = "vmcp";

/**
 * Starts them and waits until every Sentinel knows all the others. A primary is taken for down after 1 s without an answer;
 * the replica is promoted about a second later.
 */
export async function startSentinels(options: { readonly args?: readonly string[] } = {}): Promise<SentinelSetup> {
  await using stack = new AsyncDisposableStack();
  const first = stack.use(await startRedis(options));
  const replicaOf = ["--replicaof", "127.0.0.1", String(first.port)];
  const second = stack.use(await startRedis({ args: [...replicaOf, ...(options.args ?? [])] }));
  // Sentinels look for replicas only every 10 s after their first look.
  await eventually(`${second.port} replicates`, async () => (await info(second)).includes("master_link_status:up"), startMs);
  const sentinelServers: RedisServer[] = [];
  for (let i = 0; i < 3; i++) sentinelServers.push(stack.use(await startSentinel(first.port)));
  for (const { port } of sentinelServers) await eventually(`Sentinel ${port} knows the others`, () => knowsAll(port), startMs);
  const servers = [first, second] as const;

  async function primary(): Promise<RedisServer> {
    const answers = await Promise.allSettled(sentinelServers.map((sentinel) => askSentinel(sentinel.port)));
    const views = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
    // Some hear of a failover later than others. Each failover has a higher epoch than the one before.
    const newest = views.reduce((one, other) => (Number(other["config-epoch"]) > Number(one["config-epoch"]) ? other : one));
    const found = servers.find(({ port }) => port === Number(newest.port));
    if (!found) throw new Error(`a Sentinel names port ${newest.port}, which is none of ours`);
    return found;
  }

  const owned = stack.move();
  return {
    sentinels: sentinelServers.map(({ port }) => `127.0.0.1:${port}`),
    name: sentinelName,
    servers,
    sentinelServers,
    primary,
    replica: async () => ((await primary()) === first ? second : first),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function startSentinel(primary: number): Promise<RedisServer> {
  const port = await lastingPort();
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const path = await directory.write(
    "sentinel.conf",
    `port ${port}
sentinel monitor ${sentinelName} 127.0.0.1 ${primary} 2
sentinel down-after-milliseconds ${sentinelName} 1000
sentinel failover-timeout ${sentinelName} 5000
`,
  );
  const server = stack.use(await startServer(port, () => [path, "--sentinel"]));
  const owned = stack.move();
  return Object.defineProperty(server, Symbol.asyncDispose, { value: () => owned.disposeAsync() });
}

async function knowsAll(sentinel: number): Promise<boolean> {
  const view = await askSentinel(sentinel);
  return view["num-slaves"] === "1" && view["num-other-sentinels"] === "2";
}

/** What a Sentinel knows of the primary. */
async function askSentinel(sentinel: number): Promise<Readonly<Record<string, string>>> {
  const words = (await askRedis(sentinel, ["SENTINEL", "MASTER", sentinelName])) as readonly string[];
  return Object.fromEntries(words.flatMap((word, i) => (i % 2 === 0 ? [[word, words[i + 1] ?? ""]] : [])));
}

const info = async ({ port }: RedisServer): Promise<string> => String(await askRedis(port, ["INFO", "replication"]));

const slots = 16_384;

/** Servers that share the keys out among them. */
export interface RedisCluster extends AsyncDisposable {
  readonly nodes: readonly RedisServer[];
  /** Of each node. */
  readonly urls: readonly string[];
}

/** Starts a cluster of three primaries without replicas, and waits until each of them finds it whole. */
export async function startRedisCluster(options: { readonly args?: readonly string[] } = {}): Promise<RedisCluster> {
  await using stack = new AsyncDisposableStack();
  const nodes: RedisServer[] = [];
  const busPorts: string[] = [];
  for (let i = 0; i < 3; i++) {
    // Its default is 10,000 more than the other port, where somebody else may listen.
    const busPort = String(await lastingPort());
    const args = ["--cluster-enabled", "yes", "--cluster-port", busPort, ...(options.args ?? [])];
    nodes.push(stack.use(await startRedis({ args })));
    busPorts.push(busPort);
  }
  // What `redis-cli --cluster create` does, which takes 8 s because it leaves most introductions to gossip.
  for (const [i, { port }] of nodes.entries()) {
    const range = [i, i + 1].map((at) => Math.floor((at * slots) / nodes.length));
    await askRedis(port, ["CLUSTER", "ADDSLOTSRANGE", String(range[0]), String((range[1] as number) - 1)]);
    await askRedis(port, ["CLUSTER", "SET-CONFIG-EPOCH", String(i + 1)]);
  }
  for (const { port } of nodes)
    for (const [i, other] of nodes.entries())
      await askRedis(port, ["CLUSTER", "MEET", "127.0.0.1", String(other.port), busPorts[i] as string]);
  for (const { port } of nodes) {
    const isWhole = async () => String(await askRedis(port, ["CLUSTER", "INFO"])).includes("cluster_state:ok");
    await eventually(`node ${port} finds the cluster whole`, isWhole, startMs);
  }
  const owned = stack.move();
  return { nodes, urls: nodes.map(({ url }) => url), [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** What Redis answers; a nil is undefined. */
export type RedisReply = string | number | undefined | readonly RedisReply[];

const replyMs = 1_000;

/** One command on a connection of its own, ASCII only. Throws what Redis answers as an error, and after 1 s without an answer. */
export async function askRedis(port: number, command: readonly string[]): Promise<RedisReply> {
  const socket = connect(port, "127.0.0.1").setEncoding("latin1").setTimeout(replyMs);
  socket.on("timeout", () => socket.destroy(new Error(`redis ${port} does not answer ${command[0]}`)));
  socket.write(`*${command.length}\r\n${command.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`);
  let text = "";
  for await (const chunk of socket) {
    text += chunk;
    const read = readReply(text);
    if (read) return read.value; // leaving the loop closes the connection
  }
  throw new Error(`redis ${port} closed the connection before it answered ${command[0]}`);
}

/** Reads one reply of RESP 2; undefined while some of it is missing. */
function readReply(text: string): { readonly value: RedisReply; readonly rest: string } | undefined {
  const end = text.indexOf("\r\n");
  if (end < 0) return undefined;
  const line = text.slice(1, end);
  const rest = text.slice(end + 2);
  switch (text[0]) {
    case "+":
      return { value: line, rest };
    case ":":
      return { value: Number(line), rest };
    case "$":
      if (line === "-1") return { value: undefined, rest };
      return rest.length < Number(line) + 2
        ? undefined
        : { value: rest.slice(0, Number(line)), rest: rest.slice(Number(line) + 2) };
    case "*":
      return line === "-1" ? { value: undefined, rest } : readReplies(Number(line), rest);
    default:
      throw new Error(line);
  }
}

function readReplies(count: number, text: string) {
  const value: RedisReply[] = [];
  let rest = text;
  for (let i = 0; i < count; i++) {
    const item = readReply(rest);
    if (!item) return undefined;
    value.push(item.value);
    rest = item.rest;
  }
  return { value, rest };
}
