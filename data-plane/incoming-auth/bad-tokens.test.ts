// Tokens that attackers, other servers and misconfigured issuers come with. Each is good but for what its name says, so each row
// names the reason as well: a token that is refused for another one proves nothing.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, test } from "node:test";
import { CompactEncrypt, calculateJwkThumbprint, SignJWT } from "jose";
import {
  audience,
  type Changes,
  createSigningKey,
  createTestClock,
  encode,
  goodClaims,
  issue,
  open,
  said,
  signatureOf,
  signRaw,
  startIssuer,
} from "./test-issuer.ts";

const rsa = createSigningKey("rsa", "RS256");
const pss = createSigningKey("pss", "PS256");
const ec = createSigningKey("ec", "ES256");
const ed = createSigningKey("ed", "EdDSA");
const stranger = createSigningKey("ec", "ES256");
const strangerRsa = createSigningKey("rsa", "RS256");
const forEncryption = createSigningKey("enc", "RS256");
const issuer = await startIssuer(rsa, pss, ec, ed);
issuer.keys = [...issuer.keys, { ...forEncryption.jwk, use: "enc" }];
const neighbour = await startIssuer(stranger);
after(() => Promise.all([issuer[Symbol.asyncDispose](), neighbour[Symbol.asyncDispose]()]));

const clock = createTestClock();
const now = Math.floor(clock.nowMs() / 1_000);
const additionalIssuers = [{ issuer: neighbour.url, audience }];
const { ask } = open({ issuer: issuer.url, additionalIssuers, requiredClaims: ["tenant", "constructor"] }, clock);

const good: Changes = { ...goodClaims(issuer.url, clock.nowMs()), tenant: "t1" };
const goodHeader: Changes = { alg: "ES256", kid: "ec", typ: "at+jwt" };
const own = (claims: Changes) => `${JSON.stringify({ ...good, ...claims }).slice(0, -1)},"con\\u0073tructor":1}`;

// `constructor` can't be a claim of its own (see prescan), so it is required of one authenticator only.
const lenient = open({ issuer: issuer.url, additionalIssuers, requiredClaims: ["tenant"] }, clock).ask;

const claims = (changes: Changes, header: Changes = {}) => issue(ec, { ...good, ...changes }, header);
const header = (changes: Changes) => claims({}, changes);
const [goodHead = "", goodBody = "", goodSignature = ""] = claims({}).split(".");
const ofGood = (signature: string | Buffer) =>
  `${goodHead}.${goodBody}.${typeof signature === "string" ? signature : encode(signature)}`;
const json = JSON.stringify(good);
const plus = (members: string) => `${json.slice(0, -1)},${members}}`;
const hmacWith = (secret: string | Buffer, changes: Changes = {}) => {
  const input = `${encode({ alg: "HS256", kid: "rsa", typ: "at+jwt", ...changes })}.${encode(good)}`;
  return `${input}.${createHmac("sha256", secret).update(input).digest("base64url")}`;
};
const unsigned = (alg: unknown, signature = "") => `${encode({ alg, typ: "at+jwt" })}.${encode(good)}.${signature}`;
const thumbprint = await calculateJwkThumbprint(ec.jwk as never);
const year = 365 * 24 * 60 * 60;

test("the tokens that all of these are made from are good", async () => {
  for (const token of [
    claims({}),
    issue(rsa, good),
    issue(pss, good),
    issue(ed, good),
    signRaw(ec, goodHeader, json),
    claims({}, { typ: "JWT" }),
    claims({}, { typ: undefined }),
    claims({}, { typ: "application/AT+JWT" }),
    issue(rsa, good, { kid: undefined }),
    claims({}, { kid: undefined }),
    claims({ aud: ["other", audience] }),
    claims({ nbf: now }),
    claims({ exp: now + 0.5 }),
    claims({ exp: now - 29 }),
    claims({ iat: now + 29 }),
    claims({ iat: now - 24 * 3600 + 1 }),
    claims({ sub: "x".repeat(255) }),
    claims({ sub: "Ada Lovelace / ada@example.com / Ünal" }),
    claims({ typ: "Bearer" }),
    claims({ nonce: "n" }), // allowed where the header says what the token is
    claims({}, { jku: "https://evil.example/jwks", x5u: "https://evil.example/x" }),
    await new SignJWT(good as never).setProtectedHeader({ alg: "ES256", kid: "ec" }).sign(ec.privateKey),
  ])
    assert.equal(said(await lenient(`Bearer ${token}`)), "200", token);
});

