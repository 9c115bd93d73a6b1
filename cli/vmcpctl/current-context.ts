// What the context that is in force means for a command.
import { existsSync } from "node:fs";
import type { Command } from "commander";
import { contextPath } from "./context-path.ts";

/**
 * Fills in what neither flags nor the environment say. A server that they name is not spoken to with what the current context holds for
 * another, unless they name a context too; and a context that a flag names comes before the environment.
 */
export async function useContext(program: Command): Promise<void> {
  const chosen = program.opts().context as string | undefined;
  const sourceOf = (key: string) => program.getOptionValueSource(key);
  if (chosen === undefined && (sourceOf("server") === "cli" || sourceOf("server") === "env")) return;
  if (chosen === undefined && !existsSync(contextPath())) return; // most have none, and need not wait for what reads it
  const { contextKeys, contextNamed, readContexts } = await import("./context-file.ts");
  const contexts = readContexts();
  const name = chosen ?? contexts.currentContext;
  if (name === undefined) return;
  const context = contextNamed(contexts, name);
  for (const key of contextKeys) {
    const source = sourceOf(key);
    const isSaid = source === "cli" || (source === "env" && sourceOf("context") !== "cli");
    if (!isSaid && context[key] !== undefined) program.setOptionValueWithSource(key, context[key], "config");
  }
}
