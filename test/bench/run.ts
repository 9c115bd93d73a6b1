// What a call costs, processor time of the proxy's process: this gateway beside nginx's `proxy_pass`, the least that forwards in Node, and
// the SDK's server on the SDK's client. All are in front of the same server and take turns, so that a busy machine is busy for all;
// ratios of one run are the point, absolutes drift with the machine. `npm run bench -- [--rounds N] [--calls N] [--compare FILE]`.
// Prints a table, with --json FILE also writes it there, and exits with 1 when a bound is broken.
import { readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Pool } from "undici";
import { mcpHeaders } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { programPath } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { startIssuer } from "../support/issuer.ts";
import { freePort, startProcess, temporaryDirectory } from "../support/processes.ts";
import { serve } from "../support/serve.ts";
import { headersFor, requestText } from "../support/stateless-client.ts";
import { bound, cpuOf, median, say } from "./measure.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    calls: { type: "string", default: "5000" },
    json: { type: "string" },
    compare: { type: "string" },
  },
});
const [rounds, calls] = [Number(values.rounds), Number(values.calls)];
const atOnce = 32;
const toolsCount = 1_000;

await using stack = new AsyncDisposableStack();

/** One of the programs beside this one that tells its port. */
async function start(script: string, ...args: string[]): Promise<{ origin: string; pid: number }> {
  const child = stack.use(startProcess(process.execPath, [join(import.meta.dirname, script), ...args]));
  await eventually(`${script} listens`, async () => child.stdout().includes("\n"));
  return { origin: `http://127.0.0.1:${child.stdout().trim()}`, pid: child.pid };
}

interface Proxy {
  readonly name: string;
  readonly pid: number;
  readonly pool: Pool;
  /** Of each of the sessions that call at once. */
  readonly sessions: readonly Readonly<Record<string, string>>[];
  readonly prefix: string;
}

const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "bench", version: "1" } };
const initialize = JSON.stringify({ jsonrpc: "2.0", id: 0, method: "initialize", params });
const initialized = '{"jsonrpc":"2.0","method":"notifications/initialized"}';

async function openSession(
  name: string,
  pool: Pool,
  more: Readonly<Record<string, string>> = {},
): Promise<Record<string, string>> {
  const opening = { ...mcpHeaders, ...more };
  const answer = await pool.request({ path: "/mcp", method: "POST", headers: opening, body: initialize });
  if (answer.statusCode !== 200) throw new Error(`${name}: initialize: ${answer.statusCode} ${await answer.body.text()}`);
  await answer.body.dump();
  const id = answer.headers["mcp-session-id"];
  const session = { ...opening, "mcp-protocol-version": "2025-11-25", ...(typeof id === "string" && { "mcp-session-id": id }) };
  await (await pool.request({ path: "/mcp", method: "POST", headers: session, body: initialized })).body.dump();
  return session;
}

async function proxyAt(name: string, origin: string, pid: number, prefix = "", headers = {}): Promise<Proxy> {
  const pool = new Pool(origin, { connections: atOnce, headersTimeout: 20_000 });
  stack.defer(() => pool.destroy());
  const sessions = [];
  for (let i = 0; i < atOnce; i++) sessions.push(await openSession(name, pool, headers));
  return { name, pid, pool, sessions, prefix };
}

interface Workload {
  readonly name: string;
  readonly bodyFor: (prefix: string, id: number) => string;
  /** Fewer where a call is heavy. */
  readonly share: number;
  readonly leastBytes: number;
  /** In place of a session's. */
  readonly headersFor?: (prefix: string) => Readonly<Record<string, string>>;
  /** A session of its own every ten calls: it is opened, and ended. */
  readonly isChurn?: boolean;
  /** Our server verifies the caller's token, and shows the server behind it one that it exchanged for that. */
  readonly isGuarded?: boolean;
  /** Those that can't do it. */
  readonly without?: readonly string[];
}

const call = (tool: string, share: number, leastBytes: number): Workload => ({
  name: tool,
  share,
  leastBytes,
  bodyFor: (prefix, id) =>
    `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"${prefix}${tool}","arguments":{"text":"${"x".repeat(160)}"},"_meta":{"progressToken":"p"}}}`,
});
const workloads: readonly Workload[] = [
  call("small", 1, 60),
  { ...call("small", 0.5, 60), name: "signed in", isGuarded: true },
  { ...call("small", 0.5, 60), name: "churn", isChurn: true },
  {
    name: "stateless",
    share: 0.5,
    leastBytes: 60,
    bodyFor: (prefix, id) =>
      requestText("tools/call", { name: `${prefix}small`, arguments: { text: "x".repeat(160) } }, { id: `${id}` }),
    headersFor: (prefix) => headersFor("tools/call", { name: `${prefix}small` }),
    without: ["SDK"],
  },
  call("4k", 1, 4_096),
  call("100k", 0.25, 100 * 1024),
  call("1m", 0.04, 1024 * 1024),
  call("events", 0.5, 60),
  {
    name: `list ${toolsCount}`,
    share: 0.1,
    leastBytes: 100_000,
    bodyFor: (_, id) => `{"jsonrpc":"2.0","id":${id},"method":"tools/list","params":{}}`,
  },
];

