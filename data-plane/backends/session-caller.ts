// A server of the stateless era, as a client with a session uses it. The client is asked by requests where the server answers
// that it needs input first; the call is then made again, with the answers, until it is complete.
// Source: MCP 2026-07-28, multi round-trip requests; MCP 2025-11-25 for what the client sees.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { withEnvelope, withoutEnvelope } from "../mcp/envelope.ts";
import { errorCodes, type Message, readMessage, request, resultResponse } from "../mcp/json-rpc.ts";
import { JsonTextError, member, members, parseValue, type Span, withMembers } from "../mcp/scan.ts";
import { metaKeys } from "../mcp/stateless.ts";
import { errorOf, failure, resultTypeOf, toolFailure, toSession } from "../mcp/translate.ts";
import { BackendError } from "./errors.ts";
import { type ClientFacts, type Leg, legWith, type RequestOptions } from "./leg.ts";
import { abortSignalOf } from "./limit.ts";
import { envelopeOf } from "./stateless-leg.ts";

const askingRoundsMax = 10;
const questionsMax = 100;
// A server may answer that it needs nothing but another call: it sheds load, or waits for something itself.
const paceMs = 250;
const logLevelDefault = '"info"';

/** The leg for a client with a session. Answers of the client to what it was asked are to be given to `notify`. */
export function forSessionCaller(leg: Leg, client: ClientFacts): Leg {
  const envelope = envelopeOf({ ...client, capabilities: statelessCapabilities(client.capabilities) });
  const waiting = new Map<string, (answer: Message) => void>();
  let logLevel = logLevelDefault;
  let lastQuestion = 0;

  async function call(message: Message, options: RequestOptions): Promise<Message> {
    let asked = 0;
    // Rounds of input are ours to drive; what a client puts there belongs to no call of ours.
    const plain =
      message.json.includes("inputResponses") || message.json.includes("requestState") ? withoutEnvelope(message) : message;
    for (let current = plain; ; ) {
      const answer = await send(current, current !== plain, options);
      if (resultTypeOf(answer) !== "input_required") return toSession(message.method as string, answer);
      const { inputRequests, requestState } = partsOf(answer);
      const questions = inputRequests ? readable(() => questionsOf(answer, inputRequests)) : [];
      if (questions.length === 0)
        await sleep(paceMs, undefined, { signal: abortSignalOf(options.signal) }).catch(() => undefined);
      else if (++asked > askingRoundsMax) throw endless();
      options.signal.throwIfAborted();
      const responses: string[] = [];
      const answers = await Promise.all(questions.map((question) => ask(question, options)));
      for (const [i, reply] of answers.entries()) {
        const { key, method } = questions[i] as Question;
        const response = responseOf(reply, method);
        if (response === undefined) return refused(message, reply);
        responses.push(`${JSON.stringify(key)}:${response}`);
      }
      current = nextCall(plain, responses, requestState && answer.json.subarray(requestState.start, requestState.end));
    }
  }

  async function send(message: Message, hasBegun: boolean, options: RequestOptions): Promise<Message> {
    try {
      return await leg.request(withEnvelope(message, { ...envelope, [metaKeys.logLevel]: logLevel }), options);
    } catch (error) {
      if (!hasBegun || !(error instanceof BackendError)) throw error;
      // This round may not have run; the call has begun in an earlier one.
      throw new BackendError(error.code, "unknown", error.message, error);
    }
  }

  /** Asks the client and waits for its answer. */
  function ask({ method, params }: Question, { signal, onMessage }: RequestOptions): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (!onMessage) return reject(bad("it asks where nobody can be asked"));
      const id = `"vmcp-input-${++lastQuestion}"`;
      const abort = (): void => {
        void onMessage(readMessage(request("notifications/cancelled", `{"requestId":${id}}`))); // nobody wants to know any more
        settle(() => reject(signal.reason));
      };
      const settle = (finish: () => void): void => {
        waiting.delete(id);
        signal.removeEventListener("abort", abort);
        finish();
      };
      waiting.set(id, (answer) => settle(() => resolve(answer)));
      signal.addEventListener("abort", abort, { once: true });
      void onMessage(readMessage(request(method, params, id)));
    });
  }

  return legWith(leg, {
    async request(message, options) {
      if (message.method !== "logging/setLevel") return call(message, options);
      const level = message.params && member(message.json, message.params.start, "level");
      if (level) logLevel = message.json.toString("utf8", level.start, level.end);
      return readMessage(resultResponse(message.id as string, "{}"));
    },
    async notify(json) {
      const message = readMessage(json);
      if (message.method === undefined && message.id !== undefined) waiting.get(message.id)?.(message);
    },
  });
}

