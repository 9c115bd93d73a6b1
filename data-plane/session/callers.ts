// Callers of the stateless era. They open no session, but servers of the session era know nothing else: so all requests of one
// caller with the same abilities share what stands for a session here. It is never named to anybody, and ends when idle.
import type { Identity } from "../incoming-auth/identity.ts";
import { sessionVersions } from "../mcp/versions.ts";
import { createLocalSessions } from "./local-sessions.ts";
import type { Session } from "./session.ts";

export interface Callers extends AsyncDisposable {
  /**
   * The session that stands for a caller with these abilities (see `abilitiesOf`); `isNew` when this is its first request.
   * Undefined when there is no room.
   */
  of(
    caller: Pick<Session, "virtualServer" | "identity" | "capabilities"> & Partial<Pick<Session, "caller">>,
  ): { session: Session; isNew: boolean } | undefined;
  /** Whether it has one already. */
  knows(caller: Pick<Session, "virtualServer" | "identity" | "capabilities">): boolean;
  all(): Iterable<Session>;
  end(session: Session): void;
  readonly size: number;
}

export interface CallersOptions {
  /** One unused for so long is forgotten, and its sessions with backends end. */
  readonly idleMs: number;
  readonly callersMax: number;
  /** Told to servers of the session era: it is our session, whoever uses it. JSON text. */
  readonly clientInfo: string;
}

/** None at first. */
export function createCallers({ idleMs, callersMax, clientInfo }: CallersOptions): Callers {
  const sessions = createLocalSessions({ idleMs, sessionsMax: callersMax });
  const known = new Map<string, string>();

  return {
    of({ virtualServer, identity, caller, capabilities }) {
      const key = keyOf(virtualServer, identity, capabilities);
      const id = known.get(key);
      const existing = id && sessions.find(id, virtualServer);
      if (existing) {
        existing.caller = caller;
        return { session: existing, isNew: false };
      }
      const facts = {
        virtualServer,
        identity,
        caller,
        era: "stateless",
        protocolVersion: sessionVersions[0],
        clientInfo,
        capabilities,
      } as const;
      const session = sessions.create(facts);
      if (!session) return undefined;
      known.set(key, session.id);
      session.onEnd(() => known.get(key) === session.id && known.delete(key));
      return { session, isNew: true };
    },
    knows: ({ virtualServer, identity, capabilities }) => known.has(keyOf(virtualServer, identity, capabilities)),
    all: sessions.all,
    end: sessions.end,
    get size() {
      return sessions.size;
    },
    [Symbol.asyncDispose]: () => sessions[Symbol.asyncDispose](),
  };
}

function keyOf(virtualServer: string, { issuer, subject, client, confirmation }: Identity, capabilities: string): string {
  return JSON.stringify([virtualServer, issuer, subject, client, confirmation, capabilities]);
}

/**
 * What a caller declared, in few words: only what a server of the session era may ask for, spelled in one way, as JSON text.
 * There are forty of them, so that nobody can make up ever new ones and drive others out.
 */
export function abilitiesOf(declared: Readonly<Record<string, unknown>>): string {
  const { elicitation, sampling, roots } = declared;
  const has = (value: unknown, key: string): boolean => isObject(value) && isObject((value as Record<string, unknown>)[key]);
  // `elicitation: {}` means forms.
  const form = isObject(elicitation) && (has(elicitation, "form") || !has(elicitation, "url"));
  return JSON.stringify({
    ...(isObject(elicitation)
      ? { elicitation: { ...(form ? { form: {} } : {}), ...(has(elicitation, "url") ? { url: {} } : {}) } }
      : {}),
    ...(isObject(roots) ? { roots: {} } : {}),
    ...(isObject(sampling)
      ? { sampling: { ...(has(sampling, "tools") ? { tools: {} } : {}), ...(has(sampling, "context") ? { context: {} } : {}) } }
      : {}),
  });
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
