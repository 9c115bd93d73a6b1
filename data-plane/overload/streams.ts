// The event streams that are open: how many, whose, and how much waits in them for clients that read slowly.

/** What carries a stream; a response of node:http is one. */
export interface Carrier {
  readonly writableLength: number;
  once(event: "close", listener: () => void): unknown;
  destroy(): unknown;
}

export type StreamRefusal = "too_many_streams" | "too_many_streams_of_caller";

export interface Streams {
  /** Counts it until it closes, or gives why there is no room. Callers without a name are not counted apart. */
  open(carrier: Carrier, caller: string | undefined): StreamRefusal | undefined;
  /** What waits in all of them. */
  queuedBytes(): number;
  /** Ends those with the longest queues until no more than this waits; gives how many. */
  cutLargest(bytes: number): number;
  readonly size: number;
  /** The most that one caller has. */
  readonly mostOfOne: number;
}

export interface StreamsOptions {
  readonly most: number;
  readonly mostPerCaller: number;
}

export function createStreams({ most, mostPerCaller }: StreamsOptions): Streams {
  const carriers = new Set<Carrier>();
  const byCaller = new Map<string, number>();

  function queuedBytes(): number {
    let bytes = 0;
    for (const { writableLength } of carriers) bytes += writableLength;
    return bytes;
  }

  return {
    open(carrier, caller) {
      if (carriers.size >= most) return "too_many_streams";
      const own = caller === undefined ? 0 : (byCaller.get(caller) ?? 0);
      if (own >= mostPerCaller) return "too_many_streams_of_caller";
      carriers.add(carrier);
      if (caller !== undefined) byCaller.set(caller, own + 1);
      carrier.once("close", () => {
        if (!carriers.delete(carrier) || caller === undefined) return;
        const left = (byCaller.get(caller) ?? 1) - 1;
        if (left > 0) byCaller.set(caller, left);
        else byCaller.delete(caller);
      });
      return undefined;
    },
    queuedBytes,
    cutLargest(bytes) {
      let queued = queuedBytes();
      if (queued <= bytes) return 0;
      let cut = 0;
      for (const carrier of [...carriers].sort((a, b) => b.writableLength - a.writableLength)) {
        if (queued <= bytes) break;
        queued -= carrier.writableLength;
        carrier.destroy();
        cut++;
      }
      return cut;
    },
    get size() {
      return carriers.size;
    },
    get mostOfOne() {
      return Math.max(0, ...byCaller.values());
    },
  };
}
