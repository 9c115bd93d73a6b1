// Sends a request to the replica that has its session, and that replica's answer back, as they come.
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { Agent } from "undici";
import { errorCodes } from "../mcp/json-rpc.ts";
import { refuse } from "./refuse.ts";
import { cutWhenStalled } from "./stall-watch.ts";

export interface OwnerForwarder extends AsyncDisposable {
  /** Whether a request was sent here by another replica; it is not sent on, or two confused replicas would play ball. */
  isForwarded(request: IncomingMessage): boolean;
  /**
   * Never rejects. An owner that can't be reached has taken the session with it: `onLost` says so, by default with 404, so that
   * the client opens another. One that takes the request and gives no answer: 504 or 502, and whether it ran is not known.
   * `id` is the raw text of the request's id, when the answer must have it.
   */
  forward(
    owner: string,
    request: IncomingMessage,
    response: ServerResponse,
    body: Buffer | undefined,
    options?: { readonly id?: string; readonly onLost: () => void },
  ): Promise<void>;
}

const hopHeader = "vmcp-hop";
const requestHeaders = [
  "accept",
  "authorization",
  "content-type",
  "dpop",
  "last-event-id",
  "mcp-method",
  "mcp-name",
  "mcp-protocol-version",
  "mcp-session-id",
];
const paramPrefix = "mcp-param-";
const responseHeaders = [
  "allow",
  "cache-control",
  "content-type",
  "mcp-session-id",
  "retry-after",
  "www-authenticate",
  "x-accel-buffering",
];

export interface OwnerLimits {
  /**
   * An owner that says nothing for so long is frozen, milliseconds. Default 15,000: one that works answers or opens a stream
   * sooner, however long the call takes.
   */
  readonly headersMs?: number;
  /** A stream without a byte for so long is cut, milliseconds. Default 45,000, three times what lies between comments. */
  readonly idleMs?: number;
}

/** Keeps connections to the other replicas. */
export function createOwnerForwarder({ headersMs = 15_000, idleMs = 45_000 }: OwnerLimits = {}): OwnerForwarder {
  const timeouts = { connect: { timeout: 2_000 }, headersTimeout: headersMs, bodyTimeout: idleMs, keepAliveTimeout: 4_000 };
  const agent = new Agent(timeouts);

  return {
    isForwarded: ({ headers }) => headers[hopHeader] !== undefined,
    async forward(owner, request, response, body, options) {
      const gone = new AbortController();
      response.once("close", () => gone.abort());
      const params = Object.keys(request.headers).filter((name) => name.startsWith(paramPrefix));
      const headers = { ...pick(request.headers, [...requestHeaders, ...params]), [hopHeader]: "1" };
      const { method = "GET", url = "/" } = request;
      try {
        const onward = { origin: owner, path: url, method: method as "GET", headers, signal: gone.signal };
        const answer = await agent.request(body ? { ...onward, body } : onward);
        response.writeHead(answer.statusCode, pick(answer.headers, responseHeaders));
        response.flushHeaders();
        cutWhenStalled(response);
        await pipeline(answer.body, response);
      } catch (error) {
        if (response.headersSent) response.destroy();
        else if (!isNotSent(error))
          refuseUnknown(response, options?.id, (error as { code?: string }).code === "UND_ERR_HEADERS_TIMEOUT");
        else if (options) options.onLost();
        else refuse(response, 404, "no such session; initialize a new one");
      }
    },
    async [Symbol.asyncDispose]() {
      await agent.destroy();
    },
  };
}

/** The request may have run: a 404 would have the client send it again. */
function refuseUnknown(response: ServerResponse, id: string | undefined, isTimeout: boolean): void {
  const [status, reason, wording] = isTimeout
    ? ([504, "owner_timeout", "did not answer in time"] as const)
    : ([502, "owner_lost", "hung up"] as const);
  refuse(response, status, `the replica that has the session ${wording}; whether the request took effect is not known`, {
    id,
    code: errorCodes.internal,
    data: { reason, outcome: "unknown" },
  });
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
