// The credential that a request shows, and the only place where one is looked for.
import { badRequest, badToken, type Refused } from "./refusals.ts";

export interface Shown {
  readonly scheme: "bearer" | "dpop";
  readonly token: string;
  readonly refusal?: undefined;
}

/** Characters of a token. Headers as a whole may have 16 KB. */
const tokenLengthMax = 8 * 1024;

// RFC 6750 section 2.1: b64token. No comma, so that two credentials which somebody on the way joined are none.
const b64token = /^[A-Za-z0-9\-._~+/]+=*$/;

const nothingShown: Refused = { refusal: { status: 401, description: "a bearer token is wanted in the Authorization header" } };

/** RFC 6750 section 2.1, RFC 9449 section 7.1. Another scheme counts as no credential, as RFC 6750 section 3.1 wants. */
export function readAuthorization(header: string | undefined): Shown | Refused {
  if (header === undefined) return nothingShown;
  const space = header.indexOf(" ");
  const scheme = (space < 0 ? header : header.slice(0, space)).toLowerCase();
  if (scheme !== "bearer" && scheme !== "dpop") return header.includes(",") ? manyShown : nothingShown;
  const token = space < 0 ? "" : header.slice(space).replace(/^ +/, "");
  if (token.includes(",")) return manyShown;
  if (token === "") return badRequest("the Authorization header has a scheme but no token");
  if (token.length > tokenLengthMax) return badToken(`the token is longer than ${tokenLengthMax} characters`);
  if (!b64token.test(token)) return badRequest("the Authorization header is not a scheme and a token");
  return { scheme, token };
}

const manyShown = badRequest("the Authorization header has more than one credential");
