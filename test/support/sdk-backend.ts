// A small server made with the official SDK, stateful, as most public servers are.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { z } from "zod";

/** Tools `search` (text), `note` (remembers within the session) and `notes` (recalls them); one resource, one prompt. */
export async function startSdkBackend(name: string): Promise<AsyncDisposable & { readonly url: string; readonly port: number }> {
  const transports = new Map<string, StreamableHTTPServerTransport>();
  const server = createServer(async (request, response) => {
    const known = transports.get(String(request.headers["mcp-session-id"]));
    const transport = known ?? (await openSession());
    await transport.handleRequest(request, response);
  });

  async function openSession(): Promise<StreamableHTTPServerTransport> {
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      onsessioninitialized: (id) => void transports.set(id, transport),
      onsessionclosed: (id) => void transports.delete(id),
    });
    // The SDK's own types disagree under exactOptionalPropertyTypes.
    await createMcpServer(name).connect(transport as Transport);
    return transport;
  }

  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/mcp`,
    port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function createMcpServer(name: string): McpServer {
  const server = new McpServer({ name, version: "1.0.0" }, { instructions: `Use ${name} wisely.` });
  const notes: string[] = [];
  const text = (value: string) => ({ content: [{ type: "text" as const, text: value }] });
  server.registerTool("search", { description: `Searches ${name}`, inputSchema: { query: z.string() } }, ({ query }) =>
    text(`${name} found ${query}`),
  );
  server.registerTool("note", { description: "Remembers a text", inputSchema: { text: z.string() } }, (input) => {
    notes.push(input.text);
    return text("noted");
  });
  server.registerTool("notes", { description: "Recalls the texts" }, () => text(notes.join(",")));
  server.registerResource("readme", `doc://${name}/readme`, { description: "About" }, (uri) => ({
    contents: [{ uri: uri.href, text: `I am ${name}` }],
  }));
  server.registerPrompt("greet", { description: "Greets" }, () => ({
    messages: [{ role: "user", content: { type: "text", text: `Greet from ${name}` } }],
  }));
  return server;
}