type Row = readonly [name: string, token: string, why: RegExp];

const signature: Row[] = [
  ["alg none", unsigned("none"), /not signed/],
  ["alg None", unsigned("None"), /not signed/],
  ["alg NONE with a signature", unsigned("NONE", goodSignature), /not accepted here/],
  ["alg nOnE with a signature", unsigned("nOnE", goodSignature), /not accepted here/],
  ["alg none with a signature", unsigned("none", goodSignature), /not accepted here/],
  ["alg empty", unsigned("", goodSignature), /not accepted here/],
  ["alg missing", unsigned(undefined, goodSignature), /does not say its algorithm/],
  ["alg null", unsigned(null, goodSignature), /does not say its algorithm/],
  ["alg a list", unsigned(["ES256"], goodSignature), /does not say its algorithm/],
  ["alg in lower case", signRaw(ec, { ...goodHeader, alg: "es256" }, json), /not accepted here/],
  ["alg with a NUL", signRaw(ec, { ...goodHeader, alg: "ES256\0" }, json), /not accepted here/],
  ["alg that is known but not in the list", issue(rsa, good, { alg: "RS512" }), /not accepted here/],
  ["HS256 with the public key in PEM", hmacWith(rsa.publicKey.export({ type: "spki", format: "pem" })), /not accepted here/],
  [
    "HS256 with the public key in PKCS1 PEM",
    hmacWith(rsa.publicKey.export({ type: "pkcs1", format: "pem" })),
    /not accepted here/,
  ],
  ["HS256 with the public key in DER", hmacWith(rsa.publicKey.export({ type: "spki", format: "der" })), /not accepted here/],
  ["HS256 with the public key as JWK", hmacWith(JSON.stringify(rsa.jwk)), /not accepted here/],
  ["HS256 with the modulus", hmacWith(Buffer.from(rsa.jwk.n as string, "base64url")), /not accepted here/],
  ["HS256 with an empty secret", hmacWith(""), /not accepted here/],
  [
    "HS256 that is called ES256",
    hmacWith(JSON.stringify(ec.jwk), { alg: "ES256", kid: "ec" }),
    /signature of the token is wrong/,
  ],
  ["a signature of nothing", ofGood(""), /not signed/],
  ["a signature cut short", ofGood(Buffer.from(goodSignature, "base64url").subarray(0, 60)), /signature of the token is wrong/],
  [
    "a signature with more behind",
    ofGood(Buffer.concat([Buffer.from(goodSignature, "base64url"), Buffer.alloc(3)])),
    /signature of the token is wrong/,
  ],
  ["the signature of another token", ofGood(claims({ sub: "bob" }).split(".")[2] as string), /signature of the token is wrong/],
  ["ES256 with r and s zero", ofGood(Buffer.alloc(64)), /signature of the token is wrong/],
  ["ES256 with r and s the order", ofGood(Buffer.alloc(64, 0xff)), /signature of the token is wrong/],
  [
    "ES256 in DER",
    `${goodHead}.${goodBody}.${encode(Buffer.concat([Buffer.from([0x30, 0x44]), signatureOf(ec, "x")]))}`,
    /is wrong/,
  ],
  ["claims of another", `${goodHead}.${encode({ ...good, sub: "root" })}.${goodSignature}`, /signature of the token is wrong/],
  ["a key of our own under the issuer's kid", issue(stranger, good), /signature of the token is wrong/],
  ["the RSA key of a stranger", issue(strangerRsa, good), /signature of the token is wrong/],
  ["the neighbour's key for our issuer", signRaw(stranger, goodHeader, json), /signature of the token is wrong/],
  ["our key for the neighbour", claims({ iss: neighbour.url }), /signature of the token is wrong/],
  ["PS256 by a key that is for RS256", issue({ ...rsa, alg: "PS256" }, good), /does not publish/],
  ["RS256 by a key that is for PS256", issue({ ...pss, alg: "RS256" }, good), /does not publish/],
  ["RS256 that says PS256", issue(rsa, good, { alg: "PS256", kid: "pss" }), /signature of the token is wrong/],
  ["ES256 by name of the RSA key", header({ kid: "rsa" }), /does not publish/],
  ["a key that is for encryption", issue(forEncryption, good), /does not publish/],
];

