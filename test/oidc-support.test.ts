// The issuer, the guard, the canary and the browser, tried with the clients of others: a test that uses them may trust them.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";
import { Redis } from "ioredis";
import {
  calculateJwkThumbprint,
  createRemoteJWKSet,
  decodeJwt,
  decodeProtectedHeader,
  exportJWK,
  generateKeyPair,
  jwtVerify,
} from "jose";
import * as oauth from "oauth4webapi";
import { counter } from "./support/backend.ts";
import { startBrowser, whyNoBrowser } from "./support/browser.ts";
import { filesPlace, redisPlace, requestsPlace, searchFor, textPlace } from "./support/canary.ts";
import { whyMissing } from "./support/debian.ts";
import { type GuardedBackend, startGuardedBackend } from "./support/guarded-backend.ts";
import { type Issuer, type IssuerChanges, startIssuer } from "./support/issuer.ts";
import type { IssuerClient } from "./support/issuer-clients.ts";
import { temporaryDirectory } from "./support/processes.ts";
import { startRedis } from "./support/redis.ts";
import { signIn } from "./support/sign-in.ts";

const noBrowser = await whyNoBrowser();
const noRedis = await whyMissing("redis-server", "redis-server");

const audience = "https://api.example/mcp";
const redirectUri = "http://127.0.0.1:1/callback";
const secret = "a secret: with + signs & more";
const insecure = { [oauth.allowInsecureRequests]: true };
const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange";
const accessTokenType = "urn:ietf:params:oauth:token-type:access_token";

const assertionKeys = await generateKeyPair("ES256", { extractable: true });
const clients: readonly IssuerClient[] = [
  { id: "basic client", secret, redirectUris: [redirectUri] },
  { id: "post", secret, auth: "post" },
  { id: "assertion", jwks: { keys: [{ ...(await exportJWK(assertionKeys.publicKey)), alg: "ES256", kid: "1" }] } },
  { id: "public", redirectUris: [redirectUri] },
];

const basic = [{ client_id: "basic client" }, oauth.ClientSecretBasic(secret)] as const;
const open = [{ client_id: "public" }, oauth.None()] as const;

async function discover({ issuer }: Pick<Issuer, "issuer">, algorithm: "oidc" | "oauth2" = "oidc") {
  const url = new URL(issuer);
  return oauth.processDiscoveryResponse(url, await oauth.discoveryRequest(url, { algorithm, ...insecure }));
}

type Caller = readonly [oauth.Client, oauth.ClientAuth];

async function clientCredentials(issuer: Issuer, [client, auth]: Caller, params: Record<string, string>) {
  const server = await discover(issuer);
  const response = await oauth.clientCredentialsGrantRequest(server, client, auth, params, insecure);
  return oauth.processClientCredentialsResponse(server, client, response);
}

async function exchange(issuer: Issuer, params: Record<string, string>) {
  const server = await discover(issuer);
  const response = await oauth.genericTokenEndpointRequest(server, ...basic, exchangeGrant, params, insecure);
  return oauth.processGenericTokenEndpointResponse(server, basic[0], response);
}

/** What a resource server makes of it. */
const verify = async (issuer: Issuer, token: string, wanted = audience) =>
  jwtVerify(token, createRemoteJWKSet(new URL(issuer.jwksUrl)), { issuer: issuer.issuer, audience: wanted, typ: "at+jwt" });

async function introspect(issuer: Issuer, token: string) {
  const server = await discover(issuer);
  const response = await oauth.introspectionRequest(server, ...basic, token, insecure);
  return oauth.processIntrospectionResponse(server, basic[0], response);
}

interface CodeFlow {
  readonly client: oauth.Client;
  readonly url: string;
  /** Ends the flow with what the redirect brought. */
  finish(redirect: URL): Promise<oauth.TokenEndpointResponse>;
}

async function beginCodeFlow(issuer: Issuer, [client, auth]: Caller, more: Record<string, string> = {}): Promise<CodeFlow> {
  const server = await discover(issuer, "oauth2");
  const verifier = oauth.generateRandomCodeVerifier();
  const state = oauth.generateRandomState();
  const url = new URL(server.authorization_endpoint as string);
  const params = {
    client_id: client.client_id,
    redirect_uri: redirectUri,
    response_type: "code",
    scope: "openid tools:call",
    resource: audience,
    state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    ...more,
  };
  url.search = new URLSearchParams(params).toString();
  return {
    client,
    url: url.href,
    async finish(redirect) {
      assert.equal(redirect.searchParams.get("iss"), issuer.issuer);
      const callback = oauth.validateAuthResponse(server, client, redirect, state);
      const grant = oauth.authorizationCodeGrantRequest;
      const response = await grant(server, client, auth, callback, params.redirect_uri, verifier, insecure);
      return oauth.processAuthorizationCodeResponse(server, client, response);
    },
  };
}

