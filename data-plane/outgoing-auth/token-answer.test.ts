import assert from "node:assert/strict";
import { test } from "node:test";
import { unsignedJwt } from "../../test/support/token-server.ts";
import { type Asked, accessTokenType, readToken, TokenAnswerError, tokenTypeOf } from "./token-answer.ts";

const nowMs = 1_700_000_000_000;
const nowSeconds = nowMs / 1_000;
const asked: Asked = { requestedType: accessTokenType, audiences: ["files"], subjectToken: "the-callers-own" };
const good = { access_token: "opaque", token_type: "Bearer", issued_token_type: accessTokenType, expires_in: 600 };
const day = 24 * 60 * 60_000;
const jwt = (claims: Record<string, unknown>) => ({ access_token: unsignedJwt(claims) });

function read(change: object, wanted: Asked = asked) {
  return readToken(JSON.stringify({ ...good, ...change }), wanted, nowMs);
}

const lives: [what: string, change: object, wantedMs: number][] = [
  ["as long as it says", {}, 600_000],
  ["a second", { expires_in: 1 }, 1_000],
  ["a number in quotes", { expires_in: "600" }, 600_000],
  ["0, which is over at once", { expires_in: 0 }, 0],
  ["less than nothing", { expires_in: -1 }, 0],
  ["30,000 years, which becomes a day", { expires_in: 1e12 }, day],
  ["no number at all, so a minute", { expires_in: "x" }, 60_000],
  ["nothing, so a minute", { expires_in: undefined }, 60_000],
  ["null, so a minute", { expires_in: null }, 60_000],
  ["nothing, so as long as the JWT", { expires_in: undefined, ...jwt({ exp: nowSeconds + 300 }) }, 300_000],
  ["more than the JWT", { expires_in: 600, ...jwt({ exp: nowSeconds + 300 }) }, 300_000],
  ["30,000 years, and the JWT much more than a day", { expires_in: 1e12, ...jwt({ exp: nowSeconds + 1e6 }) }, day],
  ["less than the JWT", { expires_in: 100, ...jwt({ exp: nowSeconds + 300 }) }, 100_000],
  ["nothing, so at most a day of the JWT", { expires_in: undefined, ...jwt({ exp: nowSeconds + 1e6 }) }, day],
];
for (const [what, change, wantedMs] of lives)
  test(`a token lives ${what}`, () => assert.equal(read(change).endsMs - nowMs, wantedMs));

const refused: [what: string, change: object][] = [
  ["no token", { access_token: undefined }],
  ["an empty token", { access_token: "" }],
  ["a token that is no text", { access_token: 1 }],
  ["a token with a line break", { access_token: "a\r\nx-admin: 1" }],
  ["a token with a NUL", { access_token: "a\u0000" }],
  ["a token with a space", { access_token: "a b" }],
  ["a token beyond ASCII", { access_token: "ä" }],
  ["a token of 17 KB", { access_token: "a".repeat(17_000) }],
  ["N_A instead of Bearer", { token_type: "N_A" }],
  ["DPoP instead of Bearer", { token_type: "DPoP" }],
  ["no token type", { token_type: undefined }],
  ["a refresh token instead of an access token", { issued_token_type: "urn:ietf:params:oauth:token-type:refresh_token" }],
  ["the caller's own token", { access_token: asked.subjectToken }],
  ["a token for somebody else", jwt({ aud: "mail" })],
  ["a token for several others", jwt({ aud: ["mail", "files2"] })],
  ["a token whose audience is no text", jwt({ aud: 7 })],
  ["a token that is over", jwt({ aud: "files", exp: nowSeconds - 1 })],
];
for (const [what, change] of refused)
  test(`${what} is not shown to anybody`, () =>
    assert.throws(
      () => read(change),
      (error) => error instanceof TokenAnswerError && error.failure === "wrong_token" && !error.message.includes("x-admin"),
    ));

for (const text of ["", "<html>", "[]", "null", '"token"'])
  test(`${text || "nothing"} is no answer of a token endpoint`, () =>
    assert.throws(() => readToken(text, asked, nowMs), { failure: "bad_answer" }));

const accepted: [what: string, change: object, wanted?: Asked][] = [
  ["for us among others", jwt({ aud: ["mail", "files"] })],
  ["for nobody in particular", jwt({})],
  ["for the resource", jwt({ aud: "https://f" }), { ...asked, audiences: ["files", "https://f"] }],
  ["for anybody, when nobody was asked for", jwt({ aud: "mail" }), { ...asked, audiences: [] }],
  ["of a type written in lower case", { token_type: "bearer" }],
  ["that says it is a JWT", { issued_token_type: tokenTypeOf("jwt") }],
  ["that does not say its kind", { issued_token_type: undefined }],
  ["with dots that is no JWT", { access_token: "a.b.c" }],
];
for (const [what, change, wanted] of accepted) test(`a token ${what} is good`, () => void read(change, wanted));

test("short names of token types are expanded, others left alone", () => {
  assert.equal(tokenTypeOf(""), accessTokenType);
  assert.equal(tokenTypeOf("id_token"), "urn:ietf:params:oauth:token-type:id_token");
  assert.equal(tokenTypeOf("urn:x:y"), "urn:x:y");
});
