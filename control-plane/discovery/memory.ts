// What was seen before this process started: a control plane that comes up before those it asks must not empty the groups.
import { readFileSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import type { Log } from "../../common/log.ts";
import type { Seen } from "./checked.ts";
import type { Sighting } from "./provider.ts";

export interface Memory {
  /** What a provider saw last; to be looked through as any other sighting. */
  recall(provider: string): Sighting | undefined;
  /** Replaces all. Returns at once; what fails is logged. */
  keep(parts: ReadonlyMap<string, Iterable<Seen>>): void;
  /** Resolves when what was given last is kept. */
  settled(): Promise<void>;
}

/** In a file beside the store; one that can't be read is no file. */
export function fileMemory(path: string, log: Log): Memory {
  const recalled = read(path);
  let newest: string | undefined;
  let writing: Promise<void> | undefined;

  async function write(): Promise<void> {
    while (newest !== undefined) {
      const text = newest;
      newest = undefined;
      try {
        await writeFile(`${path}.new`, text, { mode: 0o600 });
        await rename(`${path}.new`, path);
      } catch (error) {
        log.warn({ path, reason: (error as NodeJS.ErrnoException).code }, "what is discovered can't be kept for the next start");
      }
    }
    writing = undefined;
  }

  return {
    recall: (provider) => recalled[provider],
    keep(parts) {
      newest = JSON.stringify(Object.fromEntries([...parts].map(([provider, seen]) => [provider, toSighting(seen)])));
      writing ??= write();
    },
    settled: async () => writing,
  };
}

function read(path: string): Record<string, Sighting> {
  try {
    const json: unknown = JSON.parse(readFileSync(path, "utf8"));
    return typeof json === "object" && json !== null ? (json as Record<string, Sighting>) : {};
  } catch {
    return {};
  }
}

function toSighting(seen: Iterable<Seen>): Sighting {
  return {
    workloads: [...seen].flatMap(({ group, name, transport, urls, metadata }) =>
      urls.map((url) => ({ group, name, transport, url, metadata, isRunning: true })),
    ),
  };
}
