// The scripted MCP server behind a guard that wants a JWT of certain issuers for itself, as a protected resource must (RFC 9728,
// RFC 6750). The guard is a front: it judges, remembers, and hands on what it lets in.
import { once } from "node:events";
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { createLocalJWKSet, decodeJwt, type JSONWebKeySet, type JWTPayload, jwtVerify } from "jose";
import { type Backend, type BackendScript, plainTool, type ReceivedRequest, startBackend, textResult } from "./backend.ts";
import { readRpc } from "./json.ts";
import { lastingPort } from "./processes.ts";

export interface GuardOptions {
  /** Whose tokens are good. Their keys are looked up for every token, without a request that would count. */
  readonly issuers: readonly TrustedIssuer[];
  /** What tokens must be for. Default: the URL of this server. */
  readonly audience?: string;
  /** All of them are needed. Default: none. */
  readonly scopes?: readonly string[];
  readonly script?: BackendScript;
  /** Adds the tool `whoami`, which answers the `sub` of the token of that very call. Default false. */
  readonly hasWhoami?: boolean;
  /** Replaces members of the metadata document. */
  readonly metadata?: Readonly<Record<string, unknown>>;
}

export interface TrustedIssuer {
  readonly issuer: string;
  jwks(): JSONWebKeySet;
}

/** A request as it came, and what became of it. */
export interface GuardedRequest extends ReceivedRequest {
  readonly path: string;
  /** Of the guard: 200 lets it in, 401 and 403 don't, 404 is no path of its. */
  readonly verdict: number;
}

/** What the token of a request that was let in says. */
export interface SeenToken {
  readonly sub: string | undefined;
  readonly client_id: string | undefined;
  readonly scope: string | undefined;
  readonly act: unknown;
  readonly claims: JWTPayload;
  readonly token: string;
  readonly rpcMethod: string | undefined;
}

export interface GuardedBackend extends Backend {
  /** Every request, refused ones and those for metadata too, in the order in which they were judged. */
  readonly requests: readonly GuardedRequest[];
  /** One for each request that was let in, in the same order. */
  readonly seen: readonly SeenToken[];
  readonly audience: string;
  /** Of the protected resource metadata. */
  readonly metadataUrl: string;
  /** Refuses these tokens from now on, whatever they say. */
  revoke(isRevoked: (token: SeenToken) => boolean): void;
}

type Judgement =
  | { readonly verdict: 200; readonly seen: SeenToken }
  | { readonly verdict: 401 | 403; readonly error?: string; readonly why?: string };

