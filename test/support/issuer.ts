// An authorization server of a test's own, on loopback: a certified provider behind a thin front. The front counts, remembers, and
// does what a server in trouble does. Long for what it offers: half of the file are the words in which tests speak to it.
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { type JSONWebKeySet, type JWK, SignJWT } from "jose";
import { Agent, type Dispatcher, request as send } from "undici";
import { type ClientAuth, clientOf, clientsOf, fetchClient, type IssuerClient } from "./issuer-clients.ts";
import { createKeyRing, type KeyAlgorithm } from "./issuer-keys.ts";
import { audienceHeader, audienceUrn, createIssuerProvider, type IssuerProvider } from "./issuer-provider.ts";
import { createIssuerStore } from "./issuer-store.ts";
import { lastingPort } from "./processes.ts";

export interface IssuerOptions {
  /** Besides these there is a public client `caller`, which can do nothing; tokens of `token` belong to it unless they say whose. */
  readonly clients?: readonly IssuerClient[];
  /** What access tokens of an audience are like. Default, and for every other audience: a JWT signed with RS256. */
  readonly audiences?: Readonly<Record<string, { readonly format?: "jwt" | "opaque"; readonly alg?: KeyAlgorithm }>>;
  /** What resources offer. Default: every scope that anybody asks for. Others are left out of tokens without a word. */
  readonly scopes?: readonly string[];
  /** Issuers whose JWTs may be exchanged here. */
  readonly peers?: readonly Pick<Issuer, "issuer" | "jwksUrl">[];
  /** Added to every access token of a user, such as `(sub) => ({ groups: [sub] })`. */
  readonly claimsOf?: (sub: string) => Readonly<Record<string, unknown>>;
  /** How long access tokens of the token endpoint are valid. Default 3600; `set` changes it. */
  readonly accessTokenSeconds?: number;
  /** Default true. One that is used a second time ends its whole family. */
  readonly rotatesRefreshTokens?: boolean;
  /** A client id may be the URL of a document with the client's metadata: https, or http on loopback. Default false. */
  readonly hasClientDocuments?: boolean;
}

/** What an endpoint does in place of its duty, or besides it. */
export interface IssuerFault {
  /** Requests that get it; then all is well again. Default: all of them. */
  readonly times?: number;
  /** Waited before anything else. */
  readonly delayMs?: number;
  /** The socket is destroyed: `before` the provider sees the request, or `after` it acted, in place of its answer. */
  readonly cut?: "before" | "after";
  /** An answer without the provider. Default 200 when there is a `body`. */
  readonly status?: number;
  /** Raw, as `application/json`. Default empty. */
  readonly body?: string;
}

export interface TokenFault extends IssuerFault {
  /** An OAuth error without the provider: 401 for `invalid_client`, else 400, unless `status` says otherwise. */
  readonly error?: string;
  /** Replaces `expires_in` of a good answer. The token ends when it would have. */
  readonly expiresIn?: number | "absent";
  /** Replaces members of a good answer; undefined removes one. */
  readonly members?: Readonly<Record<string, unknown>>;
  /** Of the tokens issued, whatever was asked for. */
  readonly audience?: string;
}

export interface IssuerChanges {
  /** Each replaces what was there; undefined heals. */
  readonly token?: TokenFault | undefined;
  readonly jwks?: IssuerFault | undefined;
  readonly discovery?: IssuerFault | undefined;
  readonly introspection?: IssuerFault | undefined;
  readonly accessTokenSeconds?: number;
}

/** One request of the token endpoint, with nothing hidden. */
export interface TokenRequest {
  readonly grantType: string;
  /** A repeated one is a list. */
  readonly params: Readonly<Record<string, string | readonly string[]>>;
  readonly clientAuth: ClientAuth;
  /** Empty when it says none. */
  readonly clientId: string;
  readonly headers: IncomingHttpHeaders;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** Undefined while there is no answer, and of one that was cut. */
  readonly answer: { readonly status: number; readonly body: string } | undefined;
}

