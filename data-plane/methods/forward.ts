// Sends a call to the backend that owns it, and gives that backend's answer.
import type { Route } from "../aggregation/view.ts";
import type { Backend, CallOptions } from "../backends/backend.ts";
import { BackendError, backendGone, nobodyAnswered } from "../backends/errors.ts";
import type { Hear } from "../backends/leg.ts";
import { edited, errorCodes, errorResponse, type Message, readMessage } from "../mcp/json-rpc.ts";
import { type Edit, isUnreadable, member } from "../mcp/scan.ts";
import { backendFailure, type Call } from "./call.ts";
import { forwardStateless } from "./forward-stateless.ts";
import { askToSignIn, signInOf } from "./sign-in.ts";

const personMs = 10 * 60_000;
const callMsMax = 30 * 60_000;
const questionsMax = 100;

/** The backend's response message, or the response that says why there is none. `headers` are those of the call's tool. */
export async function forward(
  call: Call,
  route: Route,
  edits: readonly Edit[],
  headers: Pick<CallOptions, "headers" | "freshHeaders"> = {},
): Promise<Message> {
  const isParked = call.stateless?.state?.kind === "parked"; // it has begun, so it may end
  const backend =
    call.server.backends.get(route.backend) ?? (isParked ? call.server.departed.draining(route.backend) : undefined);
  try {
    if (!backend) throw backendGone();
    const message = edited(call.message, edits);
    const timeoutMs = call.server.timeoutMs(route.backend);
    const options = {
      timeoutMs,
      limit: call.limit,
      caller: call.caller,
      clientHeaders: call.headers,
      isIncidental: call.isIncidental ?? false,
      headers: headers.headers,
      freshHeaders: headers.freshHeaders,
      onMessage: call.stateless ? undefined : hearing(call, backend, timeoutMs),
    };
    if (call.stateless) return await forwardStateless(call, call.stateless, { backend, message, options });
    return await backend.call(call.session, message, options);
  } catch (error) {
    const signIn = signInOf(error);
    if (signIn) return askToSignIn(call, route.backend, signIn);
    if (error instanceof BackendError) return readMessage(backendFailure(call, route.backend, error));
    if (isUnreadable(error))
      return readMessage(
        backendFailure(call, route.backend, new BackendError("bad_answer", "unknown", "its answer can't be read")),
      );
    throw error;
  }
}

/** Passes on what the backend says during the call. While a person is asked the deadline is a person's, within reason. */
function hearing(call: Call, backend: Backend, timeoutMs: number): Hear {
  const startedMs = performance.now();
  let hear: Hear | undefined; // most say nothing
  return (said) => {
    hear ??= passingOn(call, backend, { timeoutMs, startedMs });
    return hear(said);
  };
}

function passingOn(call: Call, backend: Backend, { timeoutMs, startedMs }: Record<"timeoutMs" | "startedMs", number>): Hear {
  const endMs = startedMs + callMsMax;
  const arm = (ms: number, reason?: Error): void => call.limit.arm(Math.min(ms, Math.max(0, endMs - performance.now())), reason);
  let asked = 0;
  let open = 0;

  function onAnswer(): void {
    if (--open === 0) arm(timeoutMs);
  }

  return (said) => {
    let taken: Promise<void> | undefined;
    const send = (message: Buffer): void => {
      taken = call.notify(message);
    };
    if (said.id !== undefined && asked >= questionsMax) {
      backend.tell(call.session, errorResponse(said.id, tooMany)).catch(() => undefined);
    } else if (call.relay.toClient(call.session, backend, said, send, onAnswer)) {
      asked++;
      open++;
      arm(personMs, nobodyAnswered());
    }
    return taken;
  };
}

const tooMany = { code: errorCodes.internal, message: `a call asks at most ${questionsMax} questions` };

/** The edit that puts the backend's own name into a parameter; none when it is the same. */
export function replaceParam(call: Call, key: string, exposed: string, original: string): Edit[] {
  if (exposed === original || !call.message.params) return [];
  const span = member(call.message.json, call.message.params.start, key);
  return span ? [{ ...span, text: JSON.stringify(original) }] : [];
}
