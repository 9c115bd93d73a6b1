import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { oneKey } from "../mcp/seal.ts";
import { type BoundCall, type Caller, type CallState, createCallerTokens } from "./caller-tokens.ts";

const secret = Buffer.alloc(32, 7);
const tokens = createCallerTokens(oneKey(secret));
const replica = createCallerTokens(oneKey(Buffer.from(secret)));
const stranger = createCallerTokens(oneKey(randomBytes(32)));

const caller: Caller = { virtualServer: "v", identity: { issuer: "i", subject: "s", isAnonymous: false } };
const call: BoundCall = { method: "tools/call", params: { name: "t", arguments: { a: 1, b: [2] } } };
const relayed: CallState = { kind: "relayed", backend: "b", state: '"opaque"' };
const parked: CallState = { kind: "parked", owner: "http://10.0.0.1:1", instance: "x", job: "j", round: 3 };

const anyText = fc.string({ unit: "binary" });
const callers = fc.record({
  virtualServer: anyText,
  identity: fc.record({ issuer: anyText, subject: anyText, isAnonymous: fc.constant(false) }),
});

/** Each kind of token: one that is made here, and how a tampered or foreign one would be opened. */
const kinds: readonly {
  readonly kind: string;
  make(whose: Caller, made?: typeof tokens): string;
  open(whose: Caller, token: string, opener?: typeof tokens): unknown;
  readonly wanted: unknown;
}[] = [
  {
    kind: "cursor",
    make: (whose, made = tokens) => made.sealCursor(whose, "page.2"),
    open: (whose, token, opener = tokens) => opener.openCursor(whose, token),
    wanted: "page.2",
  },
  {
    kind: "state",
    make: (whose, made = tokens) => made.sealState(whose, call, parked) as string,
    open: (whose, token, opener = tokens) => opener.openState(whose, call, token),
    wanted: parked,
  },
  {
    kind: "task",
    make: (whose, made = tokens) => made.sealTask(whose, { backend: "b", taskId: "t/1" }) as string,
    open: (whose, token, opener = tokens) => opener.openTask(whose, token),
    wanted: { backend: "b", taskId: "t/1" },
  },
];

for (const { kind, make, open, wanted } of kinds) {
  test(`a ${kind} opens for whom it was made, on any replica`, () => {
    fc.assert(fc.property(callers, (whose) => assert.deepEqual(open(whose, make(whose), replica), wanted)));
  });

  test(`a ${kind} opens for no other caller, wherever the border between the parts of its name lies`, () => {
    fc.assert(
      fc.property(callers, callers, (whose, other) => {
        fc.pre(JSON.stringify(whose) !== JSON.stringify(other));
        assert.equal(open(other, make(whose)), undefined);
      }),
    );
    const others: [string, string, string][] = [
      ["v2", "i", "s"],
      ["v", "i2", "s"],
      ["v", "i", "s2"],
      ["v", "is", ""],
      ["vi", "", "s"],
      ["", "vi", "s"],
      ['v","i', "i", "s"],
      ["v", "s", "i"],
    ];
    for (const [virtualServer, issuer, subject] of others)
      assert.equal(
        open({ virtualServer, identity: { issuer, subject, isAnonymous: false } }, make(caller)),
        undefined,
        JSON.stringify(subject),
      );
  });

  test(`a ${kind} opens under no other secret`, () => {
    assert.equal(open(caller, make(caller), stranger), undefined);
    assert.equal(open(caller, make(caller, stranger)), undefined);
  });

  test(`a ${kind} with any character changed, missing or added does not open`, () => {
    const token = make(caller);
    fc.assert(
      fc.property(fc.nat(token.length), fc.string({ unit: "binary", minLength: 1, maxLength: 1 }), (at, character) => {
        const changed = [token.slice(0, at) + character + token.slice(at + 1), token.slice(0, at) + character + token.slice(at)];
        for (const other of changed) if (other !== token) assert.equal(open(caller, other), undefined, other);
      }),
      { numRuns: 3_000 },
    );
    for (let at = 0; at < token.length; at++) {
      assert.equal(open(caller, token.slice(0, at)), undefined);
      assert.equal(open(caller, token.slice(0, at) + token.slice(at + 1)), undefined);
    }
  });

  test(`no other text opens as a ${kind}`, () => {
    fc.assert(fc.property(anyText, (text) => assert.equal(open(caller, text), undefined)));
    for (const text of ["", ".", "..", "s1.", "page.2"]) assert.equal(open(caller, text), undefined);
  });
}

