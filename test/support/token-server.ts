// A token endpoint on a real socket: it checks who asks, notes what for, and answers well unless it is told how to misbehave.
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createLocalJWKSet, type JWK, jwtVerify } from "jose";

export interface TokenRequest {
  readonly parameters: Readonly<Record<string, string>>;
  readonly headers: IncomingHttpHeaders;
  /** Who it was that asked, as proved. */
  readonly client: string | undefined;
  /** The first is 1. */
  readonly number: number;
}

export interface TokenReply {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** JSON, unless it is a text. */
  readonly body: unknown;
}

export interface TokenServer extends AsyncDisposable {
  readonly url: string;
  readonly origin: string;
  readonly requests: TokenRequest[];
  /** Of the clients that prove themselves; without it nobody is asked. */
  clients: Readonly<Record<string, { readonly secret?: string; readonly key?: JWK }>> | undefined;
  /** Answers instead of the usual; undefined gives the usual. "hang up" closes the connection. */
  misbehave: ((request: TokenRequest) => TokenReply | "hang up" | undefined) | undefined;
  /** Before every answer, milliseconds. */
  delayMs: number;
  /** Answers to paths other than /token. */
  readonly pages: Map<string, TokenReply>;
  /** Paths that were asked for. */
  readonly paths: string[];
}

/** Usual tokens are unsigned JWTs for the audience asked for, different each time, good for an hour. */
export async function startTokenServer(): Promise<TokenServer> {
  const requests: TokenRequest[] = [];
  const pages = new Map<string, TokenReply>();
  const paths: string[] = [];
  let origin = "";

  async function clientOf(parameters: Record<string, string>, headers: IncomingHttpHeaders): Promise<string | undefined> {
    const known = server.clients ?? {};
    if (parameters.client_assertion) {
      const { client_id: id = "", client_assertion: assertion } = parameters;
      const keys = createLocalJWKSet({ keys: [known[id]?.key ?? { kty: "oct" }] });
      const { payload } = await jwtVerify(assertion, keys, { audience: server.url, issuer: id, subject: id });
      return payload.jti ? id : undefined;
    }
    const basic = /^Basic (.+)$/.exec(headers.authorization ?? "")?.[1];
    const [id = "", secret] = basic
      ? Buffer.from(basic, "base64")
          .toString()
          .split(":")
          .map((part) => decodeURIComponent(part.replaceAll("+", " ")))
      : [parameters.client_id, parameters.client_secret];
    return secret !== undefined && known[id]?.secret === secret ? id : undefined;
  }

  const http = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    paths.push(request.url ?? "");
    const page = pages.get(request.url ?? "");
    if (page) return send(response, page);
    if (request.url !== "/token") return send(response, { status: 404, body: {} });
    const parameters = Object.fromEntries(new URLSearchParams(Buffer.concat(chunks).toString()));
    const client = await clientOf(parameters, request.headers).catch(() => undefined);
    const asked = { parameters, headers: request.headers, client, number: requests.length + 1 };
    requests.push(asked);
    if (server.delayMs > 0) await sleep(server.delayMs);
    const reply = server.misbehave?.(asked);
    if (reply === "hang up") return request.socket.destroy();
    if (server.clients && !client && !reply) return send(response, { status: 401, body: { error: "invalid_client" } });
    send(response, reply ?? { body: usualAnswer(asked) });
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const server: TokenServer = {
    ...{ url: `${origin}/token`, origin, requests, pages, paths },
    ...{ clients: undefined, misbehave: undefined, delayMs: 0 },
    async [Symbol.asyncDispose]() {
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    },
  };
  return server;
}

export function usualAnswer({ parameters, number }: TokenRequest): Record<string, unknown> {
  const { audience, scope, subject_token: subject, requested_token_type: type } = parameters;
  return {
    access_token: unsignedJwt({ sub: `for ${subject}`, n: number, ...(audience ? { aud: audience } : {}), scope }),
    token_type: "Bearer",
    ...(type ? { issued_token_type: type } : {}),
    expires_in: 3_600,
  };
}

/** What looks like a JWT to whoever does not check its signature. */
export function unsignedJwt(claims: Record<string, unknown>): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "RS256" })}.${part(claims)}.c2ln`;
}

function send(response: ServerResponse, { status = 200, headers = {}, body }: TokenReply): void {
  const type = typeof body === "string" ? "text/html" : "application/json";
  response.writeHead(status, { "content-type": type, ...headers });
  response.end(typeof body === "string" ? body : JSON.stringify(body));
}
