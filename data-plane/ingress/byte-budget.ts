// How many bytes several holders may keep together. Beyond it the one that wrote least recently forgets what it keeps.

export interface ByteBudget {
  /** To be told of every change of what a holder keeps. The holder that tells is the last to forget, and never does alone. */
  note(holder: Holder): void;
  readonly bytes: number;
}

export interface Holder {
  readonly keptBytes: number;
  /** Lets go of everything; it tells the budget. */
  forget(): void;
}

/** Nothing is held at first. A holder that keeps nothing is not held on to. */
export function createByteBudget(bytesMax: number): ByteBudget {
  const holders = new Map<Holder, number>(); // in order of their last change, oldest first
  let bytes = 0;
  return {
    note(holder) {
      bytes += holder.keptBytes - (holders.get(holder) ?? 0);
      holders.delete(holder);
      if (holder.keptBytes > 0) holders.set(holder, holder.keptBytes);
      while (bytes > bytesMax && holders.size > 1) holders.keys().next().value?.forget();
    },
    get bytes() {
      return bytes;
    },
  };
}
