// Imported first: what is loaded after this is compiled once and kept for the next start, which takes half as long. It is kept where
// only this user writes, since what is there is run; the directory that Node would take by itself is everybody's.
import { mkdirSync } from "node:fs";
import { enableCompileCache, flushCompileCache } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

const flushMs = 5_000;

const home = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
const directory = join(home, "vmcp");
// One after the other: where none can be made, Node's own way to make all of them may never end.
if (isThere(home) && isThere(directory)) {
  enableCompileCache(directory);
  setTimeout(flushCompileCache, flushMs).unref(); // else written when the process ends, if it is not killed
}

function isThere(path: string): boolean {
  try {
    mkdirSync(path, { mode: 0o700 });
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EEXIST"; // we go on without it, only slower
  }
}