function endless(): BackendError {
  return bad(`it asks for input in more than ${askingRoundsMax} rounds`);
}

function readable<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof JsonTextError ? bad("what it asks can't be read") : error;
  }
}

function partsOf(answer: Message): { readonly inputRequests: Span | undefined; readonly requestState: Span | undefined } {
  const found = new Map(answer.result ? members(answer.json, answer.result.start).map((part) => [part.key, part]) : []);
  return { inputRequests: found.get("inputRequests"), requestState: found.get("requestState") };
}

interface Question {
  readonly key: string;
  readonly method: string;
  /** JSON text. */
  readonly params: string | undefined;
}

const askable = new Set(["elicitation/create", "sampling/createMessage", "roots/list"]);

function questionsOf({ json }: Message, span: Span): Question[] {
  if (json[span.start] !== 0x7b) throw bad("its inputRequests are no object");
  const entries = new Map(members(json, span.start).map((entry) => [entry.key, entry])); // the last wins, as in JSON.parse
  if (entries.size > questionsMax) throw bad(`it asks more than ${questionsMax} questions at once`);
  return [...entries].map(([key, entry]): Question => {
    const parts = json[entry.start] === 0x7b ? members(json, entry.start) : [];
    const part = (name: string) => parts.findLast((one) => one.key === name);
    const [method, params] = [part("method"), part("params")];
    const name = method && parseValue(json, method);
    if (typeof name !== "string" || !askable.has(name)) throw bad("it asks for something that clients are not asked");
    if (params && parseValue(json, params) === undefined) throw bad("what it asks can't be read");
    return { key, method: name, params: params && paramsFor(name, json.subarray(params.start, params.end)) };
  });
}

function bad(message: string): BackendError {
  return new BackendError("bad_answer", "unknown", message);
}

/** Elicitation by URL has an id in the session era. */
function paramsFor(method: string, params: Buffer): string {
  if (method !== "elicitation/create" || params[0] !== 0x7b) return params.toString();
  const mode = member(params, 0, "mode");
  return mode && parseValue(params, mode) === "url"
    ? withMembers(params, { elicitationId: JSON.stringify(randomUUID()) }).toString()
    : params.toString();
}

/** What the server gets for a client's answer, as JSON text; undefined when an error can't be put into words of this era. */
function responseOf(reply: Message, method: string): string | undefined {
  if (reply.result) return reply.json.toString("utf8", reply.result.start, reply.result.end);
  return method === "elicitation/create" ? '{"action":"cancel"}' : undefined;
}

function refused(message: Message, reply: Message): Message {
  const text = `The client did not answer: ${errorOf(reply).message}`;
  return message.method === "tools/call" ? toolFailure(message, text) : failure(message, errorCodes.internal, text);
}

/** The call with the answers, each as a member's text. */
function nextCall(message: Message, responses: readonly string[], state: Buffer | undefined): Message {
  const { json, params } = message;
  const added: Record<string, Buffer | string> = {
    ...(responses.length > 0 ? { inputResponses: `{${responses.join(",")}}` } : {}),
    ...(state ? { requestState: state } : {}),
  };
  const before = params ? json.subarray(params.start, params.end) : Buffer.from("{}");
  return readMessage(withMembers(json, { params: withMembers(before, added) }));
}

/** What a client declared when it opened its session, without what the stateless era doesn't have. */
function statelessCapabilities(capabilities: string): string {
  const { tasks: _tasks, extensions: _extensions, ...declared } = JSON.parse(capabilities) as Record<string, unknown>;
  const { roots } = declared;
  return JSON.stringify(roots === undefined ? declared : { ...declared, roots: {} });
}
