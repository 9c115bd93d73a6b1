// What a sign-in carries from one request to the next, in URLs, sealed: any replica can go on with it, and nobody can make or change
// one. Links are tickets; what goes through an authorization server and back is a state, which is good once, in one browser.
import { createSealer, type Keys } from "../mcp/seal.ts";
import { parseObject } from "./token-answer.ts";

/** Who is to sign in, and where. */
export interface Ticket {
  /** Of the caller, as incoming auth knows it. */
  readonly issuer: string;
  readonly subject: string;
  readonly virtualServer: string;
  /** Full resource name of the backend. */
  readonly resource: string;
  readonly elicitationId: string;
}

/** Where a browser was sent with what, and what has to come back. */
export interface SignInState {
  readonly ticket: Ticket;
  /** "caller": to the caller's own issuer, to see who sits there. "backend": to the backend's authorization server. */
  readonly hop: "caller" | "backend";
  /** Whom it was sent to; noted before it goes (RFC 9207). */
  readonly issuer: string;
  readonly clientId: string;
  /** Of PKCE (RFC 7636). */
  readonly verifier: string;
  /** Of OpenID Connect; empty where there is no ID token. */
  readonly nonce: string;
  readonly redirectUri: string;
  /** SHA-256 of what the browser's cookie holds, base64url. */
  readonly browser: string;
  /** Good once. */
  readonly id: string;
}

export interface SignInSeals {
  /** Undefined when it would be too long for a URL. */
  sealTicket(ticket: Ticket): string | undefined;
  /** Undefined when it is not ours, or older than 15 minutes; not told apart. */
  openTicket(text: string): Ticket | undefined;
  sealState(state: SignInState): string;
  /** Undefined when it is not ours, or older than 10 minutes; not told apart. */
  openState(text: string): SignInState | undefined;
}

export const ticketMs = 15 * 60_000;
export const stateMs = 10 * 60_000;
/** URLs of 8 KB are what servers and browsers take. */
const ticketBytesMax = 2_048;
const stateBytesMax = 4_096;

export interface SignInSealsOptions {
  /** The same on every replica. */
  readonly keys: Keys;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
}

export function createSignInSeals({ keys, nowMs }: SignInSealsOptions): SignInSeals {
  const tickets = createSealer(keys, "sign-in-ticket", ticketBytesMax);
  const states = createSealer(keys, "sign-in-state", stateBytesMax);

  /** Only what we sealed opens, so its shape is not looked at again. */
  function read<T>(payload: Buffer | undefined): T | undefined {
    const { untilMs, ...value } = parseObject(payload?.toString() ?? "") ?? {};
    return typeof untilMs === "number" && untilMs > nowMs() ? (value as T) : undefined;
  }

  return {
    sealTicket({ issuer, subject, virtualServer, resource, elicitationId }) {
      const content = { issuer, subject, virtualServer, resource, elicitationId, untilMs: nowMs() + ticketMs };
      const payload = Buffer.from(JSON.stringify(content));
      return payload.length <= ticketBytesMax ? tickets.seal(payload, "") : undefined;
    },
    openTicket: (text) => read<Ticket>(tickets.open(text, "")),
    sealState: (state) => states.seal(Buffer.from(JSON.stringify({ ...state, untilMs: nowMs() + stateMs })), ""),
    openState: (text) => read<SignInState>(states.open(text, "")),
  };
}
