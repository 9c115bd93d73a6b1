// Who gets a certificate, and who does not.
import assert from "node:assert/strict";
import { createPrivateKey, generateKeyPairSync, sign, X509Certificate } from "node:crypto";
import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pino } from "pino";
import { type CertificateRequest, requestCertificate } from "../../common/certificate-request.ts";
import { identityOf } from "../../common/spiffe.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { by } from "../store/examples.ts";
import { openSqliteStore } from "../store/sqlite.ts";
import type { Store } from "../store/store.ts";
import { type Authority, openAuthority } from "./authority.ts";
import type { EnrolAttempt, ShownCertificate } from "./certificates.ts";
import { startTrust, type Trust } from "./trust.ts";

const log = pino({ level: "silent" });
const dayMs = 24 * 60 * 60_000;
const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());

let directory: string;
let foreign: string;
let authority: Authority;
let nowMs = Date.now();

before(async () => {
  const folder = stack.use(await temporaryDirectory());
  [directory, foreign] = [join(folder.path, "own"), join(folder.path, "foreign")];
  authority = await openAuthority({ directory }, "vmcp.local", () => nowMs);
});

describe("an authority of its own", () => {
  test("keeps its key to itself, and is the same at the next start", async () => {
    assert.equal(statSync(join(directory, "ca-key.pem")).mode & 0o777, 0o600);
    assert.equal(statSync(directory).mode & 0o777, 0o700);
    const again = await openAuthority({ directory }, "vmcp.local", Date.now);
    assert.deepEqual(again.pin, authority.pin);
  });

  test("of two that start at once in one directory one counts", async () => {
    const folder = stack.use(await temporaryDirectory());
    const place = { directory: join(folder.path, "ca") };
    const opened = await Promise.all([1, 2, 3].map(() => openAuthority(place, "vmcp.local", Date.now).catch(() => undefined)));
    const last = await openAuthority(place, "vmcp.local", Date.now);
    for (const one of opened) if (one) assert.deepEqual(one.pin, last.pin);
  });

  for (const [what, spoil, wanted] of [
    [
      "a key of another pair",
      (at: string) => writeFileSync(join(at, "ca-key.pem"), privateKey("P-256")),
      /ca-key\.pem is not the key of/,
    ],
    ["a key that is none", (at: string) => writeFileSync(join(at, "ca-key.pem"), "x"), /ca-key\.pem has no private key in PEM/],
    ["a certificate that is none", (at: string) => writeFileSync(join(at, "ca.pem"), "x"), /ca\.pem has no certificate in PEM/],
  ] as const) {
    test(`with ${what} does not open, and says which file is wrong`, async () => {
      const folder = stack.use(await temporaryDirectory());
      await openAuthority({ directory: join(folder.path, "ca") }, "vmcp.local", Date.now);
      spoil(join(folder.path, "ca"));
      const opening = openAuthority({ directory: join(folder.path, "ca") }, "vmcp.local", Date.now);
      await assert.rejects(opening, { code: "trust_unusable", message: wanted });
    });
  }

  for (const [what, request, wanted] of [
    ["text for a request", () => Buffer.from("nonsense"), /no PKCS #10/],
    ["large request", () => Buffer.alloc(10_000), /too large/],
    ["request that was altered", altered, /not signed with its own key|no PKCS #10/],
  ] as const) {
    test(`signs no ${what}`, async () => {
      const identity = { kind: "operator", trustDomain: "vmcp.local", scope: "", name: "x" } as const;
      const signing = authority.issue(await request(), { identity, usage: "client", ttlMs: 60_000 });
      await assert.rejects(signing, { code: "invalid", message: wanted });
    });
  }

  async function altered(): Promise<Uint8Array> {
    const { request } = await requestCertificate();
    const bytes = Uint8Array.from(request);
    bytes[bytes.length - 3] = (bytes[bytes.length - 3] as number) ^ 1;
    return bytes;
  }
});

describe("enrolment", () => {
  let store: Store;
  let trust: Trust;
  let count = 0;

  before(async () => {
    store = stack.use(await openSqliteStore({ file: ":memory:", nowMs: () => nowMs }));
    trust = stack.use(await startTrust({ store, authority, log, nowMs: () => nowMs }));
  });

  test("with a token gives a certificate of seven days with the proxy's name and scope", async () => {
    const { text } = await token({ scope: "prod", namePrefix: "edge-" });
    const { certificate } = await enrol("edge-1", { token: text });
    const parsed = new X509Certificate(certificate);
    assert.deepEqual(identityOf(parsed.subjectAltName), {
      ...{ kind: "proxy", trustDomain: "vmcp.local", scope: "prod", name: "edge-1" },
    });
    assert.ok(Math.abs(parsed.validToDate.getTime() - nowMs - 7 * dayMs) < 2_000);
    assert.deepEqual(parsed.keyUsage, ["1.3.6.1.5.5.7.3.2"], "for clients only");
  });

  for (const [what, name, terms, spoil, code, wanted] of [
    ["no token", "n-1", {}, () => "", "unproven", /show an enrolment token/],
    ["a text that is no token", "n-2", {}, () => "vmcpt.x.y", "unproven", /the enrolment token is not valid/],
    [
      "a token that nobody made",
      "n-3",
      {},
      (text: string) => text.replace(/\.[0-9a-f]+\./, ".aaaaaaaaaaaa."),
      "unproven",
      /not valid/,
    ],
    [
      "another secret",
      "n-4",
      {},
      (text: string) => text.replace(/\.(.)([^.]+)$/, (_, a, rest) => `.${a === "A" ? "B" : "A"}${rest}`),
      "unproven",
      /not valid/,
    ],
    [
      "a name that the token is not for",
      "n-5",
      { namePrefix: "edge-" },
      (text: string) => text,
      "denied",
      /for names that begin with "edge-"/,
    ],
    ["a name that is none", "n/6", {}, (text: string) => text, "invalid", /is no name for a certificate/],
  ] as const) {
    test(`with ${what} gives none`, async () => {
      const { text } = await token(terms);
      await assert.rejects(enrol(name, { token: spoil(text) }), { code, message: wanted });
      assert.deepEqual(await serialsOf(name), []);
    });
  }

  test("with a token that has ended, or was deleted, gives none", async () => {
    const { text, token: made } = await token({ ttlMs: 60_000 });
    const other = await token({});
    nowMs += 61_000;
    await assert.rejects(enrol("late", { token: text }), { code: "unproven", message: new RegExp(`${made.id} ended`) });
    await trust.tokens.remove(other.token.id, by);
    await assert.rejects(enrol("late", { token: other.text }), { code: "unproven", message: /not valid/ });
  });

  test("of many at once with a token for two, two get one", async () => {
    const { text } = await token({ uses: 2 });
    const tries = await Promise.allSettled(["c-1", "c-2", "c-3", "c-4"].map((name) => enrol(name, { token: text })));
    assert.equal(tries.filter(({ status }) => status === "fulfilled").length, 2);
    assert.equal((await trust.tokens.list()).find(({ id }) => text.includes(id))?.usesLeft, 0);
  });

  test("of two at once with one name, one gets it", async () => {
    const { text } = await token({ uses: 5 });
    const tries = await Promise.allSettled([1, 2, 3].map(() => enrol("twin", { token: text })));
    assert.equal(tries.filter(({ status }) => status === "fulfilled").length, 1);
    assert.equal((await serialsOf("twin")).length, 1);
  });

  test("a name that has a certificate is not given to whoever has a token", async () => {
    await enrolled("held");
    await assert.rejects(enrol("held", { token: (await token({})).text }), {
      code: "denied",
      message: /has a certificate already/,
    });
  });

  test("renews with the certificate alone, for its own name, until it is revoked", async () => {
    const first = await enrolled("own");
    const next = await enrol("own", {}, shown(first.certificate));
    assert.notEqual(shown(next.certificate).serial, shown(first.certificate).serial);
    await assert.rejects(enrol("other", {}, shown(first.certificate)), {
      code: "denied",
      message: /can't renew the certificate of "other"/,
    });
    await trust.certificates.revoke("own", by);
    assert.equal(trust.isRevoked(shown(next.certificate).serial), true);
    await assert.rejects(enrol("own", {}, shown(next.certificate)), { code: "unproven", message: /revoked/ });
  });

  test("a certificate that has ended is renewed with its key and a token, and with neither alone", async () => {
    const before = await enrolled("slow");
    const stranger = await enrolled("stranger");
    nowMs += 8 * dayMs;
    const { text } = await token({ uses: 5 });
    await assert.rejects(enrol("slow", { token: text }), { code: "denied" });
    await assert.rejects(enrol("slow", { before }), { code: "unproven" });
    await assert.rejects(enrol("slow", { token: text, before: stranger }), { code: "denied" });
    await assert.rejects(enrol("slow", { token: text, before: { ...before, key: stranger.key } }), { code: "denied" });
    await assert.rejects(enrol("slow", { token: text, before: await forged(before.certificate) }), { code: "denied" });
    assert.ok((await enrol("slow", { token: text, before })).certificate);
  });

  test("a name is free again a month after its certificate has ended", async () => {
    await enrolled("gone");
    nowMs += 38 * dayMs;
    assert.ok((await enrolled("gone")).certificate);
  });

  test("a name that was revoked comes back with a token that was made after that, and not with an older one", async () => {
    await enrolled("risky");
    const { text: older } = await token({ uses: 5 });
    await trust.certificates.revoke("risky", by);
    await assert.rejects(enrol("risky", { token: older }), { code: "denied", message: /revoked after this token was made/ });
    nowMs += 1;
    assert.ok((await enrolled("risky")).certificate);
    assert.equal((await serialsOf("risky")).length, 2);
  });

  test("revoking somebody who has nothing is an error", () =>
    assert.rejects(trust.certificates.revoke("nobody", by), {
      code: "not_found",
      message: /"nobody" has no certificate to revoke/,
    }));

  test("secrets of tokens are not stored", async () => {
    const { text } = await token({});
    const stored = (await store.records.list("enrolmentTokens")).map(({ body }) => body).join();
    assert.ok(!stored.includes(text.split(".")[2] as string));
    assert.ok(!JSON.stringify(await trust.tokens.list()).includes("secretHash"));
  });

  test("another authority is refused on the same store, and one that trusts the first is not", async () => {
    const other = await openAuthority({ directory: foreign }, "vmcp.local", () => nowMs);
    const starting = startTrust({ store, authority: other, log, nowMs: () => nowMs });
    await assert.rejects(starting, { code: "trust_unusable", message: /of another authority/ });
    const rotating = { ...other, pins: [...other.pins, authority.pin] };
    using _trust = await startTrust({ store, authority: rotating, log, nowMs: () => nowMs });
    using _again = await startTrust({ store, authority: other, log, nowMs: () => nowMs });
  });

  test("every certificate, token and revocation has its line in the audit trail", async () => {
    const { lines } = await store.auditTrail(0n, 1000);
    const targets = lines.map(({ entry }) => entry).join();
    for (const row of await trust.certificates.list()) assert.ok(targets.includes(`certificates/${row.serial}`), row.identity);
  });

  async function token({
    scope = "",
    namePrefix = "",
    ttlMs = dayMs,
    uses = 1,
  }: {
    scope?: string;
    namePrefix?: string;
    ttlMs?: number;
    uses?: number;
  }) {
    return trust.tokens.create({ scope, namePrefix, ttlMs, uses }, { ...by, requestId: String(++count) });
  }

  interface Showing {
    readonly token?: string;
    readonly before?: Pair;
  }

  async function enrol(name: string, { token: text = "", before }: Showing, onWire?: ShownCertificate): Promise<Pair> {
    const made = await requestCertificate();
    const attempt = { ...attemptOf(name, made), token: text, ...(before && evidence(made, before)) };
    return { key: made.key, certificate: await trust.certificates.enrol(attempt, onWire, by) };
  }

  const enrolled = async (name: string) => enrol(name, { token: (await token({})).text });

  async function serialsOf(name: string): Promise<string[]> {
    return (await trust.certificates.list()).filter((row) => row.name === name).map(({ serial }) => serial);
  }
});

interface Pair {
  readonly key: string;
  readonly certificate: string;
}

function attemptOf(name: string, { request }: CertificateRequest): EnrolAttempt {
  return { name, request, token: "", endedCertificate: new Uint8Array(), proof: new Uint8Array() };
}

function evidence({ request }: CertificateRequest, { key, certificate }: Pair) {
  return {
    endedCertificate: new Uint8Array(new X509Certificate(certificate).raw),
    proof: new Uint8Array(sign("sha256", request, createPrivateKey(key))),
  };
}

function shown(certificate: string): ShownCertificate {
  const { serialNumber, subjectAltName } = new X509Certificate(certificate);
  const identity = identityOf(subjectAltName);
  assert.ok(identity);
  return { identity, serial: serialNumber };
}

/** The same name by another authority, with a key that whoever made it has. */
async function forged(certificate: string): Promise<Pair> {
  const { identity } = shown(certificate);
  const other = await openAuthority({ directory: foreign }, "vmcp.local", () => nowMs);
  const { key, request } = await requestCertificate();
  return { key, certificate: (await other.issue(request, { identity, usage: "client", ttlMs: dayMs })).certificate };
}

function privateKey(namedCurve: string): string {
  return generateKeyPairSync("ec", { namedCurve }).privateKey.export({ type: "pkcs8", format: "pem" }).toString();
}
