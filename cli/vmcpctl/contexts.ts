// `vmcpctl config`: the contexts, and which is the current one.
import { resolve } from "node:path";
import type { Command } from "commander";
import { stringify } from "yaml";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { type Context, contextKeys, contextNamed, readContexts, redactedText, writeContexts } from "./context-file.ts";
import { contextPath } from "./context-path.ts";
import { type Format, json, type Output } from "./output.ts";
import { table } from "./table.ts";

/** Returns the exit code, as those below. */
export function getContexts(format: Format, program: Command, output: Output): number {
  const { currentContext, contexts } = readContexts();
  const current = (program.opts().context as string | undefined) ?? currentContext;
  const rows = Object.entries(contexts).map(([name, context]) => ({ name, isCurrent: name === current, ...context }));
  if (format === "name") output.data(rows.map(({ name }) => `${name}\n`).join(""));
  else if (format === "json") output.data(json({ contexts: rows }));
  else if (format === "yaml") output.data(stringify({ contexts: rows }, { lineWidth: 0 }));
  else output.data(table(["CURRENT", "NAME", "SERVER", "TLS", "SHOWS"], rows.map(rowOf)));
  if (rows.length === 0)
    output.note(`there are none in ${contextPath()}; "vmcpctl config set-context NAME --server …" makes one\n`);
  return exitCodes.ok;
}

function rowOf({ isCurrent, name, server, tls, tlsCa, tlsCert, tokenFile }: Context & { isCurrent: boolean; name: string }) {
  const shown = [tlsCert && "certificate", tokenFile && "token"].filter((one) => one !== undefined && one !== "");
  return [isCurrent ? "*" : "", name, server ?? "", tlsCa ?? (tls || tlsCert ? "public" : "no"), shown.join(", ")];
}

export function switchContext(name: string, output: Output): number {
  const contexts = readContexts();
  contextNamed(contexts, name);
  writeContexts({ ...contexts, currentContext: name });
  output.data(`contexts/${name} is the current one\n`);
  return exitCodes.ok;
}

/** Keeps what the flags of this very call say; the first context becomes the current one. */
export function setContext(name: string, program: Command, output: Output): number {
  const contexts = readContexts();
  const said = contextKeys.filter((key) => program.getOptionValueSource(key) === "cli");
  if (said.length === 0)
    throw new ExitError(exitCodes.usage, "say what to set: --server, --tls, --tls-ca, --tls-cert, --tls-key, --token-file");
  const values = said.map((key) => {
    const value = program.opts()[key] as string | boolean;
    return [key, typeof value === "string" && key !== "server" ? resolve(value) : value];
  });
  const isNew = contexts.contexts[name] === undefined;
  const changed = { ...contexts.contexts[name], ...Object.fromEntries(values) };
  const currentContext = contexts.currentContext ?? name;
  writeContexts({ ...contexts, currentContext, contexts: { ...contexts.contexts, [name]: changed } });
  output.data(`contexts/${name} ${isNew ? "created" : "changed"}\n`);
  return exitCodes.ok;
}

/** Secrets are in files that it names; what else somebody wrote into it is blanked. */
export function viewContexts(output: Output): number {
  output.data(redactedText());
  return exitCodes.ok;
}
