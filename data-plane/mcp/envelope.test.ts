import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseExactly } from "../../test/support/json.ts";
import { progressTokenOf, withEnvelope, withoutEnvelope } from "./envelope.ts";
import { type Message, readMessage } from "./json-rpc.ts";
import { JsonTextError, member, members } from "./scan.ts";
import { metaKeys } from "./stateless.ts";

const read = (json: string) => readMessage(Buffer.from(json));
const textOf = ({ json }: Message) => json.toString();
const call = (params: string) => `{"jsonrpc":"2.0","id":1,"method":"m","params":${params}}`;

const envelope = { [metaKeys.protocolVersion]: '"2026-07-28"', [metaKeys.clientCapabilities]: "{}" };
const version = `"${metaKeys.protocolVersion}":"2026-07-28"`;
const both = `${version},"${metaKeys.clientCapabilities}":{}`;

const put: [what: string, before: string, after: string][] = [
  [
    "without params",
    '{"jsonrpc":"2.0","id":1,"method":"m"}',
    `{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{${both}}}}`,
  ],
  ["with empty params", call("{}"), call(`{"_meta":{${both}}}`)],
  ["with params", call('{ "n":9007199254740993 }'), call(`{ "n":9007199254740993,"_meta":{${both}} }`)],
  ["with an empty _meta", call('{"_meta":{ },"n":1.0}'), call(`{"_meta":{${both} },"n":1.0}`)],
  ["with a _meta", call('{"_meta":{"progressToken":1e0},"n":1.0}'), call(`{"_meta":{"progressToken":1e0,${both}},"n":1.0}`)],
  [
    "that has one already",
    call(`{"_meta":{"${metaKeys.protocolVersion}":"other", "a/b":1.0}}`),
    call(`{"_meta":{${version}, "a/b":1.0,"${metaKeys.clientCapabilities}":{}}}`),
  ],
  [
    "that has one in other spelling",
    call('{"_meta":{"io.modelcontextprotocol\\/protocolVersion":"other"}}'),
    call(`{"_meta":{"io.modelcontextprotocol\\/protocolVersion":"2026-07-28","${metaKeys.clientCapabilities}":{}}}`),
  ],
  ["whose _meta is no object", call('{"_meta":[1],"n":1}'), call(`{"_meta":{${both}},"n":1}`)],
  ["whose _meta is null", call('{"_meta":null}'), call(`{"_meta":{${both}}}`)],
  ["with a _meta deeper down alone", call('{"arguments":{"_meta":{}}}'), call(`{"arguments":{"_meta":{}},"_meta":{${both}}}`)],
];
for (const [what, before, after] of put)
  test(`a request ${what} gets an envelope, and keeps every other byte`, () =>
    assert.equal(textOf(withEnvelope(read(before), envelope)), after));

const all = `${both},"${metaKeys.clientInfo}":{"name":"c"},"${metaKeys.logLevel}":"info"`;
const taken: [what: string, before: string, after: string][] = [
  ["nothing but an envelope", call(`{"_meta":{${all}}}`), call("{}")],
  [
    "an envelope and a token",
    call(`{"_meta":{${all},"progressToken":1e0},"n":1.0}`),
    call('{"_meta":{"progressToken":1e0},"n":1.0}'),
  ],
  ["vendors' keys between", call(`{"_meta":{"a/b": [1.0] ,${all}, "c/d":2}}`), call('{"_meta":{"a/b": [1.0], "c/d":2}}')],
  ["keys that only begin alike", call(`{"_meta":{"${metaKeys.logLevel}s":1}}`), call(`{"_meta":{"${metaKeys.logLevel}s":1}}`)],
  ["an envelope in other spelling", call('{"_meta":{"io.modelcontextprotocol\\/protocolVersion":"x"},"n":1}'), call('{"n":1}')],
  [
    "an envelope over many lines",
    call(`{\n        "n": 1.0,\n        "_meta": {\n            ${version}\n        }\n    }`),
    call('{\n        "n": 1.0\n    }'),
  ],
  ["answers of a round", call('{"inputResponses":{"a":{}},"name":"t","requestState":"s"}'), call('{"name":"t"}')],
  [
    "arguments of such names",
    call('{"arguments":{"inputResponses":1,"_meta":{}}}'),
    call('{"arguments":{"inputResponses":1,"_meta":{}}}'),
  ],
  ["no envelope", call('{ "n" : 9007199254740993 }'), call('{ "n" : 9007199254740993 }')],
  ["no params", '{"jsonrpc":"2.0","id":1,"method":"m"}', '{"jsonrpc":"2.0","id":1,"method":"m"}'],
];
for (const [what, before, after] of taken)
  test(`a request with ${what} loses what belongs to the other era, and nothing else`, () =>
    assert.equal(textOf(withoutEnvelope(read(before))), after));

