// Declarations as they may be shown: every secret as ***.
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { isSecretName, isSecretPath } from "./secrets.ts";

const mask = "***";

type Path = readonly (string | number)[];

/** A copy; `path` is where the value stands in the spec of its resource. References (`env:NAME`, `file:/path`) are no secrets. */
export function redact(value: JsonValue, path: Path = []): JsonValue {
  if (Array.isArray(value))
    return path.at(-1) === "args" ? redactArgs(value) : value.map((one, at) => redact(one, [...path, at]));
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).map(([key, one]) => [key, redact(one, [...path, key])] as const);
    return Object.fromEntries(entries) satisfies JsonObject;
  }
  if (value === null || value === "" || isReference(value)) return value;
  if (isSecretPath(path)) return mask;
  return typeof value === "string" ? redactUrl(value) : value;
}

export function hasMask(value: JsonValue | undefined): boolean {
  return JSON.stringify(value)?.includes(mask) ?? false;
}

function isReference(value: JsonValue): boolean {
  return typeof value === "string" && /^(env:|file:\/)/.test(value);
}

/** `user:password@` and what follows `token=` and the like. */
function redactUrl(text: string): string {
  return text
    .replace(/(:\/\/)[^\s/@]{1,256}@/g, `$1${mask}@`)
    .replace(/([?&])([\w.-]{1,64})=([^&#\s]+)/g, (all, mark, name) => (isSecretName(name) ? `${mark}${name}=${mask}` : all));
}

/** `--token=…`, and what follows `--token`. */
function redactArgs(args: readonly JsonValue[]): JsonValue[] {
  return args.map((arg, at) => {
    if (typeof arg !== "string") return arg;
    const before = args[at - 1];
    if (typeof before === "string" && /^--?[\w-]+$/.test(before) && isSecretName(bare(before)) && !arg.startsWith("-"))
      return mask;
    const [, option = "", value = ""] = /^(--?[\w-]+|\w+)=(.*)$/s.exec(arg) ?? [];
    return value !== "" && isSecretName(bare(option)) ? `${option}=${mask}` : redactUrl(arg);
  });
}

function bare(option: string): string {
  return option.replace(/^-+/, "");
}
