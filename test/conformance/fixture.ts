// The MCP server that the official suite looks for behind the gateway: every name it asks for, in both eras, on one URL.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type NodeIncomingMessageLike, toNodeHandler } from "@modelcontextprotocol/node";
import {
  createMcpHandler,
  hostHeaderValidationResponse,
  isLegacyRequest,
  localhostAllowedHostnames,
  localhostAllowedOrigins,
  type McpServer,
  originValidationResponse,
  WebStandardStreamableHTTPServerTransport,
} from "@modelcontextprotocol/server";
import { type Changes, createChanges } from "./fixture/changes.ts";
import { createEventStore } from "./fixture/event-store.ts";
import { listenForTasks } from "./fixture/listen.ts";
import { createFixtureServer } from "./fixture/server.ts";
import { createTaskServer, isForTasks } from "./fixture/task-server.ts";
import { createTasks } from "./fixture/tasks.ts";

/** Which revisions the fixture speaks: up to 2025-11-25 with sessions, 2026-07-28 without, or both. */
export type FixtureEras = "session" | "stateless" | "both";

export interface Fixture extends AsyncDisposable {
  readonly url: string;
}

const sessionsMax = 200;

/** Listens on a free port of 127.0.0.1; `eras` defaults to both. */
export async function startFixture(eras: FixtureEras = "both"): Promise<Fixture> {
  const changes = createChanges();
  const sessions = createSessions(changes);
  const tasks = createTasks();
  const stateless = createMcpHandler(
    ({ requestInfo }) =>
      requestInfo && isForTasks(requestInfo.headers) ? createTaskServer(tasks) : createFixtureServer(changes, true),
    { legacy: "reject" },
  );
  // The stateless handler has subscribers of its own; sessions listen through their servers.
  changes.onChange((kind) => (kind === "tools" ? stateless.notify.toolsChanged() : stateless.notify.promptsChanged()));

  async function serve(request: Request): Promise<Response> {
    const refusal =
      hostHeaderValidationResponse(request, localhostAllowedHostnames()) ??
      originValidationResponse(request, localhostAllowedOrigins());
    if (refusal) return refusal;
    if (eras === "session" || (eras === "both" && (await isLegacyRequest(request)))) return sessions.serve(request);
    return (await listenForTasks(request, { changes, tasks })) ?? stateless.fetch(request);
  }

  const handle = toNodeHandler({ fetch: serve });
  // The SDK's own type disagrees with node:http under exactOptionalPropertyTypes.
  const server = createServer((request, response) => void handle(request as NodeIncomingMessageLike, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/mcp`,
    [Symbol.asyncDispose]: async () => {
      tasks[Symbol.dispose]();
      server.closeAllConnections();
      await Promise.all([stateless.close(), sessions.close(), new Promise((resolve) => server.close(resolve))]);
    },
  };
}

/** One server per session; the oldest goes when there are too many, because clients may forget to say goodbye. */
function createSessions(changes: Changes) {
  const sessions = new Map<string, { transport: WebStandardStreamableHTTPServerTransport; server: McpServer }>();

  async function end(id: string): Promise<void> {
    const session = sessions.get(id);
    sessions.delete(id);
    await session?.server.close();
  }

  async function open(): Promise<WebStandardStreamableHTTPServerTransport> {
    const server = createFixtureServer(changes);
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      eventStore: createEventStore(),
      retryInterval: 50,
      onsessioninitialized: (id) => void sessions.set(id, { transport, server }),
      onsessionclosed: (id) => void sessions.delete(id),
    });
    await server.connect(transport);
    const oldest = sessions.keys().next().value;
    if (sessions.size >= sessionsMax && oldest !== undefined) await end(oldest);
    return transport;
  }

  return {
    serve: async (request: Request): Promise<Response> => {
      const id = request.headers.get("mcp-session-id");
      const transport = id === null ? await open() : sessions.get(id)?.transport;
      if (transport) return transport.handleRequest(request);
      const error = { code: -32001, message: "Session not found" };
      return Response.json({ jsonrpc: "2.0", error, id: null }, { status: 404 });
    },
    close: async () => void (await Promise.all([...sessions.keys()].map(end))),
  };
}
