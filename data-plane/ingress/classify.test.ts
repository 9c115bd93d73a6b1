import assert from "node:assert/strict";
import { test } from "node:test";
import * as official from "@modelcontextprotocol/server";
import fc from "fast-check";
import { encodeHeaderValue } from "../mcp/header-values.ts";
import { logLevels, metaKeys, nameParams, statelessVersion, supportedStatelessVersions } from "../mcp/stateless.ts";
import { type Classified, classify } from "./classify.ts";
import { readRequest } from "./read-request.ts";

type Json = Readonly<Record<string, unknown>>;
type Headers = Readonly<Record<string, string>>;

const { protocolVersion, clientCapabilities, clientInfo, logLevel } = metaKeys;
const envelope: Json = { [protocolVersion]: statelessVersion, [clientCapabilities]: {} };
const stray: Json = { [protocolVersion]: "2025-11-25" };
const version = { "mcp-protocol-version": statelessVersion };
const inSession = { "mcp-session-id": "s" };

const request = (method: string, _meta?: unknown, params: Json = {}): Json => ({
  ...{ jsonrpc: "2.0", id: 1, method },
  params: _meta === undefined ? params : { ...params, _meta },
});
const notification = (_meta?: unknown): Json => ({
  ...{ jsonrpc: "2.0", method: "notifications/cancelled" },
  params: _meta === undefined ? {} : { _meta },
});
const list = request("tools/list", envelope);
const listHeaders = { ...version, "mcp-method": "tools/list" };
const call = (name: unknown) => request("tools/call", envelope, { name });
const callHeaders = (name: string) => ({ ...version, "mcp-method": "tools/call", "mcp-name": name });
const without = (headers: Headers, name: string) => Object.fromEntries(Object.entries(headers).filter(([key]) => key !== name));

function classifyBody(body: unknown, headers: Headers): Classified {
  const read = readRequest(Buffer.from(JSON.stringify(body)));
  assert.ok(!("status" in read), JSON.stringify(read));
  return classify(read, headers);
}

/** Whether a body gets as far as being classified: some names mean trouble, whatever the era. */
function isReadable(body: unknown): boolean {
  return !("status" in readRequest(Buffer.from(JSON.stringify(body))));
}

/** The era, or the code of the refusal. */
function verdict(classified: Classified): string | number {
  return classified.era === "refused" ? classified.refusal.code : classified.era;
}

