// A server over HTTP, of either era. Which one is found out by asking, remembered, and asked again when there is reason to.
// Source: MCP 2026-07-28, versioning, compatibility.
import type { Log } from "../../common/log.ts";
import type { ShowCredential } from "../outgoing-auth/strategy.ts";
import { BackendError } from "./errors.ts";
import { createHttpTarget } from "./http-target.ts";
import { type ClientFacts, gateway, type Leg } from "./leg.ts";
import { withDeadline } from "./limit.ts";
import { createStatelessHttp, type StatelessHttp } from "./stateless-http.ts";
import { createStatelessLeg } from "./stateless-leg.ts";
import { openSessionLeg } from "./streamable-http.ts";

export interface HttpEndpoint {
  /** Opens a session, or what stands for one; throws BackendError. */
  openLeg(client: ClientFacts, signal: AbortSignal): Promise<Leg>;
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
const sessionVerdictMs = 5 * 60_000;

/** Prepares connections; nothing is opened before the first leg. */
export function createHttpEndpoint(options: { url: string; credential: ShowCredential; log: Log }): HttpEndpoint {
  const target = createHttpTarget(options);
  const isClosed = new AbortController();
  let known: Verdict | undefined;
  let knownUntilMs = 0;
  let finding: Promise<Verdict> | undefined;

  function forget(): void {
    if (known?.era === "stateless") known.wire[Symbol.dispose]();
    known = undefined;
  }

  /** Asks once for all that wait. */
  function verdict(): Promise<Verdict> {
    if (known && performance.now() < knownUntilMs) return Promise.resolve(known);
    finding ??= find().finally(() => {
      finding = undefined;
    });
    return finding;
  }

  async function find(): Promise<Verdict> {
    const wire = createStatelessHttp(target, gateway, forget);
    const isStateless = await withDeadline(probeMs, (signal) => wire.tryDiscover(signal)).catch(undecided);
    const found: Verdict =
      isStateless === true ? { era: "stateless", isSure: true, wire } : { era: "session", isSure: isStateless === false };
    forget();
    if (found.isSure) {
      known = found;
      knownUntilMs = found.era === "session" ? performance.now() + sessionVerdictMs : Number.POSITIVE_INFINITY;
    }
    return found;
  }

  async function openLeg(client: ClientFacts, signal: AbortSignal): Promise<Leg> {
    const wasKnown = known !== undefined;
    const found = await verdict();
    signal.throwIfAborted();
    if (found.era === "stateless") return createStatelessLeg(client, found.wire);
    try {
      return await openSessionLeg(target, client, signal);
    } catch (error) {
      forget();
      const isRefused = error instanceof BackendError && (error.code === "refused" || error.code === "bad_answer");
      // It may have changed since it was last asked.
      if (wasKnown && isRefused && !isClosed.signal.aborted) return openLeg(client, signal);
      throw error;
    }
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
function undecided(error: unknown): false | undefined {
  if (!(error instanceof BackendError)) throw error;
  if (error.code === "refused") return false; // 4xx without a word of MCP
  if (error.code === "unauthorized" || error.outcome === "not_executed") throw error;
  return undefined;
}
