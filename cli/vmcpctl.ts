#!/usr/bin/env node
// vmcpctl: drives a control plane. Commands load what they need when they run, so that help is quick.
// Longer than most files here: it is the table of all commands and flags, and what they do stands elsewhere.
import "./compile-cache.ts";
import { Command, CommanderError, InvalidArgumentError, Option, type OptionValues } from "commander";
import { softwareVersion } from "../common/version.ts";
import { parseDurationMs } from "./duration.ts";
import { ExitError, exitCodes } from "./exit-codes.ts";
import type { GlobalOptions } from "./vmcpctl/connection.ts";
import { useContext } from "./vmcpctl/current-context.ts";
import { conditionsHelp, kindsHelp } from "./vmcpctl/kinds.ts";
import { addOperationsCommands } from "./vmcpctl/operations-commands.ts";
import { formats, type Output, standardOutput } from "./vmcpctl/output.ts";
import { keysLast } from "./vmcpctl/session-keys.ts";
import { addTrustCommands } from "./vmcpctl/trust-commands.ts";

const output = standardOutput();

const format = () => new Option("-o, --output <format>", "how to show it").choices([...formats]).default("table");
const group = () => new Option("-g, --group <name>", "group of the backends");
const files = () => new Option("-f, --filename <path...>", "file, folder, or - for standard input").makeOptionMandatory();
const wait = () =>
  new Option("--wait [duration]", "wait until the proxies acknowledged").argParser(parseMs).preset("30s").default(30_000, "30s");
const noWait = () => new Option("--no-wait", "do not wait for the proxies");
const dryRun = () => new Option("--dry-run", "check, show what would change, and change nothing").default(false);
const yes = () => new Option("-y, --yes", "do not ask").default(false);
const prune = () => new Option("--prune", "delete what the files do not declare").default(false);

// They speak to nobody, or see to it themselves.
const withoutContext = new Set(["completion", "__complete", "help"]);

const program = new Command("vmcpctl")
  .description("Declare groups, backends, virtual servers and auth policies, see what the proxies make of them, and end sessions")
  .version(softwareVersion)
  .addOption(
    new Option("--server <address>", "control plane, host:port or unix:/path").env("VMCP_SERVER").default("127.0.0.1:7400"),
  )
  .addOption(new Option("--tls-ca <file>", "authority of its certificate; speaks TLS").env("VMCP_TLS_CA"))
  .addOption(new Option("--tls", "speak TLS; its certificate is of a public authority").env("VMCP_TLS"))
  .addOption(new Option("--tls-cert <file>", "certificate of yours, with --tls-key").env("VMCP_TLS_CERT"))
  .addOption(new Option("--tls-key <file>", "its key").env("VMCP_TLS_KEY"))
  .addOption(new Option("--token-file <file>", "bearer token of yours").env("VMCP_TOKEN_FILE"))
  .addOption(new Option("--context <name>", "what the config file says under this name").env("VMCP_CONTEXT"))
  .addOption(new Option("--request-timeout <duration>", "deadline of one call").argParser(parseMs).default(10_000, "10s"))
  .exitOverride()
  .hook("preAction", async (_, command) => {
    // What looks after the file must work when the file does not.
    if (!withoutContext.has(command.name()) && command.parent?.name() !== "config") await useContext(program);
  })
  .showSuggestionAfterError()
  .addHelpText("after", `\n${kindsHelp}\n\nExample:\n  vmcpctl apply -f deploy/examples/ && vmcpctl get tools`);

program
  .command("get <kind> [name]")
  .description("list what is declared and discovered, or tools, prompts and resources as clients see them")
  .addOption(format())
  .addOption(group())
  .option("--virtual-server <name>", "only what this virtual server shows")
  .option("--changed", "only tools whose definition is not what was approved", false)
  .action(async (kind, name, options, command) =>
    finish(command, async () => (await import("./vmcpctl/get.ts")).get({ kind, name }, { ...globals(), ...options }, output)),
  );

