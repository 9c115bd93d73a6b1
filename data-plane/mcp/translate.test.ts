import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseExactly } from "../../test/support/json.ts";
import { type Message, readMessage } from "./json-rpc.ts";
import { JsonTextError, members } from "./scan.ts";
import { metaKeys } from "./stateless.ts";
import {
  errorOf,
  failure,
  isOfTheHop,
  resultTypeOf,
  toolFailure,
  toSession,
  toStateless,
  withoutEmptyRead,
  withoutSessionErrors,
  withUrlRequests,
} from "./translate.ts";

const read = (json: string) => readMessage(Buffer.from(json));
const textOf = ({ json }: Message) => json.toString();
const result = (text: string) => `{"jsonrpc":"2.0","id":1.0,"result":${text}}`;
const error = (text: string) => `{"jsonrpc":"2.0","id":1.0,"error":${text}}`;
const info = `"${metaKeys.serverInfo}":{"name":"s","version":"1"}`;

const types: [what: string, answer: string, wanted: string | undefined][] = [
  ["complete", result('{"resultType":"complete","content":[]}'), "complete"],
  ["complete, at the end", result('{"content":[], "resultType" : "complete"}'), "complete"],
  ["input_required", result('{"resultType":"input_required"}'), "input_required"],
  ["a word of an extension", result('{"resultType":"task"}'), "task"],
  ["a word that begins alike", result('{"resultType":"completed"}'), "completed"],
  ["the last of two, as in JSON.parse", result('{"resultType":"complete","resultType":"input_required"}'), "input_required"],
  ["spelled otherwise", result('{"resultType":"input\\u005frequired"}'), "input_required"],
  ["under a name that is spelled otherwise", result('{"result\\u0054ype":"input_required"}'), "input_required"],
  ["none, for a result without", result('{"content":[]}'), undefined],
  ["none, for one deeper down", result('{"structuredContent":{"resultType":"task"}}'), undefined],
  ["none, for one in the text", result('{"content":[{"text":"\\"resultType\\":\\"task\\""}]}'), undefined],
  ["none, for a number", result('{"resultType":1}'), undefined],
  ["none, for a word that is none", result('{"resultType":nul}'), undefined],
  ["none, for a result that is no object", result('["resultType"]'), undefined],
  ["none, for an error", error('{"code":1,"message":"","data":{"resultType":"task"}}'), undefined],
];
for (const [what, answer, wanted] of types)
  test(`what a result is: ${what}`, () => assert.equal(resultTypeOf(read(answer)), wanted));

const downUp: [what: string, method: string, before: string, after: string][] = [
  [
    "a tool's result is complete",
    "tools/call",
    result('{ "content":[],"n":9007199254740993 }'),
    result('{ "content":[],"n":9007199254740993,"resultType":"complete" }'),
  ],
  [
    "a result is complete whatever it says of itself",
    "tools/call",
    result('{"resultType":"input_required","content":[]}'),
    result('{"resultType":"complete","content":[]}'),
  ],
  [
    "what was read holds for this moment and this caller",
    "resources/read",
    result('{"contents":[{"uri":"x:1","text":""}],"ttlMs":1e9,"cacheScope":"public"}'),
    result('{"contents":[{"uri":"x:1","text":""}],"ttlMs":0,"cacheScope":"private","resultType":"complete"}'),
  ],
  ["an empty result is complete", "prompts/get", result("{}"), result('{"resultType":"complete"}')],
  ["a result that is no object stays", "tools/call", result("[1.0]"), result("[1.0]")],
  [
    "a missing resource has the code of its era, and its URI",
    "resources/read",
    error('{"code":-32002,"message":"gone \\u00e9"}'),
    error('{"code":-32602,"message":"gone é","data":{"uri":"x:1"}}'),
  ],
  [
    "the same code of another method goes too",
    "tools/call",
    error('{"code":-32002,"message":"x"}'),
    error('{"code":-32602,"message":"x"}'),
  ],
  ["other errors stay", "resources/read", error('{"code":-32603, "message":"x"}'), error('{"code":-32603, "message":"x"}')],
  ["an error that is no object stays", "resources/read", error('"oops"'), error('"oops"')],
  ["an error that no parser reads stays", "resources/read", error('{"code":tru}'), error('{"code":tru}')],
];
for (const [what, method, before, after] of downUp)
  test(`for a caller without a session: ${what}`, () =>
    assert.equal(textOf(toStateless(method, read(before), { uri: "x:1" })), after));

