import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { createKeySet, type IssuerKey } from "./key-set.ts";
import { createQuietLog } from "./quiet-log.ts";
import { createSigningKey, createTestClock, type SigningKey } from "./test-issuer.ts";

const one = createSigningKey("one");
const two = createSigningKey("two");
const minute = 60_000;
const hour = 60 * minute;

/** A set whose issuer answers with `keys`, fails with `failure`, or lets wait until `release`. */
function createSet(...keys: readonly SigningKey[]) {
  const clock = createTestClock();
  const lines: string[] = [];
  const log = createQuietLog(pino({ level: "debug" }, { write: (line: string) => void lines.push(line) }), clock);
  const issuer = {
    document: { keys: keys.map(({ jwk }) => jwk) } as unknown,
    failure: undefined as Error | undefined,
    hangs: false,
    loads: 0,
    release: () => {},
  };
  const load = async () => {
    issuer.loads++;
    if (issuer.hangs)
      await new Promise<void>((resolve) => {
        issuer.release = resolve;
      });
    if (issuer.failure) throw issuer.failure;
    return issuer.document;
  };
  const set = createKeySet({ load, issuer: "https://issuer.example", clock, log });
  const find = (kid: string | undefined, algorithm = "ES256") => set.find({ kid, algorithm });
  const say = async (kid: string | undefined, algorithm?: string) => {
    const found = await find(kid, algorithm);
    return typeof found === "string" ? found : "found";
  };
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  return { set, find, say, settle, clock, issuer, lines };
}

test("keys are asked for once, and again while they are still good", async () => {
  const { say, settle, clock, issuer } = createSet(one);
  assert.equal(issuer.loads, 0);
  assert.deepEqual(await Promise.all(["one", "one", "one"].map((kid) => say(kid))), ["found", "found", "found"]);
  assert.equal(issuer.loads, 1);
  clock.pass(8 * minute - 1);
  assert.equal(await say("one"), "found");
  assert.equal(issuer.loads, 1);
  clock.pass(1);
  issuer.hangs = true;
  assert.equal(await say("one"), "found", "nobody waits for the answer");
  assert.equal(issuer.loads, 2);
  issuer.release();
  await settle();
});

test("after ten minutes the answer is waited for, so that a key that was taken away is not used", async () => {
  const { set, find, clock, issuer } = createSet(one);
  const key = (await find("one")) as IssuerKey;
  issuer.document = { keys: [two.jwk] };
  clock.pass(10 * minute - 1);
  assert.ok(set.isCurrent(key), "asks, and goes on");
  assert.equal(issuer.loads, 2);
  const { set: other, find: findOther, clock: otherClock, issuer: otherIssuer } = createSet(one);
  const otherKey = (await findOther("one")) as IssuerKey;
  otherIssuer.document = { keys: [two.jwk] };
  otherClock.pass(10 * minute);
  assert.equal(other.isCurrent(otherKey), false);
  assert.equal(await findOther("one"), "unknown");
  assert.ok(otherKey.isGone);
});

test("a key that was taken away is gone when the new set is there", async () => {
  const { set, find, settle, clock, issuer } = createSet(one, two);
  const [first, second] = [(await find("one")) as IssuerKey, (await find("two")) as IssuerKey];
  issuer.document = { keys: [two.jwk] };
  clock.pass(8 * minute);
  assert.ok(set.isCurrent(first));
  await settle();
  assert.equal(set.isCurrent(first), false);
  assert.ok(set.isCurrent(second));
  assert.equal(await find("two"), second, "what stays is the same object, with what it has imported");
});

test("another key under the same kid is another key", async () => {
  const { set, find, settle, clock, issuer } = createSet(one);
  const key = (await find("one")) as IssuerKey;
  issuer.document = { keys: [createSigningKey("one").jwk] };
  clock.pass(8 * minute);
  set.isCurrent(key);
  await settle();
  assert.equal(set.isCurrent(key), false);
  assert.notEqual(await find("one"), key);
});

