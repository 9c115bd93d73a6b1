// Host and Origin checks, on every route: without them a page in the user's browser could reach a gateway on the user's
// own machine by rebinding a name to it. Source: MCP 2025-11-25, transports, security warning.
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";

export interface OriginRules {
  /** Whether we listen on a loopback address. */
  readonly isLoopback: boolean;
  /** Further host names, without port, lowercase. */
  readonly allowedHosts: readonly string[];
  /** Further origins, exact. */
  readonly allowedOrigins: readonly string[];
}

/** Why a request may not come in; undefined when it may. */
export function refusalOf(request: IncomingMessage, rules: OriginRules): string | undefined {
  const hosts = valuesOf(request, "host");
  if (hosts.length !== 1 || !isAllowedHost(hosts[0] as string, rules)) return "Host is not allowed";
  const origins = valuesOf(request, "origin");
  if (origins.length > 1 || (origins.length === 1 && !isAllowedOrigin(origins[0] as string, rules)))
    return "Origin is not allowed";
  return undefined;
}

function isAllowedHost(host: string, { isLoopback, allowedHosts }: OriginRules): boolean {
  const name = hostName(`http://${host}`);
  if (name === undefined) return false;
  // A rebound name is a name: an address in Host means the client dialled that address.
  return isLoopbackName(name) || allowedHosts.includes(name) || (!isLoopback && isIP(name.replace(/^\[|\]$/g, "")) !== 0);
}

function isAllowedOrigin(origin: string, { allowedOrigins }: OriginRules): boolean {
  if (allowedOrigins.includes(origin)) return true;
  const name = hostName(origin);
  return name !== undefined && isLoopbackName(name);
}

// RFC 9110 section 7.2, without what URL.parse would mend: tabs, backslashes, an empty user, escapes, a trailing slash.
const schemeAndHost = /^https?:\/\/(?:[\w.-]+|\[[\da-f:.]+\])(?::\d{0,5})?$/i;

const parsed = new Map<string, string | undefined>();
const parsedMax = 1_000;

/** Host name of a URL that is nothing but scheme, host and port. Clients say the same again and again, so it is remembered. */
function hostName(text: string): string | undefined {
  if (parsed.has(text)) return parsed.get(text);
  if (parsed.size >= parsedMax) parsed.clear();
  const name = parse(text);
  parsed.set(text, name);
  return name;
}

function parse(text: string): string | undefined {
  const url = schemeAndHost.test(text) ? URL.parse(text) : null;
  const isBare = url !== null && url.href === `${url.protocol}//${url.host}/`;
  return isBare ? url.hostname : undefined;
}

function isLoopbackName(name: string): boolean {
  return name === "localhost" || name === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(name);
}

// Node keeps the first of several Host headers and joins others, so the raw ones are read.
function valuesOf({ rawHeaders }: IncomingMessage, name: string): string[] {
  const values: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const header = rawHeaders[i] as string;
    if (header.length === name.length && header.toLowerCase() === name) values.push(rawHeaders[i + 1] as string);
  }
  return values;
}
