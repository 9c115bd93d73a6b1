// A server over HTTP, of either era. Which one is found out by asking, remembered, and asked again when there is reason to.
// Source: MCP 2026-07-28, versioning, compatibility.
import type { Log } from "../../common/log.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import type { Credential } from "../outgoing-auth/credential.ts";
import { BackendError } from "./errors.ts";
import { createHttpTarget } from "./http-target.ts";
import { type ClientFacts, gateway, type Leg, legWith, type Resumable } from "./leg.ts";
import { withDeadline } from "./limit.ts";
import { createStatelessHttp, type StatelessHttp } from "./stateless-http.ts";
import { createStatelessLeg } from "./stateless-leg.ts";
import { openSessionLeg } from "./streamable-http.ts";

export interface HttpEndpoint {
  /** Opens a session, or what stands for one, or goes on with `resumed`; throws BackendError. */
  openLeg(client: ClientFacts, signal: AbortSignal, resumed?: Resumable): Promise<Leg>;
  /** There is nothing of ours to start again. */
  restart(): Promise<void>;
  /** Drops every connection. */
  close(): Promise<void>;
}

/** What a server was found to be. `isSure`: it said so itself, so it can be remembered. */
type Verdict =
  | { readonly era: "session"; readonly isSure: boolean }
  | { readonly era: "stateless"; readonly isSure: true; readonly wire: StatelessHttp };

const probeMs = 3_000;
// A server that learns the stateless era is noticed within so long; one that unlearns it says so at the next request.
const sessionVerdictMsDefault = 5 * 60_000;

export interface HttpEndpointOptions {
  readonly url: string;
  readonly credential: Credential;
  readonly log: Log;
  /** How long a server is taken to have sessions before it is asked again, milliseconds. Default 5 min. */
  readonly sessionVerdictMs?: number;
}

/** Prepares connections; nothing is opened before the first leg. */
export function createHttpEndpoint(options: HttpEndpointOptions): HttpEndpoint {
  const { sessionVerdictMs = sessionVerdictMsDefault } = options;
  const target = { ...createHttpTarget(options), onSessionGone: forget };
  const isClosed = new AbortController();
  let known: Verdict | undefined;
  let knownUntilMs = 0;
  let finding: Promise<Verdict> | undefined;
  /** Counts how often it was found to have no sessions any more. */
  let turns = 0;

  function forget(): void {
    if (known?.era === "stateless") known.wire[Symbol.dispose]();
    known = undefined;
  }

  /** Sessions end with the verdict that they were opened by: a server that forgot them may not even say so. */
  function learn(verdict: Verdict): void {
    const isOther = known?.era !== verdict.era;
    forget();
    if (!verdict.isSure) return;
    known = verdict;
    knownUntilMs = verdict.era === "session" ? performance.now() + sessionVerdictMs : Number.POSITIVE_INFINITY;
    if (isOther && verdict.era === "stateless") turns++;
  }

  /** Asks once for all that wait, for the caller of the first. */
  function verdict(caller: Caller | undefined): Promise<Verdict> {
    if (known && performance.now() < knownUntilMs) return Promise.resolve(known);
    finding ??= find(caller).finally(() => {
      finding = undefined;
    });
    return finding;
  }

  async function find(caller: Caller | undefined): Promise<Verdict> {
    const wire = createStatelessHttp(target, gateway, () => {
      if (known?.era === "stateless" && known.wire === wire) forget();
    });
    const isStateless = await withDeadline(probeMs, (signal) => wire.tryDiscover(signal, caller)).catch(undecided);
    const found: Verdict =
      isStateless === true ? { era: "stateless", isSure: true, wire } : { era: "session", isSure: isStateless === false };
    learn(found);
    return found;
  }

  async function openLeg(client: ClientFacts, signal: AbortSignal, resumed?: Resumable): Promise<Leg> {
    // If the server is of another time by now, it refuses the session, and the next is opened as it should be.
    if (resumed) return ofItsTime(await openSessionLeg(target, client, signal, resumed));
    const wasKnown = known !== undefined;
    const found = await verdict(client.caller);
    signal.throwIfAborted();
    if (found.era === "stateless") return createStatelessLeg(client, found.wire);
    try {
      return ofItsTime(await openSessionLeg(target, client, signal));
    } catch (error) {
      forget();
      const isRefused = error instanceof BackendError && (error.code === "refused" || error.code === "bad_answer");
      // It may have changed since it was last asked.
      if (wasKnown && isRefused && !isClosed.signal.aborted) return openLeg(client, signal);
      throw error;
    }
  }

  /** The leg, over once the server was found to be of the other era. */
  function ofItsTime(leg: Leg): Leg {
    const born = turns;
    return legWith(leg, {
      get closedBy() {
        return leg.closedBy ?? (born === turns ? undefined : "the server speaks another revision now");
      },
    });
  }

  return {
    openLeg,
    restart: async () => undefined,
    async close() {
      isClosed.abort();
      forget();
      await target.close();
    },
  };
}

/**
 * A refused credential and a server that can't be reached say nothing of the era, and a session would fail alike. Silence,
 * server errors and nonsense say nothing either, but a session may still open.
 */
function undecided(error: unknown): undefined {
  if (!(error instanceof BackendError)) throw error;
  if (error.code === "unauthorized" || error.outcome === "not_executed") throw error;
  return undefined;
}
