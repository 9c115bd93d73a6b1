// Secrets on this proxy: found where the configuration points to, and kept so that nothing shows them by accident.
import { readFileSync } from "node:fs";
import { inspect } from "node:util";

/** A text that logs, errors and JSON show as `[secret]`; only `reveal` gives it. */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return "[secret]";
  }

  toJSON(): string {
    return "[secret]";
  }

  [inspect.custom](): string {
    return "[secret]";
  }
}

/** Where a secret is: at most one of them. Empty texts count as unset. */
export interface SecretPlace {
  /** Name of an environment variable of this proxy. */
  readonly env?: string;
  /** Path on this proxy. */
  readonly file?: string;
}

/** The secret, undefined when no place is named. Throws an Error that names the place when there is none, never a value. */
export function readSecret({ env, file }: SecretPlace): Secret | undefined {
  if (env) return new Secret(resolveReference(`env:${env}`));
  if (file) return new Secret(resolveReference(`file:${file}`));
  return undefined;
}

/**
 * The value a text stands for: the control plane only knows `env:NAME` and `file:/path`; any other text is itself. Throws an
 * Error that names the reference, never a value.
 */
export function resolveReference(text: string): string {
  if (text.startsWith("env:")) {
    const value = process.env[text.slice(4)];
    if (value === undefined || value === "") throw new Error(`environment variable ${text.slice(4)} is not set on this proxy`);
    return value;
  }
  if (!text.startsWith("file:")) return text;
  const path = text.slice(5);
  const value = readText(path).trimEnd();
  if (value === "") throw new Error(`file ${path} is empty on this proxy`);
  return value;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new Error(`file ${path} can't be read on this proxy (${(error as NodeJS.ErrnoException).code})`);
  }
}
