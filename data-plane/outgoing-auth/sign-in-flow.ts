// A sign-in from link to token, whichever replica takes which step: link → (the caller's own issuer →) the backend's authorization
// server → done. Nothing is kept between the steps but what the browser carries, and which steps were taken.
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import type { Log } from "../../common/log.ts";
import { DiscoveryError } from "./authorization-server.ts";
import { NoCredentialError } from "./credential.ts";
import { SignInError } from "./sign-in-error.ts";
import { type SignInSeals, type SignInState, stateMs, type Ticket } from "./sign-in-seals.ts";
import { callbackPath } from "./upstream-client.ts";
import type { UpstreamSignIn } from "./upstream-sign-in.ts";
import type { UserTokens } from "./user-tokens.ts";

export const signedInPath = "/oauth/signed-in";

export interface SignInFlow {
  /** The link's ticket; throws SignInError. */
  open(text: string): Ticket;
  /** What the link is for. Rejects with SignInError. */
  describe(ticket: Ticket, visit: Visit): Promise<Description>;
  /** Gives where the browser goes first; it holds `secret` from now on. Rejects with SignInError. */
  begin(ticket: Ticket, visit: Visit, secret: string): Promise<string>;
  /** The browser is back from the caller's own issuer; gives where it goes next. Rejects with SignInError. */
  proven(parameters: URLSearchParams, visit: Visit): Promise<string>;
  /** The browser is back from the backend's authorization server. Rejects with SignInError. */
  finish(parameters: URLSearchParams, visit: Visit): Promise<Description["backend"]>;
}

/** One request of a browser. */
export interface Visit {
  /** Where it reaches us, `https://host[:port]`. */
  readonly base: string;
  /** What it holds for the sign-in that has this mark. */
  secretOf(mark: string): string | undefined;
  /** Whether its connection belongs to this caller, as a client's would. Asked where no issuer can tell. */
  isOf(caller: Pick<Ticket, "issuer" | "subject" | "virtualServer">): Promise<boolean>;
}

export interface Description {
  readonly backend: string;
  readonly virtualServer: string;
  readonly user: string;
  /** Host of the authorization server. */
  readonly server: string;
  /** Where the browser may be sent from here. */
  readonly endpoints: readonly string[];
}

export interface SignInFlowOptions {
  readonly seals: SignInSeals;
  readonly store: Pick<UserTokens, "claim">;
  /** Undefined when there is no such backend whose users sign in. */
  readonly find: (ticket: Ticket) => UpstreamSignIn | undefined;
  /** Hears of every sign-in that was completed here. */
  readonly onSignedIn: (ticket: Ticket) => void;
  readonly log: Log;
}

