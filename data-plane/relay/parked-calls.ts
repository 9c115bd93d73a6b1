// Calls of callers without sessions, to backends that ask in the middle of a call. The caller gets the questions as its answer,
// and calls again with what it knows; meanwhile the backend waits, and the call is parked here.
//
// What a caller holds of a parked call is a sealed state that names it, its round, and the replica that has it.
import { randomBytes } from "node:crypto";
import type { Log } from "../../common/log.ts";
import type { Backend } from "../backends/backend.ts";
import { reasonOf } from "../backends/errors.ts";
import type { Hear } from "../backends/leg.ts";
import type { Limit } from "../backends/limit.ts";
import { errorCodes, errorResponse, type Message, parseSpan, readMessage, resultResponse } from "../mcp/json-rpc.ts";
import { member, splice, withoutMembers } from "../mcp/scan.ts";
import type { Session } from "../session/session.ts";
import { refusalOf } from "./client-abilities.ts";

export interface ParkedCalls {
  /** Runs a call until it is answered or needs input; throws what `run` throws. */
  start(work: Work): Promise<Turn>;
  /** Goes on with a call that needed input; undefined when it is not there (any more), or has gone on already. */
  resume(job: string, round: number, retry: Retry): Promise<Turn | undefined>;
  readonly size: number;
}

/** One call. */
export interface Work {
  readonly session: Session;
  readonly backend: Backend;
  readonly limit: Limit;
  /** How long the backend may take while nobody is asked, milliseconds. */
  readonly timeoutMs: number;
  /** Gets what the backend says meanwhile. */
  readonly notify: (message: Message) => Promise<void> | undefined;
  run(hear: Hear): Promise<Message>;
}

/** The caller is back. */
export interface Retry {
  /** Answers by key, as JSON text. */
  readonly responses: ReadonlyMap<string, string>;
  readonly notify: Work["notify"];
  /** Raw text of the progress token of this request. */
  readonly progressToken: string | undefined;
  /** Fires when this caller has gone. */
  readonly signal: AbortSignal;
}

export type Turn =
  | { readonly answer: Message }
  /** The text of `inputRequests`, and what names the parked call. */
  | { readonly inputRequests: string; readonly job: string; readonly round: number };

interface Question {
  /** The backend's id, raw. */
  readonly id: string;
  readonly method: string;
  /** As an entry of `inputRequests`. */
  readonly text: string;
}

interface Job {
  /** Empty until it is parked. */
  name: string;
  readonly key: symbol;
  readonly work: Work;
  readonly questions: Map<string, Question>;
  round: number;
  asked: number;
  notify: Work["notify"] | undefined;
  /** Raw text; undefined in the first round, when the backend's own is right. */
  progressToken: string | undefined;
  waiter: PromiseWithResolvers<Turn> | undefined;
  outcome: { readonly answer: Message } | { readonly error: unknown } | undefined;
  flush: NodeJS.Timeout | undefined;
}

export interface ParkedCallsOptions {
  readonly log: Log;
  /** How long a caller may take, milliseconds. Default 10 min. */
  readonly personMs?: number;
  /** Calls parked at a time. Default 1,000. */
  readonly jobsMax?: number;
  /** Those of one caller. Default 100. */
  readonly callerJobsMax?: number;
}

const gatherMs = 5; // questions that come together are asked together
const questionsMax = 100;