const upDown: [what: string, method: string, before: string, after: string][] = [
  [
    "words of the other era go, and every other byte stays",
    "tools/call",
    result(`{"resultType":"complete", "content" : [ ],"n":9007199254740993,"_meta":{${info}, "a/b":1.0}}`),
    result('{"content" : [ ],"n":9007199254740993,"_meta":{"a/b":1.0}}'),
  ],
  [
    "caching goes",
    "resources/read",
    result('{"contents":[],"ttlMs":5,"cacheScope":"public","resultType":"complete"}'),
    result('{"contents":[]}'),
  ],
  ["a _meta of nothing else goes", "tools/call", result(`{"_meta":{${info}},"content":[]}`), result('{"content":[]}')],
  [
    "a server's info goes however its key is spelled",
    "tools/call",
    result('{"content":[],"_meta":{"io.modelcontextprotocol\\/serverInfo":{}}}'),
    result('{"content":[]}'),
  ],
  [
    "what is called so deeper down stays",
    "tools/call",
    result(`{"structuredContent":{"resultType":"x","ttlMs":1,"_meta":{${info}}}}`),
    result(`{"structuredContent":{"resultType":"x","ttlMs":1,"_meta":{${info}}}}`),
  ],
  ["a result that is no object stays", "tools/call", result('"text"'), result('"text"')],
  [
    "a missing resource has the code of its era",
    "resources/read",
    error('{"code":-32602,"message":"gone","data":{"uri":"x:1","more":1}}'),
    error('{"code":-32002,"message":"gone","data":{"uri":"x:1","more":1}}'),
  ],
  [
    "other wrong parameters stay",
    "resources/read",
    error('{"code":-32602,"message":"x"}'),
    error('{"code":-32602,"message":"x"}'),
  ],
  [
    "the same code of another method stays",
    "prompts/get",
    error('{"code":-32602,"message":"x","data":{"uri":"x:1"}}'),
    error('{"code":-32602,"message":"x","data":{"uri":"x:1"}}'),
  ],
  ["an error of its own stays", "tools/call", error('{"code":-7, "message":"x"}'), error('{"code":-7, "message":"x"}')],
  ["an error that is no object stays", "tools/call", error("null"), error("null")],
];
for (const code of [-32020, -32021, -32022])
  upDown.push(
    [
      `the refusal ${code} of a tool is a result that a model can read`,
      "tools/call",
      error(`{"code":${code},"message":"why","data":{"requiredCapabilities":{}}}`),
      result('{"content":[{"type":"text","text":"The server refused the call: why"}],"isError":true}'),
    ],
    [
      `the refusal ${code} of anything else is an internal error`,
      "prompts/get",
      error(`{"code":${code},"message":"why","data":[1]}`),
      error('{"code":-32603,"message":"why","data":[1]}'),
    ],
  );
for (const [what, method, before, after] of upDown)
  test(`for a client with a session: ${what}`, () => assert.equal(textOf(toSession(method, read(before))), after));

const reads: [what: string, before: string, isMissing: boolean][] = [
  ["nothing", result('{"contents":[ ]}'), true],
  ["an empty text", result('{"contents":[{"uri":"x:1","text":""}]}'), false],
  ["no contents at all", result("{}"), false],
  ["contents that are no array", result('{"contents":{}}'), false],
  ["no object", result("[]"), false],
  ["an error", error('{"code":1,"message":"contents"}'), false],
];
for (const [what, before, isMissing] of reads)
  test(`a read that gives ${what} ${isMissing ? "says that there is no such resource" : "stays"}`, () => {
    const after = textOf(withoutEmptyRead(read(before), { uri: "x:1" }));
    const missing = error('{"code":-32602,"message":"resource not found","data":{"uri":"x:1"}}');
    assert.equal(after, isMissing ? missing : before);
  });

const elicit = (data: string, code = "-32042") => error(`{"code":${code},"message":"m","data":${data}}`);
const visits = { elicitation: { url: {} } };
const asked = (...params: readonly object[]) => ({
  resultType: "input_required",
  inputRequests: Object.fromEntries(
    params.map((one, i) => [`url${i + 1}`, { method: "elicitation/create", params: { mode: "url", ...one } }]),
  ),
});
const elicitations: [what: string, answer: string, wanted: object][] = [
  [
    "each with its message, and without the server's ids",
    elicit('{"elicitations":[{"mode":"url","elicitationId":"1","url":"https://a","message":"\\u00e9"},{"url":"https://b"}]}'),
    asked({ url: "https://a", message: "é" }, { url: "https://b", message: "" }),
  ],
  [
    "none of what has no URL",
    elicit('{"elicitations":[{"url":1},"https://a",null,{"url":"https://b","message":1}]}'),
    asked({ url: "https://b", message: "" }),
  ],
  [
    "the same under another spelling of the code",
    elicit('{"elicitations":[{"url":"x"}]}', "-32042.0"),
    asked({ url: "x", message: "" }),
  ],
];
for (const [what, answer, wanted] of elicitations)
  test(`URLs to visit first are asked for: ${what}`, () => {
    assert.deepEqual(JSON.parse(textOf(withUrlRequests(read(answer), visits))), { jsonrpc: "2.0", id: 1, result: wanted });
  });

