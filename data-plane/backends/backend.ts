// One MCP server behind us: its catalog, its breaker, and one session with it per client session.
// Longer than most files here, because a quarter of it is the words in which the rest of the proxy speaks to a backend.
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import type { Backend as BackendSpec } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { type Message, readMessage, request } from "../mcp/json-rpc.ts";
import { isUnreadable } from "../mcp/scan.ts";
import type { Credential } from "../outgoing-auth/credential.ts";
import type { Session } from "../session/session.ts";
import { type CallCounts, createCallMeter } from "../telemetry/call-meter.ts";
import { type BreakerChange, type BreakerSettings, createBreaker } from "./breaker.ts";
import { createLookout } from "./breaker-lookout.ts";
import { isConnectionFault, outcomeOf } from "./breaker-rules.ts";
import { ownStalls } from "./breaker-stalls.ts";
import { createBulkhead, type Slot } from "./bulkhead.ts";
import type { Catalog } from "./catalog.ts";
import { type BackendState, type Duty, type HealthOptions, watchCatalogs } from "./catalogs.ts";
import { createConnector } from "./connect.ts";
import { BackendError, backendGone, reasonOf } from "./errors.ts";
import type { HealthState } from "./health.ts";
import { callsMax } from "./http-target.ts";
import { gateway, type Hear, type Leg, type RequestOptions } from "./leg.ts";
import { abortSignalOf, type CallSignal, type Limit, withDeadline, withLimit } from "./limit.ts";
import { callFacts, retryOf } from "./retry.ts";
import { createRetryBudget } from "./retry-budget.ts";
import { createSessionLegs } from "./session-legs.ts";
import type { SharedCatalog } from "./shared-catalog.ts";
import { type Asker, sendWith } from "./shown.ts";

export interface CallOptions {
  readonly timeoutMs: number;
  /** Aborted at the deadline, and by whoever wants the call to stop. */
  readonly limit: Limit;
  /** For whom. Default: whoever used the session last. */
  readonly caller?: Caller | undefined;
  readonly clientHeaders?: RequestOptions["clientHeaders"];
  /** What the backend says, or asks the client, on the call's stream before the answer. */
  readonly onMessage?: Hear | undefined;
  /** It says nothing of the backend's health that calls need: the breaker lets it through or not, and counts it neither way. */
  readonly isIncidental?: boolean;
  /** There is nobody else to ask, and checks find the backend well: it is called whatever its breaker thinks of its last calls. */
  readonly isLastResort?: boolean;
  /** As in RequestOptions. */
  readonly headers?: RequestOptions["headers"];
  readonly freshHeaders?: RequestOptions["freshHeaders"];
}

export interface Backend {
  /** The `{workload}` of names. */
  readonly name: string;
  /** All client sessions use one session with it, so what it says is not known to be meant for any one of them. */
  readonly isShared: boolean;
  /** As last listed to a plain client; kept while the backend is away. */
  readonly catalog: Catalog | undefined;
  readonly state: BackendState;
  /** Calls that have not ended. */
  readonly inFlight: number;
  /** Its breaker is open: calls fail at once. */
  readonly isLeftAlone: boolean;
  /** Where it is several; undefined where it is one. */
  readonly endpoints?: readonly Backend[] | undefined;
  /** Settles when the first attempt to list it has ended, either way. */
  readonly firstAttempt: Promise<void>;
  /** As a client sees it: by what it declared, and, where the backend shows callers different things, by who it is. */
  catalogOf(client: Pick<Session, "capabilities" | "caller">): Catalog | undefined;
  /** What the backend may list differently to; see Credential. */
  contextOf(caller: Caller | undefined): string | undefined;
  /** What became of tokens that were obtained for it; undefined where none are. */
  readonly tokens: Credential["counters"];
  /** What became of clients' calls to it. */
  readonly calls: CallCounts;
  /** With what it is listed, in words for operators. */
  readonly listedWith: string;
  /** What it listed here to nobody in particular; undefined while others watch it, or when it does not. */
  readonly listed: Catalog | undefined;
  /** It is checked here, and heard when its lists change. */
  readonly isWatched: boolean;
  /** What the fleet knows of it. */
  readonly shared: SharedCatalog | undefined;
  share(shared: SharedCatalog | undefined): void;
  /** Watches it, or leaves that to others. */
  rest(duty: Duty): void;
  /** Lists for clients like this one while it lives; settles after the first attempt. */
  join(session: Session): Promise<void>;
  /** Sends a session's request and gives the response. Throws BackendError within the deadline. */
  call(session: Session, message: Message, options: CallOptions): Promise<Message>;
  /** Settles when there is a credential to show for this caller; throws BackendError "no_credential". The backend hears nothing. */
  prove(asker: Asker): Promise<void>;
  /** Sends a notification or a client's answer on the session's leg; does nothing when it has none. Throws BackendError. */
  tell(session: Session, message: Buffer): Promise<void>;
  /** Goes on with the session's leg that another replica opened, if there is one; never rejects. */
  adopt(session: Session): Promise<void>;
  /** Starts to hear what the backend says to a session outside of calls, once the session has a stream; see SessionLegs. */
  follow(session: Session): Promise<void>;
  /**
   * Wants to hear what becomes of a task (MCP 2026-07-28, Tasks extension) while the session has a stream, or no longer. False
   * when the backend does not take that; never rejects.
   */
  followTask(session: Session, taskId: string, isWanted: boolean): Promise<boolean>;
  /** Tells the session's leg, when it has one, of a new log level; settles when the backend knows. Never rejects. */
  setLogLevel(session: Session): Promise<void>;
  /** Lists again what plain clients see; settles when that is done, or after 5 s. */
  relist(): Promise<void>;
  /** Takes other settings, the breaker's as Breaker does. */
  configure(settings: BreakerSettings, health?: HealthOptions): void;
  /** Ends everything, once the calls in flight have ended, or after `graceMs`. */
  retire(graceMs: number): Promise<void>;
}

