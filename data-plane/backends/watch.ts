// Keeps one backend's catalog true: connects, lists, hears list_changed, notices when the backend goes and comes back.
import { setTimeout as sleep } from "node:timers/promises";
import type { Message } from "../mcp/json-rpc.ts";
import { readMessage, request } from "../mcp/json-rpc.ts";
import { type Catalog, type ListProblem, listCatalog } from "./catalog.ts";
import { BackendError } from "./errors.ts";
import type { Leg } from "./leg.ts";
import { createPace } from "./pace.ts";

// How long a stream may take to open before the first listing. What comes after it is listed again.
const listenMs = 250;
const settleMs = 50;
const settleMostMs = 250;
// A backend that says all the time that its lists changed costs us a listing, and everyone a new view, each time.
const relist = { firstMs: 200, mostMs: 5_000 };
// How long lists may be older than they need be while the process is short of resources.
const pressedMs = 250;
const pressedMostMs = 60_000;
const reopenMs = 1_000;
const shortMs = 5_000;
const backoffMs = { first: 250, most: 2_000 };

/** How often, and how patiently, a backend is looked at. */
export interface CheckSettings {
  /** Between two checks, milliseconds; a fifth more or less, so that proxies do not check together. */
  readonly intervalMs: number;
  /** Deadline of one check, milliseconds. */
  readonly timeoutMs: number;
}

export interface WatchOptions {
  /** Looked at anew for every check. */
  readonly checks: () => CheckSettings;
  open(signal: AbortSignal): Promise<Leg>;
  /** Hears what the backend says besides that its lists changed. */
  onMessage(message: Message): void;
  onCatalog(catalog: Catalog): void;
  /** What is wrong with the lists is not what it was; none when all is well again. Comes before onCatalog. */
  onProblems?(problems: readonly ListProblem[]): void;
  onFailure(error: unknown): void;
  /** A check was answered. */
  onAnswered?(tookMs: number): void;
  /** False while the process has better things to do than to list anew. */
  readonly mayRefresh?: () => boolean;
  readonly signal: AbortSignal;
  /** Where somebody can ask for another listing. */
  readonly relist?: RelistRequest;
}

/** Somebody outside wants the catalog listed again. */
export interface RelistRequest {
  /** Called to ask; does nothing while there is no connection. */
  wanted: () => void;
  /** Resolved after the next listing. */
  done: PromiseWithResolvers<void> | undefined;
}

/** Runs until `signal`; never rejects. */
export async function watchCatalog(options: WatchOptions): Promise<void> {
  const { signal } = options;
  const list = createLister(options);
  let failures = 0;
  while (!signal.aborted) {
    let leg: Leg | undefined;
    try {
      leg = await options.open(deadline(signal, options.checks().timeoutMs));
      await follow(leg, { ...options, list, onListed: () => (failures = 0) });
    } catch (error) {
      if (!signal.aborted) options.onFailure(error);
    }
    await leg?.close();
    const most = Math.min(backoffMs.most, backoffMs.first * 2 ** failures++);
    await sleep(most / 2 + (Math.random() * most) / 2, undefined, { signal }).catch(() => undefined);
  }
}

/** Lists and tells of it; false when some list could not be had. Throws when none could. */
type List = (leg: Leg) => Promise<boolean>;

function createLister({ signal, checks, onAnswered, onCatalog, onProblems, relist }: WatchOptions): List {
  let last: Catalog | undefined;
  let told = "[]";
  return async (leg) => {
    const startedMs = performance.now();
    const { catalog, problems } = await listCatalog(leg, deadline(signal, checks().timeoutMs), last);
    onAnswered?.(performance.now() - startedMs);
    last = catalog;
    const telling = JSON.stringify(problems);
    if (telling !== told) onProblems?.(problems);
    told = telling;
    onCatalog(catalog);
    relist?.done?.resolve();
    if (relist) relist.done = undefined;
    return !problems.some(({ isStale }) => isStale);
  };
}

interface FollowOptions extends WatchOptions {
  readonly list: List;
  /** Called after the first listing. */
  readonly onListed: () => void;
}