export function createSignInFlow({ seals, store, find, onSignedIn, log }: SignInFlowOptions): SignInFlow {
  function signInOf(ticket: Ticket): UpstreamSignIn {
    const signIn = find(ticket);
    if (!signIn) throw new SignInError("not_served", `${ticket.resource} is not served, or its users don't sign in`);
    return signIn;
  }

  /** What is sealed, if this browser began it and has not been here with it. */
  async function resume(parameters: URLSearchParams, hop: SignInState["hop"], visit: Visit): Promise<SignInState> {
    const state = seals.openState(parameters.get("state") ?? "");
    if (state?.hop !== hop) throw new SignInError("link", "the state is none of ours, or too old");
    const secret = visit.secretOf(markOf(state.browser));
    if (secret === undefined || !isSame(hashOf(secret), state.browser))
      throw new SignInError("other_browser", "the browser is not the one that began");
    const isFirst = await store.claim(state.id, stateMs).catch((error: Error) => {
      throw new SignInError("store_down", error.message, { cause: error });
    });
    if (!isFirst) throw new SignInError("used", "the state was used before");
    return state;
  }

  async function sendToBackend(ticket: Ticket, browser: string, { base }: Visit): Promise<string> {
    const signIn = signInOf(ticket);
    const { issuer, clientId } = await signIn.destination(base);
    const redirectUri = base + callbackPath;
    const state: SignInState = { ticket, hop: "backend", issuer, clientId, redirectUri, browser, ...once(), nonce: "" };
    return signIn.url(state, seals.sealState(state));
  }

  async function withProof(ticket: Ticket, visit: Visit): Promise<void> {
    if (!(await visit.isOf(ticket))) throw new SignInError("other_user", "the browser's connection is not the caller's");
  }

  return {
    open(text) {
      const ticket = seals.openTicket(text);
      if (!ticket) throw new SignInError("link", "the ticket is none of ours, or too old");
      return ticket;
    },
    describe: (ticket, { base }) =>
      told(log, ticket, async () => {
        const { place, proof, destination } = signInOf(ticket);
        const { issuer, authorizationEndpoint } = await destination(base);
        const own = await proof.at(ticket.issuer)?.server();
        return {
          backend: place.backend,
          virtualServer: place.virtualServer,
          user: ticket.subject,
          server: new URL(issuer).host,
          endpoints: [...(own ? [own.authorization_endpoint] : []), authorizationEndpoint],
        };
      }),
    begin: (ticket, visit, secret) =>
      told(log, ticket, async () => {
        const browser = hashOf(secret);
        const { proof, destination } = signInOf(ticket);
        const issuer = proof.at(ticket.issuer);
        if (!issuer) {
          await withProof(ticket, visit);
          return sendToBackend(ticket, browser, visit);
        }
        await destination(visit.base); // nobody is sent on a way that ends before its end
        const redirectUri = visit.base + signedInPath;
        const { clientId } = issuer;
        const to = { hop: "caller", issuer: ticket.issuer, clientId, redirectUri } as const;
        const state: SignInState = { ticket, ...to, browser, ...once() };
        return issuer.url(state, seals.sealState(state));
      }),
    async proven(parameters, visit) {
      const state = await resume(parameters, "caller", visit);
      const { ticket } = state;
      return told(log, ticket, async () => {
        const subject = await signInOf(ticket).proof.at(state.issuer)?.subjectOf(parameters, state);
        if (state.issuer !== ticket.issuer || subject === undefined || !isSame(subject, ticket.subject))
          throw new SignInError("other_user", "another user signed in than the one the link was made for");
        return sendToBackend(ticket, state.browser, visit);
      });
    },
    async finish(parameters, visit) {
      const state = await resume(parameters, "backend", visit);
      const { ticket } = state;
      return told(log, ticket, async () => {
        const signIn = signInOf(ticket);
        if (!signIn.proof.at(ticket.issuer)) await withProof(ticket, visit);
        await signIn.finish(parameters, state);
        log.info({ virtualServer: ticket.virtualServer, backend: ticket.resource }, "a user signed in");
        onSignedIn(ticket);
        return signIn.place.backend;
      });
    },
  };
}

/** Says in the log why a sign-in went no further; all that may go wrong becomes a SignInError. */
async function told<T>(log: Log, { virtualServer, resource }: Ticket, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const failure = asSignInError(error);
    log.warn({ virtualServer, backend: resource, problem: failure.problem, reason: failure.message }, "a sign-in failed");
    throw failure;
  }
}

function asSignInError(error: unknown): SignInError {
  if (error instanceof SignInError) return error;
  if (error instanceof DiscoveryError) return new SignInError("server_down", error.message, { cause: error });
  if (error instanceof NoCredentialError) return new SignInError("server_answer", error.message, { cause: error });
  throw error;
}

/** A state's own random values. */
function once(): Pick<SignInState, "id" | "verifier" | "nonce"> {
  const random = (): string => randomBytes(32).toString("base64url");
  return { id: random(), verifier: random(), nonce: random() };
}

/** Tells sign-ins of one browser apart, so that several may be under way. */
export function markOf(browser: string): string {
  return browser.slice(0, 8);
}

export function hashOf(secret: string): string {
  return createHash("sha256").update(secret).digest("base64url");
}

function isSame(a: string, b: string): boolean {
  const [one, other] = [Buffer.from(a), Buffer.from(b)];
  return one.length === other.length && timingSafeEqual(one, other);
}
