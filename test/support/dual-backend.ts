// A server made with the SDK that knows both eras, and can be started as if it knew only one. What it offers is written once;
// the SDK asks the client by requests on a session, and by `input_required` results without one.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type NodeIncomingMessageLike, toNodeHandler } from "@modelcontextprotocol/node";
import {
  completable,
  createMcpHandler,
  inputRequired,
  inputResponse,
  isLegacyRequest,
  McpServer,
  type ServerContext,
  WebStandardStreamableHTTPServerTransport,
} from "@modelcontextprotocol/server";
import { z } from "zod";
import { createEventStore } from "../conformance/fixture/event-store.ts";
import { sample, text, textOf } from "../conformance/fixture/interactive-tools.ts";
import type { FixtureEras } from "../conformance/fixture.ts";

export interface DualBackend extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Calls of `slow` so far, of all clients. */
  readonly slow: { readonly started: number; readonly cancelled: number };
}

/** The URI of the resource that `write_note` changes. */
export const noteUri = "note://current";

/** What all servers of one backend share: one per session, or one per request without sessions. */
interface World {
  note: string;
  hasExtraTool: boolean;
  readonly slow: { started: number; cancelled: number };
  /** Each is told what changed. */
  readonly listeners: Set<(change: "tools" | "note") => void>;
}

const progressSteps = 5;

/**
 * Tools `echo`, `steps` (progress), `ask_form` (elicits), `sample`, `slow` (ends only when cancelled), `add_tool` and
 * `write_note`; resource `note://current`; prompt `greet` with a completed argument. `eras` defaults to both.
 */