/** Follows one connection; throws when it is broken. */
async function follow(leg: Leg, options: FollowOptions): Promise<void> {
  const { signal } = options;
  const stop = new AbortController();
  const ended = AbortSignal.any([signal, stop.signal]);
  let wake: () => void = () => undefined;
  let isDirty = false;
  let hasStream = true;
  let isStreamOver = false;
  let isListed = false;
  let isOpen = false;
  let changes = 0;
  const pace = createPace(relist);

  function hear(message: Message): undefined {
    if (!message.method?.endsWith("/list_changed")) return void options.onMessage(message);
    return void markDirty();
  }
  function markDirty(): void {
    isDirty = true;
    changes++;
    wake();
  }
  /** Waits until a change is the last one for a moment, and until it is time to list again. */
  async function settle(): Promise<void> {
    const lastMs = performance.now() + pressedMostMs;
    while (options.mayRefresh?.() === false && performance.now() < lastMs) await sleep(pressedMs, undefined, { signal });
    const pause = pace.waitMs(performance.now());
    if (pause > settleMs) await sleep(pause - settleMs, undefined, { signal });
    let heard: number;
    const untilMs = performance.now() + settleMostMs;
    do {
      heard = changes;
      await sleep(settleMs, undefined, { signal });
    } while (heard !== changes && performance.now() < untilMs);
  }
  async function check(): Promise<void> {
    const startedMs = performance.now();
    await ping(leg, deadline(signal, options.checks().timeoutMs));
    options.onAnswered?.(performance.now() - startedMs);
  }
  let shortStreams = 0;
  const opened = Promise.withResolvers<void>();
  function onOpen(): void {
    isOpen = true;
    opened.resolve();
    if (isListed) markDirty(); // what changed between the listing and now was told to nobody
  }
  async function listen(): Promise<void> {
    const openedMs = performance.now();
    hasStream = await leg.listen(hear, { signal: ended, onOpen, wantsLists: true }).catch(() => true);
    isOpen = false;
    opened.resolve();
    shortStreams = performance.now() - openedMs < shortMs ? shortStreams + 1 : 0;
    if (shortStreams > 2) hasStream = false; // it does not mean to keep one: ask now and then instead
    isStreamOver = true;
    wake();
  }
  void listen();
  if (options.relist) options.relist.wanted = markDirty;
  ended.addEventListener("abort", () => wake(), { once: true });

  try {
    await Promise.race([opened.promise, sleep(listenMs, undefined, { ref: false })]);
    let isWhole = await options.list(leg);
    isListed = true;
    options.onListed();
    while (!signal.aborted) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, options.checks().intervalMs * (0.8 + Math.random() * 0.4));
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
        if (isDirty || (isStreamOver && hasStream)) wake();
      });
      if (signal.aborted) return;
      if (leg.closedBy !== undefined) throw new BackendError("unavailable", "not_executed", leg.closedBy);
      if (isStreamOver && hasStream) {
        await check();
        await sleep(reopenMs, undefined, { signal });
        isStreamOver = false;
        isDirty = true; // what changed meanwhile was told to nobody
        void listen();
      }
      if (isDirty || !isOpen || !isWhole) {
        if (!hasStream && isStreamOver) {
          isStreamOver = false;
          void listen(); // it may have one by now
        }
        await settle();
        isDirty = false;
        isWhole = await options.list(leg);
        pace.done(performance.now());
      } else {
        const { facts } = leg;
        await check();
        if (leg.facts !== facts) isDirty = true; // it offers other things now
      }
    }
  } finally {
    stop.abort();
  }
}

async function ping(leg: Leg, signal: AbortSignal): Promise<void> {
  await leg.request(readMessage(request("ping", undefined, '"vmcp-ping"')), { signal });
}

function deadline(signal: AbortSignal, ms: number): AbortSignal {
  const limit = new AbortController();
  setTimeout(() => limit.abort(new BackendError("timeout", "unknown", `no answer within ${ms / 1000} s`)), ms).unref();
  return AbortSignal.any([signal, limit.signal]);
}
