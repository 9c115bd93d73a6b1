// What a call costs the proxy, processor time of its process, with and without the two auth boundaries: one server takes anybody and
// shows nothing, the other verifies tokens and shows exchanged ones, both from their caches. They take turns, so that a busy
// machine is busy for both. `npm run bench:calls -- [--rounds N] [--calls N]`. Exits with 1 when the ratio is beyond its bound.
import { parseArgs } from "node:util";
import { Pool } from "undici";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { mcpHeaders } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { startIssuer } from "../support/issuer.ts";
import { serve } from "../support/serve.ts";
import { cpuOf, median } from "./measure.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "9" }, calls: { type: "string", default: "3000" } },
});
const [rounds, calls] = [Number(values.rounds), Number(values.calls)];
const atOnce = 32;
const ratioMax = 1.25;
const audience = "https://vmcp.example";

await using stack = new AsyncDisposableStack();
const backend = stack.use(await startBackend({ tools: [plainTool("echo")], calls: { echo: () => textResult("hello") } }));
const issuer = stack.use(await startIssuer({ clients: [{ id: "gateway", secret: "gateway-secret-gateway" }] }));
process.env.VMCP_BENCH_SECRET = "gateway-secret-gateway";
const backends = [httpBackend("one", backend.url)];
const open = stack.use(await serve({ backends }));
const guarded = stack.use(
  await serve({
    backends,
    incomingAuth: { type: "oidc", oidc: { issuer: issuer.issuer, audience, insecureAllowHttp: true } },
    outgoingAuth: {
      source: "inline",
      default: {
        type: "token_exchange",
        tokenExchange: {
          tokenUrl: issuer.tokenUrl,
          clientId: "gateway",
          clientSecretEnv: "VMCP_BENCH_SECRET",
          audience: "https://upstream.example",
        },
      },
    },
  }),
);

interface Lane {
  readonly name: string;
  readonly pid: number;
  readonly pool: Pool;
  readonly headers: Readonly<Record<string, string>>;
  readonly microseconds: number[];
}

/** A session on a server, ready to call. */
async function laneOf(name: string, { url, pid }: { url: string; pid: number }, token?: string): Promise<Lane> {
  const { origin } = new URL(url);
  const pool = new Pool(origin, { connections: atOnce });
  stack.defer(() => pool.destroy());
  const headers = { ...mcpHeaders, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) };
  const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "bench", version: "1" } };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 0, method: "initialize", params });
  const answer = await pool.request({ path: "/mcp", method: "POST", headers, body });
  const text = await answer.body.text();
  if (answer.statusCode !== 200) throw new Error(`${name}: initialize was answered ${answer.statusCode} ${text}`);
  const session = { "mcp-session-id": String(answer.headers["mcp-session-id"]), "mcp-protocol-version": "2025-11-25" };
  return { name, pid, pool, headers: { ...headers, ...session }, microseconds: [] };
}

async function call({ name, pool, headers }: Lane, id: number): Promise<void> {
  const params = { name: "one_echo", arguments: { text: "x".repeat(200) } };
  const body = JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params });
  const answer = await pool.request({ path: "/mcp", method: "POST", headers, body });
  const text = await answer.body.text();
  if (answer.statusCode !== 200 || !text.includes("hello")) throw new Error(`${name}: ${answer.statusCode} ${text}`);
}

async function callMany(lane: Lane, many: number): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (next < many) await call(lane, ++next);
    }),
  );
}

const token = await issuer.token({ sub: "ada", audience, expiresInSeconds: 3_600 });
const lanes = [await laneOf("anonymous", open), await laneOf("oidc and token exchange", guarded, token)];
for (const lane of lanes) await callMany(lane, calls); // warm
for (let round = 0; round < rounds; round++)
  for (const lane of lanes) {
    const before = await cpuOf(lane.pid);
    await callMany(lane, calls);
    lane.microseconds.push(((await cpuOf(lane.pid)) - before) / calls);
  }
const [base, full] = lanes.map(({ microseconds }) => median(microseconds)) as [number, number];
for (const { name, microseconds } of lanes)
  process.stdout.write(
    `${name}: ${median(microseconds).toFixed(0)} µs a call (${microseconds.map((one) => one.toFixed(0)).join(" ")})\n`,
  );
const ratio = full / base;
process.stdout.write(`ratio ${ratio.toFixed(2)}, ${ratioMax} at most; token exchanges: ${issuer.tokenRequests.length}\n`);
if (ratio > ratioMax) process.exitCode = 1;