async function refresh(issuer: Issuer, token: string) {
  const server = await discover(issuer);
  const response = await oauth.refreshTokenGrantRequest(server, ...open, token, insecure);
  return oauth.processRefreshTokenResponse(server, open[0], response);
}

describe("the issuer", () => {
  let peer: Issuer;
  let issuer: Issuer;
  before(async () => {
    peer = await startIssuer();
    issuer = await startIssuer({
      clients,
      peers: [peer],
      audiences: { "https://opaque.example": { format: "opaque" }, "https://ec.example": { alg: "ES256" } },
      claimsOf: (sub) => ({ groups: [`${sub}s`] }),
      hasClientDocuments: true,
    });
  });
  after(async () => {
    await issuer[Symbol.asyncDispose]();
    await peer[Symbol.asyncDispose]();
  });

  test("says the same of itself at both well-known URLs, and counts who asks", async () => {
    const counted = issuer.fetches.discovery;
    const metadata = await discover(issuer);
    assert.deepEqual(await discover(issuer, "oauth2"), metadata);
    assert.equal(issuer.fetches.discovery, counted + 2);
    assert.deepEqual(
      [metadata.token_endpoint, metadata.jwks_uri, metadata.introspection_endpoint, metadata.authorization_endpoint],
      [issuer.tokenUrl, issuer.jwksUrl, issuer.introspectionUrl, issuer.authorizationUrl],
    );
    assert.deepEqual(metadata.code_challenge_methods_supported, ["S256"]);
    assert.equal(metadata.authorization_response_iss_parameter_supported, true);
    assert.equal(metadata.client_id_metadata_document_supported, true);
    assert.ok(metadata.grant_types_supported?.includes(exchangeGrant));
    assert.equal((await discover(peer)).client_id_metadata_document_supported, undefined);
  });

  for (const [clientAuth, caller, mark] of [
    ["basic", basic, "authorization"],
    ["post", [{ client_id: "post" }, oauth.ClientSecretPost(secret)], "client_secret"],
    [
      "private_key_jwt",
      [{ client_id: "assertion" }, oauth.PrivateKeyJwt({ key: assertionKeys.privateKey, kid: "1" })],
      "client_assertion",
    ],
  ] as const) {
    test(`gives client credentials to a client with ${clientAuth}, and remembers what it showed`, async () => {
      const answer = await clientCredentials(issuer, caller, { audience, scope: "tools:call" });
      const { payload } = await verify(issuer, answer.access_token);
      const { client_id: id } = caller[0];
      assert.deepEqual([payload.sub, payload.client_id, payload.scope], [id, id, "tools:call"]);
      const last = issuer.tokenRequests.at(-1);
      assert.deepEqual([last?.grantType, last?.clientAuth, last?.clientId], ["client_credentials", clientAuth, id]);
      assert.ok(mark in { ...last?.params, ...last?.headers });
      assert.ok(last?.answer?.body.includes(answer.access_token));
    });
  }

  test("takes an audience that is no URI, and a resource", async () => {
    const named = await clientCredentials(issuer, basic, { audience: "payments api" });
    assert.equal((await verify(issuer, named.access_token, "payments api")).payload.aud, "payments api");
    const resource = await clientCredentials(issuer, basic, { resource: "https://ec.example" });
    assert.equal((await verify(issuer, resource.access_token, "https://ec.example")).protectedHeader.alg, "ES256");
  });

  test("refuses a wrong secret", async () => {
    const wrong = [basic[0], oauth.ClientSecretBasic("wrong")] as const;
    await assert.rejects(clientCredentials(issuer, wrong, { audience }), oauth.WWWAuthenticateChallengeError);
    const { status, body } = issuer.tokenRequests.at(-1)?.answer ?? { body: "" };
    assert.deepEqual([status, JSON.parse(body).error], [401, "invalid_client"]);
  });

  test("makes JWTs without a browser, as it was asked", async () => {
    const cnf = { jkt: await calculateJwkThumbprint(await exportJWK(assertionKeys.publicKey)) };
    const claims = { tenant: "one" };
    const token = await issuer.token({
      sub: "ann",
      audience,
      scope: "a b",
      clientId: "public",
      expiresInSeconds: 60,
      cnf,
      claims,
    });
    const { payload } = await verify(issuer, token);
    const { iat = 0, exp = 0, jti: _, ...rest } = payload;
    assert.equal(exp - iat, 60);
    assert.deepEqual(rest, {
      iss: issuer.issuer,
      aud: audience,
      sub: "ann",
      client_id: "public",
      scope: "a b",
      groups: ["anns"],
      cnf,
      tenant: "one",
    });
    const ended = await issuer.token({ sub: "ann", audience, expiresInSeconds: -5 });
    await assert.rejects(verify(issuer, ended), { code: "ERR_JWT_EXPIRED" });
    const other = await issuer.token({ sub: "ann", audience, alg: "ES256" });
    assert.equal((await verify(issuer, other)).protectedHeader.alg, "ES256");
  });

  test("knows its opaque tokens until they end or are revoked", async () => {
    const token = await issuer.token({ sub: "ann", audience: "https://opaque.example", scope: "a" });
    const counted = issuer.fetches.introspection;
    const { active, sub, aud, scope, client_id } = await introspect(issuer, token);
    assert.deepEqual([active, sub, aud, scope, client_id], [true, "ann", "https://opaque.example", "a", "caller"]);
    assert.equal(issuer.fetches.introspection, counted + 1);
    const ended = await issuer.token({ sub: "ann", format: "opaque", expiresInSeconds: -5 });
    for (const inactive of [ended, "nonsense"]) assert.deepEqual(await introspect(issuer, inactive), { active: false });
  });

  test("signs whatever a test needs, good or bad", async () => {
    const good = await issuer.sign({ sub: "ann", aud: audience });
    assert.equal((await verify(issuer, good)).payload.sub, "ann");
    const bare = await issuer.sign({ sub: "ann", exp: undefined, iss: "other" }, { header: { typ: undefined, kid: "none" } });
    assert.deepEqual([decodeJwt(bare).exp, decodeJwt(bare).iss], [undefined, "other"]);
    assert.deepEqual(decodeProtectedHeader(bare), { alg: "RS256", kid: "none" });
    const unsigned = await issuer.sign({ sub: "ann" }, { header: { alg: "none" } });
    assert.match(unsigned, /^[\w-]+\.[\w-]+\.$/);
    // Signed with the public key as an HMAC secret.
    const key = Buffer.from(issuer.publicPem());
    const confused = await issuer.sign({ sub: "ann" }, { header: { alg: "HS256" }, key });
    const [header, payload, signature] = confused.split(".");
    assert.equal(createHmac("sha256", key).update(`${header}.${payload}`).digest("base64url"), signature);
    assert.deepEqual(issuer.jwks().keys[0], issuer.publicJwk());
  });

  test("exchanges its own tokens, of both formats, for one of another audience", async () => {
    for (const format of ["jwt", "opaque"] as const) {
      const subject = await issuer.token({ sub: "ann", audience: "https://gateway.example", scope: "a b", format });
      const params = { subject_token: subject, subject_token_type: accessTokenType, scope: "a" };
      const answer = await exchange(issuer, { ...params, audience: "backend", requested_token_type: accessTokenType });
      assert.deepEqual([answer.issued_token_type, answer.scope, answer.expires_in], [accessTokenType, "a", 3_600]);
      const { payload } = await verify(issuer, answer.access_token, "backend");
      const { sub, client_id, scope, act } = payload;
      assert.deepEqual({ sub, client_id, scope, act }, { sub: "ann", client_id: "basic client", scope: "a", act: undefined });
      assert.equal(issuer.tokenRequests.at(-1)?.params.subject_token, subject);
    }
  });

  test("says in an exchanged token who acts for whom, and who did before", async () => {
    const types = { subject_token_type: accessTokenType, actor_token_type: accessTokenType, resource: audience };
    const subject = await peer.token({ sub: "ann", audience });
    const first = { subject_token: subject, actor_token: await issuer.token({ sub: "gateway", audience }), ...types };
    const once = await exchange(issuer, first);
    assert.deepEqual(decodeJwt(once.access_token).act, { sub: "gateway" });
    const second = { subject_token: once.access_token, actor_token: await peer.token({ sub: "agent", audience }), ...types };
    const twice = decodeJwt((await exchange(issuer, second)).access_token);
    assert.deepEqual([twice.sub, twice.act], ["ann", { sub: "agent", iss: peer.issuer, act: { sub: "gateway" } }]);
  });

  for (const [what, params, error] of [
    [
      "a token that has ended",
      async () => ({ subject_token: await issuer.token({ sub: "a", audience, expiresInSeconds: -9 }) }),
      "invalid_request",
    ],
    [
      "a token of keys it does not know",
      async () => ({ subject_token: await peer.sign({ sub: "a", iss: issuer.issuer }) }),
      "invalid_request",
    ],
    [
      "a token of a stranger",
      async () => ({ subject_token: await issuer.sign({ sub: "a", iss: "https://other.example" }) }),
      "invalid_request",
    ],
    ["an actor without a type", async () => ({ actor_token: "x" }), "invalid_request"],
    ["no audience", async () => ({ resource: "" }), "invalid_target"],
    ["a type it does not issue", async () => ({ requested_token_type: "urn:x:saml" }), "invalid_request"],
  ] as const) {
    test(`refuses to exchange ${what}`, async () => {
      const usual = {
        subject_token: await issuer.token({ sub: "a", audience }),
        subject_token_type: accessTokenType,
        resource: audience,
      };
      const { resource, ...rest } = { ...usual, ...(await params()) };
      await assert.rejects(exchange(issuer, resource ? { ...rest, resource } : rest), { error });
    });
  }

  test("signs a user in without a browser, and a refresh token works once", async () => {
    const flow = await beginCodeFlow(issuer, open);
    const answer = await flow.finish(await signIn(flow.url, "ann"));
    const { payload } = await verify(issuer, answer.access_token);
    assert.deepEqual([payload.sub, payload.scope, payload.client_id], ["ann", "tools:call", "public"]);
    assert.equal(oauth.getValidatedIdTokenClaims(answer)?.sub, "ann");
    const refreshed = await refresh(issuer, answer.refresh_token as string);
    assert.equal((await verify(issuer, refreshed.access_token)).payload.scope, "tools:call");
    assert.notEqual(refreshed.refresh_token, answer.refresh_token);
    await assert.rejects(refresh(issuer, answer.refresh_token as string), { error: "invalid_grant" });
    // Somebody used it twice, so the whole family ends.
    await assert.rejects(refresh(issuer, refreshed.refresh_token as string), { error: "invalid_grant" });
  });

  test("with scopes of its own leaves others out, whatever the grant", async () => {
    await using small = await startIssuer({ clients, scopes: ["a"] });
    const params = { audience, scope: "a b" };
    const subject_token = await small.token({ sub: "ann", audience, scope: "a b" });
    const subject = { subject_token, subject_token_type: accessTokenType };
    const flow = await beginCodeFlow(small, open, { scope: "a b" });
    const answers = [
      await clientCredentials(small, basic, params),
      await exchange(small, { ...params, ...subject }),
      await exchange(small, { audience, ...subject }),
      await flow.finish(await signIn(flow.url, "ann")),
    ];
    for (const answer of answers) assert.equal(decodeJwt(answer.access_token).scope, "a");
  });

  test("insists on PKCE", async () => {
    const { url } = await beginCodeFlow(issuer, basic);
    const without = new URL(url);
    without.searchParams.delete("code_challenge");
    assert.equal((await signIn(without.href, "ann")).searchParams.get("error"), "invalid_request");
  });

  test("takes the URL of a document for a client, and believes only the document", async () => {
    let document: object = {};
    await using site = Object.assign(
      createServer((_request, response) => response.end(JSON.stringify(document))),
      {},
    );
    await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", resolve));
    const id = `http://127.0.0.1:${(site.address() as AddressInfo).port}/client.json`;
    document = {
      client_id: id,
      client_name: "A gateway",
      redirect_uris: [redirectUri],
      grant_types: ["authorization_code", "refresh_token"],
      token_endpoint_auth_method: "none",
    };
    const flow = await beginCodeFlow(issuer, [{ client_id: id }, oauth.None()]);
    const answer = await flow.finish(await signIn(flow.url, "ann"));
    assert.equal(decodeJwt(answer.access_token).client_id, id);
    document = { ...document, client_id: "http://127.0.0.1:1/other" };
    await assert.rejects(signIn(flow.url, "ann"), /invalid_client/);
  });

  test("binds tokens to the key of a DPoP proof", async () => {
    const server = await discover(issuer);
    const DPoP = oauth.DPoP({}, assertionKeys);
    const params = { resource: audience };
    const response = await oauth.clientCredentialsGrantRequest(server, ...basic, params, { DPoP, ...insecure });
    const answer = await oauth.processClientCredentialsResponse(server, basic[0], response);
    assert.equal(answer.token_type, "dpop");
    const jkt = await calculateJwkThumbprint(await exportJWK(assertionKeys.publicKey));
    assert.deepEqual(decodeJwt(answer.access_token).cnf, { jkt });
  });

  test("rotates its keys, and keeps what it knew", async () => {
    const old = await issuer.token({ sub: "ann", audience });
    const opaque = await issuer.token({ sub: "ann", format: "opaque" });
    const flow = await beginCodeFlow(issuer, open);
    const { refresh_token } = await flow.finish(await signIn(flow.url, "ann"));
    await issuer.rotate();
    const fresh = await issuer.token({ sub: "ann", audience });
    assert.notEqual(decodeProtectedHeader(fresh).kid, decodeProtectedHeader(old).kid);
    for (const token of [old, fresh]) await verify(issuer, token);
    issuer.removeOldKeys();
    await assert.rejects(verify(issuer, old), { code: "ERR_JWKS_NO_MATCHING_KEY" });
    await verify(issuer, fresh);
    await issuer.rotateAbruptly();
    await assert.rejects(verify(issuer, fresh), { code: "ERR_JWKS_NO_MATCHING_KEY" });
    const answer = await refresh(issuer, refresh_token as string);
    const { kid } = issuer.publicJwk();
    for (const token of [answer.access_token, answer.id_token as string]) assert.equal(decodeProtectedHeader(token).kid, kid);
    assert.equal((await introspect(issuer, opaque)).active, true);
    assert.equal(issuer.jwks().keys.length, 2);
  });

  test("is away and comes back on its port", async () => {
    await issuer.down();
    await assert.rejects(fetch(issuer.jwksUrl));
    await issuer.up();
    assert.equal((await fetch(issuer.jwksUrl)).status, 200);
  });
});

