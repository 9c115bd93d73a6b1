// One MCP server behind us: its catalog, its breaker, and one session with it per client session.
import type { Log } from "../../common/log.ts";
import { softwareVersion } from "../../common/version.ts";
import type { Backend as BackendSpec } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type Message, readMessage, request as requestMessage } from "../mcp/json-rpc.ts";
import { sessionVersions } from "../mcp/versions.ts";
import type { ShowCredential } from "../outgoing-auth/strategy.ts";
import type { Session } from "../session/session.ts";
import { type BreakerSettings, createBreaker } from "./breaker.ts";
import { type Catalog, isSameCatalog } from "./catalog.ts";
import { createConnector } from "./connect.ts";
import { BackendError, reasonOf } from "./errors.ts";
import type { ClientFacts, Leg } from "./leg.ts";
import { watchCatalog } from "./watch.ts";

/** How a backend is. */
export interface BackendState {
  readonly state: "connecting" | "ready" | "unavailable";
  /** When not ready, why. */
  readonly error: string | undefined;
}

export interface CallOptions {
  readonly timeoutMs: number;
  /** Aborted at the deadline, and by whoever wants the call to stop. */
  readonly limit: AbortController;
  /** What the backend says on the call's stream before the answer. */
  readonly onMessage?: (message: Message) => void;
}

export interface Backend extends AsyncDisposable {
  /** The `{workload}` of names. */
  readonly name: string;
  /** As last listed; kept while the backend is away. */
  readonly catalog: Catalog | undefined;
  readonly state: BackendState;
  /** Settles when the first attempt to list it has ended, either way. */
  readonly firstAttempt: Promise<void>;
  /** Sends a session's request and gives the response. Throws BackendError within the deadline. */
  call(session: Session, message: Message, options: CallOptions): Promise<Message>;
  /** Sends a notification on the session's leg; does nothing when it has none. */
  notify(session: Session, message: Buffer): Promise<void>;
  /** Tells the session's leg, when it has one, of a new log level. */
  setLogLevel(session: Session): void;
}

export interface BackendOptions {
  readonly spec: BackendSpec;
  readonly credential: ShowCredential;
  readonly breaker: BreakerSettings;
  readonly log: Log;
  /** Called after the catalog or the state changed. */
  readonly onChange: () => void;
}

const openMs = 10_000;
const notifyMs = 5_000;
const inFlightMax = 256;
const gateway: ClientFacts = {
  protocolVersion: sessionVersions[0],
  clientInfo: JSON.stringify({ name: "vmcp", version: softwareVersion }),
};