const headers: Row[] = [
  ["its own key in jwk", issue(stranger, good, { jwk: stranger.jwk, kid: "own" }), /does not publish/],
  [
    "its own key in jwk, without kid",
    issue(stranger, good, { jwk: stranger.jwk, kid: undefined }),
    /signature of the token is wrong/,
  ],
  ["keys at its own jku", issue(stranger, good, { jku: `${neighbour.url}/jwks`, kid: "own" }), /does not publish/],
  [
    "jku of the neighbour, under our kid",
    issue(stranger, good, { jku: `${neighbour.url}/jwks` }),
    /signature of the token is wrong/,
  ],
  ["a certificate at its own x5u", issue(stranger, good, { x5u: `${neighbour.url}/cert`, kid: "own" }), /does not publish/],
  ["its own certificate in x5c", issue(stranger, good, { x5c: ["MIIB"], kid: "own" }), /does not publish/],
  ["a kid nobody has", header({ kid: "nobody" }), /does not publish/],
  ["a kid that is a path", header({ kid: "../../../../dev/null" }), /does not publish/],
  ["a kid that is SQL", header({ kid: "x' UNION SELECT 'AAAA" }), /does not publish/],
  ["a kid that is a prototype's", header({ kid: "__proto__" }), /does not publish/],
  ["a kid in other case", header({ kid: "EC" }), /does not publish/],
  ["an empty kid", header({ kid: "" }), /does not publish/],
  ["a very long kid", header({ kid: "k".repeat(4_000) }), /does not publish/],
  ["a kid that is a number", header({ kid: 1 }), /kid that is no text/],
  ["a kid that is an object", header({ kid: { toString: "ec" } }), /kid that is no text/],
  ["a kid that is a list", header({ kid: ["ec"] }), /kid that is no text/],
  ["a kid that is null", header({ kid: null }), /kid that is no text/],
  ["crit", header({ crit: ["exp"], exp: 1 }), /critical extensions/],
  ["crit empty", header({ crit: [] }), /critical extensions/],
  ["crit null", header({ crit: null }), /critical extensions/],
  ["b64 false", header({ b64: false, crit: ["b64"] }), /critical extensions/],
  ["b64 false without crit", header({ b64: false }), /how its payload is encoded/],
  ["cty JWT", header({ cty: "JWT" }), /another token inside/],
  ["typ of a logout token", header({ typ: "logout+jwt" }), /is of another type/],
  ["typ of a proof", header({ typ: "dpop+jwt" }), /is of another type/],
  ["typ of an introspection answer", header({ typ: "token-introspection+jwt" }), /is of another type/],
  ["typ of an ID token", header({ typ: "id+jwt" }), /is of another type/],
  ["typ empty", header({ typ: "" }), /is of another type/],
  ["typ a number", header({ typ: 1 }), /typ that is no text/],
  ["a header member twice", signRaw(ec, `{"alg":"none","alg":"ES256","kid":"ec"}`, json), /header that is no clear JSON/],
  ["a header member twice, one escaped", signRaw(ec, `{"alg":"ES256","\\u0061lg":"none","kid":"ec"}`, json), /header that is no/],
  ["__proto__ in the header", signRaw(ec, `{"alg":"ES256","__proto__":{"kid":"ec"}}`, json), /header that is no clear JSON/],
  ["a header that is a list", signRaw(ec, `["ES256"]`, json), /header that is no clear JSON/],
  ["a header that is text", signRaw(ec, `"ES256"`, json), /header that is no clear JSON/],
  ["a header that is null", signRaw(ec, "null", json), /header that is no clear JSON/],
  ["a header with more behind", signRaw(ec, `${JSON.stringify(goodHeader)}{}`, json), /header that is no clear JSON/],
];

const missing = (name: string, why: RegExp): Row[] =>
  [undefined, null, [], {}, "", true].map((value): Row => [`${name} ${JSON.stringify(value)}`, claims({ [name]: value }), why]);