const cases: [string, unknown, Headers, string | number][] = [
  ["a request with envelope and headers", list, listHeaders, "stateless"],
  [
    "the same inside spaces",
    list,
    { "mcp-protocol-version": ` ${statelessVersion}\t`, "mcp-method": " tools/list " },
    "stateless",
  ],
  ["the same with a session's id", list, { ...listHeaders, ...inSession }, "stateless"],
  ["a call", call("echo"), callHeaders("echo"), "stateless"],
  ["a call of a name in Base64", call("écho"), callHeaders(encodeHeaderValue("écho")), "stateless"],
  ["a call of a plain name in Base64", call("a"), callHeaders("=?base64?YQ==?="), "stateless"],
  ["a call without a name", call(undefined), without(callHeaders(""), "mcp-name"), "stateless"],
  ["a call with a number for a name", call(5), callHeaders("5"), "stateless"],
  ["a list with a name nobody asked for", list, { ...listHeaders, "mcp-name": "=?base64?!?=" }, "stateless"],
  ["a handshake with envelope", request("initialize", envelope), { ...version, "mcp-method": "initialize" }, "stateless"],

  ["a handshake", request("initialize"), {}, "session"],
  ["a handshake that names its version", request("initialize"), { "mcp-protocol-version": "2025-11-25" }, "session"],
  ["a handshake with half an envelope", request("initialize", { [protocolVersion]: statelessVersion }), {}, "session"],
  ["a handshake with a session's version", request("initialize", { ...envelope, ...stray }), {}, "session"],
  ["a handshake with a stateless header", request("initialize"), version, -32020],
  ["a handshake with a header of the future", request("initialize"), { "mcp-protocol-version": "v999.0.0" }, -32020],
  [
    "a handshake with half an envelope and the header",
    request("initialize", { [protocolVersion]: statelessVersion }),
    version,
    -32020,
  ],

  ["a request without envelope", request("tools/list"), {}, "session"],
  ["a request of a session", request("tools/list"), { ...inSession, "mcp-protocol-version": "2025-06-18" }, "session"],
  ["a request with a token only", request("tools/list", { progressToken: 1 }), inSession, "session"],
  ["a request with an envelope but for the version", request("tools/list", { [clientCapabilities]: {} }), {}, "session"],
  ["a request whose _meta is no object", request("tools/list", 5), {}, "session"],
  ["a request that only the header calls stateless", request("tools/list"), version, -32602],
  ["the same in a session", request("tools/list"), { ...version, ...inSession }, -32602],
  ["the same with a version of the future", request("tools/list"), { "mcp-protocol-version": "v999.0.0" }, -32602],
  ["the same with a _meta that is no object", request("tools/list", []), version, -32602],

  ["a stray session's version in a session", request("tools/list", stray), inSession, "session"],
  ["a stray version before all of ours in a session", request("tools/list", { [protocolVersion]: "1.0" }), inSession, "session"],
  ["a stray session's version against the header", request("tools/list", stray), { ...version, ...inSession }, -32602],
  ["a whole envelope of the same", request("tools/list", { ...envelope, ...stray }), { ...version, ...inSession }, -32020],
  ["a session's version without a session", request("tools/list", { ...envelope, ...stray }), {}, -32022],
  [
    "the same with its header",
    request("tools/list", { ...envelope, ...stray }),
    { "mcp-protocol-version": "2025-11-25" },
    -32022,
  ],
  ["a version of the future", request("tools/list", { ...envelope, [protocolVersion]: "v999.0.0" }), {}, -32022],
  ["the same in a session", request("tools/list", { ...envelope, [protocolVersion]: "v999.0.0" }), inSession, -32022],

  ["no capabilities", request("tools/list", { [protocolVersion]: statelessVersion }), listHeaders, -32602],
  ["a version that is no string", request("tools/list", { ...envelope, [protocolVersion]: 5 }), listHeaders, -32602],
  ["the same in a session", request("tools/list", { ...envelope, [protocolVersion]: null }), inSession, -32602],
  ["a bad envelope of an unknown version", request("tools/list", { [protocolVersion]: "v999.0.0" }), {}, -32602],

  ["another version in the header", list, { ...listHeaders, "mcp-protocol-version": "2025-11-25" }, -32020],
  ["an unknown version against the header", request("tools/list", { ...envelope, [protocolVersion]: "v9" }), version, -32020],
  ["an empty version in the header", list, { ...listHeaders, "mcp-protocol-version": "" }, -32020],
  ["the version in two headers", list, { ...listHeaders, "mcp-protocol-version": "2026-07-28, 2026-07-28" }, -32020],
  ["no version in the header", list, { "mcp-method": "tools/list" }, -32020],
  ["another method in the header", list, { ...listHeaders, "mcp-method": "tools/call" }, -32020],
  ["the method in another case", list, { ...listHeaders, "mcp-method": "Tools/List" }, -32020],
  ["no method in the header", list, version, -32020],
  ["no name in the header", call("echo"), without(callHeaders(""), "mcp-name"), -32020],
  ["another name in the header", call("echo"), callHeaders("other"), -32020],
  ["the name in two headers", call("echo"), callHeaders("echo, echo"), -32020],
  ["a name in bad Base64", call("Hello"), callHeaders("=?base64?SGVsbG8?="), -32020],
  ["bad Base64 where there is no name", call(5), callHeaders("=?base64?!?="), -32020],
  [
    "a resource without its URI in the header",
    request("resources/read", envelope, { uri: "a:b" }),
    { ...version, "mcp-method": "resources/read" },
    -32020,
  ],

  ["a notification", notification(), {}, "session"],
  ["a notification of a session", notification(), { ...inSession, "mcp-protocol-version": "2025-11-25" }, "session"],
  ["a notification that the header calls stateless", notification(), version, "stateless-notification"],
  [
    "a notification that calls itself stateless",
    notification({ [protocolVersion]: statelessVersion }),
    {},
    "stateless-notification",
  ],
  ["a notification of the future", notification({ [protocolVersion]: "v999.0.0" }), inSession, "stateless-notification"],
  ["a notification with another version in the header", notification(envelope), { "mcp-protocol-version": "2025-11-25" }, -32020],
  ["a notification with another method in the header", notification(), listHeaders, -32020],
  ["a notification whose version is no string", notification({ [protocolVersion]: {} }), {}, -32602],
  [
    "a notification with a stray version in a session",
    notification(stray),
    { ...inSession, "mcp-protocol-version": "2025-06-18" },
    "session",
  ],
  ["a notification with a session's version", notification(stray), {}, "session"],
  ["a notification with a session's version against the header", notification(stray), version, -32020],

  ["an answer", { jsonrpc: "2.0", id: 1, result: {} }, version, "session"],
  ["an error", { jsonrpc: "2.0", id: 1, error: { code: 1, message: "" } }, {}, "session"],
  ["a batch", [request("tools/list"), notification(), { jsonrpc: "2.0", id: 2, result: {} }], {}, "session"],
  ["a batch with an envelope somewhere", [request("tools/list"), list], listHeaders, -32600],
  ["a batch with an envelope in a notification", [notification(stray)], inSession, -32600],
];
for (const [what, body, headers, wanted] of cases)
  test(`${what} is ${typeof wanted === "number" ? `refused with ${wanted}` : `of the era ${wanted}`}`, () => {
    const classified = classifyBody(body, headers);
    assert.equal(verdict(classified), wanted);
    if (classified.era === "refused") assert.equal(classified.refusal.status, 400);
  });

