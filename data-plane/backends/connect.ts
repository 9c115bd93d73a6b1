// Transport → how sessions with a backend are opened.
import type { Log } from "../../common/log.ts";
import type { Backend as BackendSpec } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import type { Credential } from "../outgoing-auth/credential.ts";
import { resolveReference } from "../secrets.ts";
import { BackendError, reasonOf } from "./errors.ts";
import { createHttpEndpoint } from "./http-endpoint.ts";
import type { ClientFacts, Leg, Resumable } from "./leg.ts";
import type { PipeEvents } from "./pipe.ts";
import { openPiped, type PipedServer } from "./piped.ts";
import { forSessionCaller } from "./session-caller.ts";
import { sendWith } from "./shown.ts";
import { forStatelessCaller } from "./stateless-caller.ts";
import { openStdio } from "./stdio.ts";

/** Opens sessions with one backend. */
export interface Connector {
  /** Opens a session, or goes on with one that another replica opened, where the transport can. Throws BackendError. */
  openLeg(client: ClientFacts, signal: AbortSignal, resumed?: Resumable): Promise<Leg>;
  /** The backend does not answer any more: ends what is ours of it, so that the next session starts it anew. */
  restart(): Promise<void>;
  /** Ends everything it opened. */
  close(): Promise<void>;
}

interface ConnectOptions {
  readonly spec: BackendSpec;
  readonly credential: Credential;
  readonly log: Log;
}

const connectors = new Map<string, (options: ConnectOptions) => Connector>([
  ["streamable-http", ({ spec, credential, log }) => createHttpEndpoint({ url: spec.url, credential, log })],
  ["sse", connectSse],
  ["stdio", connectStdio],
]);

/** The connector of a backend's transport; throws an Error fit for the operator when it can't be made here. */
export function createConnector(options: ConnectOptions): Connector {
  const connect = connectors.get(options.spec.transport);
  if (!connect) throw new Error(`transport "${options.spec.transport}" is not supported`);
  const connector = connect(options);
  return {
    openLeg: async (client, signal, resumed) => spoken(client, await connector.openLeg(client, signal, resumed)),
    restart: connector.restart,
    close: connector.close,
  };
}

/** The leg as its client speaks: client and server may be of different eras. */
function spoken(client: ClientFacts, leg: Leg): Leg {
  if (client.era === undefined || client.era === leg.facts.era) return leg;
  return client.era === "session" ? forSessionCaller(leg, client) : forStatelessCaller(leg);
}

function connectSse({ spec, credential, log }: ConnectOptions): Connector {
  return {
    async openLeg(client, signal) {
      const asker = () => ({ caller: client.caller });
      const { openSse } = await import("./sse.ts"); // the SDK behind it takes long to load, and few backends need it
      const open = (events: PipeEvents) => openSse({ url: spec.url, credential, asker, log, name: spec.name }, events);
      const server = await openPiped({ open, client, signal, isShared: false, mayBeStateless: false, log });
      return server.legFor(client);
    },
    restart: async () => undefined,
    close: async () => undefined, // every leg is its own connection, closed by whoever opened it
  };
}

const restartMs = { first: 500, most: 30_000, healthyAfter: 30_000 };

/**
 * One child process for all sessions; started at first use, and again, with growing pauses, when it has ended. A program that
 * ends when it is asked for its era is not asked again.
 */
function connectStdio({ spec, credential, log }: ConnectOptions): Connector {
  const env = Object.fromEntries(Object.entries(spec.env).map(([name, value]) => [name, resolveReference(value)]));
  const program = { command: spec.command, args: spec.args, env, log, name: spec.name, ...(spec.cwd ? { cwd: spec.cwd } : {}) };
  let child: Promise<PipedServer> | undefined;
  let mayBeStateless = true;
  let startedAtMs = Number.NEGATIVE_INFINITY;
  let pauseMs = 0;
  let isClosed = false;

  async function start(client: ClientFacts): Promise<PipedServer> {
    startedAtMs = performance.now();
    const open = (events: PipeEvents) => openStdio(program, events);
    // All sessions share the child, so it is told of no abilities that only one client may have.
    const shared = { ...client, capabilities: "{}" };
    const options = { open, client: shared, signal: startDeadline(), isShared: true, mayBeStateless, log };
    try {
      return await openPiped(options);
    } catch (error) {
      const hasEnded = error instanceof BackendError && error.code === "unavailable" && error.outcome === "unknown";
      if (!mayBeStateless || !hasEnded || isClosed) throw error;
      const server = await openPiped({ ...options, mayBeStateless: false });
      mayBeStateless = false; // so it was the question that ended it
      return server;
    }
  }

  /** The running child; starts one when there is none. Throws why there is none while a pause lasts. */
  async function running(client: ClientFacts): Promise<PipedServer> {
    if (isClosed) throw new BackendError("unavailable", "not_executed", "the backend was removed");
    const current = child ?? start(client);
    child = current;
    const ended = await current.then(
      (server) => server.closedBy,
      (error: unknown) => reasonOf(error),
    );
    if (ended === undefined) return current;
    const ageMs = performance.now() - startedAtMs;
    if (child !== current) return running(client); // another caller has restarted it meanwhile
    if (ageMs > restartMs.healthyAfter) pauseMs = 0;
    if (ageMs < pauseMs) throw new BackendError("unavailable", "not_executed", ended);
    pauseMs = Math.min(restartMs.most, pauseMs * 2 || restartMs.first);
    child = undefined;
    return running(client);
  }

  async function end(): Promise<void> {
    await (await child?.catch(() => undefined))?.close();
  }

  return {
    async openLeg(client, signal) {
      // There is nobody to show it to, but without it nothing is started either.
      await sendWith(credential, { caller: client.caller }, async () => undefined);
      return (await abortable(running(client), signal)).legFor(client);
    },
    restart: end,
    async close() {
      isClosed = true;
      await end();
    },
  };
}

const startMs = 30_000; // package runners download first

function startDeadline(): AbortSignal {
  const limit = new AbortController();
  setTimeout(
    () => limit.abort(new BackendError("timeout", "not_executed", `did not answer initialize within ${startMs / 1000} s`)),
    startMs,
  ).unref();
  return limit.signal;
}

function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise
      .then(resolve, (error: unknown) =>
        reject(error instanceof BackendError ? error : new BackendError("unavailable", "not_executed", reasonOf(error), error)),
      )
      .finally(() => signal.removeEventListener("abort", abort));
  });
}
