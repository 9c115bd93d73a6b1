// A real issuer, and ID tokens that it, or somebody else, should not have given.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { IncomingAuthSchema } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { startIssuer } from "../../test/support/issuer.ts";
import { signIn } from "../../test/support/sign-in.ts";
import { createCallerProof } from "./caller-proof.ts";
import { SignInError } from "./sign-in-error.ts";
import type { SignInState } from "./sign-in-seals.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const redirectUri = "http://127.0.0.1:1/oauth/signed-in";

async function setUp() {
  const clients = [{ id: "gateway", auth: "none", redirectUris: [redirectUri] } as const];
  const issuer = stack.use(await startIssuer({ clients }));
  const others = [
    { issuer: "https://partner.example", audience: "a", clientId: "ours" },
    { issuer: "https://machines.example", audience: "a" },
  ];
  const oidc = { issuer: issuer.issuer, audience: "a", clientId: "gateway", additionalIssuers: others };
  const proof = createCallerProof(create(IncomingAuthSchema, { type: "oidc", oidc }));
  const own = proof.at(issuer.issuer);
  assert.ok(own);
  return { issuer, proof, own };
}

let count = 0;
function stateOf(issuer: string): SignInState {
  const ticket = { issuer, subject: "ada", virtualServer: "team", resource: "r", elicitationId: "e" };
  const unique = { id: `id${++count}`, verifier: `verifier${count}`.padEnd(43, "v"), nonce: `nonce${count}` };
  return { ticket, hop: "caller", issuer, clientId: "gateway", redirectUri, browser: "hash", ...unique };
}

const refused = (promise: Promise<unknown>) =>
  assert.rejects(promise, (error) => error instanceof SignInError && error.problem === "server_answer");

test("who signs in is told", async () => {
  const { issuer, own } = await setUp();
  const sent = stateOf(issuer.issuer);
  const back = await signIn(await own.url(sent, "sealed"), "ada");
  assert.equal(await own.subjectOf(back.searchParams, sent), "ada");
  await refused(own.subjectOf(back.searchParams, sent)); // a code is good once
});

test("what came of another sign-in tells nothing of this one", async () => {
  const { issuer, own } = await setUp();
  const [mine, another] = [stateOf(issuer.issuer), stateOf(issuer.issuer)];
  const back = await signIn(await own.url(another, "sealed"), "ada");
  await refused(own.subjectOf(back.searchParams, mine)); // another verifier
  const again = await signIn(await own.url(another, "sealed"), "ada");
  await refused(own.subjectOf(again.searchParams, { ...mine, verifier: another.verifier })); // another nonce
});

for (const [name, change, key] of [
  ["for another client", { aud: "another" }, "own"],
  ["of another issuer", { iss: "https://evil.example" }, "own"],
  ["that has expired", { exp: 1_000 }, "own"],
  ["of another sign-in", { nonce: "replayed" }, "own"],
  ["that somebody else signed", {}, "foreign"],
  ["of nobody", { sub: undefined }, "own"],
] as const)
  test(`an ID token ${name} is not believed`, async () => {
    const { issuer, own } = await setUp();
    const foreign = stack.use(await startIssuer());
    const sent = stateOf(issuer.issuer);
    const back = await signIn(await own.url(sent, "sealed"), "mallory");
    const claims = { iss: issuer.issuer, aud: "gateway", sub: "ada", nonce: sent.nonce, ...change };
    const by = key === "own" ? issuer : foreign;
    const kid = issuer.publicJwk().kid;
    issuer.set({ token: { members: { id_token: await by.sign(claims, { header: { typ: "JWT", kid } }) } } });
    await refused(own.subjectOf(back.searchParams, sent));
  });

test("callers of an issuer without a client can't be told apart in a browser", async () => {
  const { issuer, proof } = await setUp();
  for (const [name, isPossible] of [
    [issuer.issuer, true],
    ["https://partner.example", true],
    ["https://machines.example", false],
    ["https://unknown.example", false],
  ] as const)
    assert.equal(proof.isPossible(name), isPossible, name);
  assert.throws(() => proof.at("https://machines.example"), SignInError);
});

test("where no issuer is asked, the connection tells", () => {
  for (const type of ["local", "anonymous"]) {
    const proof = createCallerProof(create(IncomingAuthSchema, { type }));
    assert.ok(proof.isPossible("whoever"));
    assert.equal(proof.at("whoever"), undefined);
  }
});