test("no token opens as one of another kind", () => {
  for (const { kind, make } of kinds)
    for (const other of kinds) if (other.kind !== kind) assert.equal(other.open(caller, make(caller)), undefined, other.kind);
});

test("any cursor comes back as it was, and the same page has the same cursor", () => {
  fc.assert(
    fc.property(anyText, (cursor) => {
      const token = tokens.sealCursor(caller, cursor);
      assert.equal(tokens.openCursor(caller, token), cursor);
      assert.equal(replica.sealCursor(caller, cursor), token);
    }),
  );
});

test("any state comes back as it was", () => {
  const states = fc.oneof(
    fc.tuple(anyText, anyText).map(([backend, state]) => ({ kind: "relayed", backend, state }) as const),
    fc
      .tuple(anyText, anyText, anyText, fc.nat())
      .map(([owner, instance, job, round]) => ({ kind: "parked", owner, instance, job, round }) as const),
  );
  fc.assert(
    fc.property(states, (state) => {
      assert.deepEqual(replica.openState(caller, call, tokens.sealState(caller, call, state) as string), state);
    }),
  );
});

test("any id of a task comes back as it was", () => {
  fc.assert(
    fc.property(anyText, anyText, (backend, taskId) => {
      assert.deepEqual(replica.openTask(caller, tokens.sealTask(caller, { backend, taskId }) as string), { backend, taskId });
    }),
  );
});

/** Whether a state that was made for one call opens for another. */
const opensFor = (made: BoundCall, asked: BoundCall) =>
  tokens.openState(caller, asked, tokens.sealState(caller, made, relayed) as string) !== undefined;
const withArguments = (text: string): BoundCall => ({ method: "tools/call", params: { name: "t", arguments: JSON.parse(text) } });

const sameCalls: [what: string, one: string, other: string][] = [
  ["members in another order", '{"a":1,"b":{"c":2,"d":3}}', '{"b":{"d":3,"c":2},"a":1}'],
  ["members in another order, inside arrays", '{"a":[{"x":1,"y":2}]}', '{"a":[{"y":2,"x":1}]}'],
  ["names that are numbers, in another order", '{"2":1,"1":2,"a":3}', '{"a":3,"1":2,"2":1}'],
  ["another spelling of a number", '{"a":1.0,"b":1e2}', '{"a":1,"b":100}'],
  ["another spelling of a string", '{"a":"\\u00e9\\/"}', '{"a":"é/"}'],
];
for (const [what, one, other] of sameCalls)
  test(`a retry with ${what} is the same call`, () => assert.ok(opensFor(withArguments(one), withArguments(other))));

const otherCalls: [what: string, one: string, other: string][] = [
  ["another value", '{"a":1}', '{"a":2}'],
  ["a member more", '{"a":1}', '{"a":1,"b":null}'],
  ["elements in another order", '{"a":[1,2]}', '{"a":[2,1]}'],
  ["an array for an object", '{"a":[]}', '{"a":{}}'],
  ["an array that looks like an object", '{"a":["object",["b",1]]}', '{"a":{"b":1}}'],
  ["an array that looks like an array", '{"a":["array",1]}', '{"a":[1]}'],
  ["an array of pairs for an object", '{"a":[["b",1]]}', '{"a":{"b":1}}'],
  ["a text for a number", '{"a":"1"}', '{"a":1}'],
  ["a text for an array", '{"a":"[]"}', '{"a":[]}'],
  ["null for nothing", '{"a":null}', "{}"],
  ["another name of the same length", '{"ab":1}', '{"ba":1}'],
  ["values moved between members", '{"a":"xy","b":""}', '{"a":"x","b":"y"}'],
  ["half an emoji for its replacement", '{"a":"\\ud83d"}', '{"a":"\\ufffd"}'],
  ["an escape for what it stands for", '{"a":"\\\\ud83d"}', '{"a":"\\ud83d"}'],
  ["__proto__ for nothing", '{"__proto__":{"a":1}}', "{}"],
  ["a number beyond all numbers for null", '{"a":1e400}', '{"a":null}'],
];
for (const [what, one, other] of otherCalls)
  test(`a retry with ${what} is another call`, () => {
    assert.ok(!opensFor(withArguments(one), withArguments(other)));
    assert.ok(!opensFor(withArguments(other), withArguments(one)));
  });

