// One stream of changes from a server of the stateless era, shared by all who want to hear of something: changed lists, updated
// resources, tasks. What a stream tells is fixed when it is opened, so another wish means another stream; the old one goes when
// the new one is acknowledged, and nothing is missed. Longer than most files here, because all of it is the life of that stream.
// Source: MCP 2026-07-28, subscriptions.
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import { type Message, readMessage, request } from "../mcp/json-rpc.ts";
import { concernsResource, listsChanged, paramsOf, resourceUpdated, untagged, type Wanted } from "../mcp/subscriptions.ts";
import { type Beginning, type ChangeStream, type OpenStream, says, startStream } from "./change-stream.ts";
import type { Hear } from "./leg.ts";
import { untilAborted } from "./limit.ts";

export interface ChangeFeed extends Disposable {
  /** Hears of changes until closed. */
  follow(wish: Wish): Follower;
}

export interface Wish {
  readonly hear: Hear;
  /** Resources wanted from the start. */
  readonly uris: Iterable<string>;
  readonly wantsLists: boolean;
  /** A stream is open that says all this; called again after it was lost. */
  readonly onOpen?: () => void;
  /** The stream broke: another is opened after a while, and says then that everything may have changed. */
  readonly onLost?: () => void;
}

export interface Follower {
  /** Settles when what was wanted from the start was asked for once: false when the server has no such streams, or refused. */
  readonly ready: Promise<boolean>;
  /** Fires when the feed is over. */
  readonly ended: AbortSignal;
  /** Wants to hear of a resource too; false when the server does not take it. */
  add(uri: string, signal: AbortSignal): Promise<boolean>;
  remove(uri: string): void;
  /** Wants to hear of a task too; false when the server does not take it. */
  addTask(taskId: string): Promise<boolean>;
  removeTask(taskId: string): void;
  close(): void;
}

export interface ChangeFeedOptions {
  readonly open: OpenStream;
  readonly log: Log;
}

interface Wisher {
  readonly hear: Hear;
  readonly wantsLists: boolean;
  readonly uris: Set<string>;
  readonly tasks: Set<string>;
  readonly onOpen: (() => void) | undefined;
  /** Whether it was told that there is a stream. */
  hasOpened: boolean;
  readonly onLost: (() => void) | undefined;
}

const gatherMs = 10;
const backoffMs = { first: 500, most: 10_000 };
const steadyMs = 5_000;
// Streams that are tried to find out which of many wishes is refused.
const attemptsMax = 40;
const urisMax = 10_000;