export interface TokenOptions {
  readonly sub: string;
  /** Needed by a JWT. */
  readonly audience?: string;
  /** Separated by spaces. */
  readonly scope?: string;
  /** Of a registered client. Default `caller`. */
  readonly clientId?: string;
  /** Default 3600. Negative: it has ended. */
  readonly expiresInSeconds?: number;
  /** Default: what the audience has; opaque without one. */
  readonly format?: "jwt" | "opaque";
  /** Of a JWT. Default: what the audience has. */
  readonly alg?: KeyAlgorithm;
  /** Thumbprint of the key or certificate that it is bound to. */
  readonly cnf?: { readonly jkt?: string; readonly "x5t#S256"?: string };
  /** Further claims. */
  readonly claims?: Readonly<Record<string, unknown>>;
}

export interface SignOptions {
  /** Over `alg`, `kid` and `typ: at+jwt`; undefined removes one. `alg: "none"` leaves the signature empty. */
  readonly header?: Readonly<Record<string, unknown>>;
  /** Default: the current one for `alg`. Bytes for HS256. */
  readonly key?: CryptoKey | Uint8Array | JWK;
  /** Whose key is used and what the header says, unless that has another. Default RS256. */
  readonly alg?: KeyAlgorithm;
}

export interface Issuer extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  readonly issuer: string;
  readonly port: number;
  readonly authorizationUrl: string;
  readonly tokenUrl: string;
  readonly jwksUrl: string;
  readonly introspectionUrl: string;
  readonly discoveryUrl: string;
  /** Requests of the token endpoint, oldest first; those that a fault met are among them. */
  readonly tokenRequests: readonly TokenRequest[];
  /** Requests so far. */
  readonly fetches: { readonly token: number; readonly jwks: number; readonly discovery: number; readonly introspection: number };
  /** An access token as the token endpoint would issue it. Of the JWTs it remembers nothing, of the opaque ones all. */
  token(options: TokenOptions): Promise<string>;
  /** Any JWT. `iss`, `iat`, `exp` (in 5 minutes) and `jti` are there unless the claims have others, or undefined. */
  sign(claims: Readonly<Record<string, unknown>>, options?: SignOptions): Promise<string>;
  /** Of the key that signs. Default RS256. */
  publicJwk(alg?: KeyAlgorithm): JWK;
  publicPem(alg?: KeyAlgorithm): string;
  /** What is published, without a request. */
  jwks(): JSONWebKeySet;
  /** Signs with new keys; the old ones stay published. */
  rotate(): Promise<void>;
  /** Publishes only the keys that sign. */
  removeOldKeys(): void;
  /** Both at once. */
  rotateAbruptly(): Promise<void>;
  set(changes: IssuerChanges): void;
  /** Stops listening and cuts every connection. */
  down(): Promise<void>;
  /** Listens again, on the same port. */
  up(): Promise<void>;
}

type Endpoint = "token" | "jwks" | "discovery" | "introspection";

const endpoints: Readonly<Record<string, Endpoint>> = {
  "/token": "token",
  "/jwks": "jwks",
  "/token/introspection": "introspection",
  "/.well-known/openid-configuration": "discovery",
  "/.well-known/oauth-authorization-server": "discovery",
};

/** Scopes of the provider itself. */
const standardScopes = ["openid", "offline_access", "profile", "email"];