export interface BackendOptions {
  readonly spec: BackendSpec;
  /** Names the server and the credential, the same on every replica. Default: the URL. */
  readonly place?: string;
  /** Under which a session's state knows its session with this server. Default: the name. */
  readonly legKey?: string;
  readonly credential: Credential;
  readonly breaker: BreakerSettings;
  /** Default: checked every 30 s for 10 s at most; unhealthy after three failures. */
  readonly health?: HealthOptions;
  /** What the fleet knows of it at the start. Default: nothing. */
  readonly shared?: SharedCatalog | undefined;
  /** Default: we watch it. */
  readonly duty?: Duty;
  readonly log: Log;
  /** Hears what the backend says outside of calls: to one session, or, when it is shared, to nobody in particular. */
  readonly onMessage: (session: Session | undefined, backend: Backend, message: Message) => Promise<void> | undefined;
  /** Whether its lists may be refreshed now. Default: always. */
  readonly mayRefresh?: () => boolean;
  /** Called after the catalog or the state changed. */
  readonly onChange: () => void;
}

const healthDefault: HealthOptions = { intervalMs: 30_000, timeoutMs: 10_000, unhealthyThreshold: 3 };
const notifyMs = 5_000;
// A look that found the backend there may have begun before the last call that failed.
const retryLeastMs = 1_000;
const goodbyeMs = 5_000;
const problemsShown = 10;

// Long enough for a server that is just coming back, apart enough that calls which failed together do not come together again.
const retryMs = { least: 10, most: 50 };

/** A call as its legs are given it, and whether its client has heard anything of it yet. */
interface NotedCall extends RequestOptions {
  hasSpoken: boolean;
}

interface Held {
  readonly limit: Limit;
  readonly slot: Slot;
}

/** Notes what the backend says; `onQuestion` hears when that is a question. */
function noted(options: CallOptions, onQuestion?: () => void): NotedCall {
  const { limit, caller, clientHeaders, onMessage: hear, headers, freshHeaders } = options;
  const call: NotedCall = {
    signal: limit.signal,
    caller,
    clientHeaders,
    onMessage: hear && listen,
    headers,
    freshHeaders,
    hasSpoken: false,
  };

  function listen(said: Message): ReturnType<Hear> {
    call.hasSpoken = true;
    if (said.id !== undefined) onQuestion?.();
    else if (said.method === "notifications/progress") limit.extend();
    return hear?.(said);
  }

  return call;
}

/** The scanner lets pass what no parser reads, until somebody has to read it. */
function unreadable(error: Error): BackendError {
  return new BackendError("bad_answer", "unknown", "its answer can't be read", error);
}