const progressTokens: [what: string, json: string, wanted: string | undefined][] = [
  ["a number, as it is spelled", call('{"_meta":{"progressToken":1.0}}'), "1.0"],
  ["a text, as it is spelled", call('{"_meta":{"progressToken":"\\u0061"}}'), '"\\u0061"'],
  ["the last of two, as in JSON.parse", call('{"_meta":{"progressToken":1,"progressToken":2}}'), "2"],
  ["none", call('{"_meta":{}}'), undefined],
  ["none outside of _meta", call('{"progressToken":1,"arguments":{"_meta":{"progressToken":1}}}'), undefined],
  ["none in a _meta that is no object", call('{"_meta":"progressToken"}'), undefined],
  ["none without params", '{"jsonrpc":"2.0","id":1,"method":"m"}', undefined],
];
for (const [what, json, wanted] of progressTokens)
  test(`the progress token is ${what}`, () => {
    const message = read(json);
    const span = progressTokenOf(message);
    assert.equal(span && message.json.toString("utf8", span.start, span.end), wanted);
  });

// Texts as senders may write them: white space, numbers that JSON.parse changes, names in escapes.
const space = fc.string({ unit: fc.constantFrom(" ", "\n", "\t", "\r"), maxLength: 2 });
// No other name needs an escape (https://github.com/nodejs/node/issues/63785).
const unit = fc.constantFrom("a", "é", "}", ",", "/", "😀");
const value = fc.oneof(
  fc.jsonValue({ maxDepth: 2, stringUnit: unit }).map((parsed) => JSON.stringify(parsed)),
  fc.constantFrom("9007199254740993", "-0", "1.0", "1e400", "1E+2", '"\\u00e9\\/"', '{"a" : [ 1.0 ]}', "[ ]"),
);
const escaped = (name: string) => `"${name.replaceAll("/", "\\/").replaceAll("e", "\\u0065")}"`;
const nameOf = (name: string) => fc.constantFrom(JSON.stringify(name), escaped(name));
const objectOf = (entries: fc.Arbitrary<[string, string][]>) =>
  fc.tuple(entries, fc.infiniteStream(space)).map(([parts, spaces]) => {
    const gap = () => spaces.next().value;
    return `{${gap()}${parts.map(([name, text]) => `${name}${gap()}:${gap()}${text}${gap()}`).join(`,${gap()}`)}}`;
  });
const entriesOf = (names: Readonly<Record<string, fc.Arbitrary<string>>>) => {
  const own = Object.entries(names).map(([name, text]) => fc.tuple(nameOf(name), text));
  return fc
    .tuple(...own.map((entry) => fc.option(entry)), fc.option(fc.tuple(fc.constantFrom('"n"', '"é"', '"__proto__"'), value)))
    .chain((entries) =>
      fc.shuffledSubarray(
        entries.filter((entry) => entry !== null),
        { minLength: entries.filter((entry) => entry !== null).length },
      ),
    );
};
const meta = objectOf(
  entriesOf({
    [metaKeys.protocolVersion]: value,
    [metaKeys.clientCapabilities]: value,
    [metaKeys.clientInfo]: value,
    [metaKeys.logLevel]: value,
    progressToken: value,
    "vendor/key": value,
  }),
);
const params = objectOf(entriesOf({ _meta: meta, inputResponses: value, requestState: value, name: value, arguments: value }));
const messages = objectOf(
  entriesOf({ params }).map(
    (entries) => [['"jsonrpc"', '"2.0"'], ['"id"', "1.0"], ['"method"', '"m"'], ...entries] as [string, string][],
  ),
);