let nextId = 0;

async function callMany(proxy: Proxy, workload: Workload, many: number): Promise<void> {
  const { name, pool, sessions, prefix } = proxy;
  let left = many;

  async function callOnce(headers: Readonly<Record<string, string>>): Promise<void> {
    const answer = await pool.request({ path: "/mcp", method: "POST", headers, body: workload.bodyFor(prefix, ++nextId) });
    const bytes = (await answer.body.arrayBuffer()).byteLength;
    if (answer.statusCode !== 200 || bytes < workload.leastBytes)
      throw new Error(`${name}, ${workload.name}: ${answer.statusCode} with ${bytes} bytes`);
  }

  /** Of ten calls. Not everybody has sessions to end. */
  async function comeAndGo(): Promise<void> {
    const headers = await openSession(name, pool);
    for (let i = 0; i < 10 && left-- > 0; i++) await callOnce(headers);
    await (await pool.request({ path: "/mcp", method: "DELETE", headers })).body.dump();
  }

  await Promise.all(
    sessions.map(async (session) => {
      const headers = workload.headersFor?.(prefix) ?? session;
      while (left > 0) {
        if (workload.isChurn) await comeAndGo();
        else if (left-- > 0) await callOnce(headers);
      }
    }),
  );
}

const canned = await start("canned-backend.ts", `${toolsCount}`);
const listBytes = await fetch(`${canned.origin}/mcp`, {
  method: "POST",
  headers: mcpHeaders,
  body: (workloads.at(-1) as Workload).bodyFor("", 1),
}).then((answer) => answer.text());
const nginx = await startNginx(canned.origin, listBytes);
const bare = await start("bare-forwarder.ts", canned.origin);
const sdk = await start("sdk-proxy.ts", `${canned.origin}/mcp`);
const vmcp = stack.use(await serve({ backends: [httpBackend("one", `${canned.origin}/mcp`)] }));
const ours = await proxyAt("vmcp", vmcp.address, vmcp.pid, "one_");
await eventually("the backend is listed", async () => {
  const body = (workloads.at(-1) as Workload).bodyFor("", 0);
  const answer = await ours.pool.request({ path: "/mcp", method: "POST", headers: ours.sessions[0] ?? {}, body });
  return (await answer.body.text()).includes("one_small");
});
const guarded = await startGuarded(`${canned.origin}/mcp`);
const proxies = [
  await proxyAt("nginx", nginx.origin, nginx.pid),
  await proxyAt("bare", bare.origin, bare.pid),
  ours,
  await proxyAt("SDK", sdk.origin, sdk.pid),
];

/** Ours where callers sign in, and the server behind it is shown a token of its own. */
async function startGuarded(url: string): Promise<Proxy> {
  const secret = "gateway-secret-gateway";
  const audience = "https://vmcp.example";
  process.env.VMCP_BENCH_SECRET = secret;
  const issuer = stack.use(await startIssuer({ clients: [{ id: "gateway", secret }] }));
  const exchange = {
    tokenUrl: issuer.tokenUrl,
    clientId: "gateway",
    clientSecretEnv: "VMCP_BENCH_SECRET",
    audience: "https://upstream.example",
  };
  const running = stack.use(
    await serve(
      {
        backends: [httpBackend("one", url)],
        incomingAuth: { type: "oidc", oidc: { issuer: issuer.issuer, audience, insecureAllowHttp: true } },
        outgoingAuth: { source: "inline", default: { type: "token_exchange", tokenExchange: exchange } },
      },
      ["--sessions-per-caller", "64"],
    ),
  );
  const token = await issuer.token({ sub: "ada", audience, expiresInSeconds: 3_600 });
  return proxyAt("vmcp", running.address, running.pid, "one_", { authorization: `Bearer ${token}` });
}

/** A real nginx with one worker in front of a server, and a file that it serves by itself at `/list`. */
async function startNginx(upstream: string, file: string): Promise<{ origin: string; pid: number }> {
  const program = await programPath("nginx", "nginx");
  const directory = stack.use(await temporaryDirectory());
  const port = await freePort();
  await directory.write("list", file);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  const path = await directory.write(
    "nginx.conf",
    `daemon off; worker_processes 1; pid ${directory.path}/nginx.pid; error_log stderr error;
    ${process.getuid?.() === 0 ? "user root;" : ""}
    events { worker_connections 1024; }
    http {
      access_log off; keepalive_requests 1000000;
      ${temporary.map((name) => `${name}_temp_path ${directory.path}/${name};`).join(" ")}
      upstream backend { server ${new URL(upstream).host} max_fails=0; keepalive 64; keepalive_requests 1000000; }
      server {
        listen 127.0.0.1:${port};
        location = /list { root ${directory.path}; default_type application/json; }
        location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; client_body_buffer_size 64k; }
      }
    }`,
  );
  const child = stack.use(startProcess(program, ["-p", directory.path, "-c", path, "-e", "stderr"], { cwd: directory.path }));
  const workers = async () => (await readFile(`/proc/${child.pid}/task/${child.pid}/children`, "utf8")).trim();
  await eventually("nginx has its worker", async () => (await workers()) !== "");
  return { origin: `http://127.0.0.1:${port}`, pid: Number(await workers()) };
}

