// What names the content of a snapshot: the control plane computes it, the proxy recomputes it from what it holds.
import { createHash, hash } from "node:crypto";

/** SHA-256 over the (name, digest) pairs, sorted by name; names end with NUL so that no two lists look alike. */
export function snapshotDigest(resources: Iterable<{ readonly name: string; readonly digest: Uint8Array }>): Uint8Array {
  const whole = createHash("sha256");
  for (const { name, digest } of [...resources].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    whole.update(name).update("\0").update(digest);
  }
  return whole.digest();
}

/** SHA-256 of one resource's encoded body. */
export function resourceDigest(body: Uint8Array): Uint8Array {
  return hash("sha256", body, "buffer"); // at once: there are hundreds in a snapshot, and each object to do it with waits to be collected
}

/** `r<revision>-<first 12 hex digits of digest>`. */
export function snapshotVersion(revision: bigint, digest: Uint8Array): string {
  return `r${revision}-${Buffer.from(digest).toString("hex").slice(0, 12)}`;
}
