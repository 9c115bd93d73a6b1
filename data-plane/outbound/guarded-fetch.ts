// Requests to servers that say who somebody is. Where the operator named them they are taken at their word; an address that comes
// from anywhere else (metadata, a backend's challenge, a client's document) must be https and of the public Internet, checked
// when the connection is made, every time. Nothing is followed, nothing is read without bound, nothing is waited for without end.
import { lookup } from "node:dns";
import { readFileSync } from "node:fs";
import { isIP, type LookupFunction } from "node:net";
import { Agent, fetch as undiciFetch } from "undici";
import { isPublicAddress } from "./addresses.ts";

export interface FetchRules {
  /** URLs that the operator wrote: their origins may be plain http and private. */
  readonly named: readonly string[];
  /** Other addresses may be private too. Default false. */
  readonly allowPrivate?: boolean;
  /** Other addresses may be plain http. Default false. */
  readonly allowHttp?: boolean;
  /** PEM file of the authorities that may vouch for servers; besides none, those that Node.js trusts. Throws when it can't be read. */
  readonly caFile?: string;
  /** Whole exchange, milliseconds. Default 10,000. */
  readonly timeoutMs?: number;
  /** Of the body. Default 1 MiB. */
  readonly bytesMax?: number;
}

/** As the global one, but the whole body has come when it resolves. Rejects with FetchRefusedError, or an Error without secrets. */
export type GuardedFetch = (url: string, init?: RequestInit) => Promise<Response>;

/** The address is none that may be asked, or the answer none that may be read. */
export class FetchRefusedError extends Error {
  override name = "FetchRefusedError";
}

const connectMs = 3_000;
const connectionsMax = 16;

/** Connections are kept for a few seconds; nothing has to be closed. */
export function createGuardedFetch(rules: FetchRules): GuardedFetch {
  const { allowPrivate = false, allowHttp = false, timeoutMs = 10_000, bytesMax = 1024 * 1024 } = rules;
  const named = new Set(rules.named.map(originOf));
  const tls = rules.caFile ? { ca: readFileSync(rules.caFile) } : {};
  const settings = { connections: connectionsMax, keepAliveTimeout: 4_000, pipelining: 1 };
  const free = new Agent({ ...settings, connect: { timeout: connectMs, ...tls } });
  const guarded = new Agent({ ...settings, connect: { timeout: connectMs, ...tls, lookup: publicLookup } });

  return async (address, init = {}) => {
    const url = URL.parse(address);
    if (!url || (url.protocol !== "https:" && url.protocol !== "http:")) throw new FetchRefusedError("the address is no URL");
    if (url.username !== "" || url.password !== "") throw new FetchRefusedError("the address has a user in it");
    const isNamed = named.has(url.origin);
    if (!isNamed && !allowHttp && url.protocol === "http:") throw new FetchRefusedError("the address is plain http");
    const isFree = isNamed || allowPrivate;
    const host = url.hostname.replace(/^\[|\]$/g, "");
    if (!isFree && isIP(host) !== 0 && !isPublicAddress(host)) throw new FetchRefusedError("the address is not public");
    const limit = AbortSignal.timeout(timeoutMs);
    const signal = init.signal ? AbortSignal.any([init.signal, limit]) : limit;
    const options = { ...init, signal, redirect: "manual", dispatcher: isFree ? free : guarded };
    const response = (await undiciFetch(url, options as Parameters<typeof undiciFetch>[1]).catch(failed)) as unknown as Response;
    if (response.status >= 300 && response.status < 400) {
      await response.body?.cancel();
      throw new FetchRefusedError(`the server answered HTTP ${response.status}, which leads elsewhere`);
    }
    const body = await readBounded(response, bytesMax).catch(failed);
    const { status, statusText, headers } = response;
    const isBodiless = status === 204 || status === 205;
    return new Response(isBodiless ? null : new Uint8Array(body), { status, statusText, headers: new Headers([...headers]) });
  };
}

function failed(error: Error & { cause?: unknown }): never {
  const { cause } = error;
  if (error instanceof FetchRefusedError) throw error;
  if (cause instanceof FetchRefusedError) throw cause;
  if (error.name === "TimeoutError") throw new Error("no answer in time");
  // undici says "fetch failed", and what failed in the cause.
  throw cause instanceof Error ? cause : error;
}

async function readBounded(response: Response, bytesMax: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > bytesMax) throw new FetchRefusedError(`the answer is larger than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Looks a name up, and refuses it when one of its addresses is not public: the one that was checked is the one connected to. */
const publicLookup: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error) return callback(error, "", 0);
    const [first] = addresses;
    if (!first || !addresses.every(({ address }) => isPublicAddress(address)))
      return callback(new FetchRefusedError("the address is not public"), "", 0);
    if (options.all) return callback(null, addresses as never, 0);
    callback(null, first.address, first.family);
  });
};

function originOf(url: string): string {
  return URL.parse(url)?.origin ?? "";
}
