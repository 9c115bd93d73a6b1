import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { pino } from "pino";
import { eventually } from "../../test/support/eventually.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { KeyRingError, openKeyRing } from "./key-ring.ts";

const newSecret = () => randomBytes(32).toString("hex");

/** What was logged, and the ring. */
function open(env: Record<string, string>, isShared = false) {
  const lines: string[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => void lines.push(line) });
  return { ring: openKeyRing({ env, isShared, log, pollMs: 50 }), lines };
}

test("one secret is one key, the same for every replica", () => {
  const VMCP_SESSION_HMAC_SECRET = newSecret();
  const [{ ring: one }, { ring: other }] = [open({ VMCP_SESSION_HMAC_SECRET }), open({ VMCP_SESSION_HMAC_SECRET }, true)];
  assert.equal(one.active.id, other.active.id);
  assert.deepEqual(one.active.derive("a").export(), other.active.derive("a").export());
  assert.equal(one.find(one.active.id), one.active);
  assert.equal(one.isRandom, false);
});

test("several keys: one seals, others open, retired ones do not", () => {
  const text = `# rotated today\nk2 active ${newSecret()}\n\n  k1  verify-only ${newSecret()}\nk0 retired ${newSecret()}`;
  const { ring } = open({ VMCP_SESSION_HMAC_SECRET: text });
  assert.equal(ring.active.id, "k2");
  assert.deepEqual(
    ["k0", "k1", "k2", "k3"].map((id) => ring.find(id)?.id),
    [undefined, "k1", "k2", undefined],
  );
});

test("without a secret there is a random one and a loud warning, on one machine alone", () => {
  const { ring, lines } = open({});
  assert.ok(ring.isRandom);
  assert.match(lines.join(), /"level":40.*VMCP_SESSION_HMAC_SECRET is not set/);
  assert.notDeepEqual(ring.active.derive("a").export(), open({}).ring.active.derive("a").export());
  assert.throws(() => open({}, true), /has to be set when sessions are kept in Redis/);
  assert.throws(() => open({ KUBERNETES_SERVICE_HOST: "10.0.0.1" }), /has to be set in Kubernetes/);
});

const good = newSecret();
const refused: [what: string, text: string, wanted: RegExp][] = [
  ["a short secret", good.slice(0, 31), /has 31 bytes; it needs 32/],
  ["the example of the original", "your-32-plus-byte-secret-here-and-more", /is a known example/],
  ["a known word", "ChangeMeChangeMeChangeMeChangeMe0123", /is a known example/],
  ["one character", "a".repeat(64), /repeats itself/],
  ["a repeated part", "0a1b2c3d4e5f6g7h".repeat(4), /repeats itself/],
  ["few characters", "abcabcabdabcabeabcabcabcabdabeabc", /repeats itself/],
  ["no active key", `k1 verify-only ${good}`, /no key is active/],
  ["two active keys", `k1 active ${good}\nk2 active ${newSecret()}`, /line 2: another key is active/],
  ["an id twice", `k1 active ${good}\nk1 verify-only ${newSecret()}`, /line 2: the id is there twice/],
  ["a long id", `key1 active ${good}`, /line 1: the id of a key is two/],
  ["an unknown state", `k1 live ${good}`, /line 1: the state of a key is active, verify-only, retired/],
  ["no secret", "k1 active", /line 1: wanted: <id> <state> <secret>/],
];
for (const [what, text, wanted] of refused) {
  test(`${what} is refused, and nothing of the secret is said`, () => {
    const secrets = text.split(/\s+/).filter((word) => word.length > 20);
    assert.throws(
      () => open({ VMCP_SESSION_HMAC_SECRET: text }),
      (error) => {
        assert.ok(error instanceof KeyRingError);
        assert.match(error.message, wanted);
        for (const secret of secrets) assert.ok(!error.message.includes(secret));
        return true;
      },
    );
  });
}

test("every problem is named at once", () => {
  const text = `k1 active ${"a".repeat(40)}\nkey2 live short`;
  assert.throws(
    () => open({ VMCP_SESSION_HMAC_SECRET: text }),
    /line 1[\s\S]*line 2: the id[\s\S]*line 2: the state[\s\S]*line 2: the secret has 5/,
  );
});

test("a secret and a file of secrets are not both taken, and a file that can't be read is named", () => {
  const both = { VMCP_SESSION_HMAC_SECRET: good, VMCP_SESSION_HMAC_SECRET_FILE: "/nowhere" };
  assert.throws(() => open(both), /are both set/);
  assert.throws(() => open({ VMCP_SESSION_HMAC_SECRET_FILE: "/nowhere/at/all" }), /_FILE can't be read: ENOENT/);
});

test("a file that changes changes the ring; one that turns bad does not", async () => {
  await using directory = await temporaryDirectory();
  const [one, two] = [newSecret(), newSecret()];
  const path = await directory.write("secret", `k1 active ${one}\n`);
  const { ring, lines } = open({ VMCP_SESSION_HMAC_SECRET_FILE: path });
  using _owned = ring;
  const first = ring.active;
  await writeFile(path, `k1 verify-only ${one}\nk2 active ${two}\n`);
  await eventually("the second key seals", () => ring.active.id === "k2");
  assert.deepEqual(ring.find("k1")?.derive("a").export(), first.derive("a").export());
  await writeFile(path, "k2 active too-short\n");
  await eventually("it is said", () => lines.some((line) => line.includes("not reloaded")));
  assert.equal(ring.active.id, "k2");
  assert.ok(ring.find("k1"));
  assert.ok(!lines.join().includes("too-short") && !lines.join().includes(two));
});