/** Starts watching at once. Throws an Error fit for the operator when the backend can't be served here. */
export function createBackend({ spec, credential, breaker: settings, log, onChange }: BackendOptions): Backend {
  const connector = createConnector({ spec, credential, log });
  const breaker = createBreaker(settings);
  const legs = new Map<Session, Promise<Leg>>();
  const known = new WeakSet<Session>(); // whose end we hear of already
  const stop = new AbortController();
  let catalog: Catalog | undefined;
  let state: BackendState = { state: "connecting", error: undefined };
  let inFlight = 0;
  let settleFirst: () => void = () => undefined;
  const firstAttempt = new Promise<void>((resolve) => {
    settleFirst = resolve;
  });

  const watching = watchCatalog({
    open: (signal) => connector.openLeg(gateway, signal),
    signal: stop.signal,
    onCatalog(listed) {
      const isNews = !catalog || !isSameCatalog(catalog, listed) || state.state !== "ready";
      catalog = listed;
      if (state.state !== "ready") {
        log.info({ backend: spec.name, tools: listed.tools.length }, "backend is ready");
        breaker.reset();
      }
      state = { state: "ready", error: undefined };
      settleFirst();
      if (isNews) onChange();
    },
    onFailure(error) {
      const reason = reasonOf(error);
      const isNews = state.state !== "unavailable" || state.error !== reason;
      if (isNews) log.warn({ backend: spec.name, reason }, "backend is unavailable");
      state = { state: "unavailable", error: reason };
      settleFirst();
      if (isNews) onChange();
    },
  });

  /** The session's leg, opened at first use, once for all calls that wait for it. */
  async function legOf(session: Session): Promise<Leg> {
    const existing = legs.get(session);
    if (existing && (await existing).closedBy === undefined) return existing;
    if (legs.get(session) !== existing) return legOf(session); // another call opened one meanwhile
    const opening = openLeg(session);
    legs.set(session, opening);
    if (!known.has(session)) {
      known.add(session);
      session.onEnd(() => void dropLeg(session));
    }
    opening.catch(() => legs.get(session) === opening && legs.delete(session));
    return opening;
  }

  async function openLeg(session: Session): Promise<Leg> {
    const leg = await withDeadline(openMs, (signal) => connector.openLeg(session, signal)).catch((error: unknown) => {
      // Whatever became of the handshake, the call that waits for it did not run.
      throw error instanceof BackendError ? new BackendError(error.code, "not_executed", error.message, error) : error;
    });
    if (session.logLevel !== undefined) await setLevel(leg, session.logLevel);
    return leg;
  }

  async function dropLeg(session: Session): Promise<void> {
    const leg = legs.get(session);
    legs.delete(session);
    await leg?.then((open) => open.close()).catch(() => undefined);
  }

  async function setLevel(leg: Leg, level: string): Promise<void> {
    if (leg.facts.capabilities.logging === undefined) return;
    const message = readMessage(requestMessage("logging/setLevel", `{"level":${level}}`, '"vmcp-level"'));
    await withDeadline(notifyMs, (signal) => leg.request(message, { signal })).catch((error) =>
      log.debug({ backend: spec.name, reason: reasonOf(error) }, "level not set"),
    );
  }

  async function attempt(session: Session, message: Message, { timeoutMs, limit, onMessage }: CallOptions): Promise<Message> {
    return withDeadline(
      timeoutMs,
      async (signal) => {
        const options = onMessage ? { signal, onMessage } : { signal };
        const leg = await legOf(session);
        try {
          return await leg.request(message, options);
        } catch (error) {
          // The backend forgot the session, so it refused the call: a new session, and the call once more.
          if (!(error instanceof BackendError && error.code === "session_gone")) throw error;
          return (await legOf(session)).request(message, options);
        }
      },
      limit,
    );
  }

  return {
    name: spec.name,
    firstAttempt,
    get catalog() {
      return catalog;
    },
    get state() {
      return state;
    },
    async call(session, message, options) {
      if (inFlight >= inFlightMax) throw new BackendError("shed", "not_executed", `${inFlightMax} calls are in flight already`);
      inFlight++;
      try {
        return await breaker.run(() => attempt(session, message, options));
      } finally {
        inFlight--;
      }
    },
    async notify(session, message) {
      const leg = await legs.get(session)?.catch(() => undefined);
      if (leg) await withDeadline(notifyMs, (signal) => leg.notify(message, signal));
    },
    setLogLevel(session) {
      const { logLevel } = session;
      if (logLevel !== undefined)
        legs
          .get(session)
          ?.then((leg) => setLevel(leg, logLevel))
          .catch(() => undefined);
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new BackendError("unavailable", "not_executed", "the backend was removed"));
      breaker[Symbol.dispose]();
      await Promise.all([...legs.keys()].map(dropLeg));
      await connector.close();
      await watching;
    },
  };
}

/** Runs work for at most `ms`; then `limit` is aborted, and the work is not waited for any longer. */
function withDeadline<T>(ms: number, work: (signal: AbortSignal) => Promise<T>, limit = new AbortController()): Promise<T> {
  return new Promise((resolve, reject) => {
    const { signal } = limit;
    const timer = setTimeout(() => limit.abort(new BackendError("timeout", "unknown", `no answer within ${ms / 1000} s`)), ms);
    const abort = (): void => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    work(signal)
      .then(resolve, reject)
      .finally(() => {
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
      });
  });
}
