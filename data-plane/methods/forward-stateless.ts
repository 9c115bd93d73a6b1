// A call of a caller without a session. What the backend needs to know first comes back as a result; the caller calls again
// with the answers and a state of ours, which holds what the backend wants back, or names the call that is parked here.
// Source: MCP 2026-07-28, multi round-trip requests.
import type { Backend, CallOptions } from "../backends/backend.ts";
import { BackendError } from "../backends/errors.ts";
import type { Hear } from "../backends/leg.ts";
import { progressTokenOf } from "../mcp/envelope.ts";
import { type Message, readMessage, withId } from "../mcp/json-rpc.ts";
import { member, members, parseValue, type Span, splice, withMembers } from "../mcp/scan.ts";
import { logLevels, statelessErrors } from "../mcp/stateless.ts";
import { errorOf, failure, isOfTheHop, resultTypeOf, withoutSessionErrors, withUrlRequests } from "../mcp/translate.ts";
import type { Turn, Work } from "../relay/parked-calls.ts";
import type { CallState } from "../session/caller-tokens.ts";
import { type Call, invalidParams, type StatelessCall } from "./call.ts";

/** What is to be sent, and where. */
export interface Sending {
  readonly backend: Backend;
  readonly message: Message;
  readonly options: CallOptions;
}

/** The answer, complete or not, or what says that the retry is of no call; throws BackendError. */
export async function forwardStateless(call: Call, stateless: StatelessCall, sending: Sending): Promise<Message> {
  const { state, parked } = stateless;
  if (state?.kind === "parked") {
    const turn = await parked.resume(state.job, state.round, {
      responses: responsesOf(call.message),
      notify: (said) => pass(call, stateless, said),
      progressToken: textOf(call.message, progressTokenOf(call.message)),
      signal: call.limit.signal,
    });
    return turn ? answerOf(call, stateless, sending.backend, turn) : staleState(call);
  }
  if (state && state.backend !== sending.backend.name) return staleState(call);
  await raiseLogLevel(call, stateless, sending.backend);
  const message = state ? withState(sending.message, state.state) : sending.message;
  const { backend, options } = sending;
  const run = (hear: Hear) => backend.call(call.session, message, { ...options, onMessage: hear });
  return runParkable(call, stateless, { backend, timeoutMs: options.timeoutMs, run });
}

/** Runs something that may ask the caller, and gives its answer, or what it asks. */
export async function runParkable(
  call: Call,
  stateless: StatelessCall,
  work: Pick<Work, "backend" | "timeoutMs" | "run">,
): Promise<Message> {
  const { session, limit } = call;
  const notify = (said: Message) => pass(call, stateless, said);
  return answerOf(call, stateless, work.backend, await stateless.parked.start({ ...work, session, limit, notify }));
}

function staleState(call: Call): Message {
  return readMessage(invalidParams(call, "the requestState is of no call that waits for input; call again without it"));
}

function answerOf(call: Call, stateless: StatelessCall, backend: Backend, turn: Turn): Message {
  if ("answer" in turn) return relayed(call, stateless, backend, withId(turn.answer, call.id));
  const { inputRequests, job, round } = turn;
  const state = seal(call, { kind: "parked", owner: stateless.self().address, instance: stateless.self().instance, job, round });
  const result = `{"resultType":"input_required","inputRequests":${inputRequests},"requestState":${JSON.stringify(state)}}`;
  return readMessage(Buffer.from(`{"jsonrpc":"2.0","id":${call.id},"result":${result}}`));
}

/** A backend's own answer; one that needs input gets our state for its. */
function relayed(call: Call, { envelope }: StatelessCall, backend: Backend, answer: Message): Message {
  if (answer.error) return asOurError(call, answer, envelope.capabilities);
  const type = resultTypeOf(answer);
  if (type === undefined) return completed(answer);
  if (type !== "input_required") return answer;
  const { json, result } = answer;
  const state = result && member(json, result.start, "requestState");
  if (!state) return answer;
  const ours = seal(call, { kind: "relayed", backend: backend.name, state: json.toString("utf8", state.start, state.end) });
  return readMessage(splice(json, [{ ...state, text: JSON.stringify(ours) }]));
}