/** Starts it on a free port of 127.0.0.1. */
export async function startGuardedBackend(options: GuardOptions): Promise<GuardedBackend> {
  const { issuers, scopes = [], hasWhoami = false } = options;
  const port = await lastingPort();
  const url = `http://127.0.0.1:${port}/mcp`;
  const metadataUrl = `http://127.0.0.1:${port}/.well-known/oauth-protected-resource/mcp`;
  const audience = options.audience ?? url;
  const requests: GuardedRequest[] = [];
  const seen: SeenToken[] = [];
  const revocations: ((token: SeenToken) => boolean)[] = [];
  const backend = await startBackend(complete(options.script ?? {}));
  const front = createServer((request, response) => {
    serve(request, response).catch((error: Error) => response.destroy(error));
  });
  await listen();

  /** The script with the tool of ours. */
  function complete<T extends Partial<BackendScript>>(script: T): T {
    if (!hasWhoami) return script;
    const tools = [plainTool("whoami"), ...(script.tools ?? [])];
    const calls: BackendScript["calls"] = {
      ...script.calls,
      whoami: ({ message }) => {
        // The message of this very call, and no other, has the headers of this very call.
        const own = backend.requests.find((received) => received.message === message);
        return textResult(String(decodeJwt(bearerOf(own?.headers.authorization) as string).sub));
      },
    };
    return { ...script, tools, calls };
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request);
    const message = request.method === "POST" ? readRpc(body) : undefined;
    const path = request.url ?? "";
    const note = (verdict: number) =>
      requests.push({ method: request.method ?? "", path, headers: request.headers, body, message, verdict });
    if (path === new URL(metadataUrl).pathname) {
      note(200);
      return void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(metadata()));
    }
    if (path !== "/mcp") {
      note(404);
      return void response.writeHead(404).end();
    }
    const judgement = await judge(request, message?.method);
    note(judgement.verdict);
    if (judgement.verdict !== 200) return refuse(response, judgement);
    seen.push(judgement.seen);
    handOn(request, body, response);
  }

  const metadata = () => ({
    resource: url,
    authorization_servers: issuers.map(({ issuer }) => issuer),
    bearer_methods_supported: ["header"],
    ...(scopes.length > 0 ? { scopes_supported: scopes } : {}),
    ...options.metadata,
  });

  async function judge({ headers }: IncomingMessage, rpcMethod: string | undefined): Promise<Judgement> {
    const token = bearerOf(headers.authorization);
    if (token === undefined) return { verdict: 401 };
    const invalid = (why: string) => ({ verdict: 401, error: "invalid_token", why }) as const;
    let claims: JWTPayload;
    try {
      claims = await verify(token);
    } catch (error) {
      return invalid((error as Error).message.replace(/[^\x20-\x7e]|["\\]/g, "'"));
    }
    const { sub, client_id, scope, act } = claims as JWTPayload & { client_id?: string; scope?: string };
    const found = { sub, client_id, scope, act, claims, token, rpcMethod };
    if (revocations.some((isRevoked) => isRevoked(found))) return invalid("revoked");
    const granted = scope?.split(" ") ?? [];
    if (!scopes.every((needed) => granted.includes(needed))) return { verdict: 403, error: "insufficient_scope" };
    return { verdict: 200, seen: found };
  }

  async function verify(token: string): Promise<JWTPayload> {
    const { iss } = decodeJwt(token);
    const trusted = issuers.find(({ issuer }) => issuer === iss);
    if (!trusted) throw new Error(`issuer ${iss} is not trusted`);
    const rules = { audience, algorithms: ["RS256", "ES256"], typ: "at+jwt", requiredClaims: ["sub", "exp"] };
    return (await jwtVerify(token, createLocalJWKSet(trusted.jwks()), rules)).payload;
  }

  function refuse(
    response: ServerResponse,
    { verdict, error, why }: Judgement & { readonly error?: string; readonly why?: string },
  ) {
    const words = {
      ...(error === undefined ? {} : { error }),
      ...(why === undefined ? {} : { error_description: why }),
      resource_metadata: metadataUrl,
      ...(scopes.length > 0 ? { scope: scopes.join(" ") } : {}),
    };
    const challenge = Object.entries(words).map(([name, value]) => `${name}="${value}"`);
    response.writeHead(verdict, { "www-authenticate": `Bearer ${challenge.join(", ")}` }).end();
  }

  function handOn(request: IncomingMessage, body: string, response: ServerResponse): void {
    const { method, headers } = request;
    const onward = httpRequest(backend.url, { method, headers });
    onward.on("response", (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers).flushHeaders();
      answer.on("error", () => response.destroy());
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    onward.end(body);
  }

  async function listen(): Promise<void> {
    front.listen(port, "127.0.0.1");
    await once(front, "listening");
  }

  async function down(): Promise<void> {
    if (!front.listening) return;
    const closed = new Promise((resolve) => front.close(resolve));
    front.closeAllConnections();
    await closed;
    backend.cutStreams();
    backend.dropSessions();
  }

  return {
    ...backend,
    url,
    port,
    audience,
    metadataUrl,
    requests,
    seen,
    bodies: (rpcMethod) => requests.filter(({ message }) => message?.method === rpcMethod).map(({ body }) => body),
    set: (changes) => backend.set(changes.tools || changes.calls ? complete(changes) : changes),
    revoke: (isRevoked) => void revocations.push(isRevoked),
    down,
    up: listen,
    async [Symbol.asyncDispose]() {
      await down();
      await backend[Symbol.asyncDispose]();
    },
  };
}

const bearerOf = (authorization: string | undefined): string | undefined => /^Bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
