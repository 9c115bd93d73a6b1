// `vmcpctl help exit-codes`.
import { exitCodes } from "../exit-codes.ts";

const meanings: Readonly<Record<keyof typeof exitCodes, string>> = {
  ok: "it is done, or it is as it should be",
  failure: "it is not; or, as diff and audit verify say, there is a difference",
  usage: "the command line is wrong",
  badInput: "a file is wrong, or can't be read",
  unavailable: "no control plane answers, or it can't do it now",
  conflict: "somebody else has changed it meanwhile",
  temporary: "it takes too long, or there is too much to do; try again",
  permission: "you may not, or nobody knows you",
  findings: "analyze, doctor or --fail-on found something",
  interrupted: "ended by Ctrl-C or SIGTERM",
};

export function exitCodeHelp(): string {
  const lines = Object.entries(exitCodes).map(
    ([name, code]) => `  ${String(code).padStart(3)}  ${meanings[name as keyof typeof meanings]}`,
  );
  return `Exit codes of vmcpctl:\n\n${lines.join("\n")}\n\ndiff is 0 for the same, 1 for a difference, and 2 or more for an error.\n`;
}