/** Starts it on a free port. Any user name is an account; the sign-in page has `#user` and `#sign-in`, and consent needs no click. */
export async function startIssuer(options: IssuerOptions = {}): Promise<Issuer> {
  const port = await lastingPort();
  const issuer = `http://127.0.0.1:${port}`;
  const keys = await createKeyRing(String(port));
  const cookieKey = randomBytes(32).toString("hex");
  const store = createIssuerStore(async (id) => (options.hasClientDocuments ? fetchClient(id) : undefined));
  const tokenRequests: TokenRequest[] = [];
  const fetches: Record<Endpoint, number> = { token: 0, jwks: 0, discovery: 0, introspection: 0 };
  const scopesSeen = new Set<string>();
  const ended = new AbortController();
  let { accessTokenSeconds = 3_600 } = options;
  let faults: Partial<Record<Endpoint, TokenFault>> = {};
  let provider = createProvider();

  // The provider reads bodies from real requests only; so it has a port of its own.
  const inner = createServer((request, response) => provider.listener(request, response));
  const agent = new Agent();
  await listen(inner, 0);
  const innerUrl = `http://127.0.0.1:${(inner.address() as AddressInfo).port}`;
  const front = createServer((request, response) => {
    serve(request, response).catch((error: Error) => response.destroy(error));
  });
  await listen(front, port);

  function formatOf(audience: string): { readonly format: "jwt" | "opaque"; readonly alg: KeyAlgorithm } {
    return { format: "jwt", alg: "RS256", ...options.audiences?.[audience] };
  }

  function createProvider(): IssuerProvider {
    return createIssuerProvider({
      issuer,
      keys,
      store,
      cookieKey,
      clients: clientsOf(options.clients),
      peers: options.peers ?? [],
      hasClientDocuments: options.hasClientDocuments ?? false,
      rotatesRefreshTokens: options.rotatesRefreshTokens ?? true,
      formatOf,
      claimsOf: options.claimsOf ?? (() => ({})),
      scopes: () => (options.scopes ?? [...scopesSeen]).join(" "),
      isOffered: (scope) => options.scopes?.includes(scope) ?? true,
      accessTokenSeconds: () => accessTokenSeconds,
    });
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", issuer);
    const endpoint = request.method === "OPTIONS" ? undefined : endpoints[url.pathname];
    const body = await buffer(request);
    const params = endpoint === "token" ? new URLSearchParams(body.toString()) : url.searchParams;
    for (const scope of params.get("scope")?.split(" ") ?? []) if (!standardScopes.includes(scope)) scopesSeen.add(scope);
    const fault = endpoint && takeFault(endpoint);
    if (endpoint) fetches[endpoint]++;
    const note = endpoint === "token" ? recordToken(request, params) : undefined;
    if (fault?.delayMs) await sleep(fault.delayMs, undefined, { signal: ended.signal });
    if (fault?.cut === "before") return void request.socket.destroy();
    const answer = faultyAnswer(fault) ?? (await ask(request, endpoint === "token" ? tokenBody(params) : body, fault));
    if (fault?.cut === "after") return void request.socket.destroy();
    note?.({ status: answer.status, body: answer.body.toString() });
    response.writeHead(answer.status, { ...answer.headers, "content-length": answer.body.length }).end(answer.body);
  }

  function takeFault(endpoint: Endpoint): TokenFault | undefined {
    const fault = faults[endpoint];
    if (fault?.times === undefined) return fault;
    const { times, ...rest } = fault;
    if (times <= 0) return undefined;
    faults = { ...faults, [endpoint]: { ...rest, times: times - 1 } };
    return fault;
  }

  /** Gives what takes note of the answer. */
  function recordToken({ headers }: IncomingMessage, params: URLSearchParams): (answer: TokenRequest["answer"]) => void {
    let answer: TokenRequest["answer"];
    const entries = [...new Set(params.keys())].map((name) => {
      const values = params.getAll(name);
      return [name, values.length === 1 ? (values[0] as string) : values] as const;
    });
    tokenRequests.push({
      grantType: params.get("grant_type") ?? "",
      params: Object.fromEntries(entries),
      ...clientOf(headers, params),
      headers,
      at: Date.now(),
      get answer() {
        return answer;
      },
    });
    return (given) => {
      answer = given;
    };
  }

  async function ask(request: IncomingMessage, body: Buffer, fault: TokenFault | undefined): Promise<Answer> {
    const forced = fault?.audience === undefined ? {} : { [audienceHeader]: fault.audience };
    const reply = await send(`${innerUrl}${request.url}`, {
      method: request.method as Dispatcher.HttpMethod,
      headers: { ...endToEnd(request.headers), ...forced },
      body: body.length > 0 ? body : null,
      dispatcher: agent,
    });
    const text = Buffer.from(await reply.body.arrayBuffer());
    const isRewritten = reply.statusCode === 200 && (fault?.members !== undefined || fault?.expiresIn !== undefined);
    return { status: reply.statusCode, headers: endToEnd(reply.headers), body: isRewritten ? rewrite(text, fault) : text };
  }

  async function down(): Promise<void> {
    if (!front.listening) return;
    const closed = new Promise((resolve) => front.close(resolve));
    front.closeAllConnections();
    await closed;
  }

  async function rotate(): Promise<void> {
    await keys.rotate();
    provider = createProvider();
  }

  function removeOldKeys(): void {
    keys.removeOld();
    provider = createProvider();
  }

  return {
    issuer,
    port,
    authorizationUrl: `${issuer}/auth`,
    tokenUrl: `${issuer}/token`,
    jwksUrl: `${issuer}/jwks`,
    introspectionUrl: `${issuer}/token/introspection`,
    discoveryUrl: `${issuer}/.well-known/openid-configuration`,
    tokenRequests,
    fetches,
    token: ({ sub, audience, scope, clientId = "caller", expiresInSeconds = 3_600, cnf, claims = {}, ...wish }) => {
      const usual = audience === undefined ? ({ format: "opaque", alg: "RS256" } as const) : formatOf(audience);
      const { format = usual.format, alg = usual.alg } = wish;
      return provider.issue({ sub, audience, scope, clientId, expiresInSeconds, format, alg, cnf, claims });
    },
    sign: async (claims, { alg = "RS256", header = {}, key } = {}) => {
      const nowSeconds = Math.floor(Date.now() / 1_000);
      const payload = { iss: issuer, iat: nowSeconds, exp: nowSeconds + 300, jti: randomUUID(), ...claims };
      const { kid, privateKey } = keys.current(alg);
      const fullHeader: Record<string, unknown> & { alg: string } = { alg, kid, typ: "at+jwt", ...header };
      if (fullHeader.alg === "none") return `${encode(fullHeader)}.${encode(payload)}.`;
      return new SignJWT(payload).setProtectedHeader(fullHeader).sign(key ?? privateKey);
    },
    publicJwk: (alg = "RS256") => keys.current(alg).publicJwk,
    publicPem: (alg = "RS256") => keys.current(alg).publicPem,
    jwks: () => ({ keys: keys.published().map(({ publicJwk }) => publicJwk) }),
    rotate,
    removeOldKeys,
    async rotateAbruptly() {
      await keys.rotate();
      removeOldKeys();
    },
    set: ({ accessTokenSeconds: seconds = accessTokenSeconds, ...changes }) => {
      accessTokenSeconds = seconds;
      faults = { ...faults, ...(changes as typeof faults) };
    },
    down,
    up: () => listen(front, port),
    async [Symbol.asyncDispose]() {
      ended.abort();
      await down();
      inner.close();
      inner.closeAllConnections();
      await agent.destroy();
    },
  };
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

const ownHeaders = ["connection", "keep-alive", "transfer-encoding", "content-length", audienceHeader];

/** Those that belong to no single connection or writing of the body. */
const endToEnd = (headers: Answer["headers"]): Answer["headers"] =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !ownHeaders.includes(name)));

