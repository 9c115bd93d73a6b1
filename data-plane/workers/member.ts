// One worker's process, as its leader sees it.
import cluster from "node:cluster";
import { getCompileCacheDir } from "node:module";
import { dirname, join } from "node:path";
import { type Channel, openChannel } from "./channel.ts";
import type { LeaderAnswers, WorkerAnswers } from "./protocol.ts";

export interface Member extends Channel<WorkerAnswers, LeaderAnswers> {
  /** From 1 on; whoever replaces it has the same. */
  readonly worker: number;
  readonly pid: number;
  /** When it was started, milliseconds since 1970. */
  readonly sinceMs: number;
  /** How it ended, once it has. */
  readonly ended: Promise<string>;
  kill(): void;
  /** It ends by itself, as nobody leads it any more. */
  leave(): void;
}

/** Starts one. */
export function forkMember(worker: number): Member {
  // Handed out from here, a connection on its way to a worker that is killed meanwhile would hang: nobody takes it back. The first
  // `setupPrimary` is what reads it.
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  cluster.setupPrimary({ exec: join(import.meta.dirname, "worker.ts"), args: [], serialization: "advanced" });
  const compiled = getCompileCacheDir(); // what this process keeps for the next start is good for them too
  const forked = cluster.fork(compiled === undefined ? {} : { NODE_COMPILE_CACHE: dirname(compiled) });
  const child = forked.process;
  const channel = openChannel<WorkerAnswers, LeaderAnswers>(child);
  const ended = new Promise<string>((resolve) => {
    child.once("exit", (code, signal) => resolve(signal ?? `code ${code}`));
    child.once("error", (error) => resolve(error.message));
  });
  void ended.then(() => channel.close());
  return {
    ...channel,
    ...{ worker, pid: child.pid ?? -1, sinceMs: Date.now(), ended },
    kill: () => void child.kill("SIGKILL"),
    leave: () => child.connected && child.disconnect(),
  };
}