program
  .command("describe <kind> [name]")
  .description("one thing with everything known about it")
  .addOption(group())
  .action(async (kind, name, options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/describe.ts")).describe({ kind, name }, { ...globals(), ...options }, output),
    ),
  );

program
  .command("approve")
  .description("accept what backends changed")
  .command("tools [backend] [tool...]")
  .description("accept the definitions of tools as they are now; see get tools --changed")
  .option("--all", "of all backends", false)
  .option("--hash <prefix>", "with one tool: only if this is what it is now")
  .option("--reason <text>", "why, for the audit trail", "")
  .action(async (backend, names, options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/tools.ts")).approveTools({ backend, names }, { ...globals(), ...options }, output),
    ),
  );

program
  .command("apply")
  .description("create or replace what files declare, all or nothing, after showing what changes")
  .addOption(files())
  .addOption(format())
  .addOption(prune())
  .addOption(dryRun())
  .addOption(yes())
  .addOption(wait())
  .addOption(noWait())
  .option("--reason <text>", "why, for the history", "vmcpctl apply")
  .action(async (options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/apply.ts")).apply({ ...globals(), ...options, wait: waitMs(options) }, output),
    ),
  );

program
  .command("diff")
  .description("what apply would change: exit code 0 for nothing, 1 for something, more for errors")
  .addOption(files())
  .addOption(format())
  .addOption(prune())
  .action(async (options, command) => {
    const work = async () => (await import("./vmcpctl/apply.ts")).diff({ ...globals(), ...options }, output);
    await finish(command, work, { failure: 2 });
  });

program
  .command("analyze")
  .description("what is wrong, unused or not safe: exit code 79 when something is found")
  .option("-f, --filename <path...>", "as if these were applied: file, folder, or - for standard input")
  .option("--offline", "look at the files alone, without a control plane", false)
  .addOption(format())
  .option("--suppress <code=name...>", "do not report this code for this resource; * stands for anything", [])
  .addOption(
    new Option("--fail-on <severity>", "what is bad enough for exit code 79")
      .choices(["info", "warning", "error", "never"])
      .default("warning"),
  )
  .option("--codes", "show what each code means", false)
  .action(async (options, command) =>
    finish(command, async () => (await import("./vmcpctl/analyze.ts")).analyze({ ...globals(), ...options }, output)),
  );

program
  .command("route <virtual-server> <tool>")
  .description("where a call goes and what decides it: exit code 0 when it gets there, 1 when not")
  .option("--as <subject>", "who calls; without this and the next two: somebody who has not signed in")
  .option("--scope <scope...>", "scopes of the caller's token", [])
  .option("--claims <json>", "other claims of the caller's token")
  .addOption(format())
  .action(async (virtualServer, tool, options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/route.ts")).route(virtualServer, tool, { ...globals(), ...options }, output),
    ),
  );

program
  .command("wait <kind> [name]")
  .description("until something is so: exit code 75 when the time is over")
  .addOption(group())
  .requiredOption("--for <condition>", "as condition=Programmed, revision=12 or delete; see below")
  .addOption(new Option("--timeout <duration>", "how long").argParser(parseMs).default(30_000, "30s"))
  .addHelpText("after", `\n${conditionsHelp}`)
  .action(async (kind, name, options, command) =>
    finish(command, async () => (await import("./vmcpctl/wait.ts")).wait({ kind, name }, { ...globals(), ...options }, output)),
  );

program
  .command("delete <kind> [name]")
  .description("delete one resource")
  .addOption(format())
  .addOption(group())
  .addOption(dryRun())
  .option("--force", "a group with its backends", false)
  .addOption(wait())
  .addOption(noWait())
  .action(async (kind, name, options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/delete.ts")).remove({ kind, name }, { ...globals(), ...options, wait: waitMs(options) }, output),
    ),
  );

program
  .command("watch [kind]")
  .description("changes as they happen; proxies too")
  .addOption(new Option("--revision <number>", "only what changes after this one").argParser(parseRevision))
  .addOption(format())
  .action(async (kind, options, command) =>
    finish(command, async () => (await import("./vmcpctl/watch.ts")).watch({ kind }, { ...globals(), ...options }, output)),
  );

