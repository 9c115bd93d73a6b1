import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { eventually } from "../../test/support/eventually.ts";
import { createLimit } from "../backends/limit.ts";
import { abilitiesOf, createCallers } from "./callers.ts";

const minuteMs = 60_000;
const newCallers = (more: { idleMs?: number; callersMax?: number } = {}) =>
  createCallers({ idleMs: 30 * minuteMs, callersMax: 10, clientInfo: '{"name":"vmcp","version":"1"}', ...more });
const who = (virtualServer = "v", issuer = "i", subject = "s", capabilities = "{}") => ({
  virtualServer,
  identity: { issuer, subject, isAnonymous: false },
  capabilities,
});

test("requests of one caller with the same abilities share a session, and only its first is new", async () => {
  await using callers = newCallers();
  const first = callers.of(who());
  const second = callers.of(who());
  assert.ok(first && second);
  assert.deepEqual([first.isNew, second.isNew], [true, false]);
  assert.equal(second.session, first.session);
  assert.equal(callers.size, 1);
});

const others: [what: string, other: ReturnType<typeof who>][] = [
  ["on another virtual server", who("w")],
  ["of another issuer", who("v", "j")],
  ["of another subject", who("v", "i", "t")],
  ["with other abilities", who("v", "i", "s", '{"roots":{}}')],
  ["whose parts read the same in a row", who("v", "is", "")],
  ["whose name holds the border between its parts", who("v", 'i","s', "")],
];
for (const [what, other] of others)
  test(`a caller ${what} has a session of its own`, async () => {
    await using callers = newCallers();
    const [one, another] = [callers.of(who()), callers.of(other)];
    assert.ok(one && another?.isNew);
    assert.notEqual(another.session, one.session);
    assert.deepEqual(
      [...callers.all()].map(({ virtualServer, identity, capabilities }) => ({ virtualServer, identity, capabilities })),
      [who(), other],
    );
  });

test("what stands for a session says so, and meets servers with the newest revision that has sessions", async () => {
  await using callers = newCallers();
  const session = callers.of(who())?.session;
  assert.ok(session);
  assert.deepEqual(
    [session.era, session.protocolVersion, session.clientInfo],
    ["stateless", "2025-11-25", '{"name":"vmcp","version":"1"}'],
  );
});

test("a caller that was idle for too long is forgotten, and is new when it comes back", async () => {
  await using callers = newCallers({ idleMs: 20 });
  const first = callers.of(who());
  let ended = 0;
  first?.session.onEnd(() => ended++);
  await eventually("the end of an idle caller", () => callers.size === 0);
  assert.equal(ended, 1);
  const second = callers.of(who());
  assert.equal(second?.isNew, true);
  assert.notEqual(second?.session, first?.session);
});

test("a caller with a call in flight, or one that is parked, is not idle", async () => {
  await using callers = newCallers({ idleMs: 20 });
  const session = callers.of(who())?.session;
  assert.ok(session);
  const key = Symbol("call");
  session.calls.set(key, createLimit());
  callers.of(who("other"));
  await eventually("the end of the idle one", () => callers.size === 1);
  assert.equal(callers.of(who())?.session, session);
  session.calls.delete(key);
  await eventually("the end of both", () => callers.size === 0);
});

test("a caller that was ended is new when it comes back", async () => {
  await using callers = newCallers();
  const first = callers.of(who());
  assert.ok(first);
  const limit = createLimit();
  first.session.calls.set("1", limit);
  callers.end(first.session);
  assert.ok(limit.signal.aborted);
  assert.equal(callers.size, 0);
  const second = callers.of(who());
  assert.ok(second?.isNew);
  callers.end(first.session); // once more: the new one has another id
  assert.equal(callers.of(who())?.session, second.session);
});

test("there are no more callers than there is room for; one idle for a minute makes room, and comes back as a new one", async () => {
  await using callers = newCallers({ callersMax: 2 });
  const [first, second] = [callers.of(who("a")), callers.of(who("b"))];
  assert.ok(first && second);
  assert.equal(callers.of(who("c")), undefined);
  assert.equal(callers.of(who("b"))?.isNew, false, "whoever is here already goes on");
  first.session.usedAtMs -= minuteMs;
  assert.equal(callers.of(who("c"))?.isNew, true);
  assert.equal(callers.size, 2);
  assert.equal(callers.of(who("a")), undefined);
  second.session.usedAtMs -= minuteMs;
  assert.equal(callers.of(who("a"))?.isNew, true);
});

