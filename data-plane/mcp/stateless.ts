// Words of the revision of MCP that has no sessions: every request carries what `initialize` once settled.

export const statelessVersion = "2026-07-28";

/** What we speak of it, newest first. */
export const supportedStatelessVersions = [statelessVersion] as const;

/** Reserved keys of `_meta`. */
export const metaKeys = {
  protocolVersion: "io.modelcontextprotocol/protocolVersion",
  clientCapabilities: "io.modelcontextprotocol/clientCapabilities",
  clientInfo: "io.modelcontextprotocol/clientInfo",
  logLevel: "io.modelcontextprotocol/logLevel",
  serverInfo: "io.modelcontextprotocol/serverInfo",
  subscriptionId: "io.modelcontextprotocol/subscriptionId",
} as const;

/** Name of the extension that has tasks, among `capabilities.extensions`. */
export const tasksExtension = "io.modelcontextprotocol/tasks";

/** Its own codes; all of them go with HTTP 400. */
export const statelessErrors = {
  headerMismatch: -32020,
  missingCapability: -32021,
  unsupportedVersion: -32022,
} as const;

/** Method → the parameter that `Mcp-Name` repeats. */
export const nameParams: ReadonlyMap<string, "name" | "uri" | "taskId"> = new Map([
  ["tools/call", "name"],
  ["prompts/get", "name"],
  ["resources/read", "uri"],
  ["tasks/get", "taskId"],
  ["tasks/update", "taskId"],
  ["tasks/cancel", "taskId"],
]);

/** What one request says of its client. */
export interface Envelope {
  readonly protocolVersion: string;
  readonly capabilities: Readonly<Record<string, unknown>>;
  readonly clientInfo: unknown;
  readonly logLevel: string | undefined;
}

/** Least severe first. Source: MCP, logging, log levels (RFC 5424). */
export const logLevels = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"] as const;
