// An HTTP API on a real socket, answered by a function, that misbehaves when a test says so; and what came to it.
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { TlsOptions } from "node:tls";

export interface ApiRequest {
  readonly method: string;
  /** Of the path with its query. */
  readonly url: URL;
  readonly headers: IncomingHttpHeaders;
}

/** What a request gets instead of its answer. */
export type Fault =
  | { readonly status: number; readonly body?: string; readonly headers?: Readonly<Record<string, string>> }
  /** The right answer, late. */
  | { readonly delayMs: number }
  /** No answer, or an answer that stops after its head. */
  | "hang"
  | "hang after the head"
  /** The connection is closed, without an answer or in the middle of one. */
  | "hang up"
  | "hang up halfway";

export interface Reply {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** JSON, unless it is a text. */
  readonly body: unknown;
}

/** An answer that stays open. */
export interface Stream {
  readonly request: ApiRequest;
  write(text: string): void;
  /** Ends it as a server does. */
  end(): void;
  /** Breaks the connection, after a last piece. */
  cut(text?: string): void;
}

export interface ApiServer extends AsyncDisposable {
  /** `http://127.0.0.1:PORT`, `https://…`, or `unix:///path`. */
  readonly address: string;
  readonly requests: readonly ApiRequest[];
  readonly streams: ReadonlySet<Stream>;
  /** From now on, requests for which it gives a fault get that; without it, none. */
  misbehave(how?: (request: ApiRequest) => Fault | undefined): void;
  /** Open ones. */
  connections(): number;
  /** Stops listening and breaks every connection. */
  down(): Promise<void>;
  /** Listens again at the same address. */
  up(): Promise<void>;
}

/** `stream` keeps an answer open; its head is sent at once. */
export type Respond = (request: ApiRequest) => Reply | { readonly stream: (stream: Stream) => void };

export async function startApiServer(
  respond: Respond,
  { socketPath, tls }: { socketPath?: string; tls?: TlsOptions } = {},
): Promise<ApiServer> {
  let misbehaviour: ((request: ApiRequest) => Fault | undefined) | undefined;
  const requests: ApiRequest[] = [];
  const streams = new Set<Stream>();
  const sockets = new Set<Socket>();
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    const seen: ApiRequest = {
      method: request.method ?? "",
      url: new URL(request.url ?? "", "http://api"),
      headers: request.headers,
    };
    requests.push(seen);
    const fault = misbehaviour?.(seen);
    if (typeof fault === "object" && "delayMs" in fault) {
      setTimeout(() => answer(seen, response), fault.delayMs).unref();
    } else if (fault === undefined || fault === "hang after the head" || fault === "hang up halfway")
      answer(seen, response, fault);
    else if (fault === "hang up") response.destroy();
    else if (fault !== "hang") send(response, { ...fault, body: fault.body ?? "" });
  };
  const server = tls ? createTlsServer(tls, listener) : createServer(listener);
  server.keepAliveTimeout = 60_000;
  server.on(tls ? "secureConnection" : "connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => {});
  });

  function answer(request: ApiRequest, response: ServerResponse, fault?: "hang after the head" | "hang up halfway"): void {
    const reply = respond(request);
    if (!("stream" in reply)) return send(response, reply, fault);
    response.writeHead(200, { "content-type": "application/json" });
    response.flushHeaders();
    const stream: Stream = {
      request,
      write: (text) => response.write(text),
      end() {
        streams.delete(stream);
        response.end();
      },
      cut(text) {
        streams.delete(stream);
        if (text === undefined) response.destroy();
        else response.write(text, () => response.destroy());
      },
    };
    streams.add(stream);
    response.once("close", () => streams.delete(stream));
    if (fault === undefined) reply.stream(stream);
    if (fault === "hang up halfway") stream.cut('{"ha');
  }

  let port = 0;
  const api: ApiServer = {
    get address() {
      return socketPath ? `unix://${socketPath}` : `${tls ? "https" : "http"}://127.0.0.1:${port}`;
    },
    requests,
    streams,
    misbehave(how) {
      misbehaviour = how;
    },
    connections: () => sockets.size,
    async down() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
    async up() {
      if (socketPath) server.listen(socketPath);
      else server.listen(port, "127.0.0.1");
      await once(server, "listening");
      if (!socketPath) port = (server.address() as AddressInfo).port;
    },
    async [Symbol.asyncDispose]() {
      if (server.listening) await api.down();
    },
  };
  await api.up();
  return api;
}

function send(response: ServerResponse, reply: Reply, fault?: "hang after the head" | "hang up halfway"): void {
  const text = typeof reply.body === "string" ? reply.body : JSON.stringify(reply.body);
  response.writeHead(reply.status ?? 200, { "content-type": "application/json", ...reply.headers });
  if (fault === undefined) return void response.end(text);
  response.write(text.slice(0, text.length / 2), () => fault === "hang up halfway" && response.destroy());
}
