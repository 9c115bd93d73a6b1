// Exit codes of both programs (sysexits.h where it has one).
export const exitCodes = {
  ok: 0,
  failure: 1,
  usage: 64,
  badInput: 65,
  unavailable: 69,
  conflict: 73,
  temporary: 75,
  permission: 77,
  /** What was looked for was found: see --fail-on. */
  findings: 79,
  /** By SIGINT or SIGTERM. */
  interrupted: 130,
} as const;

/** Ends a command with one line on standard error. */
export class ExitError extends Error {
  override name = "ExitError";
  readonly exitCode: number;
  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}