test("a stateless request comes with its envelope", () => {
  const info = { name: "c", version: "1", more: [1] };
  const meta = { ...envelope, [clientCapabilities]: { sampling: {} }, [clientInfo]: info, [logLevel]: "notice", "a/b": 1 };
  assert.deepEqual(classifyBody(request("tools/list", meta), listHeaders), {
    era: "stateless",
    envelope: { protocolVersion: statelessVersion, capabilities: { sampling: {} }, clientInfo: info, logLevel: "notice" },
  });
  assert.deepEqual(classifyBody(list, listHeaders), {
    era: "stateless",
    envelope: { protocolVersion: statelessVersion, capabilities: {}, clientInfo: undefined, logLevel: undefined },
  });
});

const badEnvelopes: [string, unknown[]][] = [
  [protocolVersion, [null, 5, ["2026-07-28"], {}]],
  [clientCapabilities, [null, [], "x", true]],
  [clientInfo, [null, "c", [], {}, { name: 5 }]],
  [logLevel, [null, "loud", "DEBUG", 3, ["debug"]]],
];
test("everything that is wrong with an envelope is said at once", () => {
  for (const [key, values] of badEnvelopes)
    for (const value of values) {
      const classified = classifyBody(request("tools/list", { ...envelope, [key]: value }), listHeaders);
      assert.ok(classified.era === "refused", `${key} ${JSON.stringify(value)}`);
      assert.ok(classified.refusal.message.includes(`"${key}" is not`), classified.refusal.message);
    }
  const classified = classifyBody(request("tools/list", { [protocolVersion]: 5, [clientInfo]: 5, [logLevel]: 5 }), {});
  assert.ok(classified.era === "refused");
  for (const key of [protocolVersion, clientInfo, logLevel]) assert.ok(classified.refusal.message.includes(`"${key}" is not`));
  assert.ok(classified.refusal.message.includes(`"${clientCapabilities}" is missing`));
  assert.equal((classified.refusal.data as { problems: string[] }).problems.length, 4);
});

