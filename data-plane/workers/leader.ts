// Leads the workers of one proxy: starts them, replaces those that die, hands each snapshot to all of them, and speaks for them.
// They listen on one port, which node:cluster opens here and each takes connections from by itself.
// Longer than most files here: who is there, what they run and how they end is one promise.
import { randomBytes } from "node:crypto";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import type { CallsQuery } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { reasonOf } from "../backends/errors.ts";
import type { ConfigFacts } from "../ingress/probes.ts";
import { readRedisAddress } from "../redis/address.ts";
import { type SessionTerms, type SnapshotContent, SnapshotRefusedError } from "../runtime.ts";
import type { ServingOptions } from "../serving.ts";
import { openKeyRing } from "../session/key-ring.ts";
import type { SessionFilter } from "../session/listing.ts";
import type { ApplyOptions } from "../sync/apply.ts";
import { createBackoff } from "../sync/backoff.ts";
import type { ReceiverOptions } from "../sync/receiver.ts";
import type { ProxyState } from "../sync/report.ts";
import type { SessionListing } from "../sync/session-report.ts";
import { type Duties, noDuties } from "../sync/watch-duty.ts";
import type { CallsReport, Emit, OpenTap } from "../telemetry/tap.ts";
import type { ChannelError } from "./channel.ts";
import { forkMember, type Member } from "./member.ts";
import { mergeListings, mergeStates } from "./merge.ts";
import { createPages } from "./pages.ts";
import { createSharedStores } from "./shared-stores.ts";
import { optionsOf } from "./shares.ts";

export interface LeaderOptions extends ServingOptions {
  readonly workers: number;
  readonly allowStdio?: boolean;
  readonly log: Log;
  /** Where what is served comes from. */
  readonly config: () => ConfigFacts | undefined;
  /** Called after something that is reported changed. */
  readonly onChange: () => void;
}

export interface Leader extends AsyncDisposable {
  /** Where all of them listen, `http://host:port`. */
  readonly address: string;
  readonly live: ReceiverOptions["live"];
  state(): ProxyState;
  /** See Engine. Rejects when a worker does not answer. */
  listing(catalog: string): Promise<Uint8Array | undefined>;
  watch(duties: Duties): void;
  /** Rejects when one of them does not answer. */
  list(filter: SessionFilter): Promise<SessionListing>;
  /** All of them tell of calls. */
  readonly openTap: OpenTap;
  /** Makes all of them take no new work, or take it again. */
  setDrained(isWanted: boolean): void;
  /** Stops serving; workers finish what they have in hand, and end. */
  drain(): Promise<void>;
}

const startMs = 30_000;
// A control plane waits 30 s for an answer; a worker that takes longer than this is not working.
const prepareMs = 15_000;
const enterMs = 8_000;
// Connections go to a worker that hangs as to any other.
const hangMs = { between: 5_000, most: 10_000 };
const sessionsMax = 10_000;
// All may have ended in the same moment; the first that is back takes a snapshot for them.
const backMs = 10_000;

