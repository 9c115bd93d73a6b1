// Clients of both eras that call without a pause, and write down what becomes of each call.
import { setTimeout as sleep } from "node:timers/promises";
import { mcpHeaders, openRawSession, type RawAnswer, send } from "../support/client.ts";
import { type CallEnd, type ClientEntry, createMemoryLedger, type Ledger, recordCall } from "../support/ledger.ts";
import { callTool } from "../support/stateless-client.ts";
import type { Fleet } from "./fleet.ts";
import type { Random } from "./random.ts";

export interface Load {
  readonly ledger: Ledger<ClientEntry>;
  /** Calls that have ended, and those that ended otherwise than with a result, newest last. */
  ended(): number;
  readonly trouble: readonly (CallEnd & { readonly atMs: number; readonly era: Era })[];
  inFlight(): number;
  /** The longest time in which no call of clients with sessions had a result, milliseconds, since the last time this was asked. */
  sessionPauseMs(): number;
  /** Sessions that were answered 404. */
  readonly lost: ReadonlySet<string>;
  /** Settles when every client has ended its last call. */
  stop(): Promise<void>;
}

export type Era = "session" | "stateless";

export interface LoadOptions {
  readonly fleet: Fleet;
  readonly random: Random;
  /** Clients of each era. */
  readonly clients: Readonly<Record<Era, number>>;
  /** Longest pause of a client between two calls, milliseconds. Default 0. */
  readonly pauseMs?: number;
}

const refusedPauseMs = 100;

/** Opens the sessions, and starts to call. */
export async function startLoad({ fleet, random, clients, pauseMs = 0 }: LoadOptions): Promise<Load> {
  const ledger = createMemoryLedger<ClientEntry>();
  const trouble: (CallEnd & { atMs: number; era: Era })[] = [];
  const lost = new Set<string>();
  let isStopped = false;
  let ended = 0;
  let inFlight = 0;
  let lastResultMs = performance.now();
  let longestPauseMs = 0;

  async function client(
    era: Era,
    name: string,
    call: (tool: string, uuid: string, ms: number) => Promise<CallEnd>,
  ): Promise<void> {
    for (let i = 0; !isStopped; i++) {
      const { name: tool, backend } = fleet.tools[i % fleet.tools.length] as Fleet["tools"][number];
      const ms = random.chance(0.05) ? random.below(40) : 0; // now and then one that takes a moment
      inFlight++;
      // Without sessions all callers that nobody asked who they are share what a backend keeps for a session.
      const intent = era === "session" ? { client: name, backend } : { backend };
      const end = await recordCall(ledger, (uuid) => call(tool, uuid, ms), intent);
      inFlight--;
      ended++;
      if (end.kind === "ok" && era === "session") noteResult();
      if (end.kind !== "ok") {
        trouble.push({ ...end, atMs: performance.now(), era });
        await sleep(refusedPauseMs); // whoever is refused comes back a moment later
      } else if (pauseMs > 0) await sleep(random.below(pauseMs));
    }
  }

  function noteResult(): void {
    const now = performance.now();
    longestPauseMs = Math.max(longestPauseMs, now - lastResultMs);
    lastResultMs = now;
  }

  async function inSession(name: string): Promise<void> {
    const { id } = await openRawSession(fleet.url);
    const headers = { ...mcpHeaders, "mcp-session-id": id, "mcp-protocol-version": "2025-11-25" };
    let request = 0;
    await client("session", name, async (tool, uuid, ms) => {
      const params = { name: tool, arguments: { uuid, ms } };
      const body = JSON.stringify({ jsonrpc: "2.0", id: ++request, method: "tools/call", params });
      const answer = await send(fleet.url, { method: "POST", headers, body });
      if (answer.status === 404) lost.add(id);
      return endOf(answer);
    });
  }

  const withoutSession = (name: string): Promise<void> =>
    client("stateless", name, async (tool, uuid, ms) => endOf(await callTool(fleet.url, tool, { uuid, ms })));

  const running = Promise.all([
    ...Array.from({ length: clients.session }, (_, i) => inSession(`session-${i}`)),
    ...Array.from({ length: clients.stateless }, (_, i) => withoutSession(`stateless-${i}`)),
  ]);
  running.catch(() => undefined); // whoever stops it sees it
  return {
    ledger,
    trouble,
    lost,
    ended: () => ended,
    inFlight: () => inFlight,
    sessionPauseMs() {
      noteResult();
      const pause = longestPauseMs;
      longestPauseMs = 0;
      return pause;
    },
    async stop() {
      isStopped = true;
      await running;
    },
  };
}

interface Answered {
  readonly result?: { readonly content?: readonly { readonly text?: string }[] };
  readonly error?: { readonly message?: string; readonly data?: { readonly outcome?: string } };
}

function endOf({ status, messages, body }: RawAnswer): CallEnd {
  const { result, error } = readAnswer(messages.at(-1));
  const echo = result?.content?.[0]?.text;
  if (status === 200 && echo !== undefined) return { kind: "ok", echo };
  const outcome = error?.data?.outcome;
  if (outcome === "unknown" || outcome === "not_executed") return { kind: "error", outcome };
  return { kind: "failed", why: `${status} ${body.slice(0, 200)}` };
}

function readAnswer(message = "{}"): Answered {
  try {
    return JSON.parse(message) as Answered;
  } catch {
    return {}; // not JSON: an answer of nginx
  }
}
