// Each control plane of the store: what only a proxy knows comes through the one that it is connected to.
import type { ClientReadableStream } from "@grpc/grpc-js";
import type { ControlPlane } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { type Connection, connect, explain, type GlobalOptions } from "./connection.ts";
import type { Output } from "./output.ts";
import { plain } from "./table.ts";

/** What each says; one that can't be asked is said on standard error, unless it is the one that was named. */
export async function askEveryPlane<Answer>(
  options: GlobalOptions,
  output: Output,
  ask: (connection: Connection) => Promise<Answer>,
): Promise<Answer[]> {
  using named = connect(options);
  const first = await ask(named);
  const others = await othersOf(named);
  const answers = await Promise.all(
    others.map(async ({ id, address }) => {
      const other = { ...options, server: address };
      try {
        using connection = connect(other);
        return [await ask(connection)];
      } catch (error) {
        output.note(missingText(id, error, other));
        return [];
      }
    }),
  );
  return [first, ...answers.flat()];
}

export interface EveryPlane<Message> {
  readonly open: (admin: Connection["admin"]) => ClientReadableStream<Message>;
  readonly onMessage: (message: Message) => void;
  /** Ends it all with exit code 0. */
  readonly done?: AbortSignal;
}

/**
 * Runs until SIGINT or SIGTERM, which is exit code 130, until `done`, or until the control plane that was named goes away. Others that can't be
 * reached, or go away, are said on standard error.
 */
export async function followEveryPlane<Message>(
  options: GlobalOptions,
  output: Output,
  { open, onMessage, done }: EveryPlane<Message>,
): Promise<number> {
  await using stack = new AsyncDisposableStack();
  const named = stack.use(connect(options));
  const others = await othersOf(named);
  const ended = Promise.withResolvers<number>();
  const interrupt = () => ended.resolve(exitCodes.interrupted);
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, interrupt);
    stack.defer(() => void process.off(signal, interrupt));
  }
  done?.addEventListener("abort", () => ended.resolve(exitCodes.ok), { once: true });

  function follow(connection: Connection, onEnd: (error: unknown) => void): void {
    const stream = open(connection.admin);
    stream.on("data", onMessage);
    stream.on("error", onEnd);
    stream.on("end", () => onEnd(new ExitError(exitCodes.unavailable, "the control plane ended the stream")));
    stack.defer(() => {
      stream.removeAllListeners().on("error", () => undefined);
      stream.cancel();
    });
  }

  follow(named, ended.reject);
  for (const { id, address } of others) {
    const other = { ...options, server: address };
    const leaveOut = (error: unknown) => output.note(missingText(id, error, other));
    try {
      follow(stack.use(connect(other)), leaveOut);
    } catch (error) {
      leaveOut(error); // it would take certificates to go there, say
    }
  }
  return await ended.promise;
}

/** Those that are there, besides the one that is asked. */
async function othersOf({ admin, deadline }: Connection): Promise<ControlPlane[]> {
  const { controlPlanes } = await admin.listProxies({}, deadline());
  return controlPlanes.slice(1).filter(({ live }) => live);
}

function missingText(id: string, error: unknown, options: GlobalOptions): string {
  const reason = explain(error, options);
  const text = reason instanceof Error ? reason.message : String(reason);
  return `${plain(`the proxies of control plane ${id} are not here: ${text}`)}\n`;
}
