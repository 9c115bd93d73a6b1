// How much of its memory the process uses.
import { totalmem } from "node:os";
import { getHeapStatistics } from "node:v8";

export interface MemoryUse {
  /** The nearer of two ends: V8's heap, and what the process may have. */
  readonly used: number;
  readonly limit: number;
}

/** `limitBytes`: of resident memory. Default: that of the container, else as much as V8 lets the heap have. */
export function memoryUse(limitBytes: number | undefined): () => MemoryUse {
  const { heap_size_limit: heapLimit } = getHeapStatistics();
  const contained = process.constrainedMemory();
  const limit = limitBytes ?? (contained > 0 && contained <= totalmem() ? contained : heapLimit);
  return () => {
    const heap = { used: getHeapStatistics().used_heap_size, limit: heapLimit };
    const resident = { used: process.memoryUsage.rss(), limit };
    return resident.used / resident.limit >= heap.used / heap.limit ? resident : heap;
  };
}