test("nobody is left after the end", async () => {
  const callers = newCallers();
  const limit = createLimit();
  callers.of(who())?.session.calls.set("1", limit);
  await callers[Symbol.asyncDispose]();
  assert.equal(callers.size, 0);
  assert.ok(limit.signal.aborted);
});

const abilities: [what: string, declared: Record<string, unknown>, wanted: object][] = [
  ["nothing", {}, {}],
  ["elicitation without a mode, which means forms", { elicitation: {} }, { elicitation: { form: {} } }],
  ["elicitation by form", { elicitation: { form: {} } }, { elicitation: { form: {} } }],
  ["elicitation by URL alone", { elicitation: { url: {} } }, { elicitation: { url: {} } }],
  ["elicitation by both", { elicitation: { url: {}, form: { x: 1 } } }, { elicitation: { form: {}, url: {} } }],
  ["elicitation in a mode that nobody knows", { elicitation: { voice: {} } }, { elicitation: { form: {} } }],
  ["sampling", { sampling: {} }, { sampling: {} }],
  ["sampling with tools", { sampling: { tools: {} } }, { sampling: { tools: {} } }],
  ["sampling with context", { sampling: { context: {}, more: {} } }, { sampling: { context: {} } }],
  ["sampling with both", { sampling: { context: {}, tools: {} } }, { sampling: { tools: {}, context: {} } }],
  ["roots, whose changes nobody tells", { roots: { listChanged: true } }, { roots: {} }],
  ["what has no place in a session", { tasks: {}, extensions: { "a/b": {} }, experimental: { x: {} }, logging: {} }, {}],
  ["what is no object", { elicitation: true, sampling: "yes", roots: [] }, {}],
  ["null", { elicitation: null, sampling: null, roots: null }, {}],
  [
    "modes that are no objects",
    { elicitation: { url: true }, sampling: { tools: [], context: 1 } },
    { elicitation: { form: {} }, sampling: {} },
  ],
  [
    "everything",
    { roots: {}, sampling: { tools: {}, context: {} }, elicitation: { url: {}, form: {} } },
    {
      elicitation: { form: {}, url: {} },
      roots: {},
      sampling: { tools: {}, context: {} },
    },
  ],
];
for (const [what, declared, wanted] of abilities)
  test(`a caller that declares ${what} has the abilities ${JSON.stringify(wanted)}`, () =>
    assert.deepEqual(JSON.parse(abilitiesOf(declared)), wanted));

test("the order in which abilities are declared makes no difference", () => {
  const [one, other] = [
    { elicitation: { form: {}, url: {} }, roots: {}, sampling: { tools: {}, context: {} } },
    { sampling: { context: {}, tools: {} }, roots: {}, elicitation: { url: {}, form: {} } },
  ];
  assert.equal(abilitiesOf(one), abilitiesOf(other));
});

test("there are forty abilities, whatever is declared", () => {
  const part = (...names: string[]) => {
    const value = fc.oneof(fc.constant({}), fc.constant({ listChanged: true }), fc.jsonValue());
    const known = fc.record(Object.fromEntries(names.map((name) => [name, value])), { requiredKeys: [] });
    return fc.oneof({ weight: 6, arbitrary: known }, { weight: 1, arbitrary: fc.jsonValue() });
  };
  const known = fc.record(
    { elicitation: part("form", "url", "x"), sampling: part("tools", "context", "x"), roots: part("listChanged") },
    { requiredKeys: [] },
  );
  const declared = fc.tuple(fc.dictionary(fc.string(), fc.jsonValue()), known).map(([more, own]) => ({ ...more, ...own }));
  const seen = new Set<string>();
  fc.assert(
    fc.property(declared, (said) => {
      const text = abilitiesOf(said as Record<string, unknown>);
      seen.add(text);
      // What it says is what it says of itself.
      assert.equal(abilitiesOf(JSON.parse(text)), text);
    }),
    { numRuns: 6_000 },
  );
  assert.equal(seen.size, 40);
});