type Parsed = Record<string, unknown>;
/** A member with its exact bytes, by name. */
const spelled = (json: Buffer, start: number) =>
  new Map(members(json, start).map(({ key, start: from, end }) => [key, json.toString("utf8", from, end)]));

test("an envelope is what one would write into the object, and whatever was there keeps its bytes", () => {
  fc.assert(
    fc.property(messages, value, value, (json, one, other) => {
      const before = read(json);
      const members = { [metaKeys.protocolVersion]: one, [metaKeys.logLevel]: other, "new/key": "1.0" };
      const after = withEnvelope(before, members);
      const object = parseExactly(json) as { params?: Parsed & { _meta?: Parsed } };
      const added = Object.fromEntries(Object.entries(members).map(([key, text]) => [key, parseExactly(text)]));
      assert.deepEqual(parseExactly(textOf(after)), {
        ...object,
        params: { ...object.params, _meta: { ...object.params?._meta, ...added } },
      });
      keepsBytes(before, after, ["_meta"], Object.keys(members));
    }),
    { numRuns: 1_000 },
  );
});

test("without its envelope a request is what is left of the object, and that keeps its bytes", () => {
  const gone = [metaKeys.protocolVersion, metaKeys.clientCapabilities, metaKeys.clientInfo, metaKeys.logLevel];
  fc.assert(
    fc.property(messages, (json) => {
      const before = read(json);
      const after = withoutEnvelope(before);
      const object = parseExactly(json) as { params?: Parsed & { _meta?: Parsed } };
      if (object.params) {
        delete object.params.inputResponses;
        delete object.params.requestState;
        for (const key of gone) delete object.params._meta?.[key];
        if (object.params._meta && Object.keys(object.params._meta).length === 0) delete object.params._meta;
      }
      assert.deepEqual(parseExactly(textOf(after)), object);
      keepsBytes(before, after, ["_meta", "inputResponses", "requestState"], gone);
      assert.equal(textOf(withoutEnvelope(after)), textOf(after), "twice is once");
    }),
    { numRuns: 1_000 },
  );
});

/** Every member but these, and every one of `_meta` but those, reads after the edit as it did before. */
function keepsBytes(before: Message, after: Message, edited: readonly string[], editedMeta: readonly string[]): void {
  for (const [key, text] of spelled(before.json, 0)) if (key !== "params") assert.equal(spelled(after.json, 0).get(key), text);
  if (!before.params || !after.params) return;
  for (const [key, text] of spelled(before.json, before.params.start))
    if (!edited.includes(key)) assert.equal(spelled(after.json, after.params.start).get(key), text);
  const [metaBefore, metaAfter] = [before, after].map((message) => member(message.json, message.params?.start ?? 0, "_meta"));
  for (const [key, text] of metaBefore ? spelled(before.json, metaBefore.start) : [])
    if (!editedMeta.includes(key)) assert.equal(metaAfter && spelled(after.json, metaAfter.start).get(key), text);
}

test("no text makes them throw anything but JsonTextError", () => {
  const words = fc.array(
    fc.constantFrom(
      ...'{}[]",:\\ 1atn'.split(""),
      '"_meta"',
      '"_meta":',
      '{"_meta":{',
      `"${metaKeys.logLevel}":`,
      '"progressToken":',
    ),
  );
  const hostile = fc.oneof(
    words.map((parts) => parts.join("")),
    words.map((parts) => call(parts.join(""))),
    words.map((parts) => call(`{"_meta":${parts.join("")}}`)),
    words.map((parts) => call(`{"_meta":{${parts.join("")}}}`)),
    fc.uint8Array().map((bytes) => call(Buffer.from(bytes).toString("latin1"))),
  );
  fc.assert(
    fc.property(hostile, (json) => {
      for (const edit of [(message: Message) => withEnvelope(message, envelope), withoutEnvelope, progressTokenOf]) {
        try {
          edit(readMessage(Buffer.from(json, "latin1")));
        } catch (error) {
          assert.ok(error instanceof JsonTextError, String(error));
        }
      }
    }),
    { numRuns: 3_000 },
  );
});