/** None parked at first. */
export function createParkedCalls(options: ParkedCallsOptions): ParkedCalls {
  const { log, personMs = 10 * 60_000, jobsMax = 1_000, callerJobsMax = 100 } = options;
  const jobs = new Map<string, Job>();
  const counts = new WeakMap<Session, number>();

  function start(work: Work): Promise<Turn> {
    const waiter = Promise.withResolvers<Turn>();
    const job: Job = {
      name: "",
      key: Symbol("parked"),
      work,
      questions: new Map(),
      round: 0,
      asked: 0,
      notify: work.notify,
      progressToken: undefined,
      waiter,
      outcome: undefined,
      flush: undefined,
    };
    work
      .run((said) => hear(job, said))
      .then(
        (answer) => settle(job, { answer }),
        (error: unknown) => settle(job, { error }),
      );
    return waiter.promise;
  }

  function settle(job: Job, outcome: NonNullable<Job["outcome"]>): void {
    clearTimeout(job.flush);
    job.outcome = outcome;
    if ("error" in outcome) for (const question of job.questions.values()) answer(job, withdrawal(question));
    job.questions.clear();
    if (job.waiter) deliver(job);
    else if ("error" in outcome) drop(job); // its time was over, or its caller's
  }

  function deliver(job: Job): void {
    const { waiter, outcome } = job;
    job.waiter = undefined;
    drop(job);
    if (outcome && "answer" in outcome) waiter?.resolve({ answer: outcome.answer });
    else waiter?.reject(outcome?.error);
  }

  function hear(job: Job, said: Message): Promise<void> | undefined {
    if (said.id !== undefined && said.method !== undefined) return void ask(job, said);
    if (said.method === "notifications/cancelled") return void withdraw(job, said);
    const heard = job.round > 0 && said.method === "notifications/progress" ? withToken(said, job.progressToken) : said;
    return heard && job.notify?.(heard);
  }

  function ask(job: Job, said: Message): void {
    const question = { id: said.id as string, method: said.method as string, text: entryOf(said) };
    const refusal = refusalOf(job.work.session, question.method, parsed(said)) ?? bound(job);
    if (refusal) return answer(job, errorResponse(question.id, refusal));
    job.questions.set(`input-${++job.asked}`, question);
    job.work.limit.arm(personMs);
    flushSoon(job);
  }

  function bound(job: Job): { code: number; message: string } | undefined {
    if (job.asked >= questionsMax) return { code: errorCodes.internal, message: `a call asks at most ${questionsMax} questions` };
    const isFull = jobs.size >= jobsMax || (counts.get(job.work.session) ?? 0) >= callerJobsMax;
    return isFull && job.name === "" ? { code: errorCodes.internal, message: "too many calls wait for input" } : undefined;
  }

  /** The backend no longer wants to know. */
  function withdraw({ questions }: Job, said: Message): void {
    const span = said.params && member(said.json, said.params.start, "requestId");
    const id = span && said.json.toString("utf8", span.start, span.end);
    for (const [key, question] of questions) if (question.id === id) questions.delete(key);
  }

  function flushSoon(job: Job): void {
    if (!job.waiter) return;
    clearTimeout(job.flush);
    job.flush = setTimeout(() => flush(job), gatherMs);
  }

  /** Hands the questions to the caller that waits, and parks the call. */
  function flush(job: Job): void {
    const { waiter, questions } = job;
    if (!waiter || questions.size === 0) return;
    const parked = jobs.get(job.name) ?? park(job);
    parked.round++;
    parked.waiter = undefined;
    parked.notify = undefined;
    const entries = [...questions].map(([key, { text }]) => `${JSON.stringify(key)}:${text}`);
    waiter.resolve({ inputRequests: `{${entries.join(",")}}`, job: parked.name, round: parked.round });
  }

  function park(job: Job): Job {
    const { session, limit } = job.work;
    job.name = randomBytes(12).toString("base64url");
    jobs.set(job.name, job);
    counts.set(session, (counts.get(session) ?? 0) + 1);
    session.calls.set(job.key, limit); // what waits is in use
    return job;
  }

  function drop({ name, key, work: { session } }: Job): void {
    if (!jobs.delete(name)) return;
    counts.set(session, (counts.get(session) ?? 1) - 1);
    session.calls.delete(key);
  }

  function resume(name: string, round: number, { responses, notify, progressToken, signal }: Retry): Promise<Turn | undefined> {
    const job = jobs.get(name);
    if (!job || job.round !== round || job.waiter) return Promise.resolve(undefined);
    const waiter = Promise.withResolvers<Turn>();
    Object.assign(job, { waiter, notify, progressToken });
    if (job.outcome) {
      deliver(job);
      return waiter.promise;
    }
    const leave = (): void => job.work.limit.abort(signal.reason as Error);
    signal.addEventListener("abort", leave, { once: true });
    for (const [key, question] of job.questions) {
      const response = responses.get(key);
      if (response === undefined) continue;
      job.questions.delete(key);
      answer(job, resultResponse(question.id, response));
    }
    if (job.questions.size > 0) flushSoon(job);
    else job.work.limit.arm(job.work.timeoutMs);
    return waiter.promise.finally(() => signal.removeEventListener("abort", leave));
  }

  function answer({ work: { backend, session } }: Job, message: Buffer): void {
    backend
      .tell(session, message)
      .catch((error) => log.debug({ reason: reasonOf(error) }, "an answer did not reach its backend"));
  }

  return {
    start,
    resume,
    get size() {
      return jobs.size;
    },
  };
}

/** What a backend is told when nobody will answer. */
function withdrawal({ id, method }: Question): Buffer {
  if (method === "elicitation/create") return resultResponse(id, '{"action":"cancel"}');
  const code = method === "sampling/createMessage" ? -1 : errorCodes.internal;
  return errorResponse(id, { code, message: "nobody answered in time" });
}

/** A question as an entry of `inputRequests`. Ids and tokens of the backend's session mean nothing to the caller. */
function entryOf({ json, method, params }: Message): string {
  const head = `{"method":${JSON.stringify(method)}`;
  if (!params) return `${head}}`;
  const plain = withoutMembers(json.subarray(params.start, params.end), ["elicitationId"]);
  return `${head},"params":${withoutTokens(plain)}}`;
}

const sessionMeta = ["progressToken", "io.modelcontextprotocol/related-task"];

function withoutTokens(params: Buffer): Buffer {
  const meta = member(params, 0, "_meta");
  if (!meta || params[meta.start] !== 0x7b) return params;
  const plain = withoutMembers(params.subarray(meta.start, meta.end), sessionMeta);
  return /^\{\s*\}$/.test(plain.toString("latin1", 0, 16))
    ? withoutMembers(params, ["_meta"])
    : splice(params, [{ ...meta, text: plain }]);
}

/** Progress under the token of the request that waits now; undefined when it wants none. */
function withToken(said: Message, token: string | undefined): Message | undefined {
  const span = said.params && member(said.json, said.params.start, "progressToken");
  return span && token !== undefined ? readMessage(splice(said.json, [{ ...span, text: token }])) : undefined;
}

function parsed(said: Message): unknown {
  try {
    return parseSpan(said, said.params);
  } catch {
    return undefined;
  }
}
