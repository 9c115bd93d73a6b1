// One stream of changes from a server of the stateless era: what it was asked for, how it began, what of it the server took.
// Source: MCP 2026-07-28, subscriptions.
import type { Log } from "../../common/log.ts";
import { errorCodes, type Message } from "../mcp/json-rpc.ts";
import { statelessErrors, tasksExtension } from "../mcp/stateless.ts";
import { acknowledged, honouredBy, listenRequest, type Wanted } from "../mcp/subscriptions.ts";
import { errorOf } from "../mcp/translate.ts";
import { reasonOf } from "./errors.ts";
import type { Hear } from "./leg.ts";

/**
 * Acknowledged; not to be had from a server that has no such streams; refused, with all that was wanted; or broken or silent
 * before any of that.
 */
export type Beginning = "taken" | "absent" | "refused" | "failed";

export interface ChangeStream {
  readonly stop: AbortController;
  readonly wanted: Wanted;
  readonly begun: Promise<Beginning>;
  readonly honoured: Pick<Wanted, "uris" | "tasks">;
  readonly hasEnded: boolean;
}

/**
 * Sends the request, from a client with these capabilities (JSON text), and gives its answer when the stream has ended; rejects
 * with why it could not be had.
 */
export type OpenStream = (
  message: Message,
  options: { readonly signal: AbortSignal; readonly onMessage: Hear; readonly capabilities: string },
) => Promise<Message>;

export interface StreamOptions {
  readonly open: OpenStream;
  /** Of the request, as JSON text. */
  readonly id: string;
  /** Hears what it tells, until it is stopped. */
  readonly hear: Hear;
  readonly onEnd: (livedMs: number) => void;
  readonly log: Log;
}

const acknowledgeMs = 5_000;
const withTasks = JSON.stringify({ extensions: { [tasksExtension]: {} } });

/** Opens it at once. */
export function startStream(wanted: Wanted, { open, id, hear, onEnd, log }: StreamOptions): ChangeStream {
  const stop = new AbortController();
  const begun = Promise.withResolvers<Beginning>();
  const late = setTimeout(() => begun.resolve("failed"), acknowledgeMs);
  const startedMs = performance.now();
  let honoured: ChangeStream["honoured"] = { uris: new Set(), tasks: new Set() };
  let hasEnded = false;

  function onMessage(message: Message): Promise<void> | undefined {
    if (stop.signal.aborted) return undefined;
    if (message.method !== acknowledged) return hear(message);
    honoured = honouredBy(message);
    begun.resolve("taken");
    return undefined;
  }

  const capabilities = wanted.tasks.size > 0 ? withTasks : "{}";
  open(listenRequest(wanted, id), { signal: stop.signal, onMessage, capabilities })
    .then(
      (answer) => begun.resolve(beginningOf(answer)),
      (error: unknown) => {
        log.debug({ reason: reasonOf(error) }, "a stream of changes ended");
        begun.resolve("failed");
      },
    )
    .finally(() => {
      clearTimeout(late);
      hasEnded = true;
      onEnd(performance.now() - startedMs);
    });

  return {
    stop,
    wanted,
    begun: begun.promise,
    get honoured() {
      return honoured;
    },
    get hasEnded() {
      return hasEnded;
    },
  };
}

/** Whether a stream tells all of it already. */
export function says({ wanted, honoured }: ChangeStream, { lists, uris, tasks }: Wanted): boolean {
  return (wanted.lists || !lists) && uris.isSubsetOf(honoured.uris) && tasks.isSubsetOf(honoured.tasks);
}

/** What an answer in the place of a stream says. */
function beginningOf(answer: Message): Beginning {
  const { code } = answer.error ? errorOf(answer) : { code: undefined };
  if (code === errorCodes.methodNotFound) return "absent";
  return code === errorCodes.invalidParams || code === statelessErrors.missingCapability ? "refused" : "failed";
}
