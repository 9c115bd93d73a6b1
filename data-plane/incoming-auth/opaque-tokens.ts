// Tokens that are no JWT: whichever issuer says that one is active has issued it.
import type { Clock } from "./clock.ts";
import type { Introspect } from "./introspection.ts";
import type { QuietLog } from "./quiet-log.ts";
import { badToken, cannotTell } from "./refusals.ts";
import { createTokenCache } from "./token-cache.ts";
import type { Judgement } from "./verified-token.ts";

export interface OpaqueTokens {
  /** `name` stands for the token in the cache. Never rejects. */
  judge(token: string, name: string): Promise<Judgement>;
}

export interface OpaqueTokensOptions {
  /** In the order in which they are asked. */
  readonly issuers: readonly { readonly issuer: string; readonly introspect: Introspect | undefined }[];
  readonly clock: Clock;
  readonly log: QuietLog;
}

const inFlightMax = 64;
/** A refused token is not asked about again for so long: a client that repeats itself costs the issuer little. */
const refusedMs = 5_000;
const refusedMax = 1_000;

export function createOpaqueTokens({ issuers, clock, log }: OpaqueTokensOptions): OpaqueTokens {
  const refused = createTokenCache<{ readonly judgement: Judgement; readonly untilMs: number }>({
    entriesMax: refusedMax,
    bytesMax: Infinity,
  });
  const asked = issuers.filter(({ introspect }) => introspect !== undefined);
  let inFlight = 0;

  async function ask(token: string): Promise<Judgement> {
    let isUnclear = false;
    for (const { issuer, introspect } of asked) {
      try {
        const answer = await introspect?.(token);
        if (typeof answer === "object") return answer;
      } catch (error) {
        // Perhaps it is the token of another; perhaps not, and then nobody can tell.
        isUnclear = true;
        log.say("warn", { issuer, reason: reasonOf(error) }, "a token could not be introspected");
      }
    }
    return isUnclear ? cannotTell("the token can't be looked up now") : unknownToken;
  }

  return {
    async judge(token, name) {
      if (asked.length === 0) return unknownToken;
      const known = refused.get(name);
      if (known && clock.elapsedMs() < known.untilMs) return known.judgement;
      if (inFlight >= inFlightMax) return cannotTell("too many tokens are looked up now");
      inFlight++;
      try {
        const judgement = await ask(token);
        if (judgement.refusal?.status === 401) refused.set(name, { judgement, untilMs: clock.elapsedMs() + refusedMs }, 0);
        return judgement;
      } finally {
        inFlight--;
      }
    },
  };
}

const unknownToken = badToken("the token is of no issuer that is accepted here, or no longer good");

/** What the library says in its errors is fixed; what caused them may show the answer. */
function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : "failed";
}
