// Keeps a token endpoint that is down, or slow, from holding everybody up, and everybody from holding it down: a breaker, and so
// many requests at a time. Not opossum: one probe at a time and growing pauses would be written around it anyway.
import { NoCredentialError } from "./credential.ts";

export interface Gate {
  /**
   * Runs the work when it is its turn. Throws GateClosedError without having run it while the endpoint is left alone, or when too
   * many wait or wait too long. The work must settle by itself.
   */
  run<T>(work: () => Promise<T>): Promise<T>;
}

/** Work was not begun. */
export class GateClosedError extends NoCredentialError {
  override name = "GateClosedError";
  readonly reason: "left_alone" | "too_many";

  constructor(reason: "left_alone" | "too_many") {
    super(words[reason], { fault: "temporary" });
    this.reason = reason;
  }
}

const words = {
  left_alone: "the token endpoint failed several times and is left alone for a moment",
  too_many: "too many wait for the token endpoint",
};

export interface GateOptions {
  /** Milliseconds. */
  readonly nowMs: () => number;
  /** Whether an error says that the endpoint is not well; what it refuses says that it is. */
  readonly isFailure: (error: unknown) => boolean;
  /** How long work may wait for its turn, milliseconds. Default 5,000. */
  readonly waitMs?: number;
}

const failuresMax = 5;
const pausesMs = [5_000, 10_000, 20_000, 30_000];
const runningMax = 32;
const waitingMax = 256;

/** Closed after 5 failures in a row for 5 s, then 10, 20 and at most 30, with one attempt in between. */
export function createGate({ nowMs, isFailure, waitMs = 5_000 }: GateOptions): Gate {
  const waiting = new Set<() => void>();
  let running = 0;
  let failuresInRow = 0;
  let pauses = 0;
  let closedUntilMs = 0;
  let isProbed = false;

  const isLeftAlone = (): boolean => pauses > 0 && (isProbed || nowMs() < closedUntilMs);

  function failed(isProbe: boolean): void {
    failuresInRow++;
    // What was under way when the gate was closed says nothing new.
    if (pauses > 0 ? !isProbe : failuresInRow < failuresMax) return;
    closedUntilMs = nowMs() + (pausesMs[Math.min(pauses, pausesMs.length - 1)] as number);
    pauses++;
  }

  function worked(): void {
    failuresInRow = 0;
    pauses = 0;
  }

  async function turn(): Promise<void> {
    if (running < runningMax) {
      running++;
      return;
    }
    if (waiting.size >= waitingMax) throw new GateClosedError("too_many");
    await new Promise<void>((resolve, reject) => {
      const enter = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        waiting.delete(enter);
        reject(new GateClosedError("too_many"));
      }, waitMs);
      waiting.add(enter);
    });
  }

  function leave(): void {
    const [next] = waiting;
    if (!next) {
      running--;
      return;
    }
    waiting.delete(next);
    next(); // it has this one's place
  }

  return {
    async run(work) {
      if (isLeftAlone()) throw new GateClosedError("left_alone");
      await turn();
      let isProbe = false;
      try {
        if (isLeftAlone()) throw new GateClosedError("left_alone");
        isProbe = pauses > 0;
        if (isProbe) isProbed = true;
        const value = await work();
        if (isProbe || pauses === 0) worked();
        return value;
      } catch (error) {
        if (isFailure(error)) failed(isProbe);
        else if (!(error instanceof GateClosedError) && (isProbe || pauses === 0)) worked();
        throw error;
      } finally {
        if (isProbe) isProbed = false;
        leave();
      }
    },
  };
}

export interface Gates {
  /** The gate of a URL: one for all that ask there. */
  of(url: string): Gate;
}

const gatesMax = 256;

/** Remembers the 256 that were asked for last. */
export function createGates(options: GateOptions): Gates {
  const gates = new Map<string, Gate>();
  return {
    of(url) {
      const gate = gates.get(url) ?? createGate(options);
      gates.delete(url);
      gates.set(url, gate);
      if (gates.size > gatesMax) gates.delete(gates.keys().next().value as string);
      return gate;
    },
  };
}
