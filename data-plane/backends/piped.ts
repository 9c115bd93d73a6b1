// A server over a pipe (stdio, HTTP+SSE): one connection carries every message, so calls are told apart by ids of our own.
// A stdio server is shared by all client sessions; that is what a server that reads one pipe can offer. Of which era it is, it
// is asked first. Longer than most files here: whose a message is can only be told where all of them come in.
// Source: MCP 2026-07-28, transports, stdio, and versioning, compatibility.
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import { withEnvelope } from "../mcp/envelope.ts";
import { type Message, parseSpan, readMessage, request as requestText, withId } from "../mcp/json-rpc.ts";
import { member, type Span, splice } from "../mcp/scan.ts";
import { metaKeys } from "../mcp/stateless.ts";
import { createChangeFeed } from "./change-feed.ts";
import { BackendError, reasonOf } from "./errors.ts";
import {
  answerServerRequest,
  type ClientFacts,
  cancelled,
  gateway,
  type Hear,
  initializedNotification,
  initializeRequest,
  isClientRequest,
  type Leg,
  type RequestOptions,
  readServerFacts,
  type ServerFacts,
} from "./leg.ts";
import { untilAborted } from "./limit.ts";
import type { Pipe, PipeEvents } from "./pipe.ts";
import { createStatelessLeg, envelopeOf, readDiscovery, type StatelessWire } from "./stateless-leg.ts";

interface Pending {
  readonly message: Message;
  /** Raw text of the client's progress token, when it gave one. */
  readonly progressToken: string | undefined;
  readonly onMessage: Hear | undefined;
  settle(outcome: Message | BackendError): void;
}

export interface PipedOptions {
  readonly open: (events: PipeEvents) => Promise<Pipe>;
  readonly client: ClientFacts;
  readonly signal: AbortSignal;
  /** Several client sessions will use it. */
  readonly isShared: boolean;
  /** Whether it may be of the stateless era. Some servers end at once when they are asked. */
  readonly mayBeStateless: boolean;
  readonly log: Log;
}

export interface PipedServer {
  /** Why the connection ended; undefined while it is open. */
  readonly closedBy: string | undefined;
  /** A leg for one client. Of a shared session there is just one, whoever asks; closing it closes nothing. */
  legFor(client: ClientFacts): Leg;
  /** Ends the connection. */
  close(): Promise<void>;
}

// A server that answers neither within so long may be one that never answers what it does not know.
const patienceMs = 1_500;

