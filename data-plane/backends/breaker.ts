// A circuit breaker per backend, driven by live calls: opossum with the costs and surprises switched off.
import CircuitBreaker from "opossum";
import { BackendError } from "./errors.ts";

export interface BreakerSettings {
  readonly enabled: boolean;
  /** Failures in a row that open it. */
  readonly failureThreshold: number;
  /** How long it stays open before one call may try. */
  readonly openMs: number;
}

export interface Breaker extends Disposable {
  /** Runs the work, or throws BackendError("shed") at once while the breaker is open. The work must settle by itself. */
  run<T>(work: () => Promise<T>): Promise<T>;
  /** The backend was seen to work. */
  reset(): void;
  readonly isOpen: boolean;
}

/** A closed breaker. */
export function createBreaker(settings: BreakerSettings): Breaker {
  const circuit = new CircuitBreaker((work: () => Promise<unknown>) => work(), {
    timeout: false, // every call has a deadline of its own, and aborts at it
    errorThresholdPercentage: 50,
    volumeThreshold: 20,
    resetTimeout: settings.openMs,
    rollingPercentilesEnabled: false, // they sort every latency at every failure
    enableSnapshots: false,
    enabled: settings.enabled,
    errorFilter: (error: unknown) => !isFailure(error),
  });
  let failuresInRow = 0;
  circuit.on("success", () => {
    failuresInRow = 0;
  });
  circuit.on("failure", () => {
    failuresInRow++;
    if (settings.enabled && failuresInRow >= settings.failureThreshold) circuit.open();
  });

  return {
    async run<T>(work: () => Promise<T>): Promise<T> {
      try {
        return (await circuit.fire(work)) as T;
      } catch (error) {
        const { code } = error as { code?: string };
        if (code === "ESHUTDOWN") throw new BackendError("unavailable", "not_executed", "the backend was removed");
        if (code !== "EOPENBREAKER") throw error;
        throw leftAlone();
      }
    },
    reset() {
      failuresInRow = 0;
      circuit.close();
    },
    get isOpen() {
      return circuit.opened;
    },
    [Symbol.dispose]() {
      circuit.shutdown();
    },
  };
}

/** Why a call is not made while the breaker is open. */
export function leftAlone(): BackendError {
  return new BackendError("shed", "not_executed", "its last calls failed; it is left alone for a moment");
}

// What says nothing about the backend's health does not count: refused credentials, a forgotten session.
export function isFailure(error: unknown): boolean {
  return (
    error instanceof BackendError && (error.code === "unavailable" || error.code === "timeout" || error.code === "bad_answer")
  );
}
