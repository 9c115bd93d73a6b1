// A program: a stateless-minded MCP server on raw sockets that costs next to nothing, so that what is in front of it is what is seen.
// `canned-backend.ts <tools>`: so many tools, of which `small`, `4k`, `100k` and `1m` answer with results of that size, and `events` with ten
// progress events before its result. Tells its port on standard output.
import { type AddressInfo, createServer, type Socket } from "node:net";

const sizes = { small: 20, "4k": 4 * 1024, "100k": 100 * 1024, "1m": 1024 * 1024 } as const;
export type Size = keyof typeof sizes;
export const allSizes = Object.keys(sizes) as Size[];

const resultOf = (bytes: number): string => `{"content":[{"type":"text","text":"${"x".repeat(bytes)}"}]}`;
const results = new Map<string, string>(Object.entries(sizes).map(([name, bytes]) => [name, resultOf(bytes)]));
const progress = Array.from({ length: 10 }, (_, i) => {
  const params = { progressToken: "p", progress: i, total: 10 };
  return `event: message\ndata: ${JSON.stringify({ jsonrpc: "2.0", method: "notifications/progress", params })}\n\n`;
}).join("");

function toolsList(count: number): string {
  const names = [...allSizes, "events", ...Array.from({ length: count }, (_, i) => `tool_${i}`)].slice(0, Math.max(count, 5));
  const inputSchema = { type: "object", properties: { text: { type: "string", description: "What is said." } } };
  return JSON.stringify({ tools: names.map((name) => ({ name, description: `The tool ${name}.`, inputSchema })) });
}

function main(tools: string): void {
  const facts = { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "canned", version: "1" } };
  const plain: Readonly<Record<string, string>> = { initialize: JSON.stringify(facts), "tools/list": tools, ping: "{}" };

  function answer(socket: Socket, head: string, body: string): void {
    if (!head.startsWith("POST")) return void socket.write("HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n");
    const method = /"method":"([^"]+)"/.exec(body)?.[1] ?? "";
    const id = /"id":("[^"]*"|\d+)/.exec(body)?.[1];
    if (id === undefined) return void socket.write("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    const tool = method === "tools/call" ? (/"name":"([^"]+)"/.exec(body)?.[1] ?? "") : "";
    const result = tool === "" ? plain[method] : (results.get(tool) ?? resultOf(20));
    const error = `{"jsonrpc":"2.0","id":${id},"error":{"code":-32601,"message":"no"}}`;
    const json = result === undefined ? error : `{"jsonrpc":"2.0","id":${id},"result":${result}}`;
    const text = tool === "events" ? `${progress}event: message\ndata: ${json}\n\n` : json;
    const type = tool === "events" ? "text/event-stream" : "application/json";
    socket.write(`HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\ncontent-length: ${text.length}\r\n\r\n${text}`, "latin1");
  }

  const server = createServer((socket) => {
    let seen = "";
    socket.setNoDelay(true).setEncoding("latin1");
    socket.on("error", () => undefined);
    socket.on("data", (text: string) => {
      seen += text;
      for (;;) {
        const headEnd = seen.indexOf("\r\n\r\n");
        if (headEnd < 0) return;
        const head = seen.slice(0, headEnd);
        const end = headEnd + 4 + Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
        if (seen.length < end) return;
        answer(socket, head, seen.slice(headEnd + 4, end));
        seen = seen.slice(end);
      }
    });
  });
  server.listen(0, "127.0.0.1", () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));
}

if (import.meta.main) main(toolsList(Number(process.argv[2])));