test("no keys at all are no failure: then nobody is known", async () => {
  const { say, clock, issuer } = createSet(one);
  assert.equal(await say("one"), "found");
  issuer.document = { keys: [] };
  clock.pass(10 * minute);
  assert.equal(await say("one"), "unknown");
});

test("a new key is refused for five seconds at most", async () => {
  const { say, clock, issuer } = createSet(one);
  assert.equal(await say("one"), "found");
  issuer.document = { keys: [one.jwk, two.jwk] };
  clock.pass(4_999);
  assert.equal(await say("two"), "unknown");
  clock.pass(1);
  assert.equal(await say("two"), "found");
  assert.equal(issuer.loads, 2);
});

test("ten thousand unknown kids in a minute cost twelve questions, one at a time", async () => {
  const { say, clock, issuer } = createSet(one);
  for (let i = 0; i < 10_000; i++) {
    assert.equal(await say(`${i}`), "unknown");
    clock.pass(6);
  }
  assert.equal(clock.elapsedMs(), minute);
  assert.ok(issuer.loads <= 12, `${issuer.loads} questions`);
  assert.ok(issuer.loads >= 11, "and new keys are looked for all the time");
  assert.equal(await say("one"), "found");
});

test("unknown kids that come at once wait for one answer", async () => {
  const { say, clock, issuer } = createSet(one);
  await say("one");
  clock.pass(5_000);
  const all = await Promise.all(Array.from({ length: 1_000 }, (_, i) => say(`${i}`)));
  assert.ok(all.every((found) => found === "unknown"));
  assert.equal(issuer.loads, 2);
});

