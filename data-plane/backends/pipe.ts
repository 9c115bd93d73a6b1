// A two-way stream of whole JSON-RPC messages, as bytes: what stdio and HTTP+SSE servers give us.

/** An open connection to one server. */
export interface Pipe {
  /**
   * Sends one message (no newline in it). Resolves when it was handed to the transport; rejects when it was not, or with a
   * BackendError that says what is known of it.
   */
  send(message: Buffer): Promise<void>;
  /** The negotiated MCP revision, for transports that repeat it in a header. */
  setProtocolVersion?(version: string): void;
  /** Ends the connection; idempotent, never rejects, settles within 5 s. */
  close(): Promise<void>;
}

/** What an opener is told; nothing after `onClose`. */
export interface PipeEvents {
  /** One whole message, exactly as the server wrote it. */
  onMessage(message: Buffer): void;
  /** The connection ended, by either side. Once; `reason` says why when it was not `close()`. */
  onClose(reason: Error | undefined): void;
}
