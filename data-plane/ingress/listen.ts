// `subscriptions/listen`: a stream of what changes, as far as its client asked for it. All streams of one caller hang on what
// stands for the caller's session, so that changes find their way as they do to sessions.
// Source: MCP 2026-07-28, subscriptions.
import type { ServerResponse } from "node:http";
import { createLimit } from "../backends/limit.ts";
import { errorCodes, type Message, readMessage, request, resultResponse } from "../mcp/json-rpc.ts";
import { member, splice, withMembers } from "../mcp/scan.ts";
import { metaKeys } from "../mcp/stateless.ts";
import type { Call } from "../methods/call.ts";
import { subscribe, unsubscribe } from "../methods/resources-subscribe.ts";
import { declaresTasks } from "../methods/tasks.ts";
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

/** The streams of one caller. */
interface Hub {
  readonly listeners: Set<Listener>;
  /** How many of them hear of each resource. */
  readonly uris: Map<string, number>;
  readonly closed: AbortController;
  /** Runs while there is no listener. */
  idle: NodeJS.Timeout | undefined;
}

const subscribeMs = 5_000;
// Clients come back, and servers are slow to notice that a stream of ours has ended.
const idleMs = 30_000;
const urisMax = 1_000;
const tasksMax = 100;
// A client that reads nothing of what it asked for is not kept waiting for long.
const queueBytesMax = 1024 * 1024;

const hubs = new WeakMap<Session, Hub>();

/** Serves the stream until its client goes away, or we end it. */
export async function serveListen(call: Request, response: ServerResponse): Promise<void> {
  const { id, session, server } = call;
  const asked = readFilter(call.params.notifications);
  if (typeof asked === "string") return refuse(response, 200, asked, { id, code: errorCodes.invalidParams });
  const gone = Promise.withResolvers<void>();
  response.once("close", gone.resolve);

  const hub = hubs.get(session) ?? openHub(session);
  const stream = createResponseStream();
  const early: Buffer[] = [];
  let filter: Filter = asked;
  let isAcknowledged = false;
  const listener: Listener = {
    get filter() {
      return filter;
    },
    send(message) {
      if (!isAcknowledged) early.push(message);
      else if (response.writableLength > queueBytesMax) response.destroy();
      else void stream.write(tagged(message, id));
    },
    end() {
      void stream.write(resultResponse(id, `{"resultType":"complete","_meta":{"${metaKeys.subscriptionId}":${id}}}`));
      stream.end();
    },
  };
  hub.listeners.add(listener); // from now on nothing is missed
  clearTimeout(hub.idle);
  try {
    await Promise.all([...server.backends.values()].map((backend) => backend.follow(session)));
    filter = await honour(call, hub, asked);
    stream.attach(response);
    const honoured = JSON.stringify(filter);
    void stream.write(tagged(request("notifications/subscriptions/acknowledged", `{"notifications":${honoured}}`), id));
    isAcknowledged = true;
    for (const message of early.splice(0)) if (wants(filter, readMessage(message))) listener.send(message);
    if (!response.destroyed) await gone.promise;
  } finally {
    hub.listeners.delete(listener);
    for (const uri of filter.resourceSubscriptions ?? []) release(call, hub, uri);
    if (hub.listeners.size === 0) hub.idle = setTimeout(() => session.stream?.end(), idleMs).unref();
  }
}

function openHub(session: Session): Hub {
  const hub: Hub = { listeners: new Set(), uris: new Map(), closed: new AbortController(), idle: undefined };
  hubs.set(session, hub);
  const stream = {
    send(message: Buffer) {
      const said = readMessage(message);
      for (const listener of hub.listeners) if (wants(listener.filter, said)) listener.send(message);
      return undefined; // one slow client is not waited for by the others
    },
    closed: hub.closed.signal,
    end() {
      clearTimeout(hub.idle);
      hubs.delete(session);
      hub.closed.abort();
      if (session.stream === stream) session.stream = undefined;
      for (const listener of hub.listeners) listener.end();
    },
  };
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
  const taken = await Promise.all(resourceSubscriptions.map((uri) => acquire(call, hub, uri)));
  const uris = resourceSubscriptions.filter((_uri, i) => taken[i]);
  const tasks = declaresTasks(call) ? taskIds.filter((taskId) => followTask(call, taskId)) : [];
  return {
    ...rest,
    ...(promptsListChanged && offers.has("prompts") ? { promptsListChanged } : {}),
    ...(resourcesListChanged && offers.has("resources") ? { resourcesListChanged } : {}),
    ...(uris.length > 0 ? { resourceSubscriptions: uris } : {}),
    ...(tasks.length > 0 ? { taskIds: tasks } : {}),
  };
}

