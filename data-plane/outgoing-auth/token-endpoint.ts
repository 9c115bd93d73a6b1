// Asks one token endpoint for tokens, as one client. What it answers, and how it fails, becomes one of few kinds here: clients hear
// fixed words, the log hears the rest without secrets.
import { allowInsecureRequests, customFetch, genericTokenEndpointRequest } from "oauth4webapi";
import type { Log } from "../../common/log.ts";
import { FetchRefusedError } from "../outbound/guarded-fetch.ts";
import { NoCredentialError } from "./credential.ts";
import { GateClosedError, type Gates } from "./endpoint-gate.ts";
import type { OauthClient } from "./oauth-client.ts";
import { type Asked, parseObject, readToken, type Token, TokenAnswerError } from "./token-answer.ts";
import type { TokenLocation } from "./token-location.ts";
import type { TokenFailure } from "./token-metrics.ts";

export interface TokenEndpoint {
  /** A token that may be shown. Takes at most 15 s with everything. Rejects with TokenRequestError. */
  request(grantType: string, parameters: readonly (readonly [string, string])[], asked: Asked): Promise<Token>;
}

/** There is no token. The words are ours, and fit for clients. */
export class TokenRequestError extends NoCredentialError {
  override name = "TokenRequestError";
  readonly failure: TokenFailure;
  /** Error code of the endpoint (RFC 6749 5.2) if it is one that we know. */
  readonly code: string | undefined;

  constructor(message: string, options: { failure: TokenFailure; code?: string | undefined; cause?: unknown }) {
    super(message, { cause: options.cause, fault: options.failure === "refused_caller" ? "caller" : "temporary" });
    this.failure = options.failure;
    this.code = options.code;
  }

  /** Whether the same request would be answered alike a moment later. */
  get isLasting(): boolean {
    return this.failure === "refused_caller" || this.failure === "refused_client" || this.failure === "wrong_token";
  }
}

/** Whether an error says that the token endpoint is not well. */
export function isEndpointFailure(error: unknown): boolean {
  const isOurs = error instanceof TokenRequestError || error instanceof TokenAnswerError;
  return isOurs && (error.failure === "unreachable" || error.failure === "bad_answer");
}

export interface TokenEndpointOptions {
  readonly location: TokenLocation;
  readonly client: OauthClient;
  readonly gates: Gates;
  readonly log: Log;
  readonly nowMs: () => number;
}

const refusals: Readonly<Record<string, readonly ["refused_caller" | "refused_client", string]>> = {
  invalid_grant: ["refused_caller", "the token endpoint does not accept what a token was asked for with"],
  // What RFC 8693 2.2.2 has for subject tokens that are not good.
  invalid_request: ["refused_caller", "the token endpoint does not accept the request for a token"],
  invalid_target: ["refused_caller", "the token endpoint gives no tokens for this backend"],
  invalid_scope: ["refused_caller", "the token endpoint gives no tokens with these scopes"],
  access_denied: ["refused_caller", "the token endpoint denies a token for this backend"],
  interaction_required: ["refused_caller", "the identity provider wants the user to sign in again"],
  login_required: ["refused_caller", "the identity provider wants the user to sign in again"],
  consent_required: ["refused_caller", "the identity provider wants the user's consent"],
  invalid_client: ["refused_client", "the token endpoint does not accept the gateway as a client"],
  unauthorized_client: ["refused_client", "the token endpoint gives the gateway no such tokens"],
  unsupported_grant_type: ["refused_client", "the token endpoint gives no tokens in this way"],
};
const passing = new Set(["temporarily_unavailable", "server_error", "slow_down"]);

