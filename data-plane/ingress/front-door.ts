// What is wrong with a request as HTTP, before anything looks at what it wants. Node's parser refuses what can't be read; here is
// refused what it lets through and two readers may take for two things (RFC 9110, RFC 9112). Rules are read from the raw
// headers, in one pass, since Node joins or drops some of those that came twice.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { type OriginRules, refusalOf } from "./origin.ts";
import { refuse } from "./refuse.ts";

/** Why a request is refused. The words are fixed: nothing that came with it is said back. */
export interface Refused {
  readonly status: 400 | 403 | 405 | 414 | 415 | 417 | 431 | 505;
  readonly message: string;
  readonly headers?: Record<string, string>;
}

const targetLengthMax = 8 * 1024;
const headersMax = 100;
/** One more than may be: not every Node refuses what is beyond, some drop it without a word, and then nobody can count it. */
export const headersSeenMax = headersMax + 1;

// Of each method, whether it may have a body. A body that one reader skips is the next request for another.
const methods: Readonly<Record<string, { readonly mayHaveBody: boolean }>> = {
  POST: { mayHaveBody: true },
  GET: { mayHaveBody: false },
  HEAD: { mayHaveBody: false },
  DELETE: { mayHaveBody: false },
  OPTIONS: { mayHaveBody: false },
};
const allow = Object.keys(methods).join(", ");

// The path of ours is compared as it is written, so it only has to be one: no fragment, no backslash, visible ASCII. Koa reads
// other targets with a parser that mends them.
const pathAndQuery = /^\/[\x21\x22\x24-\x5b\x5d-\x7e]*$/;

type HeaderRule = (value: string, request: IncomingMessage) => Refused | undefined;

const anything: HeaderRule = () => undefined;

/** Headers that decide something, so they come once at most, and what of each is refused. */
const single: ReadonlyMap<string, HeaderRule> = new Map([
  ["authorization", anything],
  ["content-encoding", (value) => (value.toLowerCase() === "identity" ? undefined : bad.encoding)],
  ["content-length", (value, request) => (/^\d{1,15}$/.test(value) ? bodyRefusal(Number(value), request) : bad.length)],
  ["content-type", anything],
  ["dpop", anything],
  ["expect", (value) => (value.toLowerCase() === "100-continue" ? undefined : bad.expectation)],
  ["last-event-id", anything],
  ["mcp-method", anything],
  ["mcp-name", anything],
  ["mcp-protocol-version", anything],
  ["mcp-session-id", anything],
  ["origin", anything],
  ["transfer-encoding", (value, request) => codingRefusal(value, request)],
  ["vmcp-hop", anything],
]);
const bits: ReadonlyMap<string, number> = new Map([...single.keys()].map((name, i) => [name, 1 << i]));

const bad = {
  version: { status: 505, message: "only HTTP/1.0 and HTTP/1.1 are spoken here" },
  method: { status: 405, message: `only ${allow}`, headers: { allow } },
  form: { status: 403, message: "the request target must be a path" },
  target: { status: 400, message: "the request target has characters that no path has" },
  targetLength: { status: 414, message: `the request target is longer than ${targetLengthMax} bytes` },
  headers: { status: 431, message: `more than ${headersMax} headers` },
  twice: { status: 400, message: "a header that may come once came twice" },
  shadow: { status: 400, message: "a header with an underscore looks like one that has a meaning" },
  host: { status: 400, message: "Host is missing" },
  length: { status: 400, message: "Content-Length is not a number" },
  body: { status: 400, message: "this method has no body" },
  oldChunks: { status: 400, message: "HTTP/1.0 has no chunks" },
  coding: { status: 400, message: "the only transfer coding is chunked" },
  encoding: { status: 415, message: "encoded bodies are not read", headers: { "accept-encoding": "identity" } },
  expectation: { status: 417, message: "the only expectation is 100-continue" },
} satisfies Record<string, Refused>;

/** Why a request is not read as HTTP; undefined when it is. */
function httpRefusal(request: IncomingMessage): Refused | undefined {
  const { url = "", method = "", rawHeaders, httpVersionMajor, httpVersionMinor } = request;
  if (httpVersionMajor !== 1 || httpVersionMinor > 1) return bad.version;
  if (!Object.hasOwn(methods, method)) return bad.method;
  if (url.length > targetLengthMax) return bad.targetLength;
  if (!url.startsWith("/")) return bad.form;
  if (!pathAndQuery.test(url)) return bad.target;
  if (rawHeaders.length > 2 * headersMax) return bad.headers;
  return headersRefusal(request);
}

function headersRefusal(request: IncomingMessage): Refused | undefined {
  const { rawHeaders } = request;
  let seen = 0;
  let hasHost = false;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase();
    const rule = single.get(name);
    if (rule) {
      const bit = bits.get(name) as number;
      if (seen & bit) return bad.twice;
      seen |= bit;
      const refused = rule(rawHeaders[i + 1] as string, request);
      if (refused) return refused;
    } else if (name === "host") hasHost = true;
    else if (name.includes("_") && isShadow(name)) return bad.shadow;
  }
  // RFC 9112 section 3.2. Whether it is ours, and one, is asked with Origin.
  return hasHost || request.httpVersionMinor === 0 ? undefined : bad.host;
}

// Some programs take both for one header (CGI did), so whoever filters on the way may have seen the other. The rest of the names
// with underscores are as unknown here as they look.
function isShadow(name: string): boolean {
  const meant = name.replaceAll("_", "-");
  return single.has(meant) || meant === "host" || meant.startsWith("mcp-") || meant.startsWith("vmcp-");
}

function bodyRefusal(bytes: number, { method = "" }: IncomingMessage): Refused | undefined {
  return bytes > 0 && !methods[method]?.mayHaveBody ? bad.body : undefined;
}

function codingRefusal(value: string, request: IncomingMessage): Refused | undefined {
  if (request.httpVersionMinor === 0) return bad.oldChunks;
  return value.toLowerCase() === "chunked" ? bodyRefusal(Number.POSITIVE_INFINITY, request) : bad.coding;
}

/**
 * Whether a request is let in: those that are HTTP, and from whom Host and Origin let them. The connection is closed after anything
 * else. What followed on that connection is not looked at: where one request was not what it seemed, nobody knows whose the next is.
 */
export function createFrontDoor(
  rulesOf: (request: IncomingMessage) => OriginRules,
): (request: IncomingMessage, response: ServerResponse) => boolean {
  const closing = new WeakSet<Socket>();
  return (request, response) => {
    if (closing.has(request.socket)) return false;
    const refused = httpRefusal(request) ?? originRefusal(request, rulesOf(request));
    if (refused) {
      closing.add(request.socket);
      refuse(response, refused.status, refused.message, { headers: { ...refused.headers, connection: "close" } });
      return false;
    }
    // Asked for only now, so that nobody sends the body of a request that is refused.
    if (request.headers.expect !== undefined && request.httpVersionMinor === 1) response.writeContinue();
    return true;
  };
}

function originRefusal(request: IncomingMessage, rules: OriginRules): Refused | undefined {
  const message = refusalOf(request, rules);
  return message === undefined ? undefined : { status: 403, message };
}
