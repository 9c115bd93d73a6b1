// Tells when files in directories may have changed: by the system's word where there is one, and by looking now and then.
import { type FSWatcher, statSync, watch } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

export interface WatchOptions {
  readonly directories: readonly string[];
  /** How often to look without being told. */
  readonly pollMs: number;
  readonly signal: AbortSignal;
}

// Who writes several files writes them one after the other.
const settleMs = 20;

/** Yields at once, and whenever it is time to look again. A directory that comes later, or is replaced, is found by looking. */
export async function* watchDirectories({ directories, pollMs, signal }: WatchOptions): AsyncGenerator<void> {
  const watchers = new Map<string, { readonly watcher: FSWatcher; readonly inode: number }>();
  let wake: () => void = () => undefined;
  let isChanged = false;
  const onChange = (): void => {
    isChanged = true;
    wake();
  };

  function follow(directory: string): void {
    const inode = statSync(directory, { throwIfNoEntry: false })?.ino;
    const existing = watchers.get(directory);
    if (existing?.inode === inode) return;
    existing?.watcher.close();
    watchers.delete(directory);
    if (inode === undefined) return;
    try {
      const watcher = watch(directory, { persistent: false }, onChange);
      watcher.on("error", () => watcher.close()); // the polls go on
      watchers.set(directory, { watcher, inode });
    } catch {
      // No watch to be had, as where too many are open: the polls do.
    }
  }

  async function changed(): Promise<void> {
    const woken = Promise.withResolvers<void>();
    wake = woken.resolve;
    if (isChanged) return;
    const timer = setTimeout(woken.resolve, pollMs);
    signal.addEventListener("abort", wake, { once: true });
    await woken.promise;
    signal.removeEventListener("abort", wake);
    clearTimeout(timer);
  }

  try {
    while (!signal.aborted) {
      for (const directory of new Set(directories)) follow(directory);
      isChanged = false;
      yield;
      await changed();
      await sleep(settleMs);
    }
  } finally {
    for (const { watcher } of watchers.values()) watcher.close();
  }
}
