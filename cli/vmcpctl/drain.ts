// `vmcpctl proxy drain`: a proxy that takes no new work, and one that takes it again.
import { exitCodes } from "../exit-codes.ts";
import { connect, type GlobalOptions } from "./connection.ts";
import type { Output } from "./output.ts";

export interface DrainOptions extends GlobalOptions {
  readonly undo: boolean;
  readonly reason: string;
}

/** Returns the exit code. */
export async function drain(proxy: string, { undo, reason, ...globals }: DrainOptions, output: Output): Promise<number> {
  using connection = connect(globals);
  const { changed } = await connection.admin.drainProxy({ proxy, undo, reason }, connection.deadline());
  const [done, already] = undo ? ["takes work again", "takes work already"] : ["drains", "is drained already"];
  output.data(`proxies/${proxy} ${changed ? done : already}\n`);
  if (!undo && changed)
    output.note(`it turns unready and finishes what it has; "vmcpctl proxy status ${proxy}" shows when nothing is left\n`);
  return exitCodes.ok;
}