for (const capabilities of [{}, { elicitation: {} }, { elicitation: { form: {} } }, { sampling: {} }])
  test(`URLs to visit first are what a caller with ${JSON.stringify(capabilities)} lacks`, () => {
    const { error } = JSON.parse(textOf(withUrlRequests(read(elicit('{"elicitations":[{"url":"x"}]}')), capabilities)));
    assert.deepEqual([error.code, error.data], [-32021, { requiredCapabilities: { elicitation: { url: {} } } }]);
  });

for (const answer of [
  elicit('{"elicitations":[{"url":"https://-32042"}]}', "-32000"),
  result('{"code":-32042,"data":{"elicitations":[{"url":"x"}]}}'),
  error('"-32042"'),
])
  test(`nothing is to be visited because of ${answer}`, () =>
    assert.equal(textOf(withUrlRequests(read(answer), visits)), answer));

for (const data of ['{"elicitations":{}}', "{}", "null", '{"elicitations":[]}', '{"elicitations":[{"url":1}]}'])
  test(`a server that wants URLs visited first, and says ${data}, gets no code across that the era has not`, () => {
    const { error } = JSON.parse(textOf(withUrlRequests(read(elicit(data)), visits)));
    assert.ok(error);
    assert.notEqual(error.code, -32042);
  });

test("no method has the code of another era for what doesn't exist, and its data stays", () => {
  const gone = read(error('{"code":-32002,"message":"gone","data":{"n":1}}'));
  const saying = (data: string) => error(`{"code":-32602,"message":"gone","data":${data}}`);
  assert.equal(textOf(withoutSessionErrors("resources/read", gone, { uri: "x:1" })), saying('{"uri":"x:1"}'));
  assert.equal(textOf(withoutSessionErrors("tools/call", gone, {})), saying('{"n":1}'));
  const other = read(error('{"code":-7, "message":"x"}'));
  assert.equal(withoutSessionErrors("tools/call", other, {}), other);
});

test("an error's parts are read, and filled in when they are missing or of another type", () => {
  assert.deepEqual(errorOf(read(error('{"code":1,"message":"m","data":[1]}'))), { code: 1, message: "m", data: [1] });
  for (const broken of ["{}", "[]", "null", "1", '"x"', '{"code":"1","message":{}}', '{"code":nul}', '{"message":"\\x"}'])
    assert.deepEqual(errorOf(read(error(broken))), { code: -32603, message: "", data: undefined }, broken);
  assert.deepEqual(errorOf(read(result("{}"))), { code: -32603, message: "", data: undefined });
});

test("errors of the hop are the three that speak of headers, abilities and versions", () => {
  const codes = [-32019, -32020, -32021, -32022, -32023, -32602, "-32020", undefined];
  assert.deepEqual(codes.filter(isOfTheHop), [-32020, -32021, -32022]);
});

