#!/usr/bin/env node
// vmcp: runs one plane, or both on one machine. Commands load what they need when they run, so that help is quick.
import "./compile-cache.ts";
import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { softwareVersion } from "../common/version.ts";
import { parseDurationMs } from "./duration.ts";
import { ExitError, exitCodes } from "./exit-codes.ts";
import { controlPlaneTrust, proxyTrust } from "./vmcp/trust-flags.ts";

// A reader that went away (a closed pipe) is no reason to stop serving.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

const io = { stdout: process.stdout, stderr: process.stderr };
const program = new Command("vmcp")
  .description("Many MCP servers behind one URL")
  .option("--debug", "log more")
  .exitOverride()
  .showSuggestionAfterError()
  .hook("preAction", (command) => {
    if (command.opts().debug) process.env.VMCP_LOG_LEVEL = "debug";
  });

const config = () => new Option("-c, --config <file>", "configuration file").makeOptionMandatory();

const serve = program.command("serve").description("serve a configuration file: control plane and proxy in one process");
discovering(listening(serve), "toolhive and toolhive-files, when a groupRef has no backends in the file")
  .addOption(config())
  .option("--enable-audit", "write an audit log")
  .option("--admin-listen <host:port>", "where vmcpctl reaches this process; without it 127.0.0.1:7400 or any free port")
  .action(async (options) => (await import("./vmcp/serve.ts")).serve(options));

controlPlaneTrust(discovering(program.command("control-plane").description("run a control plane"), "none"))
  .option(
    "--listen <address...>",
    "host:port or unix:/path, one or several, for operators and proxies; other machines need certificates",
    ["127.0.0.1:7400"],
  )
  .addOption(
    new Option("--store <place>", "what is declared: an SQLite file, :memory:, or postgres://user@host/database")
      .env("VMCP_STORE")
      .default("vmcp.db"),
  )
  .addOption(new Option("--data <file>", "the same").hideHelp())
  .option("--id <name>", "name of this control plane, stable over restarts (default: the host name and port)")
  .option("--advertise <host:port>", "where vmcpctl reaches this one's admin API (default: where it listens)")
  .action(async (options) => {
    // What it throws away is little and often, and V8 would let the room for that grow by 60 MB where the whole takes 130. Before
    // the imports, because the room grows with them.
    setFlagsFromString("--semi-space-growth-factor=1");
    await (await import("./vmcp/control-plane.ts")).controlPlane(options);
  });

proxyTrust(listening(program.command("proxy").description("run a proxy")))
  .option("--control-plane <host:port...>", "control planes to follow", ["127.0.0.1:7400"])
  .option("--workers <number>", "processes that serve, or auto: one for each processor", parseWorkers, 1)
  .option("--id <name>", "name of this proxy, stable over restarts (default: the host name and port)")
  .option("--advertise <url>", "where other proxies reach this one (default: where it listens)", parseOrigin)
  .option(
    "--drain-delay <duration>",
    "go on so long after SIGTERM, unready, until load balancers have noticed",
    parseDrain,
    2_000,
  )
  .addOption(
    new Option(
      "--state-dir <dir>",
      "keep what is live there, to start from when no control plane answers; none: nowhere (default: see below)",
    ).env("VMCP_STATE_DIR"),
  )
  .option("--bootstrap-snapshot <file>", "a snapshot from such a directory, to start from when there is nothing newer")
  .addHelpText(
    "after",
    "\nSnapshots are kept in $XDG_STATE_HOME/vmcp/ID, else ~/.local/state/vmcp/ID; with --port 0 and no --id nowhere.",
  )
  .option("--allow-stdio", "let the control plane start stdio servers on this machine")
  .action(async (options) => (await import("./vmcp/proxy.ts")).proxy(options));

program
  .command("validate")
  .description("check a configuration file and report everything that is wrong with it")
  .addOption(config())
  .addOption(new Option("-o, --output <format>", "how to report").choices(["text", "json"]).default("text"))
  .action(async (options) => {
    process.exitCode = await (await import("./vmcp/validate.ts")).validate(options, io);
  });

program
  .command("init")
  .description("write a commented starter file")
  .option("--group <name>", "group that the file refers to; without --from its workloads are looked up in ToolHive")
  .option("--from <mcp.json>", "take the servers from the mcpServers JSON of a desktop client")
  .option("-o, --output <file>", "where to write (default: standard output)")
  .option("--force", "overwrite the file")
  .action(async (options) => {
    process.exitCode = await (await import("./vmcp/init.ts")).init(options, io);
  });

program
  .command("version")
  .description("show the version")
  .action(() => void process.stdout.write(`vmcp ${softwareVersion} (node ${process.versions.node})\n`));

