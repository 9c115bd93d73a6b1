// `subscriptions/listen`: a stream of what changes, as far as its client asked for it. All streams of one caller hang on what
// stands for the caller's session, so that changes find their way as they do to sessions.
// Longer than most files here: a stream's filter, its resources and tasks, and its end belong together.
// Source: MCP 2026-07-28, subscriptions.
import type { ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { createLimit } from "../backends/limit.ts";
import { errorCodes, type Message, readMessage, request, resultResponse, whole } from "../mcp/json-rpc.ts";
import { member, parseValue } from "../mcp/scan.ts";
import { metaKeys } from "../mcp/stateless.ts";
import { acknowledged, concernsResource, resourceUpdated, tagged } from "../mcp/subscriptions.ts";
import type { Call } from "../methods/call.ts";
import { subscribe, unsubscribe } from "../methods/resources-subscribe.ts";
import { declaresTasks, tasksNotDeclared } from "../methods/tasks.ts";
import { attachStream, type Session } from "../session/session.ts";
import { refuse } from "./refuse.ts";
import { createResponseStream } from "./response-stream.ts";

type Request = Omit<Call, "notify">;

/** What a client asked for; once acknowledged, what it gets of it. */
interface Filter {
  readonly toolsListChanged?: true;
  readonly promptsListChanged?: true;
  readonly resourcesListChanged?: true;
  readonly resourceSubscriptions?: readonly string[];
  readonly taskIds?: readonly string[];
}

interface Listener {
  readonly filter: Filter;
  /** Sends a notification under the listener's own id. */
  send(message: Buffer): void;
  end(): void;
}

interface Subscription {
  count: number;
  readonly isTaken: Promise<boolean>;
  /** Settles when it has been taken back. */
  leaving: Promise<unknown> | undefined;
}

/** The streams of one caller. */
interface Hub {
  readonly listeners: Set<Listener>;
  /** How many of them hear of each resource, and whether its server took that. */
  readonly uris: Map<string, Subscription>;
  /** The same for tasks. */
  readonly tasks: Map<string, number>;
  readonly closed: AbortController;
  /** Runs while there is no listener. */
  idle: NodeJS.Timeout | undefined;
  end(): void;
}

// What is not subscribed to within so long is not promised.
const subscribeMs = 5_000;
// How many subscriptions of one stream are on their way at a time: a backend has calls of others to answer.
const subscribingMax = 8;
// Clients come back, and servers are slow to notice that a stream of ours has ended.
const idleMs = 30_000;
const urisMax = 1_000;
const tasksMax = 100;
// What comes while a stream is being opened. Nobody says so much in a moment who means well.
const earlyMax = 1_000;
// A client that reads nothing of what it asked for is not kept waiting for long.
const queueBytesMax = 1024 * 1024;

const hubs = new WeakMap<Session, Hub>();

/** Serves the stream until its client goes away, or we end it. */
export async function serveListen(call: Request, response: ServerResponse): Promise<void> {
  const { id, session, server } = call;
  const asked = readFilter(call.params.notifications);
  if (typeof asked === "string") return refuse(response, 200, asked, { id, code: errorCodes.invalidParams });
  if (asked.taskIds && !declaresTasks(call)) return refuseTasks(call, response);
  const gone = Promise.withResolvers<void>();
  response.once("close", gone.resolve);

  const hub = hubs.get(session) ?? openHub(session);
  const stream = createResponseStream();
  const early: Buffer[] = [];
  let filter: Filter = asked;
  let taken: Filter = {}; // what has to be let go of
  let isAcknowledged = false;
  const listener: Listener = {
    get filter() {
      return filter;
    },
    send(message) {
      if (!isAcknowledged) {
        if (early.length < earlyMax) early.push(message);
      } else if (response.writableLength > queueBytesMax) response.destroy();
      else void stream.write(tagged(message, id));
    },
    end() {
      void stream.write(resultResponse(id, `{"resultType":"complete","_meta":{"${metaKeys.subscriptionId}":${id}}}`));
      stream.end();
    },
  };
  const over = Promise.withResolvers<undefined>();
  const finish = (): void => over.resolve(undefined);
  hub.closed.signal.addEventListener("abort", finish, { once: true });
  hub.listeners.add(listener); // from now on nothing is missed
  clearTimeout(hub.idle);
  try {
    await Promise.all([...server.backends.values()].map((backend) => backend.follow(session)));
    const honouring = honour(call, hub, asked);
    const honoured = await Promise.race([honouring, over.promise]);
    filter = honoured ?? {};
    taken = filter;
    if (!honoured) void honouring.then((late) => letGo(call, hub, late));
    stream.attach(response);
    void stream.write(tagged(request(acknowledged, `{"notifications":${JSON.stringify(filter)}}`), id));
    isAcknowledged = true;
    for (const message of early.splice(0)) if (wants(filter, readMessage(message))) listener.send(message);
    if (hub.closed.signal.aborted) listener.end(); // meanwhile what it hung on has gone
    if (!response.destroyed) await gone.promise;
  } finally {
    hub.listeners.delete(listener);
    hub.closed.signal.removeEventListener("abort", finish);
    letGo(call, hub, taken);
    if (hub.listeners.size === 0) hub.idle = setTimeout(hub.end, idleMs).unref();
  }
}

function letGo(call: Request, hub: Hub, { resourceSubscriptions = [], taskIds = [] }: Filter): void {
  for (const uri of resourceSubscriptions) release(call, hub, uri);
  for (const taskId of taskIds) unfollowTask(call, hub, taskId);
}

function refuseTasks({ id }: Request, response: ServerResponse): void {
  const { message, ...error } = tasksNotDeclared;
  refuse(response, 400, message, { id, ...error });
}

function openHub(session: Session): Hub {
  const closed = new AbortController();
  const hub: Hub = { listeners: new Set(), uris: new Map(), tasks: new Map(), closed, idle: undefined, end };
  const stream = {
    send(message: Buffer) {
      const said = readMessage(message);
      for (const listener of hub.listeners) if (wants(listener.filter, said)) listener.send(message);
      return undefined; // one slow client is not waited for by the others
    },
    closed: closed.signal,
    end,
  };

  function end(): void {
    clearTimeout(hub.idle);
    if (hubs.get(session) === hub) hubs.delete(session);
    closed.abort();
    if (session.stream === stream) session.stream = undefined;
    for (const listener of hub.listeners) listener.end();
  }

  hubs.set(session, hub);
  attachStream(session, stream);
  return hub;
}

const flags = ["toolsListChanged", "promptsListChanged", "resourcesListChanged"] as const;

/** What is asked for, or what is wrong with it. */
function readFilter(notifications: unknown): Filter | string {
  if (typeof notifications !== "object" || notifications === null || Array.isArray(notifications))
    return '"notifications" is not an object';
  const { resourceSubscriptions = [], taskIds = [], ...rest } = notifications as Record<string, unknown>;
  const wrong = flags.filter((flag) => rest[flag] !== undefined && typeof rest[flag] !== "boolean");
  if (wrong.length > 0) return `${wrong.join(", ")}: not true or false`;
  if (!isTexts(resourceSubscriptions, urisMax)) return `"resourceSubscriptions" is not a list of at most ${urisMax} URIs`;
  if (!isTexts(taskIds, tasksMax)) return `"taskIds" is not a list of at most ${tasksMax} ids`;
  return {
    ...Object.fromEntries(flags.filter((flag) => rest[flag] === true).map((flag) => [flag, true])),
    ...(resourceSubscriptions.length > 0 ? { resourceSubscriptions: [...new Set(resourceSubscriptions)] } : {}),
    ...(taskIds.length > 0 ? { taskIds: [...new Set(taskIds)] } : {}),
  };
}

function isTexts(value: unknown, most: number): value is string[] {
  return Array.isArray(value) && value.length <= most && value.every((one) => typeof one === "string");
}

/** What of it we can do; resources are subscribed to where they are. */
async function honour(call: Request, hub: Hub, asked: Filter): Promise<Filter> {
  const { offers } = call.view;
  const { promptsListChanged, resourcesListChanged, resourceSubscriptions = [], taskIds = [], ...rest } = asked;
  const uris = await acquireAll(call, hub, resourceSubscriptions);
  const followed = await Promise.all(taskIds.map((taskId) => followTask(call, hub, taskId)));
  const tasks = taskIds.filter((_taskId, i) => followed[i]);
  return {
    ...rest,
    ...(promptsListChanged && offers.has("prompts") ? { promptsListChanged } : {}),
    ...(resourcesListChanged && offers.has("resources") ? { resourcesListChanged } : {}),
    ...(uris.length > 0 ? { resourceSubscriptions: uris } : {}),
    ...(tasks.length > 0 ? { taskIds: tasks } : {}),
  };
}

/** Those of the resources that are subscribed to in time. */
async function acquireAll(call: Request, hub: Hub, uris: readonly string[]): Promise<string[]> {
  const untilMs = performance.now() + subscribeMs;
  const taken = new Set<string>();
  const waiting = uris.values(); // one queue, and several who work on it
  async function work(): Promise<void> {
    for (const uri of waiting) if (performance.now() < untilMs && (await acquire(call, hub, uri))) taken.add(uri);
  }
  await Promise.all(Array.from({ length: subscribingMax }, work));
  return uris.filter((uri) => taken.has(uri));
}

/** Subscribes unless another stream of this caller has; false when the resource's server does not take it. */
async function acquire(call: Request, hub: Hub, uri: string): Promise<boolean> {
  // A subscription that is just being taken back would undo a new one.
  for (let old = hub.uris.get(uri); old?.leaving !== undefined; old = hub.uris.get(uri)) await old.leaving;
  const entry = hub.uris.get(uri) ?? { count: 0, isTaken: subscribeTo(call, uri), leaving: undefined };
  entry.count++;
  hub.uris.set(uri, entry);
  const isTaken = await entry.isTaken;
  if (!isTaken) release(call, hub, uri);
  return isTaken;
}

async function subscribeTo(call: Request, uri: string): Promise<boolean> {
  try {
    return !readMessage(whole(await subscribe(ownCall(call, "resources/subscribe", uri)))).error;
  } catch {
    return false; // the session ended meanwhile
  }
}

function release(call: Request, hub: Hub, uri: string): void {
  const entry = hub.uris.get(uri);
  if (!entry || --entry.count > 0) return;
  entry.leaving = unsubscribeFrom(call, uri).finally(() => hub.uris.delete(uri));
}

async function unsubscribeFrom(call: Request, uri: string): Promise<void> {
  if (!call.session.state.subscriptions.has(uri)) return;
  try {
    await unsubscribe(ownCall(call, "resources/unsubscribe", uri));
  } catch {
    // The session ended meanwhile.
  }
}

/** A request that we make for the caller, inside what stands for its session. */
function ownCall(call: Request, method: string, uri: string): Call {
  const params = { uri };
  const message = readMessage(request(method, JSON.stringify(params), '"vmcp-listen"'));
  const server = { ...call.server, timeoutMs: () => subscribeMs };
  const own = { id: '"vmcp-listen"', message, params, server, limit: createLimit() };
  return { ...call, ...own, notify: () => undefined, isIncidental: true, stateless: undefined };
}

/** Follows unless another stream of this caller does; false when the task's server does not take it in time. */
async function followTask(call: Request, hub: Hub, own: string): Promise<boolean> {
  const { tokens, session, server } = call;
  const task = tokens.openTask(session, own);
  const backend = task && server.backends.get(task.backend);
  if (!backend) return false;
  hub.tasks.set(own, (hub.tasks.get(own) ?? 0) + 1);
  session.tasks.set(`${backend.name} ${task.taskId}`, own);
  const late = sleep(subscribeMs, false, { ref: false });
  const isTaken = await Promise.race([backend.followTask(session, task.taskId, true), late]);
  if (!isTaken) unfollowTask(call, hub, own);
  return isTaken;
}

function unfollowTask({ tokens, session, server }: Request, { tasks }: Hub, own: string): void {
  const left = (tasks.get(own) ?? 1) - 1;
  if (left > 0) return void tasks.set(own, left);
  tasks.delete(own);
  const task = tokens.openTask(session, own);
  if (!task) return;
  session.tasks.delete(`${task.backend} ${task.taskId}`);
  void server.backends.get(task.backend)?.followTask(session, task.taskId, false);
}

function wants(filter: Filter, { json, method, params }: Message): boolean {
  const text = (key: string): unknown => {
    const span = params && member(json, params.start, key);
    return span && parseValue(json, span);
  };
  switch (method) {
    case "notifications/tools/list_changed":
      return filter.toolsListChanged ?? false;
    case "notifications/prompts/list_changed":
      return filter.promptsListChanged ?? false;
    case "notifications/resources/list_changed":
      return filter.resourcesListChanged ?? false;
    case resourceUpdated:
      return filter.resourceSubscriptions?.some((whole) => concernsResource(whole, `${text("uri")}`)) ?? false;
    case "notifications/tasks":
      return filter.taskIds?.includes(text("taskId") as string) ?? false;
    default:
      return false;
  }
}