test("every log level is one", () => {
  for (const level of logLevels)
    assert.equal(verdict(classifyBody(request("tools/list", { ...envelope, [logLevel]: level }), listHeaders)), "stateless");
});

test("a request that only the header calls stateless hears which keys it lacks", () => {
  for (const [meta, missing] of [
    [undefined, [protocolVersion, clientCapabilities]],
    [{ [clientCapabilities]: {} }, [protocolVersion]],
  ] as const) {
    const classified = classifyBody(request("tools/list", meta), version);
    assert.ok(classified.era === "refused");
    assert.deepEqual(classified.refusal.data, { missing });
    for (const key of missing) assert.ok(classified.refusal.message.includes(key));
  }
});

test("a version that we don't speak is refused with those that we do, and given back as it came", () => {
  for (const requested of ["v999.0.0", "2026-07-29", "2025-11-25", ""]) {
    const classified = classifyBody(request("tools/list", { ...envelope, [protocolVersion]: requested }), {});
    assert.ok(classified.era === "refused");
    assert.deepEqual(classified.refusal.data, { supported: ["2026-07-28"], requested });
  }
});

test("what a client named is not in what is said about its headers", () => {
  const classified = classifyBody(call("secret"), callHeaders("hidden"));
  assert.ok(classified.era === "refused");
  assert.doesNotMatch(classified.refusal.message, /secret|hidden/);
});

// The official implementation is the judge of all this, but for a few things that we see differently.

test("the words are those of the official implementation", () => {
  assert.deepEqual(metaKeys, {
    protocolVersion: official.PROTOCOL_VERSION_META_KEY,
    clientCapabilities: official.CLIENT_CAPABILITIES_META_KEY,
    clientInfo: official.CLIENT_INFO_META_KEY,
    logLevel: official.LOG_LEVEL_META_KEY,
    serverInfo: official.SERVER_INFO_META_KEY,
    subscriptionId: official.SUBSCRIPTION_ID_META_KEY,
  });
});

interface Case {
  readonly body: Json | readonly Json[];
  readonly headers: Headers;
}

const one = ({ body }: Case): Json => (Array.isArray(body) ? {} : (body as Json));
const metaOf = (each: Case): unknown => (one(each).params as Json | undefined)?._meta;
const claimOf = (each: Case): unknown => (isObject(metaOf(each)) ? (metaOf(each) as Json)[protocolVersion] : undefined);
const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);
const isOld = (claim: unknown) => typeof claim === "string" && claim < statelessVersion;
const isNotification = (each: Case) => one(each).method !== undefined && one(each).id === undefined;
const headerVersion = ({ headers }: Case) => headers["mcp-protocol-version"]?.trim() ?? "";

/** Where we differ: why, and for which cases. */
const differences: [string, (each: Case) => boolean][] = [
  [
    "it has no sessions, so it refuses a client of the session era that sends a stray key",
    (each) =>
      one(each).method !== undefined &&
      isOld(claimOf(each)) &&
      each.headers["mcp-session-id"] !== undefined &&
      headerVersion(each) < statelessVersion,
  ],
  [
    "it answers a notification that names a version with sessions as a request; ours is for the session era to refuse",
    (each) => isNotification(each) && isOld(claimOf(each)),
  ],
  [
    "it refuses a notification of a version it doesn't know; we drop it like those of versions that we know",
    (each) =>
      isNotification(each) &&
      !(supportedStatelessVersions as readonly unknown[]).includes(claimOf(each) ?? headerVersion(each)) &&
      String(claimOf(each) ?? headerVersion(each)) >= statelessVersion,
  ],
  [
    "it checks all that clientInfo and capabilities hold; we carry what newer clients put there",
    (each) => {
      const { [clientInfo]: info, [clientCapabilities]: abilities } = (isObject(metaOf(each)) ? metaOf(each) : {}) as Json;
      return (
        (isObject(info) && typeof info.version !== "string") || (isObject(abilities) && !Object.values(abilities).every(isObject))
      );
    },
  ],
  [
    "it takes a message whose _meta is no object, or has a bad progress token, for no JSON-RPC",
    ({ body }) =>
      [body].flat().some((message) => {
        const meta = (message.params as Json | undefined)?._meta;
        return meta !== undefined && (!isObject(meta) || !["string", "number", "undefined"].includes(typeof meta.progressToken));
      }),
  ],
];
const isSeenDifferently = (each: Case) => differences.some(([, applies]) => applies(each));