/** No stream is open before somebody follows. */
export function createChangeFeed({ open, log }: ChangeFeedOptions): ChangeFeed {
  const wishers = new Set<Wisher>();
  const isOver = new AbortController();
  let live: ChangeStream | undefined;
  let opening: ChangeStream | undefined;
  let turn: Promise<unknown> = Promise.resolve();
  let nextTurn: Promise<boolean> | undefined;
  let retry: NodeJS.Timeout | undefined;
  let hasMissed = false;
  let streams = 0;
  let failures = 0;

  /**
   * Sees to it that the stream says what is wanted now, once for all that come together, and one change after the other. Settles
   * when that is done: false when the server refused.
   */
  function renew(): Promise<boolean> {
    nextTurn ??= Promise.all([turn, sleep(gatherMs)]).then(() => {
      nextTurn = undefined;
      const taking = takeTurn();
      turn = taking;
      return taking;
    });
    return nextTurn;
  }

  async function takeTurn(): Promise<boolean> {
    if (wishers.size === 0) {
      live?.stop.abort();
      live = undefined;
      return true;
    }
    const wanted = wantedByAll();
    if (isOver.signal.aborted || (isLive() && says(live as ChangeStream, wanted))) return !isOver.signal.aborted;
    const outcome = await openStream(wanted);
    if (outcome === "refused") await sift(wanted);
    if (outcome === "failed") tryAgain();
    return outcome === "taken" || outcome === "failed";
  }

  /**
   * Finds out what of it all the server refuses, by halves, so that what one follower wants costs the others nothing. What is
   * refused by itself is wanted no more.
   */
  async function sift(wanted: Wanted): Promise<void> {
    const all = [...keysOf(wanted, "uris"), ...keysOf(wanted, "tasks")];
    const isKnown = ([kind, key]: Key) => isLive() && hasHonoured(kind, key);
    const good = all.filter(isKnown);
    let attempts = 0;
    let hasFailed = false;

    async function isTaken(keys: readonly Key[]): Promise<boolean> {
      if (++attempts > attemptsMax || hasFailed) return false;
      const outcome = await openStream(wantedOf(wanted.lists, [...good, ...keys]));
      hasFailed = outcome === "failed" || isOver.signal.aborted;
      return outcome === "taken";
    }
    /** These were refused together. */
    async function halve(part: readonly Key[]): Promise<void> {
      if (hasFailed) return;
      if (part.length === 1 || attempts >= attemptsMax) return part.forEach(unwant);
      for (const half of [part.slice(0, part.length / 2), part.slice(part.length / 2)])
        if (await isTaken(half)) good.push(...half);
        else await halve(half);
    }

    const doubtful = all.filter((key) => !isKnown(key));
    if (doubtful.length === 0) return;
    const hasBase = isLive() || (!wanted.lists && good.length === 0) || (await isTaken([]));
    if (hasBase) await halve(doubtful);
    else if (!hasFailed) doubtful.forEach(unwant);
    if (hasFailed) tryAgain();
  }

  /** Nothing is known of what was wanted, nor of what was to be told meanwhile. */
  function tryAgain(): void {
    hasMissed = true;
    retryLater();
  }

  function unwant([kind, key]: Key): void {
    for (const wisher of wishers) wisher[kind].delete(key);
  }

  /** Opens a stream; once it is acknowledged, it takes the place of the one before. */
  async function openStream(wanted: Wanted): Promise<Beginning> {
    const previous = live;
    const stream = startStream(wanted, {
      open,
      id: `"vmcp-listen-${++streams}"`,
      hear: tell,
      onEnd(livedMs) {
        if (livedMs > steadyMs) failures = 0;
        if (live === stream) lose();
      },
      log,
    });
    opening = stream;
    const outcome = await stream.begun;
    opening = undefined;
    if (outcome !== "taken" || isOver.signal.aborted) {
      stream.stop.abort();
      return outcome;
    }
    live = stream;
    previous?.stop.abort();
    for (const wisher of wishers) tellOpen(wisher);
    if (hasMissed) tellEverything();
    if (stream.hasEnded) lose();
    return outcome;
  }

  /** The stream broke: what changes now is told to nobody, so everything may have changed when the next one is there. */
  function lose(): void {
    live = undefined;
    hasMissed = true;
    retryLater();
    for (const wisher of wishers) {
      wisher.hasOpened = false;
      wisher.onLost?.();
    }
  }

  function retryLater(): void {
    if (isOver.signal.aborted) return;
    const most = Math.min(backoffMs.most, backoffMs.first * 2 ** failures++);
    clearTimeout(retry);
    retry = setTimeout(() => void renew(), most / 2 + (Math.random() * most) / 2);
  }

  function tellEverything(): void {
    hasMissed = false;
    for (const { hear, wantsLists, uris } of wishers) {
      if (wantsLists) for (const method of listsChanged) void hear(readMessage(request(method, undefined)));
      for (const uri of uris) void hear(readMessage(request(resourceUpdated, JSON.stringify({ uri }))));
    }
  }

  /** Whether a new follower has a stream, or may still get one. */
  function begins(wisher: Wisher, isAsked: boolean): boolean {
    tellOpen(wisher); // the stream that there was may say all it wants
    return isAsked || hears(wisher);
  }

  function tellOpen(wisher: Wisher): void {
    if (wisher.hasOpened || !hears(wisher)) return;
    wisher.hasOpened = true;
    wisher.onOpen?.();
  }

  function isLive(): boolean {
    return live !== undefined && !live.hasEnded;
  }

  function hasHonoured(kind: "uris" | "tasks", key: string): boolean {
    return live?.honoured[kind].has(key) ?? false;
  }

  function hears({ wantsLists, uris, tasks }: Wisher): boolean {
    return isLive() && says(live as ChangeStream, { lists: wantsLists, uris, tasks });
  }

  function wantedByAll(): Wanted {
    return {
      lists: wishers.values().some(({ wantsLists }) => wantsLists),
      uris: new Set([...wishers].flatMap(({ uris }) => [...uris])),
      tasks: new Set([...wishers].flatMap(({ tasks }) => [...tasks])),
    };
  }

  function tell(message: Message): Promise<void> | undefined {
    const plain = untagged(message);
    const { uri, taskId } = paramsOf(plain);
    let taken: Promise<void> | undefined;
    for (const wisher of wishers) if (concerns(wisher, plain, uri, taskId)) taken = wisher.hear(plain) ?? taken;
    return taken;
  }

  return {
    follow({ hear, uris, wantsLists, onOpen, onLost }) {
      const wisher: Wisher = { hear, wantsLists, uris: new Set(uris), tasks: new Set(), onOpen, hasOpened: false, onLost };
      wishers.add(wisher);
      const isSilent = !wantsLists && wisher.uris.size === 0;
      return {
        ended: isOver.signal,
        ready: isSilent ? Promise.resolve(true) : renew().then((isAsked) => begins(wisher, isAsked)),
        async add(uri, signal) {
          if (wisher.uris.has(uri)) return hasHonoured("uris", uri);
          if (wantedByAll().uris.size >= urisMax) return false;
          wisher.uris.add(uri);
          try {
            await untilAborted(renew(), signal);
          } catch (error) {
            wisher.uris.delete(uri);
            throw error;
          }
          const isHonoured = hasHonoured("uris", uri);
          if (!isHonoured) wisher.uris.delete(uri);
          return isHonoured;
        },
        remove(uri) {
          wisher.uris.delete(uri); // the stream goes on saying it, to nobody, until it is opened anew
        },
        async addTask(taskId) {
          if (wisher.tasks.has(taskId)) return hasHonoured("tasks", taskId);
          wisher.tasks.add(taskId);
          await renew();
          const isHonoured = hasHonoured("tasks", taskId);
          if (!isHonoured) wisher.tasks.delete(taskId);
          return isHonoured;
        },
        removeTask(taskId) {
          wisher.tasks.delete(taskId);
        },
        close() {
          wishers.delete(wisher);
          if (wishers.size === 0) void renew();
        },
      };
    },
    [Symbol.dispose]() {
      isOver.abort();
      clearTimeout(retry);
      for (const stream of [live, opening]) stream?.stop.abort();
    },
  };
}

type Key = readonly [kind: "uris" | "tasks", key: string];

function keysOf(wanted: Wanted, kind: Key[0]): Key[] {
  return [...wanted[kind]].map((key) => [kind, key]);
}

function wantedOf(lists: boolean, keys: readonly Key[]): Wanted {
  const of = (wanted: Key[0]) => new Set(keys.filter(([kind]) => kind === wanted).map(([, key]) => key));
  return { lists, uris: of("uris"), tasks: of("tasks") };
}

function concerns({ wantsLists, uris, tasks }: Wisher, { method }: Message, uri: unknown, taskId: unknown): boolean {
  if (method === resourceUpdated) return typeof uri === "string" && [...uris].some((whole) => concernsResource(whole, uri));
  return typeof taskId === "string" ? tasks.has(taskId) : wantsLists;
}
