// Calls of callers without sessions, to backends that ask in the middle of a call. The caller gets the questions as its answer,
// and calls again with what it knows; meanwhile the backend waits, and the call is parked here.
//
// Longer than most files here, because all of it is what one job goes through.
//
// What a caller holds of a parked call is a sealed state that names it, its round, and the replica that has it.
import { randomBytes } from "node:crypto";
import type { Log } from "../../common/log.ts";
import type { Backend } from "../backends/backend.ts";
import { BackendError, nobodyAnswered, reasonOf } from "../backends/errors.ts";
import type { Hear } from "../backends/leg.ts";
import type { CallSignal, Limit } from "../backends/limit.ts";
import { errorCodes, errorResponse, type Message, parseSpan, readMessage, resultResponse } from "../mcp/json-rpc.ts";
import { member, splice } from "../mcp/scan.ts";
import type { Session } from "../session/session.ts";
import { refusalOf } from "./client-abilities.ts";
import { type Question, questionOf, withdrawal } from "./questions.ts";

export interface ParkedCalls {
  /** Runs a call until it is answered or needs input; throws what `run` throws. */
  start(work: Work): Promise<Turn>;
  /**
   * Goes on with a call that needed input; undefined when it is not there, or has gone on already. Throws BackendError with what
   * became of it when it ended meanwhile.
   */
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
  readonly signal: CallSignal;
}

export type Turn =
  | { readonly answer: Message }
  /** The text of `inputRequests`, and what names the parked call. */
  | { readonly inputRequests: string; readonly job: string; readonly round: number };

interface Job {
  /** Empty until it is parked. */
  name: string;
  readonly key: symbol;
  readonly work: Work;
  readonly questions: Map<string, Question>;
  round: number;
  asked: number;
  questionBytes: number;
  notify: Work["notify"] | undefined;
  /** Raw text; undefined in the first round, when the backend's own is right. */
  progressToken: string | undefined;
  waiter: PromiseWithResolvers<Turn> | undefined;
  outcome: { readonly answer: Message } | { readonly error: unknown } | undefined;
  flush: NodeJS.Timeout | undefined;
  expiry: NodeJS.Timeout | undefined;
}

export interface ParkedCallsOptions {
  readonly log: Log;
  /** How long a caller may take, milliseconds. Default 10 min. */
  readonly personMs?: number;
  /** Calls parked at a time. Default 1,000. */
  readonly jobsMax?: number;
  /** Those of one caller, whatever it says it can do. Default 64. */
  readonly callerJobsMax?: number;
  /** Those that one backend waits for. Default 128, half of the calls that it may have in flight. */
  readonly backendJobsMax?: number;
}

const gatherMs = 5; // questions that come together are asked together
const questionsMax = 100;
// What one call's questions may weigh together. They are kept until they are answered.
const questionBytesMax = 256 * 1024;
// An answer that came while nobody waited for it: how long it is kept, and how large it may be. Backends that gave up waiting
// have little to say.
const outcomeMs = 60_000;
const outcomeBytesMax = 256 * 1024;
const endedMax = 10_000;