const versions = fc.constantFrom(
  statelessVersion,
  statelessVersion,
  "2025-11-25",
  "2024-11-05",
  "2026-07-29",
  "v999.0.0",
  "",
  "x",
);
const names = fc.constantFrom("echo", "écho", "=?base64?YQ==?=", "a", "");
const methods = fc.constantFrom(...nameParams.keys(), "tools/list", "initialize", "server/discover", "constructor", "x");
const odd = fc.constantFrom<unknown>(null, 5, "x", [], true);
const metas = fc.record(
  {
    [protocolVersion]: fc.oneof({ weight: 8, arbitrary: versions }, odd),
    [clientCapabilities]: fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom<unknown>({}, { sampling: {} }, { sampling: 5 }, { "x/y": {} }) },
      odd,
    ),
    [clientInfo]: fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom<unknown>({ name: "c", version: "1" }, { name: "c" }, { version: "1" }) },
      odd,
    ),
    [logLevel]: fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...logLevels) }, odd),
    progressToken: fc.constantFrom<unknown>(1, "t", null),
    "x/y": fc.jsonValue({ maxDepth: 1 }),
  },
  { requiredKeys: [] },
);
const likelyMetas = fc.record(
  { [protocolVersion]: versions, [clientCapabilities]: fc.constant({}), [logLevel]: fc.constant("info") },
  { requiredKeys: [protocolVersion, clientCapabilities] },
);
const messages = fc
  .record({
    method: methods,
    kind: fc.constantFrom("request", "request", "request", "notification", "result", "error"),
    _meta: fc.oneof({ weight: 4, arbitrary: likelyMetas }, { weight: 3, arbitrary: metas }, fc.constant(undefined), odd),
    named: fc.record({ name: fc.oneof(names, odd), uri: names, taskId: names }, { requiredKeys: [] }),
    hasParams: fc.boolean(),
  })
  .map(({ method, kind, _meta, named, hasParams }): Json => {
    const params = hasParams || _meta !== undefined ? { params: _meta === undefined ? named : { ...named, _meta } } : {};
    if (kind === "result") return { jsonrpc: "2.0", id: 1, result: {} };
    if (kind === "error") return { jsonrpc: "2.0", id: 1, error: { code: -1, message: "" } };
    return { jsonrpc: "2.0", ...(kind === "request" ? { id: 1 } : {}), method, ...params };
  });

