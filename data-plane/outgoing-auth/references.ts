// Values that the control plane only knows by reference: `env:NAME` and `file:/path` are resolved here, on the proxy.
import { readFileSync } from "node:fs";

/** The value a text stands for; any other text is itself. Throws an Error that names the reference, never a value. */
export function resolveReference(text: string): string {
  if (text.startsWith("env:")) {
    const value = process.env[text.slice(4)];
    if (value === undefined || value === "") throw new Error(`environment variable ${text.slice(4)} is not set on this proxy`);
    return value;
  }
  if (!text.startsWith("file:")) return text;
  const path = text.slice(5);
  try {
    return readFileSync(path, "utf8").trimEnd();
  } catch (error) {
    throw new Error(`file ${path} can't be read on this proxy (${(error as NodeJS.ErrnoException).code})`);
  }
}