/** The options of whatever serves MCP. */
function listening(command: Command): Command {
  return command
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option("--port <number>", "port to listen on; 0 takes a free one", parsePort, 4483)
    .option("--public-url <url>", "where clients reach the proxies (default: as each client says)", parseOrigin)
    .option("--session-ttl <duration>", "end sessions unused for so long, such as 30m", parseTtl, 30 * 60_000)
    .option(
      "--session-max-age <duration>",
      "end sessions so long after they were opened, such as 8h",
      parseMaxAge,
      8 * 60 * 60_000,
    )
    .option("--sessions-per-caller <number>", "sessions that one signed-in caller may have", parseCount, 32)
    .addOption(
      new Option("--session-binding <what>", "what a session is bound to: its caller, or the caller's very token")
        .choices(["identity", "token"])
        .default("identity"),
    )
    .addOption(
      new Option("--on-session-mismatch <what>", "what becomes of a session that another caller shows")
        .choices(["terminate", "reject"])
        .default("terminate"),
    )
    .addOption(
      new Option("--redis <url>", "keep sessions there, for all proxies; redis[+sentinel|+cluster]://…").env("VMCP_REDIS_URL"),
    )
    .option("--redis-prefix <text>", "what keys there begin with (default: vmcp:)")
    .option("--drain-timeout <duration>", "how long calls in flight may take when the proxy stops", parseDrain, 30_000)
    .option("--allowed-host <name...>", "host names clients may use besides loopback names", [])
    .option("--allowed-origin <origin...>", "origins of web pages that may call besides loopback ones", [])
    .option(
      "--connections-per-address <number>",
      "connections that one address may have (default: all there are)",
      parseConnections,
    )
    .option("--body-limit <bytes>", "largest request body", parseBytes, 1024 * 1024)
    .option(
      "--max-in-flight <number>",
      "most calls in hand, in fair shares; the limit adapts below it; 0: none",
      parseOptional,
      1_024,
    )
    .option("--max-streams <number>", "event streams at a time", parseBound, 10_000)
    .option("--max-connections <number>", "connections at a time", parseBound, 20_000)
    .option(
      "--memory-limit <size>",
      "memory this process may use, such as 512MB (default: of its container, else of V8's heap)",
      parseMemory,
    )
    .option("--no-legacy-sse", "serve no clients of the older HTTP+SSE transport");
}

/** The options of whatever discovers backends; `usual` is who does when none is named. */
function discovering(command: Command, usual: string): Command {
  const known = "toolhive, toolhive-files, docker, kubernetes, file, none";
  return command
    .option("--discovery <name...>", `who finds backends, first ones win: ${known} (default: ${usual})`)
    .option(
      "--discovery-file <path>",
      "file or directory of groups and backends, or a desktop client's mcpServers JSON; followed",
    )
    .option("--docker-host <url>", "unix:///path or tcp://host:port (default: DOCKER_HOST, else unix:///var/run/docker.sock)")
    .option("--docker-published-host <name>", "where ports that containers publish are reached (default: the daemon's host)")
    .option("--kubeconfig <path>", "how the cluster is reached (default: KUBECONFIG, else this pod's own, else ~/.kube/config)")
    .option("--kubernetes-context <name>", "context of the kubeconfig (default: its current one)")
    .option("--kubernetes-namespace <name>", "namespace to look at, * for all (default: that of the credentials)");
}

function parseOrigin(text: string): string {
  const url = URL.parse(text);
  if (!url || !/^https?:$/.test(url.protocol) || url.pathname !== "/" || url.username !== "")
    throw new InvalidArgumentError("expected http://host:port.");
  return url.origin;
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535) throw new InvalidArgumentError("expected a number from 0 to 65535.");
  return port;
}

function parseBytes(text: string): number {
  const bytes = Number(text);
  if (!/^\d+$/.test(text) || bytes < 1_024 || bytes > 64 * 1024 * 1024)
    throw new InvalidArgumentError("expected 1024 to 67108864 bytes.");
  return bytes;
}

function parseMaxAge(text: string): number {
  const milliseconds = parseDurationMs(text);
  if (milliseconds === undefined || milliseconds < 1_000 || milliseconds > 86_400_000)
    throw new InvalidArgumentError("expected 1s to 24h, such as 8h.");
  return milliseconds;
}

function parseDrain(text: string): number {
  const milliseconds = parseDurationMs(text);
  if (milliseconds === undefined || milliseconds > 600_000) throw new InvalidArgumentError("expected 0s to 10m, such as 2s.");
  return milliseconds;
}

function parseCount(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > 256) throw new InvalidArgumentError("expected a number from 1 to 256.");
  return count;
}

function parseWorkers(text: string): number {
  const count = text === "auto" ? Math.min(availableParallelism(), 64) : Number(text);
  if (!/^(\d+|auto)$/.test(text) || count < 1 || count > 64)
    throw new InvalidArgumentError("expected a number from 1 to 64, or auto.");
  return count;
}

function parseConnections(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > 20_000) throw new InvalidArgumentError("expected a number from 1 to 20000.");
  return count;
}

function parseBound(text: string): number {
  const bound = Number(text);
  if (!/^\d+$/.test(text) || bound < 1 || bound > 1_000_000)
    throw new InvalidArgumentError("expected a number from 1 to 1000000.");
  return bound;
}

function parseOptional(text: string): number {
  return text === "0" ? 0 : parseBound(text);
}

function parseMemory(text: string): number {
  const [, number, unit] = /^(\d+)(MB|GB)$/.exec(text) ?? [];
  const megabytes = Number(number) * (unit === "GB" ? 1024 : 1);
  if (!(megabytes >= 64 && megabytes <= 1024 * 1024)) throw new InvalidArgumentError("expected 64MB to 1024GB, such as 512MB.");
  return megabytes * 1024 * 1024;
}

function parseTtl(text: string): number {
  const milliseconds = parseDurationMs(text);
  if (milliseconds === 0) return 30 * 60_000; // as in the original: 0 means the default
  if (milliseconds === undefined || milliseconds < 1_000 || milliseconds > 86_400_000)
    throw new InvalidArgumentError("expected 1s to 24h, such as 30m or 1h30m.");
  return milliseconds;
}

try {
  if (process.argv.length <= 2) program.outputHelp();
  else await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  else {
    process.stderr.write(`vmcp: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = error instanceof ExitError ? error.exitCode : exitCodes.failure;
  }
}