/** Resolves when all listen. Rejects when one can't, KeyRingError and RedisAddressError when secrets or addresses are not good. */
export async function startWorkers(options: LeaderOptions): Promise<Leader> {
  const { log, workers, session } = options;
  const secret = secretOf(options);
  if (session?.redis !== undefined) readRedisAddress(session.redis, process.env);
  const port = options.port === 0 ? await freePort(options.host) : options.port;
  const alive = new Set<Member>(); // all processes
  const joined = new Map<Member, string>(); // those that serve, or are about to, and where each is by itself
  const states = new Map<Member, ProxyState>();
  const stores = createSharedStores(() => joined.keys(), sessionsMax * workers);
  let current: SnapshotContent | undefined;
  let terms: SessionTerms | undefined;
  let duties = noDuties;
  let watcher: Member | undefined; // watches for all of them
  let restarts = 0;
  let address = "";
  const taps = new Map<number, { readonly query: CallsQuery; readonly emit: Emit }>();
  let tapsOpened = 0;
  let isDrained = false;
  let isStopping = false;
  let turn: Promise<unknown> = Promise.resolve();
  const pages = createPages({ ...options, joined, restarts: () => restarts });

  // Whoever ends this process at once ends them too.
  const killAll = (): void => {
    for (const member of alive) member.kill();
  };
  process.on("exit", killAll);

  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = turn.then(work);
    turn = result.catch(() => undefined);
    return result;
  }

  /** A new worker, which serves what the others do. */
  async function bringUp(worker: number): Promise<Member> {
    const member = forkMember(worker);
    alive.add(member);
    member.serve({
      ...stores.answersFor(member),
      report: (state) => report(member, state),
      calls,
      status: pages.status,
      metrics: pages.metrics,
    });
    void member.ended.then(() => forget(member));
    try {
      const own = await member.askWithin(startMs, "start", optionsOf(options, { worker, port, secret }));
      await inTurn(() => join(member, own));
      void watch(member);
      return member;
    } catch (error) {
      member.kill();
      throw error;
    }
  }

  async function join(member: Member, own: string): Promise<void> {
    if (current) {
      const violations = await member.askWithin(prepareMs, "prepare", current, { isRestart: true });
      if (violations.length > 0) throw new SnapshotRefusedError(violations);
      await member.askWithin(enterMs, "enter");
    }
    joined.set(member, own); // hears of terms and sessions from here on
    if (terms) await member.askWithin(enterMs, "obey", terms);
    if (isDrained) await member.ask("setDrained", true);
    for (const [number, { query }] of taps) await member.ask("tap", number, query);
    giveDuties();
    address = await member.askWithin(startMs, "join");
  }

  /** Kills it when it hangs. */
  async function watch(member: Member): Promise<void> {
    for (;;) {
      await sleep(hangMs.between, undefined, { ref: false });
      if (isStopping || !joined.has(member)) return;
      await member.askWithin(hangMs.most, "alive").catch(() => member.kill());
    }
  }

  function forget(member: Member): void {
    alive.delete(member);
    joined.delete(member);
    states.delete(member);
    stores.forget(member);
    pages.forget(member);
    if (watcher === member) giveDuties();
    options.onChange();
  }

  /** What this proxy watches, one worker does. */
  function giveDuties(): void {
    if (!watcher || !joined.has(watcher)) [watcher] = joined.keys();
    for (const member of joined.keys()) {
      const own = member === watcher ? duties : { ...duties, isAlone: false, ours: [] };
      member.ask("watch", own).catch(() => undefined); // one that is gone is replaced, and asked again
    }
  }

  /** Replaces a worker whenever it ends, until the proxy stops. */
  async function keepUp(first: Member): Promise<void> {
    const backoffMs = createBackoff();
    const { worker } = first;
    let member: Member | undefined = first;
    while (!isStopping) {
      const startedMs = performance.now();
      const how = member && (await member.ended);
      if (isStopping) return;
      if (how !== undefined) log.error({ worker, pid: member?.pid, how }, "a worker ended; another takes its place");
      await sleep(backoffMs({ lastedMs: performance.now() - startedMs, isUnreachable: false, retryMs: undefined }));
      if (isStopping) return;
      restarts++;
      member = await bringUp(worker).catch((error) => {
        log.error({ worker, reason: reasonOf(error) }, "a worker could not be started");
        return undefined;
      });
      if (member) log.info({ worker, pid: member.pid }, "a worker took the place of another");
    }
  }

  /** All of them, or none. A worker that ends meanwhile has no say: the one in its place gets what the others have. */
  async function apply(content: SnapshotContent, how: ApplyOptions = {}): Promise<void> {
    const asked = await Promise.all([...joined.keys()].map((member) => prepareOn(member, content, how)));
    const ready = asked.filter(({ outcome }) => outcome === "ready");
    const refused = asked.flatMap(({ outcome }) => (outcome instanceof Error ? [outcome] : []));
    if (refused.length > 0 || ready.length === 0) {
      for (const { member } of ready) member.ask("drop").catch(() => undefined);
      throw refused[0] ?? new Error("no worker could be asked");
    }
    [current, terms] = [content, undefined];
    await Promise.all(ready.map(({ member }) => member.askWithin(enterMs, "enter").catch(() => member.kill())));
  }

  async function prepareOn(member: Member, content: SnapshotContent, how: ApplyOptions) {
    try {
      const violations = await member.askWithin(prepareMs, "prepare", content, how);
      return { member, outcome: violations.length > 0 ? new SnapshotRefusedError(violations) : ("ready" as const) };
    } catch (error) {
      const { kind } = error as ChannelError;
      if (kind === "late") member.kill();
      return { member, outcome: kind === "failed" ? (error as ChannelError) : ("lost" as const) };
    }
  }

  function report(member: Member, state: ProxyState): void {
    const views = state.report.views?.length ? state.report.views : states.get(member)?.report.views;
    states.set(member, { ...state, report: { ...state.report, ...(views && { views }) } });
    options.onChange();
  }

  function calls(number: number, report: CallsReport): void {
    taps.get(number)?.emit(report);
  }

  function openTap(query: CallsQuery, emit: Emit): () => void {
    const number = ++tapsOpened;
    taps.set(number, { query, emit });
    const tell = (wanted: CallsQuery | undefined) => {
      for (const member of joined.keys()) member.ask("tap", number, wanted).catch(() => undefined); // it has gone
    };
    tell(query);
    return () => {
      if (taps.delete(number)) tell(undefined);
    };
  }

  try {
    const members = await Promise.all(Array.from({ length: workers }, (_, i) => bringUp(i + 1)));
    for (const member of members) void keepUp(member);
  } catch (error) {
    isStopping = true;
    killAll();
    throw error;
  }

  async function drain(): Promise<void> {
    if (isStopping) return;
    isStopping = true;
    const { delayMs = 0, callsMs = 30_000 } = options.drain ?? {};
    await Promise.all(
      [...alive].map(async (member) => {
        await member.askWithin(delayMs + callsMs + 10_000, "drain").catch(() => member.kill());
        member.leave();
        await Promise.race([member.ended, sleep(2_000, undefined, { ref: false })]);
      }),
    );
  }

  return {
    address,
    live: {
      async apply(content, how) {
        const endMs = performance.now() + backMs;
        while (joined.size === 0 && performance.now() < endMs) await sleep(50);
        await inTurn(() => apply(content, how));
      },
      obey(next) {
        terms = next;
        for (const member of joined.keys()) member.askWithin(enterMs, "obey", next).catch(() => member.kill()); // it may serve whom it must not
      },
    },
    state() {
      if (states.size > 0) return mergeStates([...states.values()], session?.redis === undefined ? stores.sessions : undefined);
      return { report: { liveVersion: current?.version ?? "", activeSessions: 0, backends: [], views: [] }, everyMs: 30_000 };
    },
    async listing(catalog) {
      for (const member of joined.keys()) {
        const listing = await member.ask("listing", catalog);
        if (listing) return listing;
      }
      return undefined;
    },
    watch(next) {
      duties = next;
      giveDuties();
    },
    async list(filter) {
      const listings = await Promise.all([...joined.keys()].map((member) => member.ask("sessions", filter)));
      return { sessions: mergeListings(listings.map(({ sessions }) => sessions)), isShared: session?.redis !== undefined };
    },
    openTap,
    setDrained(isWanted) {
      isDrained = isWanted;
      for (const member of joined.keys()) member.ask("setDrained", isWanted).catch(() => member.kill()); // it would take work
    },
    drain,
    async [Symbol.asyncDispose]() {
      await drain();
      killAll();
      process.off("exit", killAll);
      await stores[Symbol.asyncDispose]();
    },
  };
}

/** What all workers make their keys of, where the operator gave nothing. Throws KeyRingError. */
function secretOf({ session, log }: LeaderOptions): string | undefined {
  using keys = openKeyRing({ env: process.env, isShared: session?.redis !== undefined, log });
  return keys.isRandom ? randomBytes(32).toString("hex") : undefined;
}

/** One that was free a moment ago: workers have to be told which one it is. */
async function freePort(host: string): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, host, resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
