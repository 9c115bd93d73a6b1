// The building blocks of the section schemas. Each schema's error text says what was *wanted*; what was seen is added
// by explain.ts, which knows the input.
import { z } from "zod";
import { formatDuration, parseDuration } from "./durations.ts";

export type Path = readonly (string | number)[];

/** `T` after everything faulty was taken out: any part may be missing, what is there has the right type. */
export type Partly<T> = T extends readonly (infer U)[]
  ? readonly (Partly<U> | undefined)[]
  : T extends object
    ? { readonly [K in keyof T]?: Partly<T[K]> | undefined }
    : T;

/** How a rule reports. The path is relative to what the rule was given. */
export type Say = (
  path: Path,
  message: string,
  more?: { hint?: string | undefined; severity?: "error" | "warning"; onKey?: boolean },
) => void;

/** A `Say` for what lies below `prefix`. */
export function within(say: Say, ...prefix: Path): Say {
  return (path, message, more) => say([...prefix, ...path], message, more);
}

/** A map with fixed keys; any other key is an error. The text of that error is the list of keys, for a did-you-mean. */
export function section<Shape extends z.ZodRawShape>(shape: Shape, wanted = "a map") {
  return z.strictObject(shape, {
    error: (issue) => (issue.code === "unrecognized_keys" ? Object.keys(shape).join(" ") : wanted),
  });
}

export function text(wanted = "text") {
  return z.string({ error: wanted }).min(1, { error: wanted });
}

export function texts(wanted: string) {
  return z.array(text("text"), { error: `a list of ${wanted}` });
}

export const flag = z.boolean({ error: "true or false" });

export const labels = z.record(z.string(), z.string({ error: "text" }), { error: "a map of text to text" });

export function word<const Words extends readonly [string, ...string[]]>(...words: Words) {
  const shown = words.filter((entry) => entry !== "");
  return z.enum(words, { error: shown.length === 1 ? shown.join() : `one of ${shown.join(", ")}` });
}

export function matching(pattern: RegExp, wanted: string) {
  return z.string({ error: wanted }).regex(pattern, { error: wanted });
}

/** Whole number from `min` to `max`; proto int32 when no `max` is given. */
export function count(min: number, max = 2 ** 31 - 1) {
  const range = max === 2 ** 31 - 1 ? `a whole number, ${min} or more` : `a whole number from ${min} to ${max}`;
  return z.int({ error: range }).min(min, { error: range }).max(max, { error: range });
}

/** A number written as text, as the original's configuration has it for ratios. */
export function decimal(min: number, max: number) {
  const wanted = `a number from ${min} to ${max}`;
  const fits = (value: string) => /^\d*\.?\d+$/.test(value) && Number(value) >= min && Number(value) <= max;
  return z.string({ error: wanted }).refine(fits, { error: wanted });
}

/** Duration text; comes out in the form of proto JSON. */
export function duration(least: "any" | "positive" | "1s" = "positive") {
  const wanted = {
    any: "a duration such as 10s",
    positive: "a duration above zero, such as 30s or 1m30s",
    "1s": "a duration of at least 1s, such as 60s",
  }[least];
  const min = { any: 0n, positive: 1n, "1s": 1_000_000_000n }[least];
  return z
    .string({ error: wanted })
    .refine((value) => (parseDuration(value) ?? -1n) >= min, { error: wanted, abort: true })
    .overwrite((value) => formatDuration(parseDuration(value) ?? 0n));
}

/** Duration text with an upper bound; comes out in the form of proto JSON. */
export function durationUpTo(most: string, least: "any" | "positive") {
  const mostNanos = parseDuration(most) ?? 0n;
  return duration(least).refine((value) => (parseDuration(value) ?? 0n) <= mostNanos, {
    error: `a duration of at most ${most}`,
  });
}

/** http or https, absolute, without credentials. */
export function url(what: string) {
  const wanted = `${what}: an http or https URL without credentials in it, such as https://example.com/mcp`;
  return z.string({ error: wanted }).refine(isHttpUrl, { error: wanted });
}

// RFC 8414 section 2: an issuer has no query and no fragment. It is compared as it is written.
export function issuerUrl(what: string) {
  const wanted = `${what}: an http or https URL without credentials, query and fragment, such as https://id.example.com/realm`;
  return z.string({ error: wanted }).refine((value) => isHttpUrl(value) && !/[?#]/.test(value), { error: wanted });
}

/** Absolute, http or https, without credentials. */
export function isHttpUrl(value: string): boolean {
  const parsed = /^https?:\/\//i.test(value) && !/[\s\\]/.test(value) ? URL.parse(value) : null;
  return parsed !== null && parsed.username === "" && parsed.password === "" && parsed.hostname !== "";
}

/** Plain http to another machine. */
export function isPlainRemote(address: string): boolean {
  const parsed = URL.parse(address);
  return parsed?.protocol === "http:" && !/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(parsed.hostname);
}

/** Absolute path without `..` and control characters. It is a path on the proxy, so nobody looks whether it exists. */
export const absolutePath = z
  .string({ error: "an absolute path" })
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  .refine((value) => value.startsWith("/") && !/[\0-\x1f]/.test(value) && !value.split("/").includes(".."), {
    error: "an absolute path without ..",
  });

export const environmentName = matching(
  /^[A-Za-z_][A-Za-z0-9_]*$/,
  "the name of an environment variable: letters, digits and _, not starting with a digit",
);

// RFC 9110 5.6.2: token.
export const headerName = matching(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/, "the name of an HTTP header");

// RFC 6749 3.3: scope-token.
export const scopes = z.array(matching(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'a scope: printable ASCII without spaces, " and \\'), {
  error: "a list of scopes",
});

/** Any JSON object, for schemas and arguments that are passed on. */
export const anyObject = z.record(z.string(), z.json(), { error: "a map" });

export const namedRef = section({ name: text("a name") });

export const nameWanted = "a name of 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit";
export const plainName = matching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, nameWanted);

export const groupNameWanted =
  "a group name of lowercase letters, digits, '_', '-' and single spaces between them, at most 63 characters";
export const groupName = matching(/^(?=.{1,63}$)[a-z0-9_-]+(?: [a-z0-9_-]+)*$/, groupNameWanted);

/** Reports values that stand twice, at each later one. */
export function sayRepeated(
  say: Say,
  values: Iterable<readonly [Path, string | undefined]>,
  describe: (value: string) => string,
): void {
  const seen = new Set<string>();
  for (const [path, value] of values) {
    if (value === undefined) continue;
    if (seen.has(value)) say(path, describe(value), { hint: "the first one stands above; keep one of them" });
    seen.add(value);
  }
}

/** Reports every key but the first of those that are there, since there may be one only. A secret in the file is the last to keep. */
export function sayExclusive(say: Say, value: object, keys: readonly string[]): void {
  const [first, ...others] = keys.filter((key) => (value as Readonly<Record<string, unknown>>)[key] !== undefined);
  for (const other of others) {
    const isLiteral = !/(Env|File)$/.test(first ?? "");
    const hint = isLiteral ? `keep ${other}: it leaves the secret out of the file` : "keep one of them";
    say([other], `${first} and ${other} exclude each other`, { hint });
  }
}
