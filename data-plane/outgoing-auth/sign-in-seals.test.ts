import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { oneKey } from "../mcp/seal.ts";
import { createSignInSeals, type SignInState } from "./sign-in-seals.ts";

const secret = randomBytes(32);
const clock = { ms: 1_000_000 };
const of = (key = secret) => createSignInSeals({ keys: oneKey(Buffer.from(key)), nowMs: () => clock.ms });
const seals = of();
const ticket = {
  ...{ issuer: "https://id.example", subject: "ada", virtualServer: "team" },
  ...{ resource: "virtualServers/team/backends/mail", elicitationId: "e1" },
};
const state: SignInState = {
  ...{ ticket, hop: "backend", issuer: "https://as.example", clientId: "gateway", verifier: "v", nonce: "" },
  ...{ redirectUri: "https://vmcp.example/oauth/callback", browser: "hash", id: "one" },
};

test("what one replica seals, another opens", () => {
  assert.deepEqual(of().openTicket(String(seals.sealTicket(ticket))), ticket);
  assert.deepEqual(of().openState(seals.sealState(state)), state);
});

test("no two are alike, and nothing can be read in them", () => {
  const [one, other] = [String(seals.sealTicket(ticket)), String(seals.sealTicket(ticket))];
  assert.notEqual(one, other);
  assert.doesNotMatch(Buffer.from(one.slice(5), "base64url").toString("latin1"), /ada|team/);
});

test("a flipped character, another key, or one in the other's place opens nothing", () => {
  const sealed = String(seals.sealTicket(ticket));
  for (let i = 0; i < sealed.length; i++) {
    const flipped = `${sealed.slice(0, i)}${sealed[i] === "A" ? "B" : "A"}${sealed.slice(i + 1)}`;
    assert.equal(seals.openTicket(flipped), undefined, `at ${i}`);
  }
  assert.equal(of(randomBytes(32)).openTicket(sealed), undefined);
  assert.equal(seals.openState(sealed), undefined);
  assert.equal(seals.openTicket(seals.sealState(state)), undefined);
  assert.equal(seals.openTicket(""), undefined);
});

test("a link is good for 15 minutes, a state for 10", () => {
  const [link, sent] = [String(seals.sealTicket(ticket)), seals.sealState(state)];
  clock.ms += 10 * 60_000 - 1;
  assert.ok(seals.openState(sent));
  clock.ms += 1;
  assert.equal(seals.openState(sent), undefined);
  clock.ms += 5 * 60_000 - 1;
  assert.ok(seals.openTicket(link));
  clock.ms += 1;
  assert.equal(seals.openTicket(link), undefined);
});

test("a caller with an endless name gets no link", () => {
  assert.equal(seals.sealTicket({ ...ticket, subject: "a".repeat(3_000) }), undefined);
});
