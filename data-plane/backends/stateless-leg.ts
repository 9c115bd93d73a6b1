// What stands for a session with a server of the stateless era: requests that each carry what a session would have agreed on,
// and a stream of changes that is asked for. Source: MCP 2026-07-28, base protocol and subscriptions.
import type { Caller } from "../incoming-auth/caller.ts";
import { type EnvelopeMembers, hasEnvelope, withEnvelope } from "../mcp/envelope.ts";
import { errorCodes, errorResponse, type Message, parseSpan, readMessage, resultResponse } from "../mcp/json-rpc.ts";
import { metaKeys, statelessErrors, statelessVersion } from "../mcp/stateless.ts";
import { errorOf } from "../mcp/translate.ts";
import type { ChangeFeed, Follower } from "./change-feed.ts";
import { BackendError } from "./errors.ts";
import type { ClientFacts, Hear, Leg, ListenOptions, RequestOptions, ServerFacts } from "./leg.ts";
import { abortSignalOf } from "./limit.ts";

/** Sends requests that have their envelope, each on its own. */
export interface StatelessWire {
  /** Sends a request and gives the response; throws BackendError. */
  send(message: Message, options: RequestOptions): Promise<Message>;
  /** What the server said of itself last. */
  readonly facts: ServerFacts;
  /** Asks the server again what it is, for `caller`, if any; throws BackendError. */
  discover(signal: AbortSignal, caller?: Caller): Promise<void>;
  /** What changed at the server, shared by all that ask. */
  readonly changes: ChangeFeed;
  /** Several sessions use it, and it can't tell them apart. */
  readonly isShared: boolean;
  /** Why it can't be used any more. */
  readonly closedBy: string | undefined;
}

/** The envelope of requests made for this client. */
export function envelopeOf(client: Pick<ClientFacts, "clientInfo" | "capabilities">): EnvelopeMembers {
  return {
    [metaKeys.protocolVersion]: JSON.stringify(statelessVersion),
    [metaKeys.clientInfo]: client.clientInfo,
    [metaKeys.clientCapabilities]: client.capabilities,
  };
}

