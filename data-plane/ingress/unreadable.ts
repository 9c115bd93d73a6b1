// What clients hear when Node's parser gives up on what they sent, or on waiting for it. Then the connection ends.
import { type ServerResponse, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import { errorCodes, errorResponse } from "../mcp/json-rpc.ts";

const answers: Readonly<Record<string, readonly [status: number, message: string]>> = {
  HPE_HEADER_OVERFLOW: [431, "the headers are too large"],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, "the chunk extensions are too large"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "the request did not come in time"],
};
const unreadable = [400, "this is not HTTP/1.1"] as const;

/** For `clientError` of a server. */
export function answerUnreadable(error: Error & { code?: string }, socket: Socket): void {
  if (socket.writable && isItsTurn(socket)) {
    const [status, message] = answers[error.code ?? ""] ?? unreadable;
    const body = errorResponse(undefined, { code: errorCodes.invalidRequest, message });
    const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n`;
    socket.write(`${head}Connection: close\r\n\r\n${body}`);
  }
  socket.destroy(error);
}

// A client takes what comes next for the answer to what it asked first. While an earlier request, which came whole, is still being
// answered, that would say of a call that it was refused, though it runs.
function isItsTurn(socket: Socket): boolean {
  const { _httpMessage: answering } = socket as { _httpMessage?: ServerResponse | null };
  return !answering || (!answering.headersSent && !answering.req.complete);
}
