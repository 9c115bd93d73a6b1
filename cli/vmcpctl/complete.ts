// What can come next on a command line, for the completion of shells. Names come from the control plane, which has a second for that;
// what can't be had is not offered, and nothing is ever said about it.
import { setTimeout as delay } from "node:timers/promises";
import type { Command, Option } from "commander";
import type { GlobalOptions } from "./connection.ts";
import { useContext } from "./current-context.ts";
import { allKinds, parseKind } from "./kinds.ts";

const deadlineMs = 1_000;
const offeredMax = 1_000;

/** `words`: those after the program's name; the last one is begun, and may be empty. */
export async function complete(program: Command, words: readonly string[]): Promise<string[]> {
  const begun = words.at(-1) ?? "";
  const line = read(program, words.slice(0, -1));
  const offers = await Promise.race([
    offersFor(program, line, begun).catch(() => []),
    delay(deadlineMs, [] as string[], { ref: false }),
  ]);
  const fitting = [...new Set(offers)].filter((offer) => offer.startsWith(begun) && /^[\x21-\x7e]+$/.test(offer));
  return fitting.sort().slice(0, offeredMax);
}

interface Line {
  readonly command: Command;
  /** Words that are neither commands nor options. */
  readonly given: readonly string[];
  /** The option whose value comes next. */
  readonly awaiting: Option | undefined;
}

/** Notes options on the way, since they say which control plane to ask. */
function read(program: Command, words: readonly string[]): Line {
  let command = program;
  const given: string[] = [];
  let awaiting: Option | undefined;
  for (const word of words) {
    if (awaiting) {
      note(program, awaiting, word);
      awaiting = undefined;
    } else if (word.startsWith("-")) {
      const [flag = "", value] = word.split("=", 2);
      const option = optionsOf(program, command).find((one) => one.short === flag || one.long === flag);
      if (option?.required && value === undefined) awaiting = option;
      else if (option && value !== undefined) note(program, option, value);
    } else {
      const sub = given.length === 0 ? subcommandOf(command, word) : undefined;
      if (sub) command = sub;
      else given.push(word);
    }
  }
  return { command, given, awaiting };
}

function note(program: Command, option: Option, value: string): void {
  if (program.options.includes(option)) program.setOptionValueWithSource(option.attributeName(), value, "cli");
}

async function offersFor(program: Command, { command, given, awaiting }: Line, begun: string): Promise<string[]> {
  if (awaiting) return awaiting.argChoices ?? (await named(program, awaiting.attributeName()));
  if (begun.startsWith("-")) return optionsOf(program, command).flatMap(({ long, hidden }) => (long && !hidden ? [long] : []));
  const argument = command.registeredArguments[given.length] ?? command.registeredArguments.findLast(({ variadic }) => variadic);
  const commands = given.length === 0 ? command.commands.filter((sub) => !isHidden(sub)).map((sub) => sub.name()) : [];
  if (!argument) return commands;
  if (argument.argChoices) return [...commands, ...argument.argChoices];
  return [...commands, ...(await named(program, whatIs(command, argument.name()), given))];
}

/** In which words `named` knows it. */
function whatIs(command: Command, argument: string): string {
  const path = `${command.parent?.name()} ${command.name()}`;
  return path === "proxy status" || path === "proxy drain" || path === "proxy describe" ? "proxy" : argument;
}

/** What an option or argument of this name can be; nothing for what nobody can know. */
async function named(program: Command, what: string, given: readonly string[] = []): Promise<string[]> {
  switch (what) {
    case "kind":
      return [...allKinds];
    case "context": {
      const { readContexts } = await import("./context-file.ts");
      return Object.keys(readContexts().contexts);
    }
    case "name":
      return given[0] === undefined ? [] : await namesOf(program, given[0]);
    case "key":
      return (
        await ask(program, async ({ admin, deadline }) => (await admin.listSessions({ limit: 1000 }, deadline())).sessions)
      ).map(({ key }) => key);
    case "proxy":
      return await namesOf(program, "proxies");
    case "group":
      return await namesOf(program, "groups");
    case "virtualServer":
    case "server":
      return await namesOf(program, "virtualservers");
    case "workload":
      return await namesOf(program, "backends");
    case "tool":
      return await namesOf(program, "tools");
    default:
      return [];
  }
}

async function namesOf(program: Command, word: string): Promise<string[]> {
  const kind = parseKind(word);
  const last = (name: string): string => name.split("/").at(-1) ?? "";
  return await ask(program, async ({ admin, deadline }) => {
    if (kind === "proxies") return (await admin.listProxies({}, deadline())).proxies.map(({ node }) => node?.id ?? "");
    if (kind === "providers") return (await admin.listProviders({}, deadline())).providers.map(({ name }) => name);
    if (kind !== "tools" && kind !== "prompts" && kind !== "resources")
      return (await admin.listResources({ kind, pageSize: offeredMax }, deadline())).resources.map(({ name }) => last(name));
    const { views } = await admin.listView({}, deadline());
    return views.flatMap(({ entries }) => entries.filter((entry) => `${entry.kind}s` === kind).map(({ exposed }) => exposed));
  });
}

async function ask<T>(program: Command, work: (connection: import("./connection.ts").Connection) => Promise<T[]>): Promise<T[]> {
  await useContext(program);
  const { connect } = await import("./connection.ts");
  using connection = connect({ ...program.opts<GlobalOptions>(), requestTimeout: deadlineMs });
  return await work(connection);
}

function optionsOf(program: Command, command: Command): Option[] {
  return [...new Set([...command.options, ...program.options])];
}

function subcommandOf(command: Command, word: string): Command | undefined {
  return command.commands.find((sub) => sub.name() === word);
}

// Commander keeps it to itself.
function isHidden(command: Command & { readonly _hidden?: boolean }): boolean {
  return command._hidden === true;
}
