// Sends a request to the replica that has its session, and that replica's answer back, as they come.
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { Agent } from "undici";
import { refuse } from "./refuse.ts";
import { cutWhenStalled } from "./stall-watch.ts";

export interface OwnerForwarder extends AsyncDisposable {
  /** Whether a request was sent here by another replica; it is not sent on, or two confused replicas would play ball. */
  isForwarded(request: IncomingMessage): boolean;
  /** Never rejects. An owner that can't be reached has taken the session with it: 404, so that the client opens another. */
  forward(owner: string, request: IncomingMessage, response: ServerResponse, body: Buffer | undefined): Promise<void>;
}

const hopHeader = "vmcp-hop";
const requestHeaders = ["accept", "authorization", "content-type", "last-event-id", "mcp-protocol-version", "mcp-session-id"];
const responseHeaders = [
  "allow",
  "cache-control",
  "content-type",
  "mcp-session-id",
  "retry-after",
  "www-authenticate",
  "x-accel-buffering",
];

/** Keeps connections to the other replicas. */
export function createOwnerForwarder(): OwnerForwarder {
  // Answers take as long as backends and people do; only connecting has a limit here, the owner has the others.
  const agent = new Agent({ connect: { timeout: 2_000 }, headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 4_000 });

  return {
    isForwarded: ({ headers }) => headers[hopHeader] !== undefined,
    async forward(owner, request, response, body) {
      const gone = new AbortController();
      response.once("close", () => gone.abort());
      const headers = { ...pick(request.headers, requestHeaders), [hopHeader]: "1" };
      const { method = "GET", url = "/" } = request;
      try {
        const options = { origin: owner, path: url, method: method as "GET", headers, signal: gone.signal };
        const answer = await agent.request(body ? { ...options, body } : options);
        response.writeHead(answer.statusCode, pick(answer.headers, responseHeaders));
        response.flushHeaders();
        cutWhenStalled(response);
        await pipeline(answer.body, response);
      } catch (error) {
        if (response.headersSent) response.destroy();
        else if (isNotSent(error)) refuse(response, 404, "no such session; initialize a new one");
        else refuse(response, 502, "the replica that has the session did not answer");
      }
    },
    async [Symbol.asyncDispose]() {
      await agent.destroy();
    },
  };
}

function isNotSent(error: unknown): boolean {
  const { code } = error as { code?: string };
  return (
    code !== undefined && ["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENOTFOUND", "UND_ERR_CONNECT_TIMEOUT"].includes(code)
  );
}

function pick(
  headers: Readonly<Record<string, string | string[] | undefined>>,
  names: readonly string[],
): Record<string, string> {
  return Object.fromEntries(names.flatMap((name) => (typeof headers[name] === "string" ? [[name, headers[name]]] : [])));
}
