// Ids of the streams of the older HTTP+SSE transport. A stream is a connection, so everything posted to it has to reach the replica
// that holds it: the id says, sealed, which one that is, and any replica sends it there.
import { randomBytes } from "node:crypto";
import { createSealer, type Keys } from "../mcp/seal.ts";

export interface StreamIds {
  /** A new id: 144 random bits and its owner, in visible ASCII. */
  mint(context: string): string;
  /** Address of the other replica that has the stream; undefined when the id is ours, or not made by any of us. */
  ownerOf(id: string, context: string): string | undefined;
}

/** What is in an id: the owner's address, the owner's start, and what makes it unique. */
type Payload = [address: string, instance: string, random: string];

/** `self` is asked when it is needed, because the address is known only once the port is. */
export function createStreamIds(options: { keys: Keys; self: () => { address: string; instance: string } }): StreamIds {
  const sealer = createSealer(options.keys, "stream-id");
  return {
    mint(context) {
      const { address, instance } = options.self();
      const payload: Payload = [address, instance, randomBytes(18).toString("base64url")];
      return sealer.seal(Buffer.from(JSON.stringify(payload)), context);
    },
    ownerOf(id, context) {
      const payload = sealer.open(id, context);
      if (!payload) return undefined;
      const [address] = JSON.parse(payload.toString()) as Payload;
      // Ours by address but unknown to us: it ended, or it was made before we started.
      return address === options.self().address ? undefined : address;
    },
  };
}