async function listen(server: Server, port: number): Promise<void> {
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
}

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");

/** The provider knows `resource`; for others' `audience` that is the same, and may be any text. */
function tokenBody(params: URLSearchParams): Buffer {
  const audience = params.get("audience");
  if (params.get("grant_type") === "client_credentials" && audience !== null && !params.has("resource"))
    params.set("resource", URL.canParse(audience) ? audience : `${audienceUrn}${encodeURIComponent(audience)}`);
  return Buffer.from(params.toString());
}

function faultyAnswer(fault: TokenFault | undefined): Answer | undefined {
  const headers = { "content-type": "application/json", "cache-control": "no-store" };
  if (fault?.error !== undefined) {
    const body = JSON.stringify({ error: fault.error, error_description: "as the test wants it" });
    return { status: fault.status ?? (fault.error === "invalid_client" ? 401 : 400), headers, body: Buffer.from(body) };
  }
  if (fault?.status === undefined && fault?.body === undefined) return undefined;
  return { status: fault.status ?? 200, headers, body: Buffer.from(fault.body ?? "") };
}

function rewrite(body: Buffer, { expiresIn, members }: TokenFault): Buffer {
  const answer = JSON.parse(body.toString()) as Record<string, unknown>;
  if (expiresIn !== undefined) answer.expires_in = expiresIn === "absent" ? undefined : expiresIn;
  return Buffer.from(JSON.stringify({ ...answer, ...members }));
}
