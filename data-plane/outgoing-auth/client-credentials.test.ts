import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { OutgoingAuthStrategySchema } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { startTokenServer, usualAnswer } from "../../test/support/token-server.ts";
import type { Caller } from "../incoming-auth/caller.ts";
import { oneKey } from "../mcp/seal.ts";
import { createCredentials } from "./registry.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const ada: Caller = { identity: { issuer: "i", subject: "ada", isAnonymous: false }, token: undefined, scopes: new Set() };
const bob: Caller = { ...ada, identity: { ...ada.identity, subject: "bob" } };

async function setUp() {
  const server = stack.use(await startTokenServer());
  server.clients = { gate: { secret: "s3cret" } };
  const clock = { ms: Date.now() };
  const log = pino({ level: "silent" });
  const credentials = stack.use(createCredentials({ log, keys: oneKey(randomBytes(32)), nowMs: () => clock.ms }));
  const of = (change = {}, backend = "files") => {
    const scopes = ["a", "b"];
    const clientCredentials = {
      tokenUrl: server.url,
      clientId: "gate",
      clientSecret: "s3cret",
      audience: backend,
      scopes,
      ...change,
    };
    const resource = `virtualServers/team/backends/${backend}`;
    const recipient = { resource, backend, url: "http://127.0.0.1:1", virtualServer: "team", incomingAuth: undefined };
    return credentials.of(create(OutgoingAuthStrategySchema, { type: "client_credentials", clientCredentials }), recipient);
  };
  return { server, clock, of };
}

test("one token is for all callers and for the gateway itself", async () => {
  const { server, of } = await setUp();
  const credential = of();
  const shown = await Promise.all([ada, bob, undefined].map(async (who) => credential.show(who)));
  assert.equal(new Set(shown).size, 1);
  assert.deepEqual(
    server.requests.map(({ client, parameters }) => ({ client, parameters })),
    [{ client: "gate", parameters: { grant_type: "client_credentials", audience: "files", scope: "a b" } }],
  );
  assert.equal(credential.contextOf(ada), undefined);
  assert.equal(credential.gatewayShows, "the same as callers");
});

test("every backend has its own, even for the same audience", async () => {
  const { server, of } = await setUp();
  await of().show(ada);
  await of({ audience: "files" }, "mail").show(ada);
  assert.equal(server.requests.length, 2);
});

test("a token that ended is followed by the next, and one that was refused too", async () => {
  const { server, of, clock } = await setUp();
  server.misbehave = (request) => ({ body: { ...usualAnswer(request), expires_in: 90 } });
  const credential = of();
  const first = await credential.show(ada);
  clock.ms += 60_000;
  const second = await credential.show(bob);
  assert.notEqual(second[1], first[1]);
  clock.ms += 2_000;
  assert.equal(await credential.refused(ada, second, undefined), true);
  assert.notEqual((await credential.show(undefined))[1], second[1]);
  assert.equal(server.requests.length, 3);
});

test("a client that can't prove itself gets no tokens, so the operator is told", async () => {
  const { of } = await setUp();
  assert.throws(() => of({ clientSecret: "" }), /needs a client secret or a private key/);
});
