// The commands that look after a running mesh, and after vmcpctl itself. What they do is loaded when they run.
import { Argument, type Command, InvalidArgumentError, Option } from "commander";
import { nearest } from "../../control-plane/resources/nearest.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import type { Shell } from "./completion.ts";
import type { GlobalOptions } from "./connection.ts";
import type { Output } from "./output.ts";
import type { TopKind } from "./top.ts";

export interface OperationsCommandsOptions {
  readonly program: Command;
  readonly format: () => Option;
  readonly group: () => Option;
  readonly parseLimit: (text: string) => number;
  readonly parseMs: (text: string) => number;
  readonly run: (command: Command, work: (options: GlobalOptions, output: Output) => Promise<number>) => Promise<void>;
}

export function addOperationsCommands({ program, format, group, parseLimit, parseMs, run }: OperationsCommandsOptions): void {
  const matching = (command: Command) =>
    command
      .addOption(group())
      .option("--virtual-server <name>", "only calls to this virtual server")
      .option("--workload <name>", "only calls to this backend")
      .option("--tool <name>", "only calls of this tool or prompt, as clients know it")
      .option("--status <what>", "ok, failed, or one outcome such as tool_error or backend_timeout")
      .option("--proxy <name>", "only on this proxy")
      .addOption(
        new Option("-o, --output <format>", "how to show it; json: a document a line")
          .choices(["table", "json"])
          .default("table"),
      );

  matching(program.command("tap"))
    .description("calls as they end, on all proxies: what was called, what came of it, how long it took; never what was said")
    .addOption(new Option("--sample <number>", "one call in so many").argParser(parseLimit).default(1))
    .addOption(
      new Option("--rate <number>", "at most so many a second from each control plane").argParser(parseLimit).default(100),
    )
    .addOption(new Option("--limit <number>", "end after so many").argParser(parseLimit))
    .addOption(new Option("--for <duration>", "end after so long").argParser(parseMs))
    .action((options, command) =>
      run(command, async (globals, output) => (await import("./tap.ts")).tap({ ...globals, ...options }, output)),
    );

  matching(program.command("top"))
    .description("what is called most on all proxies, drawn anew on a terminal, once elsewhere")
    .addArgument(new Argument("<what>").choices(["proxies", "workloads", "tools"]))
    .addOption(new Option("--interval <duration>", "sum over so long, 1s or more").argParser(parseInterval).default(2_000, "2s"))
    .addOption(new Option("--count <number>", "end after so many intervals").argParser(parseLimit))
    .addOption(new Option("--limit <number>", "at most so many lines").argParser(parseLimit).default(20))
    .action((what: TopKind, options, command) =>
      run(command, async (globals, output) => (await import("./top.ts")).top(what, { ...globals, ...options }, output)),
    );

  program
    .command("doctor")
    .description("what is wrong between this program and the backends, and what to do; exit code 79 when something is")
    .addOption(new Option("-o, --output <format>", "how to show it").choices(["table", "json", "yaml"]).default("table"))
    .action((options, command) =>
      run(command, async (globals, output) => (await import("./doctor.ts")).doctor({ ...globals, ...options }, output)),
    );

  const config = program.command("config").description("which control planes there are, in $XDG_CONFIG_HOME/vmcp/config.yaml");
  const contexts = () => import("./contexts.ts");

  config
    .command("get-contexts")
    .description("all contexts, and which is the current one")
    .addOption(format())
    .action((options, command) =>
      run(command, async (_, output) => (await contexts()).getContexts(options.output, program, output)),
    );
  config
    .command("use-context <context>")
    .description("make a context the current one")
    .action((name, _, command) => run(command, async (_globals, output) => (await contexts()).switchContext(name, output)));
  config
    .command("set-context <context>")
    .description("keep --server, --tls, --tls-ca, --tls-cert, --tls-key and --token-file of this call under a name")
    .action((name, _, command) => run(command, async (_globals, output) => (await contexts()).setContext(name, program, output)));
  config
    .command("view")
    .description("the file, without anything that may be a secret")
    .action((_, command) => run(command, async (_globals, output) => (await contexts()).viewContexts(output)));

  program
    .command("completion")
    .description("what makes a shell complete commands, options and names")
    .addArgument(new Argument("<shell>").choices(["bash", "zsh", "fish"]))
    .addHelpText("after", "\nExample:\n  source <(vmcpctl completion bash)")
    .action((shell: Shell, _, command) =>
      run(command, async (_globals, output) => {
        output.data((await import("./completion.ts")).completionScripts[shell]);
        return exitCodes.ok;
      }),
    );

  program.command("__complete [word...]", { hidden: true }).action(async (words: string[]) => {
    const offers = await (await import("./complete.ts")).complete(program, words);
    process.stdout.write(offers.map((offer) => `${offer}\n`).join(""), () => process.exit(exitCodes.ok)); // whoever is asked still may answer
  });

  program.helpCommand(false);
  program
    .command("help [command...]")
    .description('help for a command; "help exit-codes" for what exit codes mean')
    .action((words: string[], _, command) =>
      run(command, async (_globals, output) => {
        if (words[0] === "exit-codes") output.data((await import("./exit-code-help.ts")).exitCodeHelp());
        else output.data(commandOf(program, words).helpInformation());
        return exitCodes.ok;
      }),
    );

  function parseInterval(text: string): number {
    const ms = parseMs(text);
    if (ms < 1_000) throw new InvalidArgumentError("expected 1s or more.");
    return ms;
  }
}

function commandOf(program: Command, words: readonly string[]): Command {
  return words.reduce((command, word) => {
    const sub = command.commands.find((one) => one.name() === word);
    if (sub) return sub;
    const guess = nearest(
      word,
      command.commands.map((one) => one.name()),
    );
    throw new ExitError(exitCodes.usage, `there is no command "${word}"${guess ? `; did you mean "${guess}"?` : ""}`);
  }, program);
}
