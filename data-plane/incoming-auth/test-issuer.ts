// For tests: an issuer of tokens on a port of its own, which can be made to say anything.
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { pino } from "pino";
import { OidcConfigSchema } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import type { Authenticator, Presented, Verdict } from "./authenticator.ts";
import type { Caller } from "./caller.ts";
import type { Clock } from "./clock.ts";
import { createOidc } from "./oidc.ts";

export interface SigningKey {
  readonly kid: string;
  readonly alg: string;
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  /** Public, with kid, alg and use. */
  readonly jwk: Record<string, unknown>;
}

export type KeyKind = "RS256" | "PS256" | "ES256" | "EdDSA";

export function createSigningKey(kid: string, alg: KeyKind = "ES256"): SigningKey {
  const pair =
    alg === "EdDSA"
      ? generateKeyPairSync("ed25519")
      : alg === "ES256"
        ? generateKeyPairSync("ec", { namedCurve: "P-256" })
        : generateKeyPairSync("rsa", { modulusLength: 2_048 });
  return { kid, alg, ...pair, jwk: { ...pair.publicKey.export({ format: "jwk" }), kid, alg, use: "sig" } };
}

export const encode = (value: unknown): string =>
  (Buffer.isBuffer(value) ? value : Buffer.from(typeof value === "string" ? value : JSON.stringify(value))).toString("base64url");

/** Any bytes as header and claims, with a signature that is good for them. */
export function signRaw(key: SigningKey, header: unknown, claims: unknown): string {
  const input = `${encode(header)}.${encode(claims)}`;
  return `${input}.${encode(signatureOf(key, input))}`;
}

export function signatureOf({ alg, privateKey }: SigningKey, input: string): Buffer {
  const data = Buffer.from(input);
  if (alg === "EdDSA") return sign(null, data, privateKey);
  if (alg === "ES256") return sign("sha256", data, { key: privateKey, dsaEncoding: "ieee-p1363" });
  // 6 is RSA_PKCS1_PSS_PADDING, and the salt is as long as the hash (RFC 7518 section 3.5).
  return sign("sha256", data, alg === "PS256" ? { key: privateKey, padding: 6, saltLength: 32 } : privateKey);
}

/** `undefined` takes a member out. */
export type Changes = Readonly<Record<string, unknown>>;

export function issue(key: SigningKey, claims: Changes, header: Changes = {}): string {
  return signRaw(key, { alg: key.alg, kid: key.kid, typ: "at+jwt", ...header }, claims);
}

export interface TestIssuer extends AsyncDisposable {
  readonly url: string;
  /** What is published. */
  keys: readonly Record<string, unknown>[];
  metadata: Record<string, unknown>;
  /** Answers about a token; `undefined` is HTTP 500. */
  introspect: (token: string) => Record<string, unknown> | undefined | Promise<Record<string, unknown> | undefined>;
  /** In place of what would be answered; path → what is done. */
  readonly instead: Map<string, (response: ServerResponse) => void>;
  /** Paths that were asked for. */
  readonly asked: string[];
  /** Authorization headers of introspection requests. */
  readonly clients: (string | undefined)[];
  count(path: string): number;
}

export const jwksPath = "/jwks";
export const openidPath = "/.well-known/openid-configuration";
export const oauthPath = "/.well-known/oauth-authorization-server";
export const introspectPath = "/introspect";

export async function startIssuer(...keys: readonly SigningKey[]): Promise<TestIssuer> {
  const server = createServer((request, response) => {
    answer(request, response).catch((error: Error) => response.destroy(error));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const asked: string[] = [];
  const issuer: TestIssuer = {
    url,
    keys: keys.map(({ jwk }) => jwk),
    metadata: { issuer: url, jwks_uri: url + jwksPath },
    introspect: () => ({ active: false }),
    instead: new Map(),
    asked,
    clients: [],
    count: (path) => asked.filter((one) => one === path).length,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? "";
    asked.push(path);
    const instead = issuer.instead.get(path);
    if (instead) return instead(response);
    const body =
      path === openidPath
        ? issuer.metadata
        : path === jwksPath
          ? { keys: issuer.keys }
          : path === introspectPath
            ? await introspected(request)
            : undefined;
    response.writeHead(body ? 200 : path === introspectPath ? 500 : 404, { "content-type": "application/json" });
    response.end(JSON.stringify(body ?? {}));
  }

  async function introspected(request: IncomingMessage): Promise<Record<string, unknown> | undefined> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    (issuer.clients as unknown[]).push(request.headers.authorization);
    return await issuer.introspect(new URLSearchParams(Buffer.concat(chunks).toString()).get("token") ?? "");
  }

  return issuer;
}

/** A clock that stands until it is set. */
export interface TestClock extends Clock {
  /** Both clocks, milliseconds. */
  pass(ms: number): void;
  /** Only what the machine takes for the time of day. */
  jump(ms: number): void;
}

export function createTestClock(startMs = Date.now()): TestClock {
  let elapsedMs = 0;
  let nowMs = startMs;
  return {
    nowMs: () => nowMs,
    elapsedMs: () => elapsedMs,
    pass(ms) {
      elapsedMs += ms;
      nowMs += ms;
    },
    jump(ms) {
      nowMs += ms;
    },
  };
}

export const audience = "https://mcp.example/team";

/** Claims that are good at this time. */
export function goodClaims(issuer: string, nowMs: number): Record<string, unknown> {
  const now = Math.floor(nowMs / 1_000);
  return { iss: issuer, aud: audience, sub: "ada", iat: now, exp: now + 600, client_id: "cli", scope: "read write" };
}

export interface Opened {
  readonly authenticator: Authenticator;
  readonly clock: TestClock;
  readonly lines: string[];
  /** Asks with an Authorization header, and whatever else. */
  ask(authorization: string | undefined, presented?: Partial<Presented>): Promise<Verdict>;
}

export function open(config: MessageInitShape<typeof OidcConfigSchema>, clock = createTestClock(), timeoutMs = 2_000): Opened {
  const lines: string[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => void lines.push(line) });
  const authenticator = createOidc(create(OidcConfigSchema, { audience, ...config } as never), { log, clock, timeoutMs });
  return {
    authenticator,
    clock,
    lines,
    ask: async (authorization, presented = {}) =>
      authenticator.authenticate({
        method: "POST",
        url: audience,
        remoteAddress: "192.0.2.7",
        ...presented,
        headers: { ...(authorization === undefined ? {} : { authorization }), ...presented.headers },
      }),
  };
}

export const sha256 = (text: string | Buffer): string => createHash("sha256").update(text).digest("base64url");

/** `200`, or status, error and words of the refusal. */
export const said = ({ refusal }: Verdict): string =>
  refusal ? [refusal.status, refusal.error, refusal.description].filter(Boolean).join(" ") : "200";

export const callerOf = (verdict: Verdict): Caller | undefined => (verdict.refusal ? undefined : verdict.caller);
