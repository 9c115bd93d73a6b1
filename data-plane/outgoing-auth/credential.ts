// What we show a backend: one strategy's way of making it, for one backend.
import type { IncomingHttpHeaders } from "node:http";
import type { Caller } from "../incoming-auth/caller.ts";
import type { TokenCounters } from "./token-metrics.ts";

/** Names and values in turn, as undici writes them. */
export type HeaderList = readonly string[];

export interface Credential {
  /**
   * What one request shows: made for `caller`, or, without one, for the gateway itself (listing, health). Not a promise when it
   * is at hand. Throws or rejects with NoCredentialError. `clientHeaders` are those of the caller's own request; only the ones
   * that are named below are looked at, and none without a caller.
   */
  show(caller: Caller | undefined, clientHeaders?: IncomingHttpHeaders): HeaderList | Promise<HeaderList>;
  /**
   * The backend refused `shown` with 401 before it ran anything, so it is not shown again. True when there is another to show.
   * Never rejects.
   */
  refused(caller: Caller | undefined, shown: HeaderList, challenge: string | undefined): Promise<boolean>;
  /**
   * What the backend may list differently to: equal for callers that see the same. Undefined: everybody sees what the gateway
   * itself sees. May change as long as it is in use.
   */
  contextOf(caller: Caller | undefined): string | undefined;
  /** Callers without one can get one by signing in with a browser; until they have, they see a tool that asks them to. */
  readonly canSignIn?: true;
  /** What became of tokens that were obtained for it; undefined where none are. */
  readonly counters?: Readonly<TokenCounters>;
  /** Headers of the caller's request that `show` wants, in lower case. Mostly none. */
  readonly clientHeaders: readonly string[];
  /** How the gateway itself gets in, for operators; "nobody" when only callers do. May change as long as it is in use. */
  readonly gatewayShows: "nothing" | "the same as callers" | "its own token" | "nobody";
}

/** There is no credential, so the backend must not be contacted. The words reach clients: no secrets, no addresses. */
export class NoCredentialError extends Error {
  override name = "NoCredentialError";
  /** "caller": this caller can't have one. "temporary": the same may work later. */
  readonly fault: "caller" | "temporary";

  constructor(message: string, options: ErrorOptions & { readonly fault?: "caller" | "temporary" } = {}) {
    super(message, options);
    this.fault = options.fault ?? "caller";
  }
}

/** The caller has to sign in with a browser first. */
export class SignInNeededError extends NoCredentialError {
  override name = "SignInNeededError";
  /** Where; on the gateway itself. */
  readonly url: string;
  /** Names this occasion; the same while the caller is waited for. */
  readonly elicitationId: string;

  constructor(message: string, { url, elicitationId }: { readonly url: string; readonly elicitationId: string }) {
    super(message);
    this.url = url;
    this.elicitationId = elicitationId;
  }
}

/** The same headers for everybody. */
export function sameForAll(headers: HeaderList): Credential {
  return {
    show: () => headers,
    refused: async () => false,
    contextOf: () => undefined,
    clientHeaders: [],
    gatewayShows: headers.length === 0 ? "nothing" : "the same as callers",
  };
}

/** None for anybody, and why. */
export function unavailable(words: string): Credential {
  return {
    ...sameForAll([]),
    gatewayShows: "nobody",
    show() {
      throw new NoCredentialError(words);
    },
  };
}