test("arguments that differ as JSON make another call, those that differ in order alone do not", () => {
  const shuffled = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(shuffled);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value)
        .reverse()
        .map(([key, member]) => [key, shuffled(member)]),
    );
  };
  const canonical = (value: unknown): string =>
    Array.isArray(value)
      ? `[${value.map(canonical).join()}]`
      : typeof value === "object" && value !== null
        ? `{${Object.entries(value)
            .map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`)
            .sort()
            .join()}}`
        : JSON.stringify(value);
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (one, other) => {
      const asked = (value: unknown) => ({ method: "m", params: { arguments: value } });
      assert.ok(opensFor(asked(one), asked(shuffled(one))));
      assert.equal(opensFor(asked(one), asked(other)), canonical(one) === canonical(other));
    }),
    { numRuns: 2_000 },
  );
});

test("what changes between rounds is no part of the call, everything else is", () => {
  const { method, params } = call;
  const rounds = [
    { _meta: { progressToken: 2 } },
    { inputResponses: { a: { action: "accept" } } },
    { requestState: "s" },
    { _meta: 1, inputResponses: 2, requestState: 3 },
  ];
  for (const more of rounds) assert.ok(opensFor(call, { method, params: { ...params, ...more } }), JSON.stringify(more));
  for (const more of [{ name: "u" }, { uri: "x" }, { arguments: {} }, { task: {} }])
    assert.ok(!opensFor(call, { method, params: { ...params, ...more } }), JSON.stringify(more));
  assert.ok(!opensFor(call, { method: "prompts/get", params }));
  // Only at the top: an argument may have such a name.
  assert.ok(!opensFor(withArguments('{"_meta":1}'), withArguments('{"_meta":2}')));
});

test("a state is void after an hour", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  const token = tokens.sealState(caller, call, relayed) as string;
  t.mock.timers.setTime(1_000_000 + 3_599_000);
  assert.deepEqual(tokens.openState(caller, call, token), relayed);
  t.mock.timers.setTime(1_000_000 + 3_600_000);
  assert.equal(tokens.openState(caller, call, token), undefined);
});

test("a state of 128 KiB travels, one that is too large is refused", () => {
  const large = (length: number): CallState => ({ ...relayed, state: "x".repeat(length) });
  const token = tokens.sealState(caller, call, large(128 * 1024));
  assert.deepEqual(token && tokens.openState(caller, call, token), large(128 * 1024));
  assert.equal(tokens.sealState(caller, call, large(200 * 1024)), undefined);
  assert.equal(tokens.sealState(caller, call, { ...relayed, state: "\0".repeat(64 * 1024) }), undefined);
});

test("a task's id is carried or refused, however long and whatever it is made of", () => {
  for (const [character, length] of [
    ["x", 2_000],
    ["é", 1_000],
    ["é", 2_000],
    ["€", 2_000],
    ["\0", 2_000],
    ["x", 2_001],
    ["x", 100_000],
  ] as const) {
    const route = { backend: "b", taskId: character.repeat(length) };
    const token = tokens.sealTask(caller, route);
    if (token !== undefined) assert.deepEqual(tokens.openTask(caller, token), route);
    else assert.ok(length > 1_000, `${JSON.stringify(character)} × ${length} is refused`);
  }
});