export function createTokenEndpoint({ location, client, gates, log, nowMs }: TokenEndpointOptions): TokenEndpoint {
  const note = createNotes(log, nowMs);

  return {
    async request(grantType, parameters, asked) {
      try {
        const { url, issuer } = await location.find().catch((error: unknown) => {
          throw new TokenRequestError("the token endpoint is not known", { failure: "unreachable", cause: error });
        });
        const server = { issuer, token_endpoint: url };
        const options = { [customFetch]: location.fetch as never, [allowInsecureRequests]: true };
        return await gates.of(url).run(async () => {
          const response = await genericTokenEndpointRequest(
            server,
            { client_id: client.id || "-" }, // written only by a method that is not `none`, which needs an id
            client.authenticate,
            grantType,
            parameters.map((pair) => [...pair]),
            options,
          ).catch(notReached);
          return read(response.status, await response.text(), asked, nowMs());
        });
      } catch (error) {
        const failed = errorOf(error);
        if (isEndpointFailure(failed)) location.doubt();
        note(failed, [asked.subjectToken, client.secret?.reveal(), ...parameters.filter(isSecret).map(([, value]) => value)]);
        throw failed;
      }
    },
  };
}

function isSecret([name]: readonly [string, string]): boolean {
  return name.endsWith("_token") || name.startsWith("code");
}

function notReached(error: unknown): never {
  if (error instanceof FetchRefusedError)
    throw new TokenRequestError("the token endpoint does not answer as one", { failure: "bad_answer", cause: error });
  if (String((error as { code?: unknown }).code).startsWith("OAUTH_")) throw error; // nothing was sent
  throw new TokenRequestError("the token endpoint can't be reached", { failure: "unreachable", cause: error });
}

/** What the endpoint said besides its code, for the log. */
class EndpointAnswer extends Error {}

function read(status: number, text: string, asked: Asked, nowMs: number): Token {
  if (status === 200) return readToken(text, asked, nowMs);
  const { error: code, error_description: description } = parseObject(text) ?? {};
  const cause = new EndpointAnswer(`HTTP ${status}${typeof description === "string" ? `: ${description}` : ""}`);
  const isRefusal = status >= 400 && status < 500 && status !== 408 && status !== 429;
  if (!isRefusal || typeof code !== "string" || passing.has(code))
    throw new TokenRequestError("the token endpoint answered with an error", { failure: "bad_answer", cause });
  const [failure, words] = Object.hasOwn(refusals, code) ? (refusals[code] as (typeof refusals)[string]) : unknownRefusal;
  throw new TokenRequestError(words, { failure, code: Object.hasOwn(refusals, code) ? code : undefined, cause });
}

const unknownRefusal = ["refused_client", "the token endpoint refused to give a token"] as const;

function errorOf(error: unknown): TokenRequestError {
  if (error instanceof TokenRequestError) return error;
  if (error instanceof GateClosedError) return new TokenRequestError(error.message, { failure: error.reason, cause: error });
  if (error instanceof TokenAnswerError)
    return new TokenRequestError("the token endpoint gave no token that may be used", { failure: error.failure, cause: error });
  return new TokenRequestError("a token could not be asked for", { failure: "internal", cause: error });
}

const noteMs = 10_000;

/** Writes at most one line of each kind every 10 s, and how many it left out. */
function createNotes(log: Log, nowMs: () => number) {
  const kinds = new Map<string, { untilMs: number; unsaid: number }>();
  return (error: TokenRequestError, secrets: readonly (string | undefined)[]): void => {
    const kind = `${error.failure} ${error.code}`;
    const known = kinds.get(kind);
    if (known && nowMs() < known.untilMs) {
      known.unsaid++;
      return;
    }
    kinds.set(kind, { untilMs: nowMs() + noteMs, unsaid: 0 });
    const { cause } = error;
    const said = secrets.reduce(
      (text, secret) => (secret ? text?.replaceAll(secret, "[secret]") : text),
      (cause as Error | undefined)?.message,
    );
    const detail = cause instanceof EndpointAnswer ? scrubbed(said ?? "") : said;
    const { failure, code } = error;
    log.warn({ failure, code, detail, unsaid: known?.unsaid ?? 0 }, `no token: ${error.message}`);
  };
}

/** A server's words without anything that is long enough to be a credential. */
function scrubbed(text: string): string {
  return text
    .replace(/[^\x20-\x7e]+/g, " ")
    .replace(/[A-Za-z0-9_\-.~+/=]{24,}/g, "[left out]")
    .slice(0, 300);
}