/** Subscribes unless another stream of this caller has; false when the resource's server does not take it. */
async function acquire(call: Request, hub: Hub, uri: string): Promise<boolean> {
  const before = hub.uris.get(uri) ?? 0;
  hub.uris.set(uri, before + 1);
  if (before > 0) return true;
  const answer = readMessage(await subscribe(ownCall(call, "resources/subscribe", uri)));
  if (answer.error) release(call, hub, uri);
  return !answer.error;
}

function release(call: Request, hub: Hub, uri: string): void {
  const left = (hub.uris.get(uri) ?? 1) - 1;
  if (left > 0) return void hub.uris.set(uri, left);
  hub.uris.delete(uri);
  Promise.resolve(unsubscribe(ownCall(call, "resources/unsubscribe", uri))).catch(() => undefined);
}

/** A request that we make for the caller, inside what stands for its session. */
function ownCall(call: Request, method: string, uri: string): Call {
  const params = { uri };
  const message = readMessage(request(method, JSON.stringify(params), '"vmcp-listen"'));
  const limit = createLimit();
  limit.arm(subscribeMs);
  return { ...call, id: '"vmcp-listen"', message, params, limit, notify: () => undefined, stateless: undefined };
}

function followTask({ tokens, session, server }: Request, own: string): boolean {
  const task = tokens.openTask(session, own);
  const backend = task && server.backends.get(task.backend);
  if (!backend) return false;
  session.tasks.set(`${backend.name} ${task.taskId}`, own);
  backend.followTask(session, task.taskId);
  return true;
}

function wants(filter: Filter, { json, method, params }: Message): boolean {
  const text = (key: string): unknown => {
    const span = params && member(json, params.start, key);
    return span && JSON.parse(json.toString("utf8", span.start, span.end));
  };
  switch (method) {
    case "notifications/tools/list_changed":
      return filter.toolsListChanged ?? false;
    case "notifications/prompts/list_changed":
      return filter.promptsListChanged ?? false;
    case "notifications/resources/list_changed":
      return filter.resourcesListChanged ?? false;
    case "notifications/resources/updated":
      return wantsUri(filter.resourceSubscriptions ?? [], text("uri"));
    case "notifications/tasks":
      return filter.taskIds?.includes(text("taskId") as string) ?? false;
    default:
      return false;
  }
}

/** What is updated may be a part of what was asked for (MCP 2026-07-28, resources, subscriptions). */
function wantsUri(wanted: readonly string[], uri: unknown): boolean {
  return (
    typeof uri === "string" && wanted.some((whole) => uri === whole || uri.startsWith(whole.endsWith("/") ? whole : `${whole}/`))
  );
}

/** A notification under the id of the request that it is for. */
function tagged(message: Buffer, id: string): Buffer {
  const { params } = readMessage(message);
  const tag = { [metaKeys.subscriptionId]: id };
  if (!params) return withMembers(message, { params: `{"_meta":{"${metaKeys.subscriptionId}":${id}}}` });
  const before = message.subarray(params.start, params.end);
  const meta = member(before, 0, "_meta");
  const isObject = meta !== undefined && before[meta.start] === 0x7b;
  const after = withMembers(isObject ? before.subarray(meta.start, meta.end) : Buffer.from("{}"), tag);
  return splice(message, [{ ...params, text: withMembers(before, { _meta: after }) }]);
}
