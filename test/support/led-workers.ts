// Workers and what their leader keeps for them, in one process: only their messages are copied, as between processes.
import type { StoreEvent } from "../../data-plane/session/record-store.ts";
import { type Channel, openChannel } from "../../data-plane/workers/channel.ts";
import type { LeaderAnswers, WorkerAnswers } from "../../data-plane/workers/protocol.ts";
import { createSharedStores } from "../../data-plane/workers/shared-stores.ts";
import { pair } from "./channel-pair.ts";

export interface LedWorker {
  /** As the worker has its leader. */
  readonly leader: Channel<LeaderAnswers, WorkerAnswers>;
  /** What the leader does when the worker has ended. */
  end(): void;
}

/** Each call of `worker` starts one. */
export function leadWorkers(
  stack: AsyncDisposableStack,
  sessionsMax = 10_000,
): { worker(onEvent: (event: StoreEvent) => void): LedWorker } {
  const workers = new Set<Channel<WorkerAnswers, LeaderAnswers>>();
  const stores = stack.use(createSharedStores(() => workers, sessionsMax));
  return {
    worker(onEvent) {
      const [here, there] = pair();
      const led = openChannel<WorkerAnswers, LeaderAnswers>(here);
      led.serve(stores.answersFor(led) as LeaderAnswers);
      workers.add(led);
      const leader = openChannel<LeaderAnswers, WorkerAnswers>(there);
      leader.serve({ heard: onEvent } as WorkerAnswers);
      return {
        leader,
        end() {
          workers.delete(led);
          stores.forget(led);
        },
      };
    },
  };
}
