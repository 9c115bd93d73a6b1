// Log lines about what strangers cause: as many as they like to cause, so few of them are written.
import type { Log } from "../../common/log.ts";
import type { Clock } from "./clock.ts";

type Level = "error" | "warn" | "info";

export interface QuietLog {
  /**
   * At most one line every ten seconds for each message (and issuer, where one is named); `unsaid` counts those in between.
   * Never throws: a log that fails decides about nobody.
   */
  say(level: Level, fields: Readonly<Record<string, unknown>>, message: string): void;
}

const gapMs = 10_000;
const keysMax = 100;

export function createQuietLog(log: Log, clock: Clock): QuietLog {
  const said = new Map<string, { atMs: number; unsaid: number }>();
  return {
    say(level, fields, message) {
      try {
        say(level, fields, message);
      } catch {
        // There is nowhere to say it.
      }
    },
  };

  function say(level: Level, fields: Readonly<Record<string, unknown>>, message: string): void {
    const nowMs = clock.elapsedMs();
    const key = `${message} ${fields.issuer}`;
    const last = said.get(key);
    if (last && nowMs - last.atMs < gapMs) {
      last.unsaid++;
      return;
    }
    log[level]({ ...fields, ...(last?.unsaid ? { unsaid: last.unsaid } : {}) }, message);
    said.delete(key);
    said.set(key, { atMs: nowMs, unsaid: 0 });
    if (said.size > keysMax) said.delete(said.keys().next().value as string);
  }
}