/** Starts watching at once. Throws an Error fit for the operator when the backend can't be served here. */
export function createBackend(options: BackendOptions): Backend {
  const { spec, place = spec.url, credential, breaker: settings, log, onMessage, onChange } = options;
  const connector = createConnector({ spec, credential, log });
  const breaker = createBreaker({
    settings,
    nowMs: () => performance.now(),
    random: Math.random,
    stalls: ownStalls,
    onChange: onBreaker,
  });
  const lookout = createLookout({
    look,
    isWanted: () => breaker.isAway,
    onReturn: () => breaker.retryNow(retryLeastMs),
    random: Math.random,
    sleep: (ms, signal) => sleep(ms, undefined, { signal, ref: false }),
  });
  const bulkhead = createBulkhead(callsMax);
  const legs = createSessionLegs({
    backend: spec.name,
    legKey: options.legKey ?? spec.name,
    place,
    open: connector.openLeg,
    onMessage: (session, message) => onMessage(session, backend, message),
    log,
  });
  const isShared = spec.transport === "stdio";
  let lastState: HealthState = "unknown";
  let silences = 0;
  let isRetired = false;
  const budget = createRetryBudget();
  const meter = createCallMeter();
  const catalogs = watchCatalogs({
    shared: options.shared,
    duty: options.duty ?? "ours",
    open: connector.openLeg,
    gateway,
    isShared,
    credential,
    health: options.health ?? healthDefault,
    mayRefresh: options.mayRefresh ?? (() => true),
    // Of a backend with a session for each client this is what it says to us alone.
    onMessage: (message) => (isShared ? onMessage(undefined, backend, message) : undefined),
    onChange({ state, error }) {
      if (state !== lastState) tell(state, error);
      lastState = state;
      onChange();
    },
    onProblems(problems) {
      if (problems.length > 0)
        log.warn({ backend: spec.name, problems: problems.slice(0, problemsShown) }, "its lists are incomplete");
    },
    onSilence() {
      // Once may be a busy moment. Twice in a row, and what is ours of it is started anew.
      if (++silences % 2 === 0)
        connector.restart().catch((failure) => log.debug({ backend: spec.name, reason: reasonOf(failure) }, "not restarted"));
    },
  });

  function onBreaker({ state, openings, pauseMs, cause }: BreakerChange): void {
    const words = { closed: "calls work again", open: "calls failed; it is left alone", half_open: "calls are tried again" };
    if (state === "open")
      log.warn({ backend: spec.name, pauseMs: Math.round(pauseMs ?? 0), reason: cause && reasonOf(cause) }, words.open);
    else log.info({ backend: spec.name }, words[state]);
    // What fails for the first time may have just gone; later only a connection that fails says that it is not there.
    if (state !== "closed") lookout.start(state === "open" && (openings === 1 || isConnectionFault(cause)));
  }

  /** Whether it answers us. */
  async function look(signal: AbortSignal): Promise<void> {
    const leg = await connector.openLeg(gateway, signal);
    await ping(leg, signal).finally(() => void leg.close());
  }

  /** Makes the call, and again where the rules of `retryOf` allow it. */
  function attempt(session: Session, message: Message, call: NotedCall, { limit, slot }: Held): Promise<Message> {
    slot.hold(); // also while nobody waits for it any more
    return withLimit(limit, attemptUntil, slot.leave);

    async function attemptUntil(signal: CallSignal): Promise<Message> {
      budget.called(performance.now());
      for (let attempts = 1, hasNewSession = false; ; attempts++) {
        try {
          const leg = legs.ready(session) ?? (await legs.of(session));
          return await leg.request(message, call);
        } catch (error) {
          const failure = isUnreadable(error) ? unreadable(error) : error;
          if (!(failure instanceof BackendError) || signal.aborted || isRetired) throw failure;
          const { code, outcome, credentialRenewed } = failure;
          const nowMs = performance.now();
          const budgetAllows = breaker.state === "closed" && budget.allows(nowMs);
          const state = { attempts, hasNewSession, hasSpoken: call.hasSpoken, budgetAllows };
          const retry = retryOf({ ...callFacts(message), ...state, code, outcome, credentialRenewed });
          if (retry === "no") throw failure;
          log.debug({ backend: spec.name, method: message.method, reason: failure.message }, "a call is made again");
          if (retry === "on_new_session") hasNewSession = true;
          else {
            budget.retried(nowMs);
            await sleep(retryMs.least + Math.random() * (retryMs.most - retryMs.least), undefined, {
              signal: abortSignalOf(signal),
            });
          }
        }
      }
    }
  }

  // What became of a call says how the backend is; while it is well, only failures are news.
  function succeeded(tookMs: number): void {
    meter.note("success", tookMs);
    if (lastState !== "healthy") catalogs.see({ kind: "success", tookMs });
  }

  function failed(error: unknown, tookMs: number): void {
    meter.note(error instanceof BackendError ? error.code : "aborted", tookMs);
    if (outcomeOf(error) === "failure") catalogs.see({ kind: "failure", reason: reasonOf(error) });
  }

  function tell(state: HealthState, reason: string | undefined): void {
    if (state === "unhealthy" || state === "unauthenticated")
      log.warn({ backend: spec.name, state, reason }, "backend is not well");
    else log.info({ backend: spec.name, state, reason, tools: catalogs.base?.tools.length }, "backend answers");
    const isBack = (state === "healthy" || state === "degraded") && lastState !== "healthy" && lastState !== "degraded";
    if (!isBack) return;
    silences = 0;
    breaker.retryNow();
  }

  const backend: Backend = {
    name: spec.name,
    isShared,
    firstAttempt: catalogs.firstAttempt,
    get catalog() {
      return catalogs.base;
    },
    get state() {
      return catalogs.state;
    },
    get inFlight() {
      return bulkhead.taken;
    },
    get isLeftAlone() {
      return breaker.isAway;
    },
    catalogOf: catalogs.of,
    contextOf: credential.contextOf,
    tokens: credential.counters,
    get calls() {
      return meter.read();
    },
    get listedWith() {
      return credential.gatewayShows === "nobody" ? "callers' own" : credential.gatewayShows;
    },
    get listed() {
      return catalogs.listed;
    },
    get isWatched() {
      return catalogs.isWatched;
    },
    get shared() {
      return catalogs.shared;
    },
    share: catalogs.share,
    rest: catalogs.rest,
    join: catalogs.join,
    async call(session, message, options) {
      if (isRetired) throw backendGone();
      const slot = bulkhead.enter();
      const { limit, timeoutMs, isIncidental, isLastResort } = options;
      const held = { limit, slot };
      const startedMs = performance.now();
      const isSeen = !isIncidental && !isLastResort;
      limit.arm(timeoutMs);
      try {
        if (!isSeen) {
          const refusal = isLastResort ? undefined : breaker.refusal();
          if (refusal) throw refusal;
          return await attempt(session, message, noted(options), held);
        }
        // A backend that asks its client something is well, however long the client takes.
        const answer = await breaker.run(timeoutMs, (isWell) => attempt(session, message, noted(options, isWell), held));
        succeeded(performance.now() - startedMs);
        return answer;
      } catch (error) {
        if (isSeen) failed(error, performance.now() - startedMs);
        throw error;
      } finally {
        limit.disarm();
        slot.leave();
      }
    },
    prove: (asker) => sendWith(credential, asker, async () => undefined),
    async tell(session, message) {
      const leg = await legs.existing(session);
      if (leg && !leg.isShared) await withDeadline(notifyMs, (signal) => leg.notify(message, signal));
    },
    adopt: async (session) => void (await legs.existing(session)),
    follow: legs.follow,
    async followTask(session, taskId, isWanted) {
      try {
        const leg = await (isWanted ? legs.of(session) : legs.existing(session));
        return (await leg?.followTask?.(taskId, isWanted)) ?? false;
      } catch {
        return false; // calls to it say why
      }
    },
    setLogLevel: legs.setLogLevel,
    relist: catalogs.relist,
    configure(next, health = healthDefault) {
      catalogs.configure(health);
      breaker.configure(next);
    },
    async retire(graceMs) {
      if (graceMs > 0) await withDeadline(graceMs, bulkhead.idle).catch(() => undefined);
      isRetired = true;
      lookout[Symbol.dispose]();
      const ended = catalogs[Symbol.asyncDispose]();
      breaker[Symbol.dispose]();
      // Goodbyes go over connections that are still there, the one of who listed too; a server that does not answer is not waited for.
      const goodbyes = Promise.all([legs[Symbol.asyncDispose](), ended]);
      await Promise.race([goodbyes, sleep(goodbyeMs, undefined, { ref: false })]);
      await connector.close();
      await ended;
    },
  };

  return backend;
}

async function ping(leg: Leg, signal: AbortSignal): Promise<void> {
  await leg.request(readMessage(request("ping", undefined, '"vmcp-ping"')), { signal });
}