describe("a fault of the issuer", () => {
  let issuer: Issuer;
  before(async () => {
    issuer = await startIssuer({ clients });
  });
  after(() => issuer[Symbol.asyncDispose]());

  const body = "grant_type=client_credentials&resource=https://api.example/mcp";
  const headers = {
    "content-type": "application/x-www-form-urlencoded",
    authorization: `Basic ${btoa(`basic+client:${encodeURIComponent(secret)}`)}`,
  };
  const ask = async () => {
    const response = await fetch(issuer.tokenUrl, { method: "POST", body, headers });
    return { status: response.status, text: await response.text() };
  };
  const answer = async () => JSON.parse((await ask()).text) as Record<string, string>;
  /** Heals when the test is over. */
  const during = async (changes: IssuerChanges, act: () => Promise<void>) => {
    issuer.set(changes);
    await act();
    issuer.set({ token: undefined, jwks: undefined, discovery: undefined, introspection: undefined });
    assert.equal((await ask()).status, 200);
  };

  for (const [endpoint, url] of [
    ["jwks", () => issuer.jwksUrl],
    ["discovery", () => issuer.discoveryUrl],
    ["introspection", () => issuer.introspectionUrl],
  ] as const) {
    test(`${endpoint} fails as it was told`, async () => {
      const post = endpoint === "introspection" ? { method: "POST", body: "token=x", headers } : {};
      const counted = issuer.fetches[endpoint];
      await during({ [endpoint]: { status: 500 } }, async () => assert.equal((await fetch(url(), post)).status, 500));
      const garbage = "x".repeat(1_000_000);
      await during({ [endpoint]: { body: garbage } }, async () => assert.equal(await (await fetch(url(), post)).text(), garbage));
      await during({ [endpoint]: { cut: "before" } }, async () => void (await assert.rejects(fetch(url(), post))));
      await during({ [endpoint]: { delayMs: 60_000 } }, async () => {
        await assert.rejects(fetch(url(), { ...post, signal: AbortSignal.timeout(100) }), { name: "TimeoutError" });
      });
      assert.equal(issuer.fetches[endpoint], counted + 4);
    });
  }

  test("is an error of OAuth", () =>
    during({ token: { error: "invalid_grant" } }, async () => {
      const { status, text } = await ask();
      assert.deepEqual([status, JSON.parse(text).error], [400, "invalid_grant"]);
    }));

  test("is a lifetime that is wrong or not there, or any member", () =>
    during({ token: { expiresIn: "absent" } }, async () => {
      assert.ok(!("expires_in" in (await answer())));
      issuer.set({ token: { expiresIn: 1e12, members: { token_type: "mac" } } });
      const { expires_in, token_type } = await answer();
      assert.deepEqual([expires_in, token_type], [1e12, "mac"]);
    }));

  test("is another audience, which no client can ask for", () =>
    during({ token: { audience: "wrong" } }, async () => {
      assert.equal(decodeJwt((await answer()).access_token as string).aud, "wrong");
      issuer.set({ token: undefined });
      const response = await fetch(issuer.tokenUrl, {
        method: "POST",
        body,
        headers: { ...headers, "x-test-audience": "wrong" },
      });
      const { access_token } = (await response.json()) as { access_token: string };
      assert.equal(decodeJwt(access_token).aud, audience);
    }));

  test("is a cut before or after the deed, and both are on record", () =>
    during({ token: { cut: "after", times: 1 } }, async () => {
      const flow = await beginCodeFlow(issuer, open);
      const { refresh_token } = await flow.finish(await signIn(flow.url, "ann")).catch(() => ({ refresh_token: undefined }));
      assert.equal(refresh_token, undefined);
      const code = issuer.tokenRequests.at(-1);
      assert.deepEqual([code?.grantType, code?.answer], ["authorization_code", undefined]);
      const again = await beginCodeFlow(issuer, open);
      const answered = await again.finish(await signIn(again.url, "ann"));
      issuer.set({ token: { cut: "before", times: 1 } });
      await assert.rejects(refresh(issuer, answered.refresh_token as string));
      const second = await refresh(issuer, answered.refresh_token as string);
      issuer.set({ token: { cut: "after", times: 1 } });
      await assert.rejects(refresh(issuer, second.refresh_token as string));
      await assert.rejects(refresh(issuer, second.refresh_token as string), { error: "invalid_grant" });
    }));

  test("is a token that really ends soon", async () => {
    issuer.set({ accessTokenSeconds: 7 });
    const { access_token = "", expires_in } = await answer();
    const { exp = 0, iat = 0 } = decodeJwt(access_token);
    assert.deepEqual([exp - iat, expires_in], [7, 7]);
    issuer.set({ accessTokenSeconds: 3_600 });
  });
});

