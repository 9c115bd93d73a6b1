// Sends a call to the backend that owns it, and gives that backend's answer.
import type { Route } from "../aggregation/view.ts";
import { BackendError } from "../backends/errors.ts";
import { type Message, readMessage } from "../mcp/json-rpc.ts";
import { type Edit, member, splice } from "../mcp/scan.ts";
import { backendFailure, type Call } from "./call.ts";

const personMs = 10 * 60_000;

/** The backend's response message, or the response that says why there is none. */
export async function forward(call: Call, route: Route, edits: readonly Edit[]): Promise<Message> {
  const backend = call.server.backends.get(route.backend);
  try {
    if (!backend) throw new BackendError("unavailable", "not_executed", "it is no longer part of this server");
    const message = edits.length > 0 ? readMessage(splice(call.message.json, edits)) : call.message;
    return await backend.call(call.session, message, {
      timeoutMs: call.server.timeoutMs(route.backend),
      limit: call.limit,
      onMessage: (said) => {
        let taken: Promise<void> | undefined;
        const send = (message: Buffer) => {
          taken = call.notify(message);
        };
        // A person is asked: the backend's own patience decides from now on, within reason.
        if (call.relay.toClient(call.session, backend, said, send)) call.limit.arm(personMs);
        return taken;
      },
    });
  } catch (error) {
    if (error instanceof BackendError) return readMessage(backendFailure(call, route.backend, error));
    throw error;
  }
}

/** The edit that puts the backend's own name into a parameter; none when it is the same. */
export function replaceParam(call: Call, key: string, exposed: string, original: string): Edit[] {
  if (exposed === original || !call.message.params) return [];
  const span = member(call.message.json, call.message.params.start, key);
  return span ? [{ ...span, text: JSON.stringify(original) }] : [];
}
