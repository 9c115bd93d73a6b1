// Which headers of a request to a backend nobody but the proxy may set, and why.

const perConnection: ReadonlySet<string> = new Set([
  "host",
  "connection",
  "keep-alive",
  "te",
  "trailer",
  "upgrade",
  "http2-settings",
  "transfer-encoding",
  "content-length",
  "proxy-connection",
]);

const ofMessages: ReadonlySet<string> = new Set(["accept", "accept-encoding", "expect", "last-event-id"]);

const origins: ReadonlySet<string> = new Set([
  "forwarded",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
  "x-real-ip",
]);

/** Why a header is not passed on over a hop; undefined when it may be. `name` is in lower case. */
export function connectionReason(name: string): string | undefined {
  return perConnection.has(name) ? "it belongs to one connection and is never passed on" : undefined;
}

/** Why a header that says where a request came from is not the caller's to set. */
export function originReason(name: string): string | undefined {
  return origins.has(name) ? "it says where a request came from and is set by the proxy itself" : undefined;
}

/** Why a header of the messages themselves is not for others to set: MCP's own, and what describes the body. */
export function messageReason(name: string): string | undefined {
  return ofMessages.has(name) || name.startsWith("mcp-") || name.startsWith("content-")
    ? "it describes the message and is set by the proxy itself"
    : undefined;
}
