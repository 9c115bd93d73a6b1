// Deadlines, health checks and circuit breakers.
import { z } from "zod";
import { toSeconds } from "./durations.ts";
import { count, duration, flag, type Partly, type Say, section, word } from "./fields.ts";

export const operational = section({
  logLevel: word("", "debug").optional(),
  timeouts: section({
    default: duration().optional(),
    perWorkload: z.record(z.string(), duration(), { error: "a map of backend name to duration" }).optional(),
  }).optional(),
  failureHandling: section({
    healthCheckInterval: duration().optional(),
    unhealthyThreshold: count(1).optional(),
    healthCheckTimeout: duration("any").optional(),
    statusReportingInterval: duration().optional(),
    // Both spellings stand in the original's own documents.
    partialFailureMode: z
      .preprocess((value) => (value === "bestEffort" ? "best_effort" : value), word("fail", "best_effort"))
      .optional(),
    circuitBreaker: section({
      enabled: flag.optional(),
      failureThreshold: count(0).optional(),
      timeout: duration("any").optional(),
    }).optional(),
  }).optional(),
});

const intervalDefaultSeconds = 30;

export function operationalRules(value: Partly<z.output<typeof operational>>, say: Say): void {
  const handling = value.failureHandling;
  const timeout = toSeconds(handling?.healthCheckTimeout);
  const interval = toSeconds(handling?.healthCheckInterval) ?? intervalDefaultSeconds;
  if (timeout !== undefined && timeout >= interval) {
    say(
      ["failureHandling", "healthCheckTimeout"],
      `a health check may take ${timeout}s but the next one begins after ${interval}s`,
      {
        hint: "make healthCheckTimeout shorter than healthCheckInterval, which is 30s when unset",
      },
    );
  }
  const breaker = handling?.circuitBreaker;
  if (breaker === undefined || breaker.enabled === false) return;
  const path = ["failureHandling", "circuitBreaker"];
  if (breaker.failureThreshold === 0)
    say([...path, "failureThreshold"], "a breaker needs 1 failure or more to open", { hint: "set enabled: false to have none" });
  const open = toSeconds(breaker.timeout);
  if (open !== undefined && open < 1) say([...path, "timeout"], "a breaker must stay open for 1s or more");
}
