// HTTP-level refusals of the MCP endpoint: a status and a JSON-RPC error, nearly always without an id.
import type { ServerResponse } from "node:http";
import { errorCodes, errorResponse } from "../mcp/json-rpc.ts";
import { cutWhenStalled } from "./stall-watch.ts";

interface RefusalOptions {
  /** Raw text of the request's id, when it is known. */
  readonly id?: string | undefined;
  /** JSON-RPC code; default invalid request. */
  readonly code?: number;
  /** Of the JSON-RPC error. */
  readonly data?: unknown;
  readonly headers?: Record<string, string>;
}

/**
 * The connection is closed when the request was not read to its end, and after any 400: what a client, or somebody on the way, got
 * wrong once may be where requests begin.
 */
export function refuse(response: ServerResponse, status: number, message: string, options: RefusalOptions = {}): void {
  if (response.headersSent || response.destroyed) return;
  const body = errorResponse(options.id, { code: options.code ?? errorCodes.invalidRequest, message, data: options.data });
  const close = response.req.complete && status !== 400 ? {} : { connection: "close" };
  response.writeHead(status, { "content-type": "application/json", "content-length": body.length, ...close, ...options.headers });
  // What is wrong as HTTP may be followed by anything: that connection ends at once.
  if (response.req.complete || options.headers?.connection === "close") response.end(body);
  else {
    response.write(body);
    linger(response);
  }
  if (response.writableLength > 0) cutWhenStalled(response);
}

const lingerMs = 1_000;

/**
 * A connection that is closed while something comes in is reset, and the client may lose the answer that it has not read yet. So
 * what comes is thrown away for a moment; the answer is whole already.
 */
function linger(response: ServerResponse): void {
  const { req: request } = response;
  const end = (): void => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(end, lingerMs);
  request.once("end", end).once("close", end);
  request.resume();
}
