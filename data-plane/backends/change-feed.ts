// One stream of changes from a server of the stateless era, shared by all who want to hear of something: changed lists, updated
// resources, tasks. What a stream tells is fixed when it is opened, so another wish means another stream; the old one goes when
// the new one is acknowledged, and nothing is missed. Source: MCP 2026-07-28, subscriptions.
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import { type Message, parseSpan, readMessage, request } from "../mcp/json-rpc.ts";
import { type Edit, member, splice, withoutMembers } from "../mcp/scan.ts";
import { metaKeys } from "../mcp/stateless.ts";
import { reasonOf } from "./errors.ts";
import type { Hear } from "./leg.ts";

export interface ChangeFeed extends Disposable {
  /** Hears of changes until closed. `uris` are the resources wanted from the start. */
  follow(wish: { readonly hear: Hear; readonly uris: Iterable<string>; readonly wantsLists: boolean }): Follower;
}

export interface Follower {
  /** Settles when the server has taken what was wanted from the start, or did not within 5 s: false when it has no such streams. */
  readonly ready: Promise<boolean>;
  /** Settles when the feed is over. */
  readonly ended: Promise<void>;
  /** Wants to hear of a resource too; false when the server does not take it. */
  add(uri: string, signal: AbortSignal): Promise<boolean>;
  remove(uri: string): void;
  /** Wants to hear of a task too. */
  addTask(taskId: string): void;
  close(): void;
}

export interface ChangeFeedOptions {
  /** Sends the request and gives its answer, when the stream has ended; rejects with why it could not be had. */
  readonly open: (message: Message, options: { signal: AbortSignal; onMessage: Hear }) => Promise<Message>;
  readonly log: Log;
}

interface Wisher {
  readonly hear: Hear;
  readonly wantsLists: boolean;
  readonly uris: Set<string>;
  readonly tasks: Set<string>;
}

/** What one stream was asked for, and what of it the server took. */
interface Stream {
  readonly stop: AbortController;
  readonly wanted: { readonly lists: boolean; readonly uris: ReadonlySet<string>; readonly tasks: ReadonlySet<string> };
  /** False when the server refused it. */
  readonly acknowledged: Promise<boolean>;
  honoured: ReadonlySet<string>;
}

const gatherMs = 10;
const acknowledgeMs = 5_000;
const backoffMs = { first: 500, most: 10_000 };
const steadyMs = 5_000;
const acknowledgement = "notifications/subscriptions/acknowledged";
const listNotices = ["tools", "prompts", "resources"].map((kind) => `notifications/${kind}/list_changed`);

