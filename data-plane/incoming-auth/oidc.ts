// Callers with tokens of OpenID Connect or OAuth issuers. A token is verified once and then known; what binds it to its caller
// is checked on every request.
import type { Log } from "../../common/log.ts";
import type { OidcConfig } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import type { Authenticator, Presented, Verdict } from "./authenticator.ts";
import { readAuthorization, type Shown } from "./authorization-header.ts";
import { checkCertificate } from "./client-certificate.ts";
import { type Clock, systemClock } from "./clock.ts";
import { readCompactJws } from "./compact-jws.ts";
import { createDpop, dpopAlgorithms } from "./dpop.ts";
import { createIssuer, type Issuer } from "./issuer.ts";
import { type OidcSettings, readOidcSettings } from "./oidc-settings.ts";
import { createOpaqueTokens, type OpaqueTokens } from "./opaque-tokens.ts";
import { createQuietLog, type QuietLog } from "./quiet-log.ts";
import { badToken, cannotTell } from "./refusals.ts";
import { createTokenCache, createTokenNames } from "./token-cache.ts";
import type { Judgement, VerifiedToken } from "./verified-token.ts";

export interface OidcOptions {
  readonly log: Log;
  readonly clock?: Clock;
  /** For each answer of an issuer, milliseconds. Default 5,000. */
  readonly timeoutMs?: number;
}

const tokensMax = 10_000;
const tokenBytesMax = 32 * 1024 * 1024;
/** Of what is kept besides the token's text. */
const entryBytes = 1_024;

/** Throws an Error with everything that is wrong with the configuration. Asks nobody before a token comes. */
export function createOidc(config: OidcConfig | undefined, options: OidcOptions): Authenticator {
  const { clock = systemClock } = options;
  const settings = readOidcSettings(config, options.timeoutMs);
  const log = createQuietLog(options.log, clock);
  const issuers = settings.issuers.map((one) => createIssuer({ settings: one, clock, log }));
  const known = createTokenCache<VerifiedToken>({ entriesMax: tokensMax, bytesMax: tokenBytesMax });
  const nameOf = createTokenNames();
  const judge = createJudge(issuers, createOpaqueTokens({ issuers, clock, log }));
  const checkBinding = createBindingCheck(settings, clock);
  /** Tokens that are being verified, by name: many requests with one new token cost one verification. */
  const judging = new Map<string, Promise<Judgement>>();

  /** Synchronous, and little work: nearly every request has a token that is known. */
  function recall(name: string): VerifiedToken | undefined {
    const token = known.get(name);
    if (!token) return undefined;
    if (clock.nowMs() < token.goodUntilMs && clock.elapsedMs() < token.knownUntilMs && token.isCurrent()) return token;
    known.delete(name);
    return undefined;
  }

  async function learn(token: string, name: string): Promise<Judgement> {
    try {
      const judgement = await judge(token, name);
      if (judgement.refusal) log.say("info", { reason: judgement.refusal.description }, "a token is refused");
      else known.set(name, judgement.verified, token.length + entryBytes);
      return judgement;
    } finally {
      judging.delete(name);
    }
  }

  async function verify(presented: Presented, shown: Shown, name: string): Promise<Verdict> {
    try {
      let judged = judging.get(name);
      if (!judged) {
        judged = learn(shown.token, name);
        judging.set(name, judged);
      }
      const judgement = await judged;
      return judgement.refusal ? judgement : await checkBinding(presented, shown, judgement.verified);
    } catch (error) {
      return unexpected(error, log);
    }
  }

  return {
    authenticate(presented) {
      try {
        const shown = readAuthorization(presented.headers.authorization);
        if (shown.refusal) return shown;
        const name = nameOf(shown.token);
        const token = recall(name);
        if (!token) return verify(presented, shown, name);
        const verdict = checkBinding(presented, shown, token);
        return verdict instanceof Promise ? verdict.catch((error: unknown) => unexpected(error, log)) : verdict;
      } catch (error) {
        return unexpected(error, log);
      }
    },
    scopesFor: (tool) => (tool === undefined ? undefined : settings.toolScopes.get(tool)) ?? settings.requiredScopes,
    discovery: {
      authorizationServers: issuers.map(({ issuer }) => issuer),
      scopes: settings.scopes,
      resource: settings.resource,
      dpopAlgorithms,
    },
  };
}

function createJudge(issuers: readonly Issuer[], opaque: OpaqueTokens): (token: string, name: string) => Promise<Judgement> {
  const byName = new Map(issuers.map((issuer) => [issuer.issuer, issuer]));
  return async (token, name) => {
    if (token.split(".", 4).length !== 3) return opaque.judge(token, name);
    const jws = readCompactJws(token);
    if ("problem" in jws) return badToken(`the token ${jws.problem}`);
    // Says who must have signed it, exactly; only then are keys looked for, and only that issuer's.
    const { iss } = jws.claims;
    const issuer = typeof iss === "string" ? byName.get(iss) : undefined;
    return issuer ? issuer.verify(token, jws) : badToken("the token is of no issuer that is accepted here");
  };
}

type BindingCheck = (presented: Presented, shown: Shown, token: VerifiedToken) => Verdict | Promise<Verdict>;

/** RFC 6750: who has the token is its caller. RFC 9449, RFC 8705: who can also prove to have what it is bound to. */
function createBindingCheck({ issuers, certificates }: OidcSettings, clock: Clock): BindingCheck {
  const dpop = createDpop({ clock, clockSkewMaxMs: Math.max(...issuers.map(({ rules }) => rules.clockSkewMs)) });
  return (presented, { scheme, token }, { verdict, confirmation, clockSkewMs }) => {
    const jkt = confirmation?.jkt;
    if (scheme === "dpop" && jkt === undefined) return unboundToken;
    if (!confirmation) return verdict;
    if (scheme === "bearer" && jkt !== undefined) return boundToken;
    const thumbprint = confirmation.certificate;
    const refused = thumbprint === undefined ? undefined : checkCertificate(presented, { certificates, thumbprint });
    if (refused) return refused;
    if (jkt === undefined) return verdict;
    return dpop.check(presented, { token, jkt, clockSkewMs }).then((problem) => problem ?? verdict);
  };
}

const unboundToken = badToken("the token is not bound to a key, so it is no DPoP token");
const boundToken = badToken("the token is bound to a key, so it comes with the DPoP scheme and a proof");

/** The one place where what nobody foresaw ends: logged without its message, which may show what was read, and refused. */
function unexpected(error: unknown, log: QuietLog): Verdict {
  const { name = "unknown", code, stack = "" } = error instanceof Error ? (error as NodeJS.ErrnoException) : {};
  const where = stack
    .split("\n")
    .filter((line) => line.startsWith("    at "))
    .slice(0, 5)
    .map((line) => line.trim());
  log.say("error", { error: name, code, where }, "a caller could not be authenticated");
  return cannotTell("the token can't be checked now");
}
