// The SDK's client of both eras: it says which one it got, and its calls read the same in either.
import {
  Client,
  type ClientCapabilities,
  type CreateMessageRequest,
  type CreateMessageResult,
  type ElicitRequest,
  type ElicitResult,
  type ListRootsResult,
  type RequestOptions,
  StreamableHTTPClientTransport,
  type SubscriptionFilter,
  type VersionNegotiationMode,
} from "@modelcontextprotocol/client";

/** With sessions up to 2025-11-25, or stateless since 2026-07-28. */
export type Era = "session" | "stateless";

export interface DualClientOptions {
  /** `auto` asks the server; the others insist. */
  readonly era: "auto" | Era;
  /** Default: what the handlers below make possible. */
  readonly capabilities?: ClientCapabilities;
  readonly onElicit?: (params: ElicitRequest["params"]) => ElicitResult | Promise<ElicitResult>;
  readonly onSample?: (params: CreateMessageRequest["params"]) => CreateMessageResult | Promise<CreateMessageResult>;
  readonly onRoots?: () => ListRootsResult | Promise<ListRootsResult>;
}

/** A notification as the client was told of it. */
export interface Heard {
  readonly method: string;
  readonly params: Record<string, unknown>;
}

/** A connected client; closing it ends its session, if it has one. */
export interface DualClient extends AsyncDisposable {
  readonly client: Client;
  /** Negotiated. */
  readonly era: Era;
  /** Everything heard besides progress, oldest first. */
  readonly notifications: readonly Heard[];
  /** What the client could not make sense of, oldest first. */
  readonly errors: readonly Error[];
  /** Past every cache, all pages. */
  toolNames(): Promise<string[]>;
  /** Calls a tool and gives its first text; throws what the client throws. */
  call(name: string, args?: Record<string, unknown>, options?: RequestOptions): Promise<string>;
  /**
   * Begins to hear of changes in the way of the era: a listen stream, or a subscription of each resource (a session hears of
   * lists unasked). Gives what the server took on, and its end.
   */
  watch(filter: SubscriptionFilter): Promise<AsyncDisposable & { readonly honored: SubscriptionFilter }>;
}

const modes: Record<DualClientOptions["era"], VersionNegotiationMode> = {
  auto: "auto",
  session: "legacy",
  stateless: { pin: "2026-07-28" },
};

/** Connects to a streamable HTTP endpoint; throws when the server does not have the era. */
export async function openDualClient(url: string, options: DualClientOptions): Promise<DualClient> {
  const { onElicit, onSample, onRoots } = options;
  const possible: ClientCapabilities = {
    ...(onElicit && { elicitation: { form: {} } }),
    ...(onSample && { sampling: {} }),
    ...(onRoots && { roots: {} }),
  };
  const capabilities = options.capabilities ?? possible;
  const versionNegotiation = { mode: modes[options.era] };
  const client = new Client({ name: "dual-client", version: "1.0.0" }, { capabilities, versionNegotiation });
  if (onElicit) client.setRequestHandler("elicitation/create", ({ params }) => onElicit(params));
  if (onSample) client.setRequestHandler("sampling/createMessage", ({ params }) => onSample(params));
  if (onRoots) client.setRequestHandler("roots/list", () => onRoots());
  const notifications: Heard[] = [];
  const errors: Error[] = [];
  client.fallbackNotificationHandler = async ({ method, params }) => void notifications.push({ method, params: params ?? {} });
  client.onerror = (error) => errors.push(error);
  const transport = new StreamableHTTPClientTransport(new URL(url));
  await client.connect(transport);
  const era: Era = client.getProtocolEra() === "modern" ? "stateless" : "session";

  async function watch(filter: SubscriptionFilter) {
    if (era === "stateless") {
      const listening = await client.listen(filter);
      return { honored: listening.honoredFilter, [Symbol.asyncDispose]: () => listening.close() };
    }
    const uris = filter.resourceSubscriptions ?? [];
    for (const uri of uris) await client.subscribeResource({ uri });
    return {
      honored: filter,
      [Symbol.asyncDispose]: async () => {
        for (const uri of uris) await client.unsubscribeResource({ uri });
      },
    };
  }

  return {
    client,
    era,
    notifications,
    errors,
    toolNames: async () => (await client.listTools(undefined, { cacheMode: "refresh" })).tools.map(({ name }) => name),
    call: async (name, args = {}, requestOptions) => {
      const { content } = await client.callTool({ name, arguments: args }, requestOptions);
      return (content as { text?: string }[])[0]?.text ?? "";
    },
    watch,
    [Symbol.asyncDispose]: async () => {
      await transport.terminateSession().catch(() => undefined); // the server may be gone already
      await client.close();
    },
  };
}