type Table = Record<string, Record<string, number>>;

/** Microseconds a call, by workload and proxy: the median of the rounds. */
async function measure(): Promise<Table> {
  const table: Table = {};
  for (const workload of workloads) {
    const many = Math.ceil(calls * workload.share);
    const able = proxies.filter(({ name }) => !workload.without?.includes(name));
    const taking = able.map((proxy) => (workload.isGuarded && proxy === ours ? guarded : proxy));
    for (const proxy of taking) await callMany(proxy, workload, many); // warm
    const seen = new Map<string, number[]>(taking.map(({ name }) => [name, []]));
    for (let round = 0; round < rounds; round++)
      for (const proxy of taking) {
        const before = await cpuOf(proxy.pid);
        await callMany(proxy, workload, many);
        seen.get(proxy.name)?.push(((await cpuOf(proxy.pid)) - before) / many);
      }
    table[workload.name] = Object.fromEntries([...seen].map(([name, times]) => [name, Math.round(median(times) * 10) / 10]));
    report(workload.name, table[workload.name] as Record<string, number>);
  }
  return table;
}

/** The list as a file that nginx has. */
async function measureStatic(): Promise<number> {
  const pool = (proxies[0] as Proxy).pool;
  const times: number[] = [];
  for (let round = -1; round < rounds; round++) {
    const many = Math.ceil(calls * 0.2);
    const before = await cpuOf(nginx.pid);
    let left = many;
    await Promise.all(
      Array.from({ length: atOnce }, async () => {
        while (left-- > 0) await (await pool.request({ path: "/list", method: "GET" })).body.dump();
      }),
    );
    if (round >= 0) times.push(((await cpuOf(nginx.pid)) - before) / many);
  }
  return Math.round(median(times) * 10) / 10;
}

const columns = proxies.map(({ name }) => name);

function report(name: string, row: Record<string, number>): void {
  const [reference, , own] = columns.map((column) => row[column] ?? Number.NaN) as [number, number, number];
  const cells = columns.map((column) => `${row[column] ?? "-"}`.padStart(10));
  const ratios = [own / reference, own / (row.bare ?? Number.NaN), (row.SDK ?? Number.NaN) / own];
  say(
    `${name.padEnd(12)}${cells.join("")}   ${ratios.map((ratio) => (Number.isNaN(ratio) ? "-" : ratio.toFixed(2)).padStart(6)).join("")}`,
  );
}

say(`${"µs a call".padEnd(12)}${columns.map((column) => column.padStart(10)).join("")}   vmcp/nginx, vmcp/bare, SDK/vmcp`);
const table = await measure();
const staticList = await measureStatic();
say(`${`list ${toolsCount} as a file of nginx`.padEnd(32)}${staticList}`);

const of = (workload: string, column: string): number => table[workload]?.[column] ?? Number.NaN;
bound("small call, of nginx", of("small", "vmcp") / of("small", "nginx"), { atMost: 6.5 });
bound("small call, of bare Node and undici", of("small", "vmcp") / of("small", "bare"), { atMost: 1.4 });
bound("small call, of the SDK on the SDK", of("small", "vmcp") / of("small", "SDK"), { atMost: 1 / 6 });
bound("1 MB result, of bare Node and undici", of("1m", "vmcp") / of("1m", "bare"), { atMost: 1.2 });
bound(`list of ${toolsCount} tools, of a file of nginx`, of(`list ${toolsCount}`, "vmcp") / staticList, { atMost: 2 });

const machine = `${cpus().length} × ${cpus()[0]?.model}`;
if (values.json !== undefined)
  await writeFile(
    values.json,
    `${JSON.stringify({ machine, node: process.version, rounds, calls, table, staticList }, undefined, 2)}\n`,
  );
if (values.compare !== undefined) {
  const before = JSON.parse(await readFile(values.compare, "utf8")) as { table: Table };
  say("vmcp/bare, now and in the other run");
  for (const { name } of workloads) {
    const then = (before.table[name]?.vmcp ?? Number.NaN) / (before.table[name]?.bare ?? Number.NaN);
    say(`${name.padEnd(12)} ${(of(name, "vmcp") / of(name, "bare")).toFixed(2)}  ${then.toFixed(2)}`);
  }
}