test("an answer made into another keeps its id as it was spelled", () => {
  const answer = read('{"jsonrpc":"2.0","id":"\\u0061\\/1","result":{}}');
  assert.equal(textOf(failure(answer, -1, "m")), '{"jsonrpc":"2.0","id":"\\u0061\\/1","error":{"code":-1,"message":"m"}}');
  assert.match(
    textOf(toolFailure(answer, 'a "text"')),
    /^\{"jsonrpc":"2.0","id":"\\u0061\\\/1","result":.*\\"text\\".*"isError":true/,
  );
});

// Results as servers may write them: white space, numbers that JSON.parse changes, names in escapes.
const space = fc.string({ unit: fc.constantFrom(" ", "\n", "\t", "\r"), maxLength: 2 });
// No name needs an escape (https://github.com/nodejs/node/issues/63785).
const unit = fc.constantFrom("a", "é", "}", ",", "/", "😀");
const value = fc.oneof(
  fc.jsonValue({ maxDepth: 2, stringUnit: unit }).map((parsed) => JSON.stringify(parsed)),
  fc.constantFrom("9007199254740993", "-0", "1.0", "1e400", '"\\u00e9\\/"', '"input_required"', '[{"uri" : "x" }]', "[ ]"),
);
const objectOf = (...names: string[]) =>
  fc
    .tuple(fc.uniqueArray(fc.constantFrom(...names)), fc.infiniteStream(value), fc.infiniteStream(space))
    .map(([keys, values, spaces]) => {
      const gap = () => spaces.next().value;
      const part = (key: string) => `${JSON.stringify(key)}${gap()}:${gap()}${values.next().value}${gap()}`;
      return { keys, json: `{${gap()}${keys.map(part).join(`,${gap()}`)}}` };
    });
const results = fc
  .tuple(
    objectOf("resultType", "ttlMs", "cacheScope", "content", "contents", "n", "é", "__proto__"),
    fc.option(objectOf(metaKeys.serverInfo, "a/b", "progressToken")),
  )
  .map(([{ keys, json }, meta]) => {
    if (!meta) return json;
    return `${json.slice(0, -1)}${keys.length > 0 ? "," : ""}"_meta":${meta.json}}`;
  });

type Parsed = Record<string, unknown>;
const resultOf = (message: Message) => parseExactly(textOf(message)) as { result: Parsed };
const spelled = ({ json, result: span }: Message) =>
  new Map(span ? members(json, span.start).map(({ key, start, end }) => [key, json.toString("utf8", start, end)]) : []);

test("for a caller without a session a result is the object with what its era adds, and the rest keeps its bytes", () => {
  fc.assert(
    fc.property(results, fc.constantFrom("tools/call", "prompts/get", "resources/read"), (json, method) => {
      const before = read(result(json));
      const after = toStateless(method, before, {});
      const caching = method === "resources/read" ? { ttlMs: { number: "0" }, cacheScope: "private" } : {};
      const own = { resultType: "complete", ...caching };
      assert.deepEqual(resultOf(after).result, { ...resultOf(before).result, ...own });
      for (const [key, text] of spelled(before)) if (!Object.hasOwn(own, key)) assert.equal(spelled(after).get(key), text);
      assert.equal(resultTypeOf(after), "complete");
    }),
    { numRuns: 1_000 },
  );
});

test("for a client with a session a result is the object without what the other era adds, and the rest keeps its bytes", () => {
  const gone = ["resultType", "ttlMs", "cacheScope"];
  fc.assert(
    fc.property(results, (json) => {
      const before = read(result(json));
      const after = toSession("tools/call", before);
      const object = resultOf(before).result as Parsed & { _meta?: Parsed };
      const hadInfo = object._meta !== undefined && Object.hasOwn(object._meta, metaKeys.serverInfo);
      for (const key of gone) delete object[key];
      if (hadInfo) delete object._meta?.[metaKeys.serverInfo];
      if (hadInfo && Object.keys(object._meta ?? {}).length === 0) delete object._meta;
      assert.deepEqual(resultOf(after).result, object);
      for (const [key, text] of spelled(before))
        if (!gone.includes(key) && key !== "_meta") assert.equal(spelled(after).get(key), text);
    }),
    { numRuns: 1_000 },
  );
});

test("what goes from one era to the other and back is what it was", () => {
  fc.assert(
    fc.property(results, (json) => {
      const plain = toSession("tools/call", read(result(json)));
      assert.deepEqual(resultOf(toSession("tools/call", toStateless("tools/call", plain, {}))), resultOf(plain));
    }),
    { numRuns: 1_000 },
  );
});

test("no text makes them throw anything but JsonTextError", () => {
  const word = fc.constantFrom(
    ...'{}[]",:\\ 1atn'.split(""),
    '"resultType":',
    '"_meta":{',
    `"${metaKeys.serverInfo}":`,
    '"contents":',
    '"code":-32042,',
    '"data":{"elicitations":[{',
    '"code":-32021,',
    "nul",
    '"\\x"',
  );
  const hostile = fc.tuple(fc.constantFrom(result, error), fc.array(word), fc.boolean()).map(([wrap, parts, isObject]) => {
    const text = parts.join("");
    return wrap(isObject ? `{${text}}` : text);
  });
  fc.assert(
    fc.property(hostile, (json) => {
      const uses: ((message: Message) => unknown)[] = [
        resultTypeOf,
        (message) => withUrlRequests(message, visits),
        (message) => withoutSessionErrors("tools/call", message, {}),
        errorOf,
        (message) => withoutEmptyRead(message, {}),
      ];
      for (const method of ["tools/call", "resources/read"])
        uses.push(
          (message) => toStateless(method, message, {}),
          (message) => toSession(method, message),
        );
      for (const use of uses) {
        try {
          use(readMessage(Buffer.from(json)));
        } catch (thrown) {
          assert.ok(thrown instanceof JsonTextError, `${json}: ${thrown}`);
        }
      }
    }),
    { numRuns: 5_000 },
  );
});
