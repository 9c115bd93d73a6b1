// Cuts off clients that do not read what they asked for, and so make us hold it.
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";

export interface StallWatchOptions {
  /** How often all responses are looked at, milliseconds. Default 5,000. */
  readonly lookMs?: number;
  /** After so many looks without progress a response is destroyed. Default 6. */
  readonly looksMax?: number;
}

interface Progress {
  sentBytes: number;
  queuedBytes: number;
  idleLooks: number;
}

/**
 * Watches responses until they close, with one timer for all. Progress is any byte that the kernel takes, so that a slow line
 * is not mistaken for a client that stopped. Looks are counted rather than time, which also passes while this process is stopped.
 */
export function createStallWatch({ lookMs = 5_000, looksMax = 6 }: StallWatchOptions = {}): (response: ServerResponse) => void {
  const watched = new Map<ServerResponse, Progress>();
  let timer: NodeJS.Timeout | undefined;

  function look(): void {
    for (const [response, progress] of watched) {
      const { socket } = response;
      // Without a socket it waits behind an earlier response of its connection, which is watched itself.
      if (!socket || socket.writableLength === 0) {
        progress.idleLooks = 0;
        continue;
      }
      const sentBytes = socket.bytesWritten - socket.writableLength;
      const queuedBytes = queuedBytesOf(socket);
      const isMoving = sentBytes !== progress.sentBytes || queuedBytes !== progress.queuedBytes;
      progress.idleLooks = isMoving ? 0 : progress.idleLooks + 1;
      Object.assign(progress, { sentBytes, queuedBytes });
      if (progress.idleLooks >= looksMax) response.destroy();
    }
  }

  return (response) => {
    if (response.closed) return;
    watched.set(response, { sentBytes: -1, queuedBytes: -1, idleLooks: 0 });
    timer ??= setInterval(look, lookMs).unref();
    response.once("close", () => {
      watched.delete(response);
      if (watched.size > 0) return;
      clearInterval(timer);
      timer = undefined;
    });
  };
}

/** Destroys the response once its client has read nothing of what waits for it for 30 s. */
export const cutWhenStalled = createStallWatch();

// A large write counts as unsent until the kernel has taken all of it; only libuv knows how far it is. Should Node hide that one
// day, a client has 30 s for each write.
function queuedBytesOf(socket: Socket): number {
  const { _handle: handle } = socket as { _handle?: { writeQueueSize?: number } };
  return handle?.writeQueueSize ?? 0;
}
