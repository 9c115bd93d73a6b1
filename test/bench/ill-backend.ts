// A program: `ill-backend.ts <illness>` is a stateless MCP server that answers what lists it and is ill when a tool of it is called. Tells
// its port on standard output.
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const chunk = Buffer.alloc(1024 * 1024, "x");

/** What becomes of a call. */
const illnesses = {
  hangs: () => undefined,
  resets: (response) => void response.socket?.resetAndDestroy(),
  "answers garbage": (response) => void json(response).end("}{".repeat(1_000)),
  trickles(response) {
    json(response).write('{"jsonrpc"');
    const timer = setInterval(() => response.write(" "), 100);
    response.once("close", () => clearInterval(timer));
  },
  "answers a gigabyte"(response) {
    json(response).write('{"jsonrpc":"2.0","id":1,"result":"');
    let left = 1024;
    const pour = (): void => {
      while (left-- > 0) if (!response.write(chunk)) return void response.once("drain", pour);
      response.end('"}');
    };
    pour();
  },
  "flaps each second"(response, id) {
    if (Math.floor(Date.now() / 1_000) % 2 === 0) response.socket?.resetAndDestroy();
    else json(response).end(`{"jsonrpc":"2.0","id":${id},"result":{"content":[]}}`);
  },
} satisfies Record<string, (response: ServerResponse, id: string) => void>;

export type Illness = keyof typeof illnesses;
export const allIllnesses = Object.keys(illnesses) as Illness[];

const json = (response: ServerResponse): ServerResponse => response.writeHead(200, { "content-type": "application/json" });

if (import.meta.main) {
  const fallIll: (response: ServerResponse, id: string) => void = illnesses[process.argv[2] as Illness];
  const results: Record<string, string> = {
    initialize: `{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"ill","version":"1"}}`,
    "tools/list": `{"tools":[{"name":"hello","inputSchema":{"type":"object"}}]}`,
    ping: "{}",
  };
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => {
      body += text;
    });
    request.once("end", () => {
      const { id, method } = body === "" ? {} : (JSON.parse(body) as { id?: unknown; method?: string });
      const result = results[method ?? ""];
      if (request.method !== "POST") response.writeHead(405).end();
      else if (method === "tools/call") fallIll(response, JSON.stringify(id));
      else if (id === undefined) response.writeHead(202).end();
      else if (result) json(response).end(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":${result}}`);
      else json(response).end(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":{"code":-32601,"message":"no"}}`);
    });
    response.on("error", () => undefined);
  });
  server.listen(0, "127.0.0.1", () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));
}