const proxy = program.command("proxy").description("the proxies, and their certificates");

proxy
  .command("status [name]")
  .description("which proxy runs what, and what it refused; exit code 79 when --fail-on finds one")
  .addOption(
    new Option("--fail-on <what...>", "stale: unanswered, or nobody hears from it and it serves what it had").choices([
      "stale",
      "disconnected",
      "nacked",
    ]),
  )
  .addOption(format())
  .action(async (name, options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/get.ts")).get({ kind: "proxies", name }, { ...globals(), ...options }, output),
    ),
  );

proxy
  .command("describe <name>")
  .description("everything that is known of one: what it runs, its backends, what it refused")
  .addOption(format())
  .action(async (name, options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/proxy-snapshot.ts")).proxyDescribe(name, { ...globals(), ...options }, output),
    ),
  );

proxy
  .command("diff <name>")
  .description("what it runs against what it should run: exit code 0 for the same, 1 when that differs, more for errors")
  .addOption(format())
  .action(async (name, options, command) => {
    const work = async () => (await import("./vmcpctl/proxy-snapshot.ts")).proxyDiff(name, { ...globals(), ...options }, output);
    await finish(command, work, { failure: 2 });
  });

proxy
  .command("drain <name>")
  .description("let a proxy finish what it has and take no new work, also after a restart")
  .option("--undo", "take new work again", false)
  .option("--reason <text>", "why, for the audit trail", "")
  .action(async (name, options, command) =>
    finish(command, async () => (await import("./vmcpctl/drain.ts")).drain(name, { ...globals(), ...options }, output)),
  );

const session = program.command("session").description("the sessions of MCP clients");

session
  .command("list")
  .description("sessions as the connected proxies know them, those used last first")
  .option("--virtual-server <name>", "only those of this virtual server")
  .option("--subject <subject>", "only those of identities with this subject")
  .addOption(new Option("--limit <number>", "at most so many").argParser(parseLimit).default(100))
  .addOption(format())
  .action(async (options, command) =>
    finish(command, async () => (await import("./vmcpctl/session-list.ts")).listSessions({ ...globals(), ...options }, output)),
  );

session
  .command("revoke [key...]")
  .description("end sessions on every proxy, for good: some, those of an identity, or all")
  .option("--subject <subject>", "all sessions of this identity")
  .option("--issuer <issuer>", "with --subject: only of this issuer")
  .option("--all", "all sessions", false)
  .option("--virtual-server <name>", "with --all: only those of this virtual server")
  .option("--reason <text>", "why, for the history", "")
  .addOption(format())
  .addOption(dryRun())
  .addOption(wait())
  .addOption(noWait())
  .addHelpText(
    "after",
    `\nKEY is as "session list" shows it, or its first 6 characters or more; one that begins with - is named after --.`,
  )
  .action(async (keys, options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/session-revoke.ts")).revokeSessions(
        keys,
        { ...globals(), ...options, wait: waitMs(options) },
        output,
      ),
    ),
  );

const rollout = program.command("rollout").description("what was committed, how far it has come, and the way back");

rollout
  .command("status")
  .description("how far the newest version has come: exit code 1 when a proxy refused it")
  .addOption(format())
  .action(async (options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/rollout-status.ts")).rolloutStatus({ ...globals(), ...options }, output),
    ),
  );

rollout
  .command("history")
  .description("commits, newest first: who, when, why; one of them with what it changed")
  .addOption(new Option("--revision <number>", "show what this one changed").argParser(parseRevision))
  .addOption(new Option("--limit <number>", "at most so many").argParser(parseLimit).default(20))
  .addOption(format())
  .action(async (options, command) =>
    finish(command, async () => (await import("./vmcpctl/history.ts")).history({ ...globals(), ...options }, output)),
  );

