// `npm run demo`: real servers behind a real `vmcp serve`, visited by a real client. `--once` ends after the tour.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openClient, type SdkClient } from "../../test/support/client.ts";
import { eventually } from "../../test/support/eventually.ts";
import { type RunningVmcp, startEverything, startVmcp } from "../../test/support/processes.ts";
import { bold, dim, seconds, step, table } from "./terminal.ts";

const configPath = join(import.meta.dirname, "../examples/demo.yaml");
const adminPort = 7400;
const startupMs = 60_000;

/** One call per backend; `answer` picks what to show. */
const visits = [
  { backend: "everything", transport: "streamable-http", tool: "echo", args: () => ({ message: "hello through the mesh" }) },
  {
    backend: "filesystem",
    transport: "stdio",
    tool: "read_text_file",
    args: (directory: string) => ({ path: join(directory, "welcome.txt") }),
  },
  {
    backend: "memory",
    transport: "stdio",
    tool: "create_entities",
    args: () => ({ entities: [{ name: "vmcp", entityType: "software", observations: ["aggregates MCP servers"] }] }),
  },
] as const;

const usage = `usage: npm run demo -- [--once] [--port PORT]

  --once       end after the tour; without it the servers keep running until Ctrl-C
  --port PORT  where the endpoint listens; default 4483`;

// Exits outright: what an interrupted start still has under way ends with the process.
process.exit(await main());

async function main(): Promise<number> {
  const { once, port, problem } = readOptions();
  if (problem) return say(problem, 64);
  if (!(await isFree(port))) {
    return say(`Port ${port} is in use. Stop what listens there, or choose another: npm run demo -- --port ${port + 1}`, 1);
  }
  await using stack = new AsyncDisposableStack();
  try {
    await Promise.race([run(stack, port, once), interruption()]);
    return 0;
  } catch (error) {
    return say(`\nThe demo stopped: ${error instanceof Error ? error.message : String(error)}`, 1);
  }
}

async function run(stack: AsyncDisposableStack, port: number, once: boolean): Promise<void> {
  const startedAt = performance.now();
  console.log(`\n${bold("Three MCP servers, one URL")}\n`);
  const vmcp = await start(stack, port);
  await tour(vmcp, startedAt);
  if (once) return;
  printNext(vmcp, port);
  throw new Error(`vmcp ended with code ${await vmcp.ended}\n${vmcp.stderr()}`);
}

function interruption(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.once(signal, () => {
        console.log("\n  stopping …");
        resolve();
      });
    }
  });
}

function readOptions(): { once: boolean; port: number; problem?: string } {
  try {
    const { values } = parseArgs({ options: { once: { type: "boolean" }, port: { type: "string" }, help: { type: "boolean" } } });
    const port = Number(values.port ?? 4483);
    const isPort = Number.isInteger(port) && port > 0 && port < 65_536;
    if (values.help || !isPort) return { once: false, port, problem: usage };
    return { once: values.once ?? false, port };
  } catch (error) {
    return { once: false, port: 0, problem: `${(error as Error).message}\n\n${usage}` };
  }
}

function say(text: string, code: number): number {
  console.error(text);
  return code;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

async function start(stack: AsyncDisposableStack, port: number): Promise<RunningVmcp> {
  const directory = await mkdtemp(join(tmpdir(), "vmcp-demo-"));
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  await writeFile(join(directory, "welcome.txt"), "This file was read through the gateway.\n");

  const everything = await step("start server-everything over HTTP", () => startEverything());
  stack.use(everything);

  const config = join(directory, "vmcp-config.yaml");
  const text = await readFile(configPath, "utf8");
  await writeFile(
    config,
    text.replaceAll("127.0.0.1:3001", `127.0.0.1:${everything.port}`).replaceAll("/tmp/vmcp-demo", directory),
  );
  const admin = (await isFree(adminPort)) ? adminPort : 0;
  const args = ["serve", "--config", config, "--port", String(port), "--admin-listen", `127.0.0.1:${admin}`];
  const vmcp = await step("start vmcp serve: control plane, proxy, and two servers over stdio", () => startVmcp(args));
  return stack.use(vmcp);
}

async function tour(vmcp: RunningVmcp, startedAt: number): Promise<void> {
  await using client = await step(`connect an MCP client to ${vmcp.address}/mcp`, () => openClient(`${vmcp.address}/mcp`));
  const names = await step("list tools of every server", () => listAll(client));
  const { resources } = await client.client.listResources();
  const { prompts } = await client.client.listPrompts();
  const [directory] = (await client.call("filesystem_list_allowed_directories")).split("\n").slice(1);
  const rows: Record<string, string>[] = [];
  for (const { backend, transport, tool, args } of visits) {
    const name = `${backend}_${tool}`;
    const input = args(directory ?? "");
    const [answer, firstMs] = await timed(() => client.call(name, input));
    const [, againMs] = await timed(() => client.call(name, input));
    const tools = names.filter((candidate) => candidate.startsWith(`${backend}_`)).length;
    const shown = answer.replaceAll(/\s+/g, " ").trim();
    rows.push({ server: backend, transport, tools: String(tools), call: name, first: firstMs, again: againMs, answer: shown });
  }
  console.log(`\n${table(rows)}\n`);
  console.log(
    `  ${names.length} tools, ${resources.length} resources and ${prompts.length} prompts at one URL, ${seconds(performance.now() - startedAt)} after the start.\n`,
  );
}

/** The first call of a session opens the backend's own session; later ones use it. */
async function timed<T>(work: () => Promise<T>): Promise<[value: T, took: string]> {
  const startedAt = performance.now();
  return [await work(), `${(performance.now() - startedAt).toFixed(1)} ms`];
}

async function listAll(client: SdkClient): Promise<string[]> {
  const isComplete = (names: readonly string[]) =>
    visits.every(({ backend }) => names.some((name) => name.startsWith(`${backend}_`)));
  return eventually(
    "every server's tools are listed",
    async () => {
      const names = await client.toolNames();
      return isComplete(names) && names;
    },
    startupMs,
  );
}

function printNext({ address, adminAddress }: RunningVmcp, port: number): void {
  const server = adminAddress === `127.0.0.1:${adminPort}` ? "" : ` --server ${adminAddress}`;
  const snippet = JSON.stringify({ mcpServers: { vmcp: { type: "http", url: `${address}/mcp` } } });
  const rows = [
    ["is it well?", `curl http://127.0.0.1:${port}/health`],
    ["what does a client see, and why?", `npx vmcpctl get tools${server}`],
    ["which proxies run which version?", `npx vmcpctl proxy status${server}`],
    ["click through it", `npx @modelcontextprotocol/inspector --cli ${address}/mcp --transport http --method tools/list`],
    ["use it in your MCP client", snippet],
  ];
  console.log(`${bold("It keeps running. Try, in another terminal:")}\n`);
  for (const [why, what] of rows) console.log(`  ${dim(`# ${why}`)}\n  ${what}\n`);
  console.log("  Ctrl-C stops everything.");
}