const times: Row[] = [
  ...missing("exp", /until when it is good/),
  ...missing("iat", /when it was issued/),
  ...[null, [], {}, "", true].map(
    (value): Row => [`nbf ${JSON.stringify(value)}`, claims({ nbf: value }), /start that is no number/],
  ),
  ["exp as text", claims({ exp: String(now + 600) }), /until when it is good/],
  ["exp as text of nothing", claims({ exp: "never" }), /until when it is good/],
  ["exp NaN", signRaw(ec, goodHeader, json.replace(/"exp":\d+/, `"exp":NaN`)), /claims that are no clear JSON/],
  ["exp Infinity", signRaw(ec, goodHeader, json.replace(/"exp":\d+/, `"exp":Infinity`)), /claims that are no clear JSON/],
  ["exp 1e999", signRaw(ec, goodHeader, json.replace(/"exp":\d+/, `"exp":1e999`)), /until when it is good/],
  ["exp in milliseconds", claims({ exp: (now + 600) * 1_000 }), /longer than ten years/],
  ["exp 1e12", claims({ exp: 1e12 }), /longer than ten years/],
  ["exp in eleven years", claims({ exp: now + 11 * year }), /longer than ten years/],
  ["exp zero", claims({ exp: 0 }), /has expired/],
  ["exp negative", claims({ exp: -1 }), /has expired/],
  ["exp beyond the skew", claims({ exp: now - 31 }), /has expired/],
  ["iat beyond the skew", claims({ iat: now + 32 }), /issued in the future/],
  ["iat in milliseconds", claims({ iat: now * 1_000 }), /issued in the future/],
  ["iat too old, exp far", claims({ iat: now - 24 * 3_600 - 31, exp: now + year }), /issued too long ago/],
  ["iat negative", claims({ iat: -1 }), /issued too long ago/],
  ["iat as text", claims({ iat: String(now) }), /when it was issued/],
  ["nbf beyond the skew", claims({ nbf: now + 32 }), /not good yet/],
  ["nbf as text", claims({ nbf: String(now) }), /start that is no number/],
];

const names: Row[] = [
  ...[undefined, null, [], {}, "", 1].map(
    (value): Row => [`iss ${JSON.stringify(value)}`, claims({ iss: value }), /of no issuer/],
  ),
  ["iss in a list", claims({ iss: [issuer.url] }), /of no issuer/],
  ["iss of a stranger", claims({ iss: "https://evil.example" }), /of no issuer/],
  ["iss with a slash behind", claims({ iss: `${issuer.url}/` }), /of no issuer/],
  ["iss in other case", claims({ iss: issuer.url.replace("http", "HTTP") }), /of no issuer/],
  ["iss with a space behind", claims({ iss: `${issuer.url} ` }), /of no issuer/],
  ["iss with more behind", claims({ iss: `${issuer.url}.evil.example` }), /of no issuer/],
  ["iss written Iss", claims({ iss: undefined, Iss: issuer.url }), /of no issuer/],
  ...[undefined, null, {}, 1, true].map(
    (value): Row => [`aud ${JSON.stringify(value)}`, claims({ aud: value }), /whom it is for/],
  ),
  ["aud empty", claims({ aud: "" }), /another audience/],
  ["aud an empty list", claims({ aud: [] }), /another audience/],
  ["aud a list with a number", claims({ aud: [audience, 1] }), /whom it is for/],
  ["aud a list in a list", claims({ aud: [[audience]] }), /whom it is for/],
  ["aud another", claims({ aud: "https://staging.example/team" }), /another audience/],
  ["aud of a sibling", claims({ aud: "https://mcp.example/other" }), /another audience/],
  ["aud a part of ours", claims({ aud: audience.slice(0, -1) }), /another audience/],
  ["aud that begins with ours", claims({ aud: `${audience}2` }), /another audience/],
  ["aud with a slash behind", claims({ aud: `${audience}/` }), /another audience/],
  ["aud in other case", claims({ aud: audience.toUpperCase() }), /another audience/],
  ["aud of several in one text", claims({ aud: `other ${audience}` }), /another audience/],
  ["aud written Aud", claims({ aud: undefined, Aud: audience }), /whom it is for/],
  ...[undefined, null, [], {}, "", 1, true].map(
    (value): Row => [`sub ${JSON.stringify(value)}`, claims({ sub: value }), /no subject/],
  ),
  ["sub with a line end", claims({ sub: "ada\nroot" }), /no subject/],
  ["sub with NUL", claims({ sub: "ada\0" }), /no subject/],
  ["sub with DEL", claims({ sub: "ada\u007f" }), /no subject/],
  ["sub with a C1 control", claims({ sub: "ada\u0085" }), /no subject/],
  ["sub with half a surrogate pair", claims({ sub: "ada\ud800" }), /no subject/],
  ["sub too long", claims({ sub: "x".repeat(256) }), /no subject/],
  ["azp a number", claims({ azp: 1 }), /client that could not be a name/],
  ["client_id a list", claims({ client_id: ["cli"] }), /client that could not be a name/],
  ["scope a number", claims({ scope: 1 }), /scopes that are neither/],
  ["scp a list with a number", claims({ scp: ["read", 1] }), /scopes that are neither/],
  ["a required claim missing", claims({ tenant: undefined }), /lacks a claim/],
  ["a required claim null", claims({ tenant: null }), /lacks a claim/],
  ["a required claim empty", claims({ tenant: "" }), /lacks a claim/],
];

