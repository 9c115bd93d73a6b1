// Which control planes there are, and how each is spoken to: $XDG_CONFIG_HOME/vmcp/config.yaml. It names files with secrets, and holds none.
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse, stringify, type YAMLParseError } from "yaml";
import { z } from "zod";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { contextPath } from "./context-path.ts";

const file = z.string().min(1);

const contextSchema = z.strictObject({
  /** `host:port`, or `unix:/path`. */
  server: z.string().min(1).optional(),
  tls: z.boolean().optional(),
  tlsCa: file.optional(),
  tlsCert: file.optional(),
  tlsKey: file.optional(),
  tokenFile: file.optional(),
});

const fileSchema = z.strictObject({
  currentContext: z.string().min(1).optional(),
  contexts: z.record(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/), contextSchema).default({}),
});

/** What a context may say; paths are absolute. */
export type Context = z.infer<typeof contextSchema>;
export type ContextFile = z.infer<typeof fileSchema>;

export const contextKeys = contextSchema.keyof().options;

const pathKeys = ["tlsCa", "tlsCert", "tlsKey", "tokenFile"] as const satisfies readonly (keyof Context)[];

/** An empty one when there is none. Throws ExitError 65 for one that can't be read, says something unknown, or that others may write. */
export function readContexts(path = contextPath()): ContextFile {
  if (!existsSync(path)) return { contexts: {} };
  const text = readText(path);
  // Who can write it can send this user, and what he shows, to another server.
  if ((statSync(path).mode & 0o022) !== 0) throw bad(path, `others may write it; run "chmod 600 ${path}"`);
  const read = fileSchema.safeParse(parsed(text, path) ?? {});
  if (!read.success) throw bad(path, read.error.issues.map(problemOf).join("; "));
  const contexts = Object.entries(read.data.contexts).map(([name, context]) => [name, withPaths(context, dirname(path))]);
  return { ...read.data, contexts: Object.fromEntries(contexts) };
}

/** Replaces the file whole; only its owner may read it. Throws ExitError 64 when it would not be one. */
export function writeContexts(contents: ContextFile, path = contextPath()): void {
  const checked = fileSchema.safeParse(contents);
  if (!checked.success) throw new ExitError(exitCodes.usage, checked.error.issues.map(problemOf).join("; "));
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const temporary = `${path}.${process.pid}`;
    writeFileSync(temporary, stringify(contents, { lineWidth: 0 }), { mode: 0o600 });
    chmodSync(temporary, 0o600);
    renameSync(temporary, path);
  } catch (error) {
    throw bad(path, `can't write it: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/** What the file says, with everything blanked that is no part of it: it may be a secret. */
export function redactedText(path = contextPath()): string {
  const said = existsSync(path) ? (parsed(readText(path), path) ?? {}) : {};
  const { currentContext, contexts, ...others } = Object(said) as Record<string, unknown>;
  const known = Object.entries(Object(contexts) as Record<string, unknown>).map(([name, context]) => {
    const entries = Object.entries(Object(context) as Record<string, unknown>);
    const shown = entries.map(([key, value]) => [key, (contextKeys as readonly string[]).includes(key) ? value : redacted]);
    return [name, Object.fromEntries(shown)];
  });
  const blanked = Object.keys(others).map((key) => [key, redacted]);
  return stringify({ currentContext, contexts: Object.fromEntries(known), ...Object.fromEntries(blanked) }, { lineWidth: 0 });
}

/** Throws ExitError 64 when there is none of that name. */
export function contextNamed({ contexts }: ContextFile, name: string): Context {
  const context = Object.hasOwn(contexts, name) ? contexts[name] : undefined;
  if (context) return context;
  const there = Object.keys(contexts).join(", ") || "none";
  throw new ExitError(exitCodes.usage, `there is no context "${name}" in ${contextPath()}; there are: ${there}`);
}

const redacted = "(redacted: nothing that vmcpctl knows)";

function withPaths(context: Context, directory: string): Context {
  const paths = pathKeys.flatMap((key) => {
    const path = context[key];
    return path === undefined ? [] : [[key, resolve(directory, path)]];
  });
  return { ...context, ...Object.fromEntries(paths) };
}

function problemOf({ path, message, ...issue }: z.core.$ZodIssue): string {
  const where = path.join(".") || "the file";
  if (issue.code !== "unrecognized_keys") return `${where}: ${message}`;
  return `${where}: unknown ${issue.keys.join(", ")}; a context has ${contextKeys.join(", ")}, and secrets stay in files of their own`;
}

function parsed(text: string, path: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    // Its message goes on with the lines around the place, which may hold anything.
    const { linePos, code } = error as YAMLParseError;
    throw bad(path, `it is no YAML${linePos ? `, at line ${linePos[0].line}` : ""}${code ? ` (${code})` : ""}`);
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw bad(path, `can't read it: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function bad(path: string, reason: string): ExitError {
  return new ExitError(exitCodes.badInput, `${path}: ${reason}`);
}