/** No stream is open before somebody follows. */
export function createChangeFeed({ open, log }: ChangeFeedOptions): ChangeFeed {
  const wishers = new Set<Wisher>();
  const isOver = new AbortController();
  const ended = new Promise<void>((resolve) => isOver.signal.addEventListener("abort", () => resolve(), { once: true }));
  let stream: Stream | undefined;
  let gathering: Promise<boolean> | undefined;
  let streams = 0;
  let failures = 0;

  /** Opens the stream that is wanted now, once for all that come together; settles when it is acknowledged. */
  function renew(): Promise<boolean> {
    gathering ??= sleep(gatherMs).then(() => {
      gathering = undefined;
      return replace();
    });
    return gathering;
  }

  async function replace(): Promise<boolean> {
    const previous = stream;
    if (isOver.signal.aborted) return false;
    stream = wishers.size > 0 ? openStream() : undefined;
    const isTaken = (await stream?.acknowledged) ?? false;
    previous?.stop.abort();
    return isTaken;
  }

  function openStream(): Stream {
    const stop = new AbortController();
    const acknowledged = Promise.withResolvers<boolean>();
    const wanted = {
      lists: wishers.values().some(({ wantsLists }) => wantsLists),
      uris: new Set([...wishers].flatMap(({ uris }) => [...uris])),
      tasks: new Set([...wishers].flatMap(({ tasks }) => [...tasks])),
    };
    const opened: Stream = { stop, wanted, acknowledged: acknowledged.promise, honoured: new Set() };
    const late = setTimeout(() => acknowledged.resolve(true), acknowledgeMs);
    const startedMs = performance.now();

    function hear(message: Message): Promise<void> | undefined {
      if (stop.signal.aborted) return undefined;
      if (message.method !== acknowledgement) return tell(message);
      opened.honoured = honouredUris(message);
      acknowledged.resolve(true);
      return undefined;
    }

    /** Whether it is worth opening again: a server that refuses such streams will refuse the next. */
    async function run(): Promise<boolean> {
      try {
        return (await open(listenRequest(wanted, ++streams), { signal: stop.signal, onMessage: hear })).error === undefined;
      } catch (error) {
        log.debug({ reason: reasonOf(error) }, "a stream of changes ended");
        return true;
      }
    }

    void run().then((isWorthwhile) => {
      clearTimeout(late);
      acknowledged.resolve(false);
      if (stream !== opened || isOver.signal.aborted || !isWorthwhile) return;
      failures = performance.now() - startedMs > steadyMs ? 0 : failures + 1;
      void reopen(opened);
    });
    return opened;
  }

  /** The stream broke: what changed meanwhile was told to nobody, so everything may have. */
  async function reopen(broken: Stream): Promise<void> {
    const most = Math.min(backoffMs.most, backoffMs.first * 2 ** failures);
    await sleep(most / 2 + (Math.random() * most) / 2, undefined, { signal: isOver.signal }).catch(() => undefined);
    if (isOver.signal.aborted || stream !== broken) return;
    await replace();
    for (const wisher of wishers) {
      if (wisher.wantsLists) for (const method of listNotices) void wisher.hear(readMessage(request(method, undefined)));
      for (const uri of wisher.uris) void wisher.hear(readMessage(request(updated, JSON.stringify({ uri }))));
    }
  }

  function tell(message: Message): Promise<void> | undefined {
    const plain = untagged(message);
    const { uri, taskId } = Object(paramsOf(plain)) as { uri?: unknown; taskId?: unknown };
    let taken: Promise<void> | undefined;
    for (const wisher of wishers) if (concerns(wisher, plain, uri, taskId)) taken = wisher.hear(plain) ?? taken;
    return taken;
  }

  return {
    follow({ hear, uris, wantsLists }) {
      const wisher: Wisher = { hear, wantsLists, uris: new Set(uris), tasks: new Set() };
      wishers.add(wisher);
      const isSilent = !wantsLists && wisher.uris.size === 0;
      return {
        ended,
        ready: isSilent ? Promise.resolve(true) : renew(),
        async add(uri, signal) {
          wisher.uris.add(uri);
          if (!stream?.honoured.has(uri)) await Promise.race([renew(), abortOf(signal)]);
          const isHonoured = stream?.honoured.has(uri) ?? false;
          if (!isHonoured) wisher.uris.delete(uri);
          return isHonoured;
        },
        remove(uri) {
          wisher.uris.delete(uri); // the stream goes on saying it, to nobody, until it is opened anew
        },
        addTask(taskId) {
          wisher.tasks.add(taskId);
          void renew();
        },
        close() {
          wishers.delete(wisher);
          if (wishers.size === 0) void renew();
        },
      };
    },
    [Symbol.dispose]() {
      isOver.abort();
      stream?.stop.abort();
    },
  };
}

const updated = "notifications/resources/updated";

function concerns(wisher: Wisher, { method }: Message, uri: unknown, taskId: unknown): boolean {
  if (method === updated) return typeof uri === "string" && (wisher.uris.has(uri) || isPartOfOne(wisher.uris, uri));
  if (typeof taskId === "string") return wisher.tasks.has(taskId);
  return wisher.wantsLists;
}

/** An update may name a part of what was subscribed to (MCP 2026-07-28, resources, subscriptions). */
function isPartOfOne(uris: ReadonlySet<string>, uri: string): boolean {
  for (const whole of uris) if (uri.startsWith(whole.endsWith("/") ? whole : `${whole}/`)) return true;
  return false;
}

function listenRequest({ lists, uris, tasks }: Stream["wanted"], number: number): Message {
  const notifications = {
    ...(lists ? { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true } : {}),
    ...(uris.size > 0 ? { resourceSubscriptions: [...uris] } : {}),
    ...(tasks.size > 0 ? { taskIds: [...tasks] } : {}),
  };
  return readMessage(request("subscriptions/listen", JSON.stringify({ notifications }), `"vmcp-listen-${number}"`));
}

function honouredUris(message: Message): ReadonlySet<string> {
  const { notifications } = Object(paramsOf(message)) as { notifications?: { resourceSubscriptions?: unknown } };
  const uris = notifications?.resourceSubscriptions;
  return new Set(Array.isArray(uris) ? uris.filter((uri) => typeof uri === "string") : []);
}

/** Without the id of our stream, which says nothing to anybody else. */
function untagged(message: Message): Message {
  const { json, params } = message;
  const meta = params && member(json, params.start, "_meta");
  if (!params || !meta || json[meta.start] !== 0x7b || !json.includes(metaKeys.subscriptionId)) return message;
  const plain = withoutMembers(json.subarray(meta.start, meta.end), [metaKeys.subscriptionId]);
  const isEmpty = /^\{\s*\}$/.test(plain.toString("latin1", 0, 16));
  const edit: Edit = isEmpty
    ? { ...params, text: withoutMembers(json.subarray(params.start, params.end), ["_meta"]) }
    : { ...meta, text: plain };
  return readMessage(splice(json, [edit]));
}

function paramsOf(message: Message): unknown {
  try {
    return parseSpan(message, message.params);
  } catch {
    return undefined;
  }
}

function abortOf(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