test("an issuer that is away for an hour: known keys count, unknown ones don't", async () => {
  const { set, find, say, settle, clock, issuer, lines } = createSet(one);
  const key = (await find("one")) as IssuerKey;
  issuer.failure = new Error("connect ECONNREFUSED");
  for (let i = 0; i < 360; i++) {
    clock.pass(10_000);
    assert.ok(set.isCurrent(key));
    assert.equal(await say("one"), "found");
    assert.equal(await say("two"), "unknown");
    await settle();
  }
  assert.ok(issuer.loads <= 361, `${issuer.loads} questions`);
  assert.match(lines.join(), /keys of the issuer can't be fetched/);
  issuer.failure = undefined;
  issuer.document = { keys: [two.jwk] };
  clock.pass(10_000);
  assert.equal(await say("two"), "found");
  assert.equal(set.isCurrent(key), false);
  assert.match(lines.join(), /keys of the issuer are there again/);
});

test("an issuer that does not answer keeps nobody waiting whose key is known", async () => {
  const { say, settle, clock, issuer } = createSet(one);
  await say("one");
  clock.pass(9 * minute);
  issuer.failure = new Error("no answer in time");
  assert.equal(await say("one"), "found");
  await settle();
  clock.pass(30_000);
  issuer.hangs = true;
  for (let i = 0; i < 10; i++) {
    clock.pass(5_000);
    assert.equal(await say("one"), "found");
    issuer.release();
    await settle();
  }
});

test("a failure long ago is no reason not to wait for the answer now", async () => {
  const { say, settle, clock, issuer } = createSet(one);
  await say("one");
  clock.pass(minute);
  issuer.failure = new Error("away");
  assert.equal(await say("two"), "unknown");
  issuer.failure = undefined;
  issuer.document = { keys: [two.jwk] };
  issuer.hangs = true;
  clock.pass(hour);
  const said = say("one");
  await settle();
  issuer.release();
  assert.equal(await said, "unknown");
});

test("after a day without an answer no key is known any more", async () => {
  const { set, find, say, settle, clock, issuer } = createSet(one);
  const key = (await find("one")) as IssuerKey;
  issuer.failure = new Error("away");
  clock.pass(24 * hour - 1);
  assert.equal(set.isCurrent(key), false, "nobody has asked for long");
  await settle();
  assert.ok(set.isCurrent(key));
  clock.pass(1);
  assert.equal(set.isCurrent(key), false);
  assert.equal(await say("one"), "unreachable");
  assert.ok(key.isGone);
});

test("an issuer that is away from the start is asked once a second, not once a request", async () => {
  const { say, clock, issuer } = createSet(one);
  issuer.failure = new Error("away");
  for (let i = 0; i < 1_000; i++) {
    assert.equal(await say("one"), "unreachable");
    clock.pass(10);
  }
  assert.equal(issuer.loads, 10);
  issuer.failure = undefined;
  clock.pass(1_000);
  assert.equal(await say("one"), "found");
});

const garbage: [what: string, document: unknown][] = [
  ["text", "keys"],
  ["nothing", undefined],
  ["a list", [one.jwk]],
  ["an object without keys", { key: one.jwk }],
  ["keys that are no list", { keys: one.jwk }],
  ["too many keys", { keys: Array.from({ length: 101 }, () => one.jwk) }],
];
for (const [what, document] of garbage) {
  test(`${what} in place of a key set is a failure, and known keys stay`, async () => {
    const { say, clock, issuer } = createSet(one);
    assert.equal(await say("one"), "found");
    issuer.document = document;
    clock.pass(10 * minute);
    assert.equal(await say("one"), "found");
    assert.equal(issuer.loads, 2);
    const fresh = createSet();
    fresh.issuer.document = document;
    assert.equal(await fresh.say("one"), "unreachable");
  });
}

const rsa = createSigningKey("rsa", "RS256");
const { alg: _alg, ...anyRsa } = rsa.jwk;
const left: [what: string, jwk: unknown, algorithm: string][] = [
  ["a shared secret", { kty: "oct", k: "AAAA", kid: "x", alg: "HS256" }, "HS256"],
  ["a private key", { ...one.privateKey.export({ format: "jwk" }), kid: "x" }, "ES256"],
  ["a key for encryption", { ...one.jwk, kid: "x", use: "enc" }, "ES256"],
  ["a key that may not verify", { ...one.jwk, kid: "x", use: undefined, key_ops: ["encrypt"] }, "ES256"],
  ["a key for another algorithm", { ...rsa.jwk, kid: "x" }, "PS256"],
  ["a key of another curve", { ...one.jwk, kid: "x", alg: undefined }, "ES384"],
  ["a key of another kind", { ...anyRsa, kid: "x" }, "ES256"],
  ["a small RSA key", { kty: "RSA", kid: "x", e: "AQAB", n: Buffer.alloc(128, 0xff).toString("base64url") }, "RS256"],
  ["a huge RSA key", { kty: "RSA", kid: "x", e: "AQAB", n: Buffer.alloc(4_096, 0xff).toString("base64url") }, "RS256"],
  ["an RSA key with a long exponent", { ...anyRsa, kid: "x", e: rsa.jwk.n }, "RS256"],
  ["a kid that is no text", { ...one.jwk, kid: 1 }, "ES256"],
  ["text", "key", "ES256"],
  ["null", null, "ES256"],
];
for (const [what, jwk, algorithm] of left) {
  test(`${what} in a key set is left out, and the others are not`, async () => {
    const { say, issuer } = createSet();
    issuer.document = { keys: [jwk, two.jwk] };
    assert.equal(await say("two"), "found");
    assert.equal(await say("x", algorithm), "unknown");
  });
}

test("without a kid only the one key is taken that fits, and two of one kid are none", async () => {
  assert.equal(await createSet(one, rsa).say(undefined), "found");
  assert.equal(await createSet(one, two).say(undefined), "unknown");
  assert.equal(await createSet(one, createSigningKey("one")).say("one"), "unknown");
  assert.equal(await createSet(one, { ...rsa, jwk: { ...rsa.jwk, kid: "one" } }).say("one"), "found");
});

test("a key that can't be imported is none, and one that can is imported once", async () => {
  const { find, issuer } = createSet(one);
  const key = (await find("one")) as IssuerKey;
  assert.equal(await key.importFor("ES256"), await key.importFor("ES256"));
  const broken = createSet();
  broken.issuer.document = { keys: [{ ...one.jwk, y: one.jwk.x }] };
  assert.equal(await ((await broken.find("one")) as IssuerKey).importFor("ES256"), undefined);
  assert.equal(issuer.loads, 1);
});