describe("the guarded backend", () => {
  let issuer: Issuer;
  let backend: GuardedBackend;
  let id = 0;
  before(async () => {
    issuer = await startIssuer();
    const script = { tools: [counter.tool], calls: { counter: counter.call }, isSessionless: true };
    backend = await startGuardedBackend({ issuers: [issuer], scopes: ["tools:call"], script, hasWhoami: true });
  });
  after(async () => {
    await backend[Symbol.asyncDispose]();
    await issuer[Symbol.asyncDispose]();
  });

  const good = (sub: string) => issuer.token({ sub, audience: backend.audience, scope: "tools:call other" });

  async function call(tool: string, token?: string) {
    const response = await fetch(backend.url, {
      method: "POST",
      headers: { "content-type": "application/json", ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
      body: `{"jsonrpc":"2.0","id":${++id},"method":"tools/call","params":{"name":"${tool}"}}`,
    });
    const text = await response.text();
    return {
      status: response.status,
      challenge: response.headers.get("www-authenticate") ?? "",
      text: response.ok ? JSON.parse(text).result.content[0].text : text,
    };
  }

  test("answers each of many calls at once as who it comes from", async () => {
    const users = Array.from({ length: 20 }, (_, i) => `user-${i}`);
    const tokens = await Promise.all(users.map(good));
    const answers = await Promise.all(tokens.map((token) => call("whoami", token)));
    assert.deepEqual(
      answers.map(({ text }) => text),
      users,
    );
    assert.deepEqual(backend.seen.map(({ sub }) => sub).toSorted(), users.toSorted());
    const [first] = backend.seen;
    assert.deepEqual([first?.client_id, first?.scope, first?.rpcMethod], ["caller", "tools:call other", "tools/call"]);
    assert.ok(tokens.includes(first?.token as string));
    backend.set({ tools: [] });
    assert.equal((await call("whoami", tokens[3])).text, "user-3");
  });

  for (const [what, token, verdict, challenge] of [
    ["no token", async () => undefined, 401, /^Bearer resource_metadata="http:[^"]+\/mcp", scope="tools:call"$/],
    ["nonsense", async () => "nonsense", 401, /error="invalid_token"/],
    ["another audience", async () => issuer.token({ sub: "a", audience }), 401, /aud/],
    [
      "a token that has ended",
      async () => issuer.token({ sub: "a", audience: backend.audience, expiresInSeconds: -5 }),
      401,
      /exp/,
    ],
    ["no signature", async () => issuer.sign({ sub: "a", aud: backend.audience }, { header: { alg: "none" } }), 401, /alg/],
    [
      "the public key as a secret",
      async () =>
        issuer.sign({ sub: "a", aud: backend.audience }, { header: { alg: "HS256" }, key: Buffer.from(issuer.publicPem()) }),
      401,
      /alg/,
    ],
    [
      "another issuer",
      async () => issuer.sign({ sub: "a", aud: backend.audience, iss: "https://other.example" }),
      401,
      /not trusted/,
    ],
    ["an ID token", async () => issuer.sign({ sub: "a", aud: backend.audience }, { header: { typ: "JWT" } }), 401, /typ/],
    [
      "too small a scope",
      async () => issuer.token({ sub: "a", audience: backend.audience, scope: "other" }),
      403,
      /insufficient_scope/,
    ],
  ] as const) {
    test(`refuses ${what} with ${verdict}, and has it on record`, async () => {
      const counted = backend.seen.length;
      const shown = await token();
      const answer = await call("whoami", shown);
      assert.equal(answer.status, verdict);
      assert.match(answer.challenge, challenge);
      assert.ok(answer.challenge.includes(`resource_metadata="${backend.metadataUrl}"`));
      const last = backend.requests.at(-1);
      assert.equal(last?.verdict, verdict);
      assert.equal(last?.headers.authorization, shown && `Bearer ${shown}`);
      assert.equal(backend.seen.length, counted);
    });
  }

  test("says where tokens come from", async () => {
    const url = new URL(backend.url);
    const response = await oauth.resourceDiscoveryRequest(url, insecure);
    const metadata = await oauth.processResourceDiscoveryResponse(url, response);
    assert.equal(response.url, backend.metadataUrl);
    assert.deepEqual([metadata.authorization_servers, metadata.scopes_supported], [[issuer.issuer], ["tools:call"]]);
  });

  test("refuses a token from when it is revoked, and no other", async () => {
    const [mine, other] = await Promise.all([good("mine"), good("other")]);
    assert.equal((await call("whoami", mine)).status, 200);
    backend.revoke(({ sub }) => sub === "mine");
    assert.equal((await call("whoami", mine)).status, 401);
    assert.equal((await call("whoami", other)).status, 200);
  });

  test("follows the issuer's keys without asking for them", async () => {
    const counted = issuer.fetches.jwks;
    const old = await good("ann");
    await issuer.rotateAbruptly();
    assert.equal((await call("whoami", old)).status, 401);
    assert.equal((await call("whoami", await good("ann"))).status, 200);
    assert.equal(issuer.fetches.jwks, counted);
  });

  test("lets streams through, and is away and back", async () => {
    backend.set({ isSessionless: true });
    const authorization = `Bearer ${await good("ann")}`;
    const stream = await fetch(backend.url, { headers: { authorization, accept: "text/event-stream" } });
    const reader = stream.body?.pipeThrough(new TextDecoderStream()).getReader();
    backend.announce("tools");
    assert.match((await reader?.read())?.value ?? "", /list_changed/);
    await backend.down();
    await assert.rejects(async () => void (await reader?.read()));
    await assert.rejects(fetch(backend.url));
    await backend.up();
    assert.equal((await call("whoami", await good("bob"))).text, "bob");
  });
});

describe("the canary", () => {
  const secret = "s3cret/with+äll";
  const jwt = `${btoa('{"alg":"RS256"}')}.${"cGF5bG9hZA".repeat(3)}.${"c2lnbmF0dXJl-_".repeat(3)}`.replaceAll("=", "");
  const [header = "", payload = "", signature = ""] = jwt.split(".");
  const found = async (sought: string, text: string) => {
    const finds = await searchFor(sought, [textPlace("log", () => text)]);
    return finds.map(({ form }) => form).toSorted();
  };

  for (const [what, sought, text, wanted] of [
    ["nothing", secret, "s3cret/with+all", []],
    ["plain text", secret, `before ${secret} behind`, ["plain"]],
    ["base64", secret, Buffer.from(secret).toString("base64"), ["base64"]],
    ["base64url", `${secret}???>>>`, Buffer.from(`${secret}???>>>`).toString("base64url"), ["base64url"]],
    ["base64 of something longer by 1", secret, Buffer.from(`a${secret}b`).toString("base64"), ["base64"]],
    ["base64 of something longer by 2", secret, Buffer.from(`ab${secret}b`).toString("base64"), ["base64"]],
    ["hex", secret, Buffer.from(secret).toString("hex"), ["hex"]],
    ["hex in capitals", secret, Buffer.from(secret).toString("hex").toUpperCase(), ["hex"]],
    ["a query", secret, `?a=${encodeURIComponent(secret)}`, ["percent"]],
    ["JSON", 'a "quoted" one', JSON.stringify({ a: 'a "quoted" one' }), ["json"]],
    ["a header of a JWT", jwt, `${header}.`, []],
    ["a payload of a JWT", jwt, `x${payload}x`, ["payload"]],
    ["a signature of a JWT", jwt, `.${signature}`, ["signature"]],
    ["a signature in base64", jwt, btoa(signature), ["signature in base64"]],
    ["a whole JWT", jwt, jwt, ["payload", "plain", "signature"]],
  ] as const) {
    test(`finds ${wanted.join(", ") || "nothing"} in ${what}`, async () => assert.deepEqual(await found(sought, text), wanted));
  }

  test("refuses a secret that would be found by chance", () => assert.rejects(searchFor("short", []), /by chance/));

  test("finds it in requests and in files, and says where", async () => {
    await using directory = await temporaryDirectory();
    await directory.write("a", "nothing");
    const path = await directory.write("b", `x${secret}`);
    const requests = [
      { headers: { authorization: `Bearer ${secret}` }, body: "" },
      { headers: {}, body: secret },
    ];
    const places = [filesPlace("disk", directory.path), requestsPlace("backend", () => requests)];
    const finds = await searchFor([secret, jwt], places);
    assert.deepEqual(
      finds.map(({ place, where }) => [place, where]),
      [
        ["disk", path],
        ["backend", "request 1, header authorization"],
        ["backend", "request 2, body"],
      ],
    );
  });

  test("finds it in every type that Redis has", { skip: noRedis }, async () => {
    await using redis = await startRedis();
    const client = new Redis(redis.url);
    await client.mset("string", secret, "harmless", "x", "number", 1);
    await client.hset("hash", { field: "x", [secret]: "x", value: Buffer.concat([Buffer.from([0, 255]), Buffer.from(secret)]) });
    await client.rpush("list", "x", secret);
    await client.sadd("set", secret);
    await client.zadd("zset", 1, secret);
    await client.xadd("stream", "*", "field", secret);
    await client.set(`key:${Buffer.from(secret).toString("hex")}`, "x");
    client.disconnect();
    const finds = await searchFor(secret, [redisPlace("redis", [redis.port])]);
    assert.deepEqual(finds.map(({ where }) => where.split(/ (?!of)/).at(-1)).toSorted(), [
      "hash",
      "hash",
      `key:${Buffer.from(secret).toString("hex")}`,
      "list",
      "set",
      "stream",
      "string",
      "zset",
    ]);
  });
});

test("a browser signs in at the issuer, and the next visitor is nobody yet", { skip: noBrowser }, async () => {
  let landed: string | undefined;
  await using site = createServer((request, response) => {
    if (request.url?.startsWith("/callback")) landed = request.url;
    response.end("welcome");
  });
  await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", resolve));
  // Any port of loopback will do for a native client.
  const redirect_uri = `http://127.0.0.1:${(site.address() as AddressInfo).port}/callback`;
  const client: IssuerClient = { id: "public", redirectUris: [redirectUri], metadata: { application_type: "native" } };
  await using issuer = await startIssuer({ clients: [client] });
  await using browser = await startBrowser();
  for (const user of ["ann", 'b"<o>&b']) {
    const flow = await beginCodeFlow(issuer, open, { redirect_uri });
    const page = await browser.open(flow.url);
    await page.fill("#user", user);
    await page.click("#sign-in");
    await page.waitForURL(/callback/);
    const answer = await flow.finish(new URL(landed as string, redirect_uri));
    assert.equal((await verify(issuer, answer.access_token)).payload.sub, user);
    // Now it knows this visitor.
    const again = await page.context().newPage();
    await again.goto((await beginCodeFlow(issuer, open, { redirect_uri })).url);
    assert.match(again.url(), /callback/);
  }
});