/** None parked at first. */
export function createParkedCalls(options: ParkedCallsOptions): ParkedCalls {
  const { log, personMs = 10 * 60_000, jobsMax = 1_000, callerJobsMax = 64, backendJobsMax = 128 } = options;
  const jobs = new Map<string, Job>();
  const ofCaller = createCounts();
  const ofBackend = createCounts();
  // Calls that ended while their callers were away: what those are told who come back.
  const ended = new Map<string, string>();

  function start(work: Work): Promise<Turn> {
    const waiter = Promise.withResolvers<Turn>();
    const job: Job = {
      name: "",
      key: Symbol("parked"),
      work,
      questions: new Map(),
      round: 0,
      asked: 0,
      questionBytes: 0,
      notify: work.notify,
      progressToken: undefined,
      waiter,
      outcome: undefined,
      flush: undefined,
      expiry: undefined,
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
    else if ("error" in outcome) bury(job, "has ended meanwhile; whether it took effect is not known");
    else if (outcome.answer.json.length > outcomeBytesMax) bury(job, "ran, and its answer was too large to be kept");
    else job.expiry = setTimeout(() => bury(job, "ran, and its answer is no longer kept"), outcomeMs).unref();
  }

  /** Nothing is left of it but what became of it: a caller that was told to call again might have it run twice. */
  function bury(job: Job, what: string): void {
    drop(job);
    if (ended.size >= endedMax) ended.delete(ended.keys().next().value as string);
    ended.set(job.name, what);
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
    const own = job.round > 0 && said.method === "notifications/progress" ? withToken(said, job.progressToken) : said;
    return own && job.notify?.(own);
  }

  function ask(job: Job, said: Message): void {
    const question = questionOf(said);
    const refusal = refusalOf(job.work.session, question.method, parsed(said)) ?? bound(job, question);
    if (refusal) return answer(job, errorResponse(question.id, refusal));
    if (job.name === "") park(job);
    job.questions.set(`input-${++job.asked}`, question);
    job.questionBytes += question.text.length;
    job.work.limit.arm(personMs, nobodyAnswered());
    flushSoon(job);
  }

  function bound(job: Job, { text }: Question): { code: number; message: string } | undefined {
    if (job.questionBytes + text.length > questionBytesMax)
      return { code: errorCodes.internal, message: `the questions of a call have at most ${questionBytesMax} bytes` };
    if (job.asked >= questionsMax) return { code: errorCodes.internal, message: `a call asks at most ${questionsMax} questions` };
    const { session, backend } = job.work;
    const isFull =
      jobs.size >= jobsMax || ofCaller.of(callerOf(session)) >= callerJobsMax || ofBackend.of(backend.name) >= backendJobsMax;
    return isFull && job.name === "" ? { code: errorCodes.internal, message: "too many calls wait for input" } : undefined;
  }

  /** The backend no longer wants to know. */
  function withdraw(job: Job, said: Message): void {
    const { questions, work } = job;
    const span = said.params && member(said.json, said.params.start, "requestId");
    const id = span && said.json.toString("utf8", span.start, span.end);
    const [key, question] = questions.entries().find(([, one]) => one.id === id) ?? [];
    if (key === undefined || !question) return;
    questions.delete(key);
    job.questionBytes -= question.text.length;
    if (questions.size === 0) work.limit.arm(work.timeoutMs);
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
    job.round++;
    job.waiter = undefined;
    job.notify = undefined;
    const entries = [...questions].map(([key, { text }]) => `${JSON.stringify(key)}:${text}`);
    waiter.resolve({ inputRequests: `{${entries.join(",")}}`, job: job.name, round: job.round });
  }

  /** Gives it a place among those that wait. */
  function park(job: Job): void {
    const { session, backend, limit } = job.work;
    job.name = randomBytes(12).toString("base64url");
    jobs.set(job.name, job);
    ofCaller.add(callerOf(session), 1);
    ofBackend.add(backend.name, 1);
    // What waits is in use, and ends with its session.
    session.calls.set(job.key, {
      abort(reason) {
        limit.abort(reason);
        if (job.outcome) drop(job);
      },
    });
  }

  function drop({ name, key, expiry, work: { session, backend } }: Job): void {
    clearTimeout(expiry);
    if (!jobs.delete(name)) return;
    ofCaller.add(callerOf(session), -1);
    ofBackend.add(backend.name, -1);
    session.calls.delete(key);
  }

  async function resume(
    name: string,
    round: number,
    { responses, notify, progressToken, signal }: Retry,
  ): Promise<Turn | undefined> {
    const what = ended.get(name);
    if (what !== undefined) throw new BackendError("unanswered", "unknown", `the call ${what}`);
    const job = jobs.get(name);
    if (!job || job.round !== round || job.waiter) return undefined;
    const waiter = Promise.withResolvers<Turn>();
    Object.assign(job, { waiter, notify, progressToken });
    if (job.outcome) {
      deliver(job);
      return waiter.promise;
    }
    const leave = (): void => job.work.limit.abort(signal.reason as Error);
    if (signal.aborted) leave();
    else signal.addEventListener("abort", leave, { once: true });
    for (const [key, question] of job.questions) {
      const response = responses.get(key);
      if (response === undefined) continue;
      job.questions.delete(key);
      job.questionBytes -= question.text.length;
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

interface Counts {
  of(key: string): number;
  add(key: string, difference: number): void;
}

/** Keeps what is not zero. */
function createCounts(): Counts {
  const counts = new Map<string, number>();
  const of = (key: string): number => counts.get(key) ?? 0;
  return {
    of,
    add(key, difference) {
      const count = of(key) + difference;
      if (count === 0) counts.delete(key);
      else counts.set(key, count);
    },
  };
}

function callerOf({ virtualServer, identity: { issuer, subject } }: Session): string {
  return JSON.stringify([virtualServer, issuer, subject]);
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
