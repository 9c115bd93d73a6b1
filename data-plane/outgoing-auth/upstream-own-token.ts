// The gateway's own token where users have theirs (RFC 6749 4.4), by which it lists what a backend has before anybody signed in. Not
// every client can have one, and not every backend takes it: then there is none, and only users get in.
import type { Log } from "../../common/log.ts";
import { type HeaderList, NoCredentialError } from "./credential.ts";
import type { StrategyTools } from "./strategy.ts";
import type { Token } from "./token-answer.ts";
import { TokenRequestError } from "./token-endpoint.ts";
import { createTokenSource } from "./token-source.ts";

export interface UpstreamOwnToken {
  /** Throws or rejects with NoCredentialError. */
  show(): HeaderList | Promise<HeaderList>;
  /** As in Credential. */
  refused(shown: HeaderList): Promise<boolean>;
  /** There is none; may change. */
  readonly isNobody: boolean;
}

/** Never any. */
export const noOwnToken: UpstreamOwnToken = { show: nobody, refused: async () => false, isNobody: true };

/** How long the server's word is taken for it that there is none. */
const refusalMs = 10 * 60_000;

export interface UpstreamOwnTokenOptions {
  /** Names everything that the token depends on. */
  readonly key: () => string;
  /** Rejects with NoCredentialError. */
  readonly obtain: () => Promise<Token>;
  readonly tools: Pick<StrategyTools, "cache" | "counters" | "nowMs">;
  readonly log: Log;
}

export function createUpstreamOwnToken({ key, obtain, tools, log }: UpstreamOwnTokenOptions): UpstreamOwnToken {
  const { cache, counters, nowMs } = tools;
  const gateway = {};
  const endsMsOf = (): number => Number.POSITIVE_INFINITY;
  const tokens = createTokenSource({ cache, counters, nowMs, keyOf: key, endsMsOf, obtain });
  let nobodyUntilMs = 0;
  const isNobody = (): boolean => nowMs() < nobodyUntilMs;

  function note(reason: string): void {
    if (!isNobody()) log.warn({ reason }, "the gateway gets no token of its own here; only users get in");
    nobodyUntilMs = nowMs() + refusalMs;
  }

  return {
    show() {
      if (isNobody()) return nobody();
      const shown = tokens.show(gateway);
      if (!(shown instanceof Promise)) return shown;
      return shown.catch((error: unknown) => {
        if (error instanceof TokenRequestError && error.isLasting) note(error.message);
        throw error;
      });
    },
    async refused(shown) {
      const hasOther = await tokens.refused(gateway, shown);
      // It was refused as soon as it was there: the backend wants to know for whom it is.
      if (!hasOther) note("the backend does not accept it");
      return hasOther;
    },
    get isNobody() {
      return isNobody();
    },
  };
}

function nobody(): never {
  throw new NoCredentialError("only users who have signed in get in here");
}
