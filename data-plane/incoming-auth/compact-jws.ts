// Reads a JWT before anybody has verified it, so strictly that every reader finds the same in it. Source: RFC 7515, RFC 7519.
import { prescan } from "../mcp/prescan.ts";

export type Members = Readonly<Record<string, unknown>>;

/** Nothing in it is true until its signature was verified with a key that the header did not choose. */
export interface CompactJws {
  readonly header: Header;
  readonly claims: Members;
}

/** `jku`, `jwk`, `x5u` and `x5c` may be there and are not followed; only proofs have their key in `jwk`. */
export interface Header extends Members {
  readonly alg: string;
  readonly kid?: string;
  readonly typ?: string;
}

/** What is in a token of three parts, or what is wrong with it in words that show nothing of it. */
export function readCompactJws(text: string): CompactJws | { readonly problem: string } {
  const parts = text.split(".");
  const [header, claims, signature] = parts.map(decode);
  if (parts.length !== 3 || !header || !claims || !signature) return { problem: "is not three parts in base64url" };
  if (signature.length === 0) return { problem: "is not signed" };
  const head = parseObject(header);
  if (!head) return { problem: "has a header that is no clear JSON object" };
  const body = parseObject(claims);
  if (!body) return { problem: "has claims that are no clear JSON object" };
  const problem = problemOf(head);
  return problem ? { problem } : { header: head as Header, claims: body };
}

// Strict: without padding, line ends, the other alphabet, or bits that no decoder looks at.
function decode(part: string): Buffer | undefined {
  const bytes = Buffer.from(part, "base64url");
  return bytes.toString("base64url") === part ? bytes : undefined;
}

function parseObject(json: Buffer): Members | undefined {
  // RFC 7515 section 4 and RFC 7519 section 4: a member that stands there twice may be refused.
  if (prescan(json)) return undefined;
  const value: unknown = JSON.parse(json.toString());
  return isObject(value) ? value : undefined;
}

function problemOf(header: Members): string | undefined {
  if (typeof header.alg !== "string") return "does not say its algorithm";
  // Own, because a name in `crit` changes what the rest means, and we know of none that we want (RFC 7515 section 4.1.11).
  if (Object.hasOwn(header, "crit")) return "has critical extensions";
  if (Object.hasOwn(header, "b64")) return "says how its payload is encoded"; // RFC 7797
  if (Object.hasOwn(header, "cty")) return "has another token inside";
  for (const name of ["kid", "typ"])
    if (Object.hasOwn(header, name) && typeof header[name] !== "string") return `has a ${name} that is no text`;
  return undefined;
}

export function isObject(value: unknown): value is Members {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
