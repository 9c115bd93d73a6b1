// Waits for the signal to stop. A second one does not wait for a clean end.

/** Resolves at the first SIGINT, SIGTERM or SIGQUIT. */
export function untilStopped(): Promise<void> {
  return new Promise((resolve) => {
    let count = 0;
    const stop = (): void => {
      if (++count > 1) process.exit(130);
      resolve();
    };
    for (const signal of ["SIGINT", "SIGTERM", "SIGQUIT"] as const) process.on(signal, stop);
  });
}