export async function startDualBackend(eras: FixtureEras = "both"): Promise<DualBackend> {
  const world: World = {
    note: "empty",
    hasExtraTool: false,
    slow: { started: 0, cancelled: 0 },
    listeners: new Set(),
  };
  const stateless = createMcpHandler(() => createNoteServer(world), { legacy: "reject" });
  world.listeners.add((change) => {
    if (change === "tools") stateless.notify.toolsChanged();
    else stateless.notify.resourceUpdated(noteUri);
  });
  const sessions = new Map<
    string,
    { readonly transport: WebStandardStreamableHTTPServerTransport; readonly server: McpServer }
  >();

  async function openSession(): Promise<WebStandardStreamableHTTPServerTransport> {
    const server = createNoteServer(world);
    const forget = tellSession(server, world);
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      eventStore: createEventStore(),
      onsessioninitialized: (id) => void sessions.set(id, { transport, server }),
      onsessionclosed: (id) => void sessions.delete(id),
    });
    server.server.onclose = forget;
    await server.connect(transport);
    return transport;
  }

  async function serveSession(request: Request): Promise<Response> {
    const id = request.headers.get("mcp-session-id");
    const transport = id === null ? await openSession() : sessions.get(id)?.transport;
    if (transport) return transport.handleRequest(request);
    const error = { code: -32001, message: "Session not found" };
    return Response.json({ jsonrpc: "2.0", error, id: null }, { status: 404 });
  }

  const handle = toNodeHandler({
    fetch: async (request) => {
      const isSession = eras === "session" || (eras === "both" && (await isLegacyRequest(request)));
      return isSession ? serveSession(request) : stateless.fetch(request);
    },
  });
  // The SDK's own type disagrees with node:http under exactOptionalPropertyTypes.
  const server = createServer((request, response) => void handle(request as NodeIncomingMessageLike, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/mcp`,
    port,
    slow: world.slow,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      const closed = new Promise((resolve) => server.close(resolve));
      await Promise.all([closed, stateless.close(), ...[...sessions.values()].map((session) => session.server.close())]);
    },
  };
}

/** Tells one session of changes; gives what ends that. */
function tellSession(server: McpServer, world: World): () => void {
  const subscribed = new Set<string>();
  server.server.setRequestHandler("resources/subscribe", ({ params }) => {
    subscribed.add(params.uri);
    return {};
  });
  server.server.setRequestHandler("resources/unsubscribe", ({ params }) => {
    subscribed.delete(params.uri);
    return {};
  });
  const listener = (change: "tools" | "note") => {
    if (change === "tools")
      addExtraTool(server); // the SDK says that the list changed
    else if (subscribed.has(noteUri)) void server.server.sendResourceUpdated({ uri: noteUri });
  };
  world.listeners.add(listener);
  return () => void world.listeners.delete(listener);
}

function createNoteServer(world: World): McpServer {
  const server = new McpServer(
    { name: "dual", version: "1.0.0" },
    {
      instructions: "Keeps one note.",
      capabilities: {
        completions: {},
        prompts: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        tools: { listChanged: true },
      },
    },
  );
  registerPlainTools(server);
  registerAskingTools(server);
  registerChangingTools(server, world);
  if (world.hasExtraTool) addExtraTool(server);
  registerNote(server, world);
  return server;
}

function registerPlainTools(server: McpServer): void {
  server.registerTool("echo", { description: "Says it again", inputSchema: z.object({ message: z.string() }) }, ({ message }) =>
    text(message),
  );
  server.registerTool("steps", { description: "Reports each of five steps" }, async ({ mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken;
    for (let progress = 1; progressToken !== undefined && progress <= progressSteps; progress++) {
      const params = { progressToken, progress, total: progressSteps, message: `step ${progress}` };
      await mcpReq.notify({ method: "notifications/progress", params });
    }
    return text("all steps done");
  });
}

function registerAskingTools(server: McpServer): void {
  server.registerTool("ask_form", { description: "Asks the user for a name" }, ({ mcpReq }) => {
    const answer = inputResponse(mcpReq.inputResponses, "who");
    if (answer.kind === "elicit") return text(answer.action === "accept" ? `Hello, ${answer.content?.name}` : answer.action);
    const requestedSchema = {
      type: "object" as const,
      properties: { name: { type: "string" as const, description: "A first name" } },
      required: ["name"],
    };
    return inputRequired({
      inputRequests: { who: inputRequired.elicit({ message: "What is your name?", requestedSchema }) },
    });
  });
  server.registerTool(
    "sample",
    { description: "Asks the client's model", inputSchema: z.object({ prompt: z.string() }) },
    ({ prompt }, { mcpReq }) => {
      const answer = inputResponse(mcpReq.inputResponses, "answer");
      if (answer.kind === "sampling") return text(textOf(answer.result.content));
      return inputRequired({ inputRequests: { answer: sample(prompt, 50) } });
    },
  );
}

function registerChangingTools(server: McpServer, world: World): void {
  const tell = (change: "tools" | "note") => {
    for (const listener of world.listeners) listener(change);
  };
  server.registerTool("slow", { description: "Ends only when it is cancelled" }, ({ mcpReq }) => untilCancelled(mcpReq, world));
  server.registerTool("add_tool", { description: "Makes another tool appear" }, () => {
    const isNew = !world.hasExtraTool;
    world.hasExtraTool = true;
    if (isNew) tell("tools");
    return text("added");
  });
  server.registerTool(
    "write_note",
    { description: "Writes the note anew", inputSchema: z.object({ text: z.string() }) },
    (input) => {
      world.note = input.text;
      tell("note");
      return text("written");
    },
  );
}

async function untilCancelled({ signal }: ServerContext["mcpReq"], { slow }: World) {
  slow.started++;
  if (!signal.aborted) await once(signal, "abort");
  slow.cancelled++;
  return text("cancelled"); // nobody hears it
}

const addExtraTool = (server: McpServer) =>
  server.registerTool("extra", { description: "Was added later" }, () => text("I am new"));

function registerNote(server: McpServer, world: World): void {
  server.registerResource("note", noteUri, { description: "The note", mimeType: "text/plain" }, ({ href }) => ({
    contents: [{ uri: href, mimeType: "text/plain", text: world.note }],
  }));
  const names = ["Ada", "Adele", "Grace"];
  const name = completable(z.string().describe("Whom to greet"), (start) => names.filter((one) => one.startsWith(start)));
  server.registerPrompt("greet", { description: "Greets someone", argsSchema: z.object({ name }) }, (args) => ({
    messages: [{ role: "user", content: { type: "text", text: `Greet ${args.name}` } }],
  }));
}