// Headers that repeat what the body says, more often than not: otherwise the last checks are hardly ever reached.
const posts: fc.Arbitrary<Case> = fc
  .record({
    body: fc.oneof({ weight: 9, arbitrary: messages }, fc.array(messages, { minLength: 1, maxLength: 3 })),
    other: fc.record(
      {
        "mcp-protocol-version": fc.oneof(versions, fc.constant(` ${statelessVersion} `)),
        "mcp-method": methods,
        "mcp-name": fc.oneof(names.map(encodeHeaderValue), fc.constantFrom("=?base64?SGVsbG8?=", "=?base64?YQ==?=", "other")),
      },
      { requiredKeys: [] },
    ),
    repeats: fc.record({ version: fc.nat(5), method: fc.nat(5), name: fc.nat(5) }),
    hasSession: fc.nat(3).map((n) => n === 0),
  })
  .map(({ body, other, repeats, hasSession }) => {
    const each: Case = { body, headers: {} };
    const claim = claimOf(each);
    const method = one(each).method;
    const param = nameParams.get(String(method));
    const name = param && (one(each).params as Json | undefined)?.[param];
    const headers: Record<string, string> = { ...other, ...(hasSession ? inSession : {}) };
    if (repeats.version && typeof claim === "string") headers["mcp-protocol-version"] = claim;
    if (repeats.method && typeof method === "string") headers["mcp-method"] = method;
    if (repeats.name && typeof name === "string") headers["mcp-name"] = encodeHeaderValue(name);
    return { body, headers };
  });

test("the official rules give the same era and the same refusals to whatever comes", () => {
  const property = fc.property(posts, (each) => {
    fc.pre(!isSeenDifferently(each) && isReadable(each.body));
    const outcome = official.classifyInboundRequest({
      httpMethod: "POST",
      body: each.body,
      ...withDefined({
        protocolVersionHeader: each.headers["mcp-protocol-version"],
        mcpMethodHeader: each.headers["mcp-method"],
        mcpNameHeader: each.headers["mcp-name"],
      }),
    });
    const ours = verdict(classifyBody(each.body, each.headers));
    if (outcome.kind === "reject") assert.equal(ours, outcome.code);
    else if (outcome.kind === "legacy") assert.equal(ours, "session");
    else if (outcome.messageKind === "notification") assert.equal(ours, "stateless-notification");
    // It asks for versions and missing headers later: the next test.
    else assert.ok(["stateless", -32020, -32022].includes(ours), String(ours));
  });
  fc.assert(property, { numRuns: 10_000 });
});

test("the official server takes and refuses what we do, with the same codes, but for the differences named above", async () => {
  let taken: string | undefined;
  const handler = official.createMcpHandler(({ era }) => {
    taken = era;
    throw new Error("only the era matters here");
  });
  const seen = new Map<string | number, number>();
  const property = fc.asyncProperty(posts, async (each) => {
    taken = undefined;
    const init = { method: "POST", headers: { ...each.headers, "content-type": "application/json" }, body: "{}" };
    const response = await handler.fetch(new Request("http://localhost/mcp", init), { parsedBody: each.body });
    const { error } = (await response.json()) as { error: { code: number; data?: unknown } };
    const stateless = isNotification(each) ? "stateless-notification" : "stateless";
    const theirs = taken === undefined ? error.code : taken === "legacy" ? "session" : stateless;
    fc.pre(isReadable(each.body));
    const classified = classifyBody(each.body, each.headers);
    const ours = verdict(classified);
    const reasons = differences.filter(([, applies]) => applies(each)).map(([reason]) => reason);
    if (reasons.length === 0) {
      assert.equal(ours, theirs);
      if (classified.era === "refused") assert.equal(response.status, classified.refusal.status);
      if (classified.era === "refused" && ours === -32022) assert.deepEqual(classified.refusal.data, error.data);
    }
    const [reason = ours] = reasons;
    if (reason === ours || (ours !== theirs && reasons.length === 1)) seen.set(reason, (seen.get(reason) ?? 0) + 1);
  });
  await fc.assert(property, { numRuns: 5_000 });
  await handler.close();
  // The comparison is worth something only while every answer comes up, and every difference is one.
  const answers = ["session", "stateless", "stateless-notification", -32600, -32602, -32020, -32022];
  for (const what of [...answers, ...differences.map(([reason]) => reason)])
    assert.ok((seen.get(what) ?? 0) >= 3, `${what}: ${seen.get(what)}`);
});

function withDefined(members: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(Object.entries(members).filter((entry): entry is [string, string] => entry[1] !== undefined));
}
