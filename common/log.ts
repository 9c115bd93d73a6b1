// JSON lines on standard error. Values under names that hold secrets are never written.
import { destination, type Logger, pino } from "pino";

export type Log = Logger;

const secretKeys = ["authorization", "cookie", "password", "secret", "token", "clientSecret", "headerValue", "accessToken"];

/** Opens the process's log. Level from `level`, else `VMCP_LOG_LEVEL`, else `info`. */
export function openLog(name: string, level = process.env.VMCP_LOG_LEVEL ?? "info"): Log {
  const paths = secretKeys.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]);
  return pino({ name, level, base: { name }, redact: { paths, censor: "[redacted]" } }, destination({ dest: 2, sync: false }));
}