/** Opens a pipe, and on it what the server speaks; throws BackendError, with the pipe closed. */
export async function openPiped({ open, client, signal, isShared, mayBeStateless, log }: PipedOptions): Promise<PipedServer> {
  const pending = new Map<string, Pending>();
  const listeners = new Set<Hear>();
  let lastId = 0;
  let closed: BackendError | undefined;
  let onEnd: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => {
    onEnd = resolve;
  });

  let pipe: Pipe | undefined; // messages may come before it is handed over
  const opened = await open({ onMessage: receive, onClose: (reason) => end(reason) }).catch((error: unknown) => {
    throw new BackendError("unavailable", "not_executed", reasonOf(error), error);
  });

  pipe = opened;

  function end(reason: Error | undefined): void {
    if (closed) return;
    closed = new BackendError("unavailable", "unknown", reason ? reasonOf(reason) : "the connection was closed", reason);
    for (const call of pending.values()) call.settle(closed);
    pending.clear();
    onEnd();
  }

  function receive(json: Buffer): void {
    try {
      take(readMessage(json));
    } catch {
      // Noise; the call it may have been for ends by its deadline, and nobody else's is touched.
    }
  }

  function take(message: Message): void {
    if (message.method !== undefined && message.id !== undefined) {
      if (isShared || !isClientRequest(message) || !deliverToOne(message))
        pipe?.send(answerServerRequest(message)).catch(() => undefined);
    } else if (message.method !== undefined) deliver(message);
    else if (message.id !== undefined) {
      const call = pending.get(message.id);
      pending.delete(message.id);
      call?.settle(withId(message, call.message.id as string));
    }
  }

  function deliver(message: Message): void {
    if (message.method === "notifications/progress") {
      const token = tokenSpan(message);
      const call = token && pending.get(textOf(message, token));
      if (call?.progressToken !== undefined)
        void call.onMessage?.(
          readMessage(splice(message.json, [{ ...token, text: call.progressToken } as Span & { text: string }])),
        );
    } else if (deliverToListen(message)) {
      // It was meant for that request alone.
    } else if (client.era === "stateless" && message.method === "notifications/cancelled") {
      for (const call of pending.values()) void call.onMessage?.(message); // whichever asked what is withdrawn knows it
    } else if (message.method !== "notifications/message") for (const listener of listeners) void listener(message);
    // A log line names no call. On a pipe that sessions share nobody knows whose it is, so nobody gets it.
    else if (!isShared) deliverToOne(message);
  }

  /** Gives what a stream of changes says to whoever opened it; false when it names none. */
  function deliverToListen(message: Message): boolean {
    if (!message.json.includes(metaKeys.subscriptionId)) return false;
    const meta = message.params && member(message.json, message.params.start, "_meta");
    const id = meta && message.json[meta.start] === 0x7b ? member(message.json, meta.start, metaKeys.subscriptionId) : undefined;
    if (!id) return false;
    void pending.get(textOf(message, id))?.onMessage?.(message);
    return true;
  }

  /**
   * Gives a message that names no call to the oldest call in flight, else to who listens; false when there is nobody. Where many
   * callers share the session, it may be meant for any of them, so nobody gets it unless there is just one call.
   */
  function deliverToOne(message: Message): boolean {
    const hearing = pending.values().filter((call) => call.onMessage);
    const hear = hearing.next().value?.onMessage ?? listeners.values().next().value;
    if (client.era === "stateless" && !hearing.next().done) return false;
    void hear?.(message);
    return hear !== undefined;
  }

  function request(message: Message, { signal, onMessage }: RequestOptions): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (closed) return reject(new BackendError("unavailable", "not_executed", closed.message));
      if (signal.aborted) return reject(signal.reason);
      const id = String(++lastId);
      const token = requestTokenSpan(message);
      const abort = (): void => {
        pending.delete(id);
        reject(signal.reason);
        opened.send(cancelled({ ...message, id })).catch(() => undefined);
      };
      pending.set(id, {
        message,
        progressToken: token && textOf(message, token),
        onMessage,
        settle(outcome) {
          signal.removeEventListener("abort", abort);
          if (outcome instanceof BackendError) reject(outcome);
          else resolve(outcome);
        },
      });
      signal.addEventListener("abort", abort, { once: true });
      const edits = [{ ...(message.idSpan as Span), text: id }, ...(token ? [{ ...token, text: id }] : [])];
      opened.send(splice(message.json, edits)).catch((error: unknown) => {
        const call = pending.get(id);
        pending.delete(id);
        const isKnown = error instanceof BackendError;
        call?.settle(isKnown ? error : new BackendError("unavailable", "not_executed", reasonOf(error), error));
      });
    });
  }

  /** What the server is: in its own words, or by how it takes `initialize`. */
  async function handshake(): Promise<ServerFacts> {
    const initialize = () => request(initializeRequest(client), { signal }).then(readServerFacts);
    if (!mayBeStateless) return initialize();
    const discovered = discover(signal);
    const first = await Promise.race([discovered, sleep(patienceMs, undefined, { ref: false })]);
    if (first) return first;
    // Messages are read in order: a server that is merely slow to start answers the first question first.
    const initialized = initialize();
    initialized.catch(() => undefined);
    const late = first === undefined && closed === undefined ? await Promise.race([discovered, initialized]) : undefined;
    return late ?? initialized;
  }

  /** Undefined when the server is of the session era. */
  async function discover(discovering: AbortSignal): Promise<ServerFacts | undefined> {
    const message = withEnvelope(readMessage(requestText("server/discover", undefined, '"vmcp-discover"')), envelopeOf(gateway));
    const found = readDiscovery(await request(message, { signal: discovering }));
    return found === "again" ? undefined : found;
  }

  function statelessServer(facts: ServerFacts): PipedServer {
    const changes = createChangeFeed({
      open: (message, { capabilities, ...options }) =>
        request(withEnvelope(message, envelopeOf({ ...gateway, capabilities })), options),
      log,
    });
    void ended.then(() => changes[Symbol.dispose]());
    const wire: StatelessWire = {
      facts,
      changes,
      isShared: false,
      get closedBy() {
        return closed?.message;
      },
      send: request,
      async discover(discovering) {
        if (!(await discover(discovering)))
          throw new BackendError("session_gone", "not_executed", "it speaks another revision now");
      },
    };
    return {
      get closedBy() {
        return closed?.message;
      },
      legFor: (one) => createStatelessLeg(one, wire),
      close: () => opened.close(),
    };
  }

  function sessionServer(facts: ServerFacts): PipedServer {
    const leg: Leg = {
      facts,
      isShared,
      get closedBy() {
        return closed?.message;
      },
      request,
      notify: (message) => opened.send(message),
      async listen(onMessage, { signal, onOpen }) {
        listeners.add(onMessage);
        onOpen?.();
        const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
        await Promise.race([ended, aborted]);
        listeners.delete(onMessage);
        return true;
      },
      close: async () => (isShared ? undefined : opened.close()),
    };
    return {
      get closedBy() {
        return closed?.message;
      },
      legFor: () => leg,
      close: () => opened.close(),
    };
  }

  try {
    const facts = await handshake();
    if (facts.era === "stateless") return statelessServer(facts);
    opened.setProtocolVersion?.(facts.protocolVersion);
    await untilAborted(opened.send(initializedNotification), signal);
    return sessionServer(facts);
  } catch (error) {
    await opened.close();
    throw error;
  }
}

function tokenSpan(message: Message): Span | undefined {
  return message.params && member(message.json, message.params.start, "progressToken");
}

function requestTokenSpan(message: Message): Span | undefined {
  const params = parseSpan(message, message.params) as { _meta?: { progressToken?: unknown } } | undefined;
  if (params?._meta?.progressToken === undefined) return undefined;
  const meta = message.params && member(message.json, message.params.start, "_meta");
  return meta && member(message.json, meta.start, "progressToken");
}

function textOf(message: Message, span: Span): string {
  return message.json.toString("utf8", span.start, span.end);
}