const plain = { typ: "JWT" };
const kinds: Row[] = [
  ["an ID token, by nonce", claims({ nonce: "n" }, plain), /is an ID token/],
  ["an ID token, by at_hash", claims({ at_hash: "h" }, plain), /is an ID token/],
  ["an ID token, by c_hash", claims({ c_hash: "h" }, { typ: undefined }), /is an ID token/],
  ["an ID token, by s_hash", claims({ s_hash: "h" }, plain), /is an ID token/],
  ["an ID token of Keycloak", claims({ typ: "ID" }, plain), /is of another type/],
  ["a refresh token of Keycloak", claims({ typ: "Refresh" }, plain), /is of another type/],
  ["an offline token of Keycloak", claims({ typ: "Offline" }, plain), /is of another type/],
  ["a logout token of Keycloak", claims({ typ: "Logout" }, plain), /is of another type/],
  ["a typ claim that is a list", claims({ typ: ["Bearer"] }, plain), /is of another type/],
  ["an ID token of Cognito", claims({ token_use: "id" }, plain), /is for another use/],
  ["a refresh token of Hydra", claims({ token_use: "refresh_token" }, plain), /is for another use/],
  ["a logout token", claims({ events: { "http://schemas.openid.net/event/backchannel-logout": {} } }, plain), /reports events/],
  ["cnf of a key it has inside", claims({ cnf: { jwk: ec.jwk } }), /bound in a way/],
  ["cnf unknown besides known", claims({ cnf: { jkt: thumbprint, kid: "x" } }), /bound in a way/],
  ["cnf empty", claims({ cnf: {} }), /bound in a way/],
  ["cnf null", claims({ cnf: null }), /bound in a way/],
  ["cnf text", claims({ cnf: thumbprint }), /bound in a way/],
  ["cnf with jkt of wrong length", claims({ cnf: { jkt: "short" } }), /bound in a way/],
  ["cnf with jkt null", claims({ cnf: { jkt: null } }), /bound in a way/],
  ["cnf.jkt with Bearer", claims({ cnf: { jkt: thumbprint } }), /comes with the DPoP scheme/],
  ["cnf of a certificate, where none can be shown", claims({ cnf: { "x5t#S256": thumbprint } }), /none came with the request/],
];

const shapes: Row[] = [
  ["a claim twice", signRaw(ec, goodHeader, plus(`"sub":"root"`)), /claims that are no clear JSON/],
  ["a claim twice, one escaped", signRaw(ec, goodHeader, plus(`"\\u0073ub":"root"`)), /claims that are no clear JSON/],
  ["a claim twice, in other case", signRaw(ec, goodHeader, plus(`"SUB":"root"`)), /claims that are no clear JSON/],
  ["a claim twice inside cnf", signRaw(ec, goodHeader, plus(`"cnf":{"jkt":"a","jkt":"b"}`)), /claims that are no clear JSON/],
  ["__proto__ in the claims", signRaw(ec, goodHeader, plus(`"__proto__":{"sub":"root"}`)), /claims that are no clear JSON/],
  ["claims that are a list", signRaw(ec, goodHeader, [good]), /claims that are no clear JSON/],
  ["claims that are text", signRaw(ec, goodHeader, `"claims"`), /claims that are no clear JSON/],
  ["claims that are null", signRaw(ec, goodHeader, "null"), /claims that are no clear JSON/],
  ["claims that are nothing", signRaw(ec, goodHeader, ""), /claims that are no clear JSON/],
  [
    "claims that are not UTF-8",
    signRaw(ec, goodHeader, Buffer.from(json.replace("ada", "ad\xff"), "latin1")),
    /claims that are no clear/,
  ],
  ["claims after a byte order mark", signRaw(ec, goodHeader, `\ufeff${json}`), /claims that are no clear JSON/],
  ["claims with more behind", signRaw(ec, goodHeader, `${json}x`), /claims that are no clear JSON/],
  [
    "claims nested without end",
    signRaw(ec, goodHeader, plus(`"a":${"[".repeat(100)}${"]".repeat(100)}`)),
    /claims that are no clear/,
  ],
  ["a token in a token", signRaw(ec, goodHeader, claims({})), /claims that are no clear JSON/],
  [
    "base64 in place of base64url",
    claims({ tenant: "ÿÿÿ>>>???" }).replaceAll("-", "+").replaceAll("_", "/"),
    /not three parts in base64url/,
  ],
  [
    "bits behind the signature's end",
    ofGood(`${goodSignature.slice(0, -1)}${sibling(goodSignature.slice(-1))}`),
    /not three parts in base64url/,
  ],
  ["padding", `${claims({})}==`, /not three parts in base64url/],
  ["two dots", "..", /not three parts|not signed/],
  ["no header", `.${goodBody}.${goodSignature}`, /header that is no clear JSON/],
  ["one part", goodBody, /of no issuer/],
  ["two parts", `${goodHead}.${goodBody}`, /of no issuer/],
  ["four parts", `${claims({})}.AAAA`, /of no issuer/],
  ["a dot behind", `${claims({})}.`, /of no issuer/],
  [
    "a JWE",
    await new CompactEncrypt(Buffer.from(json)).setProtectedHeader({ alg: "RSA-OAEP", enc: "A256GCM" }).encrypt(rsa.publicKey),
    /of no issuer/,
  ],
  ["too long", claims({ tenant: "x".repeat(8_192) }), /longer than 8192 characters/],
];

