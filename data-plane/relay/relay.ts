// What backends say and ask, on its way to the client, and the client's answers on their way back.
//
// A question goes to the client under an id of ours that holds the way back, sealed for this session: whoever gets the
// answer can send it on without having seen the question.

import type { Log } from "../../common/log.ts";
import type { Backend } from "../backends/backend.ts";
import { reasonOf } from "../backends/errors.ts";
import { errorResponse, type Message, parseSpan, withId } from "../mcp/json-rpc.ts";
import { member, splice } from "../mcp/scan.ts";
import { createSealer, type Keys } from "../mcp/seal.ts";
import type { Session } from "../session/session.ts";
import { refusalOf } from "./client-abilities.ts";

export interface Relay {
  /**
   * Passes on what a backend says or asks; `send` puts it on the right stream. True when the client was asked something,
   * so that the backend waits for a person now; `onAnswer` is called when the answer has come. Never throws.
   */
  toClient(session: Session, backend: Backend, message: Message, send: (message: Buffer) => void, onAnswer?: () => void): boolean;
  /** Passes on what a backend says outside of calls: to one session, or, from a backend that sessions share, to whom it concerns. */
  outside(session: Session | undefined, backend: Backend, message: Message): Promise<void> | undefined;
  /** Sends a client's answer back to the backend that asked; false when we never asked that. */
  answer(session: Session, find: (name: string) => Backend | undefined, message: Message): boolean;
  /** Address of the other replica that asked what a message answers; undefined when it was this one, or nobody. */
  askedBy(session: Session, message: Message): string | undefined;
}

const questionsMax = 100;
const idLengthMax = 1_000;

export interface RelayOptions {
  /** What ids are sealed with, the same on every replica. */
  readonly keys: Keys;
  readonly sessions: () => Iterable<Session>;
  /** Where other replicas reach this one. */
  readonly address: () => string;
  readonly log: Log;
}

export function createRelay({ keys, sessions, address, log }: RelayOptions): Relay {
  const sealer = createSealer(keys, "server-request-id");

  function ask(
    session: Session,
    backend: Backend,
    message: Message,
    send: (message: Buffer) => void,
    onAnswer?: () => void,
  ): boolean {
    const id = message.id as string;
    const isTooLong = id.length > idLengthMax;
    const refusal = isTooLong ? idTooLong : refusalOf(session, message.method as string, parseSpan(message, message.params));
    if (refusal) {
      backend.tell(session, errorResponse(id, refusal)).catch(ignore);
      return false;
    }
    const sealed = JSON.stringify(sealer.seal(Buffer.from(JSON.stringify([backend.name, id, address()])), session.id));
    if (session.questions.size >= questionsMax) session.questions.delete(session.questions.keys().next().value as string);
    session.questions.set(`${backend.name} ${id}`, { id: sealed, onAnswer });
    send(withId(message, sealed).json);
    return true;
  }

  function toClient(
    session: Session,
    backend: Backend,
    message: Message,
    send: (message: Buffer) => void,
    onAnswer?: () => void,
  ): boolean {
    try {
      if (message.id !== undefined) return ask(session, backend, message, send, onAnswer);
      const edited = noticeFor(session, backend, message);
      if (edited) send(edited);
    } catch (error) {
      ignore(error); // it is not what it says it is
    }
    return false;
  }

  function ignore(error: unknown): void {
    log.debug({ reason: reasonOf(error) }, "a message did not reach its backend");
  }

  return {
    toClient,
    askedBy(session, message) {
      const asker = readRoute(sealer.open(readId(message), session.id))?.[2];
      return asker === address() ? undefined : asker;
    },
    outside(session, backend, message) {
      if (session) {
        const { stream } = session;
        let taken: Promise<void> | undefined;
        const send = (passed: Buffer) => {
          taken = stream?.send(passed);
        };
        const canBeAsked = session.era === "session"; // outside of calls; the other era knows no such thing
        if (stream && (canBeAsked || message.id === undefined)) toClient(session, backend, message, send);
        else if (message.id !== undefined) backend.tell(session, errorResponse(message.id, nobodyListens)).catch(ignore);
        return taken;
      }
      if (message.method !== "notifications/resources/updated") return undefined;
      for (const one of sessions()) if (one.stream) toClient(one, backend, message, (passed) => void one.stream?.send(passed));
      return undefined;
    },
    answer(session, find, message) {
      const route = readRoute(sealer.open(readId(message), session.id));
      if (!route) return false;
      const [name, id] = route;
      session.questions.get(`${name} ${id}`)?.onAnswer?.();
      session.questions.delete(`${name} ${id}`);
      find(name)?.tell(session, withId(message, id).json).catch(ignore);
      return true;
    },
  };
}

const idTooLong = { code: -32600, message: `the id is longer than ${idLengthMax} characters` };
const nobodyListens = { code: -32603, message: "the client has no stream to be asked on" };

/** A notification as this session should get it; undefined when it is none of its business. */
function noticeFor(session: Session, backend: Backend, message: Message): Buffer | undefined {
  switch (message.method) {
    case "notifications/tools/list_changed":
    case "notifications/prompts/list_changed":
    case "notifications/resources/list_changed":
      return undefined; // the watcher lists again, and then every session is told once
    case "notifications/resources/updated":
      return updateFor(session, backend, message);
    case "notifications/cancelled":
      return cancellationFor(session, backend, message);
    case "notifications/tasks":
      return taskNoticeFor(session, backend, message);
    default:
      return message.json;
  }
}

function updateFor(session: Session, backend: Backend, message: Message): Buffer | undefined {
  const uri = message.params && member(message.json, message.params.start, "uri");
  if (!uri) return undefined;
  const original = JSON.parse(message.json.toString("utf8", uri.start, uri.end)) as unknown;
  const own = [...session.state.subscriptions].filter(([, route]) => route.backend === backend.name);
  const exact = own.find(([, route]) => route.original === original)?.[0];
  if (exact !== undefined)
    return exact === original ? message.json : splice(message.json, [{ ...uri, text: JSON.stringify(exact) }]);
  // It may be a part of what was subscribed to. A backend that sessions share may mean another session, though.
  return own.length > 0 && !backend.isShared ? message.json : undefined;
}

function taskNoticeFor(session: Session, backend: Backend, message: Message): Buffer | undefined {
  const span = message.params && member(message.json, message.params.start, "taskId");
  const taskId: unknown = span && JSON.parse(message.json.toString("utf8", span.start, span.end));
  const own = session.tasks.get(`${backend.name} ${taskId}`);
  return span && own !== undefined ? splice(message.json, [{ ...span, text: JSON.stringify(own) }]) : undefined;
}

function cancellationFor(session: Session, backend: Backend, message: Message): Buffer | undefined {
  const id = message.params && member(message.json, message.params.start, "requestId");
  const sealed = id && session.questions.get(`${backend.name} ${message.json.toString("utf8", id.start, id.end)}`)?.id;
  return id && sealed ? splice(message.json, [{ ...id, text: sealed }]) : undefined;
}

function readId(message: Message): string {
  return message.id?.startsWith('"') ? (JSON.parse(message.id) as string) : "";
}

function readRoute(payload: Buffer | undefined): [backend: string, id: string, asker: string] | undefined {
  return payload && (JSON.parse(payload.toString()) as [string, string, string]);
}
