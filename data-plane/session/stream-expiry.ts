// A stream lives no longer than the credential it was opened with, or a newer one that its caller has shown since.
import type { Caller } from "../incoming-auth/caller.ts";

// As much later as clocks may be apart.
const graceMs = 30_000;
const timerMsMax = 2 ** 31 - 1;

/** Ends the stream when the caller's newest token is over; its client then opens another, with a fresh one. */
export function endWithToken(
  session: { readonly caller: Caller | undefined },
  stream: { end(): void; readonly closed: AbortSignal },
): void {
  let timer: NodeJS.Timeout | undefined;

  function arm(): void {
    const { token } = session.caller ?? {};
    if (!token || stream.closed.aborted) return;
    const leftMs = token.expiresAtMs + graceMs - Date.now();
    if (leftMs <= 0) return stream.end();
    timer = setTimeout(arm, Math.min(leftMs, timerMsMax)).unref();
  }

  arm();
  stream.closed.addEventListener("abort", () => clearTimeout(timer), { once: true });
}
