// Reads a request body into one buffer, with a bound.
import type { IncomingMessage } from "node:http";

/** The whole body; undefined when it is larger than `bytesMax` (the rest is not read). Rejects when the client goes away. */
export function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer | undefined> {
  if (Number(request.headers["content-length"] ?? 0) > bytesMax) return Promise.resolve(undefined);
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const take = (chunk: Buffer): void => {
      bytes += chunk.length;
      if (bytes > bytesMax) {
        request.off("data", take).pause();
        resolve(undefined);
      } else chunks.push(chunk);
    };
    request.on("data", take);
    request.on("end", () => resolve(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)));
    // Says so of a client that went away, too. After a whole body it comes as well, and an error costs its stack.
    request.on("close", () => request.complete || reject(new Error("the client went away")));
  });
}