rollout
  .command("undo")
  .description("declare again what was declared before the last change, or at a revision, as a new commit")
  .addOption(new Option("--to-revision <number>", "what was declared after this commit").argParser(parseRevision))
  .option("--reason <text>", "why, for the history", "")
  .addOption(format())
  .addOption(dryRun())
  .addOption(wait())
  .addOption(noWait())
  .action(async (options, command) =>
    finish(command, async () =>
      (await import("./vmcpctl/history.ts")).undo({ ...globals(), ...options, wait: waitMs(options) }, output),
    ),
  );

const audit = program.command("audit").description("who changed what, or tried to");

audit
  .command("list")
  .description("the newest lines of the audit trail")
  .addOption(new Option("--limit <number>", "at most so many").argParser(parseLimit).default(50))
  .addOption(format())
  .action(async (options, command) =>
    finish(command, async () => (await import("./vmcpctl/audit.ts")).listAudit({ ...globals(), ...options }, output)),
  );

audit
  .command("verify")
  .description("check that no line was altered or removed: exit code 0 when it is whole, 1 when not")
  .addOption(format())
  .action(async (options, command) =>
    finish(command, async () => (await import("./vmcpctl/audit.ts")).verifyAudit({ ...globals(), ...options }, output)),
  );

audit
  .command("export")
  .description("the whole audit trail as lines of JSON, oldest first")
  .action(async (_, command) => finish(command, async () => (await import("./vmcpctl/audit.ts")).exportAudit(globals(), output)));

program
  .command("version")
  .description("versions of this program and of the control plane")
  .action(async (_, command) =>
    finish(command, async () => (await import("./vmcpctl/server-version.ts")).serverVersion(globals(), output)),
  );

addOperationsCommands({ program, format, group, parseLimit, parseMs, run });
addTrustCommands({ program, proxy, format, run });

function globals(): GlobalOptions {
  return program.opts<GlobalOptions>();
}

/** For commands whose file is loaded when they run. */
async function run(command: Command, work: (options: GlobalOptions, output: Output) => Promise<number>): Promise<void> {
  await finish(command, () => work(globals(), output));
}

/** Runs a command; what it throws becomes one message and an exit code. `failure` replaces exit code 1 of errors. */
async function finish(command: Command, work: () => Promise<number>, { failure = 1 } = {}): Promise<void> {
  try {
    process.exitCode = await work();
  } catch (error) {
    const { explain } = await import("./vmcpctl/connection.ts");
    const explained = explain(error, globals());
    const exitCode = explained instanceof ExitError ? explained.exitCode : exitCodes.failure;
    complain(explained, {
      exitCode: exitCode === exitCodes.failure ? failure : exitCode,
      asJson: command.opts().output === "json",
    });
  }
}

function complain(error: unknown, { exitCode, asJson }: { exitCode: number; asJson: boolean }): void {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(asJson ? `${JSON.stringify({ error: { exitCode, message } })}\n` : `vmcpctl: ${message}\n`);
  process.exitCode = exitCode;
}

function waitMs({ wait: chosen }: OptionValues): number | undefined {
  return typeof chosen === "number" ? chosen : undefined;
}

function parseLimit(text: string): number {
  const limit = Number(text);
  if (!/^\d+$/.test(text) || limit < 1 || limit > 1000) throw new InvalidArgumentError("expected a whole number from 1 to 1000.");
  return limit;
}

function parseRevision(text: string): bigint {
  const digits = /^r?([1-9]\d{0,17})$/.exec(text)?.[1];
  if (digits === undefined) throw new InvalidArgumentError("expected the number of a revision, such as 12 or r12.");
  return BigInt(digits);
}

function parseMs(text: string): number {
  const ms = parseDurationMs(text);
  if (ms === undefined || ms < 1 || ms > 86_400_000) {
    throw new InvalidArgumentError("expected a duration from 1ms to 24h, such as 30s.");
  }
  return ms;
}

// `vmcpctl get tools | head` closes our output early, which is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(exitCodes.ok);
  throw error;
});

try {
  if (process.argv.length <= 2) program.outputHelp();
  else await program.parseAsync(keysLast(process.argv));
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  else complain(error, { exitCode: error instanceof ExitError ? error.exitCode : exitCodes.failure, asJson: false });
}