/** Servers must say what a result is, and clients must take one that doesn't for complete (MCP 2026-07-28, results). */
function completed(answer: Message): Message {
  const { json, result } = answer;
  if (!result || json[result.start] !== 0x7b) return answer;
  const text = withMembers(json.subarray(result.start, result.end), { resultType: '"complete"' });
  return readMessage(splice(json, [{ ...result, text }]));
}

function seal(call: Call, state: CallState): string {
  const token = call.tokens.sealState(call.session, { method: call.message.method as string, params: call.params }, state);
  if (token === undefined) throw new BackendError("bad_answer", "unknown", "its requestState is larger than we carry");
  return token;
}

/** Errors of the hop to the backend are ours, and no business of the caller's, unless the caller lacks what is asked for. */
function asOurError(
  { message: { method }, params }: Call,
  answer: Message,
  declared: Readonly<Record<string, unknown>>,
): Message {
  const { code, message, data } = errorOf(answer);
  if (!isOfTheHop(code)) return withUrlRequests(withoutSessionErrors(method as string, answer, params), declared);
  const { requiredCapabilities } = Object(data) as { requiredCapabilities?: unknown };
  if (code === statelessErrors.missingCapability && lacks(declared, requiredCapabilities)) return answer;
  return failure(answer, -32603, `the backend refused how it was asked: ${message}`);
}

function lacks(declared: unknown, required: unknown): boolean {
  if (typeof required !== "object" || required === null) return false;
  return Object.entries(required).some(([key, value]) => {
    const has = typeof declared === "object" && declared !== null && Object.hasOwn(declared, key);
    return !has || lacks((declared as Record<string, unknown>)[key], value);
  });
}

function withState(message: Message, state: string): Message {
  const span = message.params && member(message.json, message.params.start, "requestState");
  return span ? readMessage(splice(message.json, [{ ...span, text: state }])) : message;
}

/** The caller's answers by key; those that are no objects are no answers. */
function responsesOf({ json, params }: Message): ReadonlyMap<string, string> {
  const span = params && member(json, params.start, "inputResponses");
  if (!span || json[span.start] !== 0x7b) return new Map();
  const entries = members(json, span.start).filter(({ start }) => json[start] === 0x7b);
  return new Map(entries.map(({ key, start, end }) => [key, json.toString("utf8", start, end)]));
}

function textOf({ json }: Message, span: Span | undefined): string | undefined {
  return span && json.toString("utf8", span.start, span.end);
}

// What belongs to sessions, or to streams that a caller asks for.
const elsewhere = new Set([
  "notifications/tools/list_changed",
  "notifications/prompts/list_changed",
  "notifications/resources/list_changed",
  "notifications/resources/updated",
  "notifications/elicitation/complete",
  "notifications/tasks/status",
]);

/** Passes on what the backend says during the call, as far as the caller wants it. */
function pass(call: Call, { envelope }: StatelessCall, said: Message): Promise<void> | undefined {
  if (elsewhere.has(said.method as string)) return undefined;
  if (said.method === "notifications/message" && !isWanted(said, envelope.logLevel)) return undefined;
  return call.notify(said.json);
}

function isWanted(said: Message, least: string | undefined): boolean {
  if (least === undefined) return false;
  const level = said.params && member(said.json, said.params.start, "level");
  const name = level && parseValue(said.json, level);
  return severity(name) >= severity(least);
}

function severity(level: unknown): number {
  return (logLevels as readonly unknown[]).indexOf(level);
}

/** A server of the session era logs by the session, which callers share: as much as any of them asked for, and each gets its part. */
async function raiseLogLevel({ session }: Call, { envelope: { logLevel } }: StatelessCall, backend: Backend): Promise<void> {
  if (logLevel === undefined) return;
  const before: unknown = session.state.logLevel === undefined ? undefined : JSON.parse(session.state.logLevel);
  if (before !== undefined && severity(before) <= severity(logLevel)) return;
  await session.change((state) => ({ ...state, logLevel: JSON.stringify(logLevel) }));
  await backend.setLogLevel(session);
}
