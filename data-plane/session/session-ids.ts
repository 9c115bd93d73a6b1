// Session ids say, sealed, which replica has the session: any replica that gets a request can send it there.
// They are checked before anything is looked up; a made-up id costs microseconds and reaches nobody.
import { randomBytes } from "node:crypto";
import { createSealer } from "../mcp/seal.ts";

export interface SessionIds {
  /** A new id: 144 random bits and its owner, in visible ASCII (MCP 2025-11-25, transports, session management). */
  mint(virtualServer: string): string;
  /** Address of the other replica that has the session; undefined when the id is ours, or not made by any of us. */
  ownerOf(id: string, virtualServer: string): string | undefined;
}

/** What is in an id: the owner's address, the owner's start, and what makes it unique. */
type Payload = [address: string, instance: string, random: string];

/** `self` is asked when it is needed, because the address is known only once the port is. */
export function createSessionIds(options: { secret: Buffer; self: () => { address: string; instance: string } }): SessionIds {
  const sealer = createSealer(options.secret, "session-id");
  return {
    mint(virtualServer) {
      const { address, instance } = options.self();
      const payload: Payload = [address, instance, randomBytes(18).toString("base64url")];
      return sealer.seal(Buffer.from(JSON.stringify(payload)), virtualServer);
    },
    ownerOf(id, virtualServer) {
      const payload = sealer.open(id, virtualServer);
      if (!payload) return undefined;
      const [address] = JSON.parse(payload.toString()) as Payload;
      // Ours by address but unknown to us: it ended, or it was made before we started.
      return address === options.self().address ? undefined : address;
    },
  };
}