/** The character that differs in bits which a decoder drops. */
function sibling(character: string): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return alphabet[alphabet.indexOf(character) ^ 1] as string;
}

for (const [what, rows] of Object.entries({ signature, headers, times, names, kinds, shapes })) {
  test(`${rows.length} bad tokens are refused: ${what}`, async (t) => {
    for (const [name, token, why] of rows) {
      await t.test(name, async () => {
        const { refusal } = await lenient(`Bearer ${token}`);
        assert.deepEqual([refusal?.status, refusal?.error], [401, "invalid_token"]);
        assert.match(refusal?.description ?? "", why);
      });
    }
  });
}

test("a claim that every object has is not there unless it is its own", async () => {
  assert.match(said(await ask(`Bearer ${claims({})}`)), /lacks a claim/);
  assert.match(said(await ask(`Bearer ${signRaw(ec, goodHeader, own({}))}`)), /no clear JSON/);
});

test("where access tokens must say that they are, others are refused", async () => {
  const strict = open({ issuer: issuer.url, tokenType: "at+jwt" }, clock).ask;
  assert.equal(said(await strict(`Bearer ${claims({})}`)), "200");
  for (const typ of [undefined, "JWT", "logout+jwt"])
    assert.match(
      said(await strict(`Bearer ${claims({}, { typ })}`)),
      /401 invalid_token .*does not say that it is an access token/,
    );
});

const shown: [what: string, header: string | undefined, said: RegExp][] = [
  ["nothing", undefined, /^401 a bearer token is wanted/],
  ["an empty header", "", /^401 a bearer token is wanted/],
  ["another scheme", "Basic YTpi", /^401 a bearer token is wanted/],
  ["a token without scheme", claims({}), /^401 a bearer token is wanted/],
  ["a scheme alone", "Bearer", /^400 invalid_request/],
  ["a scheme and spaces", "Bearer   ", /^400 invalid_request/],
  ["two tokens", `Bearer ${claims({})}, Bearer ${claims({})}`, /^400 invalid_request .*more than one/],
  ["two schemes", `Basic YTpi, Bearer ${claims({})}`, /^400 invalid_request .*more than one/],
  ["a space behind", `Bearer ${claims({})} `, /^400 invalid_request/],
  ["a space inside", `Bearer ${goodHead}. ${goodBody}.${goodSignature}`, /^400 invalid_request/],
  ["a line end", `Bearer ${claims({})}\n`, /^400 invalid_request/],
  ["a tab in place of the space", `Bearer\t${claims({})}`, /^401 a bearer token is wanted/],
  ["quotes", `Bearer "${claims({})}"`, /^400 invalid_request/],
  ["a parameter", `Bearer token=${claims({})}`, /^400 invalid_request/],
  ["padding inside", `Bearer ${goodHead}==.${goodBody}.${goodSignature}`, /^400 invalid_request/],
  ["letters that look alike", `Bearer ${claims({}).replace("e", "е")}`, /^400 invalid_request/],
];
for (const [what, header, wanted] of shown)
  test(`an Authorization header with ${what} is refused`, async () => assert.match(said(await lenient(header)), wanted));

test("the scheme is read in any case, with any number of spaces", async () => {
  for (const scheme of ["bearer ", "BEARER ", "Bearer   "]) assert.equal(said(await lenient(scheme + claims({}))), "200");
});