/** A leg over a wire. Requests that come without an envelope get this client's. */
export function createStatelessLeg(client: ClientFacts, wire: StatelessWire): Leg {
  const envelope = envelopeOf(client);
  const uris = new Set<string>();
  const tasks = new Set<string>();
  let follower: Follower | undefined;
  let isDeaf = false; // the server has no streams, or refuses them
  let closedBy: string | undefined;

  /** Asks to hear of one resource, or no longer. There is no such request in this era, so the answer is ours. */
  async function subscribe(message: Message, { signal }: RequestOptions): Promise<Message> {
    const { uri } = parseSpan(message, message.params) as { uri: string };
    const { resources } = wire.facts.capabilities as { resources?: { subscribe?: unknown } };
    if (resources?.subscribe !== true || isDeaf) return refusal(message, errorCodes.methodNotFound, "it offers no subscriptions");
    uris.add(uri);
    const isHonoured = (await follower?.add(uri, abortSignalOf(signal))) ?? true;
    if (isHonoured) return readMessage(resultResponse(message.id as string, "{}"));
    uris.delete(uri);
    return refusal(message, errorCodes.invalidParams, "it does not take subscriptions to this resource");
  }

  async function unsubscribe(message: Message): Promise<Message> {
    const { uri } = parseSpan(message, message.params) as { uri: string };
    uris.delete(uri);
    follower?.remove(uri);
    return readMessage(resultResponse(message.id as string, "{}"));
  }

  async function ping(message: Message, { signal, caller = client.caller }: RequestOptions): Promise<Message> {
    await wire.discover(abortSignalOf(signal), caller);
    return readMessage(resultResponse(message.id as string, "{}"));
  }

  const own: Readonly<Record<string, (message: Message, options: RequestOptions) => Promise<Message>>> = {
    ping,
    "resources/subscribe": subscribe,
    "resources/unsubscribe": unsubscribe,
  };

  async function request(message: Message, options: RequestOptions): Promise<Message> {
    const answer = own[message.method as string];
    if (answer) return answer(message, options);
    const enveloped = hasEnvelope(message) ? message : withEnvelope(message, envelope);
    const sending = { ...options, caller: options.caller ?? client.caller };
    const response = await wire.send(enveloped, sending);
    if (!response.error || errorOf(response).code !== statelessErrors.headerMismatch) return response;
    // It did not run. What we know of the tool's headers is out of date: once more, with fresh ones.
    const headers = await options.freshHeaders?.();
    return headers ? wire.send(enveloped, { ...sending, headers }) : response;
  }

  async function listen(hear: Hear, { signal, onOpen, wantsLists }: ListenOptions): Promise<boolean> {
    const over = Promise.withResolvers<undefined>();
    const finish = (): void => over.resolve(undefined);
    isDeaf = false;
    // Whoever watches over the lists wants to see at once whether the server is still there.
    const watching = wantsLists ? { onLost: finish, ...(onOpen ? { onOpen } : {}) } : {};
    const following = wire.changes.follow({ hear, uris, wantsLists: wantsLists ?? false, ...watching });
    follower = following;
    for (const taskId of tasks) void following.addTask(taskId);
    const ends = [signal, following.ended];
    for (const end of ends) end.addEventListener("abort", finish, { once: true });
    if (ends.some((end) => end.aborted)) finish();
    try {
      const isOffered = await Promise.race([following.ready, over.promise]);
      isDeaf = isOffered === false;
      if (isDeaf) return false;
      if (!wantsLists) onOpen?.(); // there is nothing to wait for yet
      await over.promise;
      return true;
    } finally {
      for (const end of ends) end.removeEventListener("abort", finish);
      following.close();
      if (follower === following) follower = undefined;
    }
  }

  return {
    get facts() {
      return wire.facts;
    },
    isShared: wire.isShared,
    get closedBy() {
      return closedBy ?? wire.closedBy;
    },
    request,
    // There is nothing to be told of: no sessions, no questions.
    notify: async () => undefined,
    listen,
    async followTask(taskId, isWanted) {
      if (isWanted) tasks.add(taskId);
      else tasks.delete(taskId);
      if (isWanted) return (await follower?.addTask(taskId)) ?? false;
      follower?.removeTask(taskId);
      return true;
    },
    async close() {
      closedBy ??= "it was closed";
    },
  };
}

function refusal({ id }: Message, code: number, message: string): Message {
  return readMessage(errorResponse(id, { code, message }));
}

/**
 * Reads the answer to `server/discover`; undefined when it says that the server is of the session era, "again" when it refused
 * the revision that it says it speaks. Throws BackendError.
 */
export function readDiscovery(response: Message): ServerFacts | "again" | undefined {
  if (response.error) {
    const { code, data } = errorOf(response);
    const { supported } = Object(data) as { supported?: unknown };
    if (code !== statelessErrors.unsupportedVersion || !Array.isArray(supported)) return undefined;
    return supported.includes(statelessVersion) ? "again" : ours(supported);
  }
  const result = Object(parse(response)) as Record<string, unknown>;
  const { supportedVersions, capabilities, instructions } = result;
  if (!Array.isArray(supportedVersions) || typeof capabilities !== "object" || capabilities === null) return undefined;
  if (!supportedVersions.includes(statelessVersion)) return ours(supportedVersions);
  return {
    era: "stateless",
    protocolVersion: statelessVersion,
    capabilities: capabilities as Record<string, unknown>,
    instructions: typeof instructions === "string" && instructions.trim() !== "" ? instructions : undefined,
  };
}

/** A server without our revision may still have one of the session era; one with neither can't be talked to. */
function ours(versions: readonly unknown[]): undefined {
  if (versions.length === 0 || versions.some((version) => typeof version === "string" && version < statelessVersion))
    return undefined;
  const shown = JSON.stringify(versions.slice(0, 5)).slice(0, 100);
  throw new BackendError("bad_answer", "not_executed", `speaks MCP revisions ${shown}, which we do not`);
}

function parse(response: Message): unknown {
  try {
    return parseSpan(response, response.result);
  } catch {
    return undefined;
  }
}
