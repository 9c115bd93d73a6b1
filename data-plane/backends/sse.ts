// A server that speaks the HTTP+SSE transport of MCP 2024-11-05: one event stream down, one POST per message up.
//
// The SDK's transport finds the endpoint, keeps requests within the server's origin and posts. Its parsing changes integers beyond
// 2^53, so message bytes pass around it: those that come are taken from the stream below it, those that go are put into the
// request it makes.
import { SSEClientTransport, SseError } from "@modelcontextprotocol/sdk/client/sse.js";
import type { JSONRPCMessage } from "@modelcontextprotocol/sdk/types.js";
import { Agent, fetch as undiciFetch } from "undici";
import type { Log } from "../../common/log.ts";
import { createEventParser } from "../mcp/event-stream.ts";
import type { Credential, HeaderList } from "../outgoing-auth/credential.ts";
import { BackendError, reasonOf } from "./errors.ts";
import { printable } from "./lines.ts";
import type { Pipe, PipeEvents } from "./pipe.ts";
import { type Asker, type Refusals, sendWith } from "./shown.ts";

/** Where to connect. */
export interface SseOptions {
  readonly name: string;
  /** Of the event stream, usually `…/sse`. */
  readonly url: string;
  /** Shown with every request, for whoever it is by then. */
  readonly credential: Credential;
  readonly asker: () => Asker;
  readonly log: Log;
  /** Milliseconds until the server must have named its endpoint. Default 10,000. */
  readonly connectMs?: number;
}

const messageBytesMax = 16 * 1024 * 1024;
const answerMs = 30_000;

/** Connects; rejects with a sentence when the server can't be reached or names no endpoint. Never reconnects: `onClose` tells. */
export async function openSse(options: SseOptions, events: PipeEvents): Promise<Pipe> {
  const { name, credential, asker, connectMs = 10_000 } = options;
  const url = new URL(options.url);
  const log = options.log.child({ backend: name });
  // No body timeout: the event stream may rightly be silent for hours.
  const agent = new Agent({ bodyTimeout: 0, headersTimeout: answerMs, connect: { timeout: connectMs } });
  const outgoing = new Map<string, Buffer>();
  let sent = 0;
  const state = { isOpen: false, isOver: false };

  const transport = new SSEClientTransport(url, { fetch: exchange });
  transport.onerror = (error) => {
    log.debug({ err: error }, "HTTP+SSE transport");
    // The SDK would now reconnect by itself, to a server that no longer knows this session.
    if (error instanceof SseError) over(new Error(`"${name}" closed its event stream`, { cause: error }));
  };

  async function exchange(target: string | URL, init: RequestInit = {}): Promise<Response> {
    const body = outgoing.get(String(init.body)) ?? init.body;
    const send = async (shown: HeaderList, refusals: Refusals): Promise<Response> => {
      const headers = new Headers(init.headers);
      for (let i = 0; i < shown.length; i += 2) headers.set(shown[i] as string, shown[i + 1] as string);
      // What is shown is shown to this server alone.
      const request = { ...init, headers, body, dispatcher: agent, redirect: "error" } as Parameters<typeof undiciFetch>[1];
      const response = (await undiciFetch(target, request)) as unknown as Response;
      refusals.noteStart(response.status, Object.fromEntries(response.headers));
      if (response.status === 401 && init.method !== "POST")
        throw new BackendError("unauthorized", "not_executed", "answered HTTP 401");
      return response;
    };
    if (init.method === "POST") return sendWith(credential, asker(), (...shown) => sendOnce(() => send(...shown)));
    const response = await sendWith(credential, asker(), send);
    if (!response.ok || !response.body) return response;
    const { status, headers } = response;
    return new Response(response.body.pipeThrough(tap()), { status, headers });
  }

  function tap(): TransformStream<Uint8Array, Uint8Array> {
    const parser = createEventParser(messageBytesMax);
    let hasEndpoint = false;
    return new TransformStream({
      transform(chunk, controller) {
        // Once it knows the endpoint, the transport has no use for the bytes.
        if (!hasEndpoint) controller.enqueue(chunk);
        for (const event of parser.push(Buffer.from(chunk))) {
          hasEndpoint ||= event.type === "endpoint";
          if (event.type === "message" && !state.isOver) events.onMessage(event.data);
        }
      },
    });
  }

  function over(reason: Error | undefined): void {
    const isFirst = state.isOpen && !state.isOver;
    state.isOver = true;
    if (!isFirst) return;
    void shut(transport, agent);
    events.onClose(reason);
  }

  const failure = await startWithin(transport, connectMs);
  if (failure || state.isOver) {
    state.isOver = true;
    await shut(transport, agent);
    throw new Error(`cannot connect "${name}" to ${url.origin}${url.pathname}: ${explain(failure)}`, { cause: failure });
  }
  state.isOpen = true;

  return {
    send: async (message) => {
      if (state.isOver) throw new Error(`"${name}" is not connected`);
      const key = JSON.stringify(`message ${++sent}`);
      outgoing.set(key, message);
      try {
        await transport.send({ toJSON: () => JSON.parse(key) } as unknown as JSONRPCMessage);
      } finally {
        outgoing.delete(key);
      }
    },
    setProtocolVersion: (version) => transport.setProtocolVersion(version),
    close: async () => {
      over(undefined);
      await shut(transport, agent);
    },
  };
}

/** Gives the reason when the transport does not start; never rejects. */
async function startWithin(transport: SSEClientTransport, ms: number): Promise<Error | undefined> {
  const { promise: late, resolve } = Promise.withResolvers<Error>();
  const timer = setTimeout(() => resolve(new Error(`no endpoint within ${ms / 1000} s`)), ms);
  try {
    return await Promise.race([
      late,
      transport.start().then(
        () => undefined,
        (error: Error) => error,
      ),
    ]);
  } finally {
    clearTimeout(timer);
  }
}

/** Makes one POST; throws BackendError with what is known of the message. The server may have run what it then failed to take. */
async function sendOnce(post: () => Promise<Response>): Promise<Response> {
  const response = await post().catch((error: unknown) => {
    const { cause = error } = error as { cause?: unknown };
    throw new BackendError("unavailable", isConnectFault(cause) ? "not_executed" : "unknown", reasonOf(cause), error);
  });
  if (response.status < 400) return response;
  await response.body?.cancel();
  const { status } = response;
  if (status >= 500) throw new BackendError("unavailable", "unknown", `answered HTTP ${status}`);
  throw new BackendError(
    status === 401 || status === 403 ? "unauthorized" : "refused",
    "not_executed",
    `answered HTTP ${status}`,
    undefined,
    { asksForLess: status === 429 },
  );
}

/** Nothing was sent: there was no connection. */
function isConnectFault(cause: unknown): boolean {
  const { code, syscall } = cause as { code?: unknown; syscall?: unknown };
  return code === "UND_ERR_CONNECT_TIMEOUT" || syscall === "connect" || syscall === "getaddrinfo";
}

async function shut(transport: SSEClientTransport, agent: Agent): Promise<void> {
  await transport.close();
  await agent.destroy();
}

function explain(failure: Error | undefined): string {
  if (!failure) return "the event stream ended at once";
  return printable(Buffer.from(failure.message.replace(/^SSE error: /, "")));
}
