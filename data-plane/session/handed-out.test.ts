import assert from "node:assert/strict";
import { after, test } from "node:test";
import fc from "fast-check";
import { readMessage } from "../mcp/json-rpc.ts";
import { noteUris, withLinks } from "./handed-out.ts";
import { createLocalSessions } from "./local-sessions.ts";
import type { Session } from "./session.ts";

const sessions = createLocalSessions({ idleMs: 60_000, sessionsMax: 10 });
after(() => sessions[Symbol.asyncDispose]());

function newSession(): Session {
  const identity = { issuer: "i", subject: "s", isAnonymous: false };
  const who = { virtualServer: "v", identity, clientInfo: "{}", capabilities: "{}" };
  const session = sessions.create({ ...who, era: "session", protocolVersion: "2025-11-25" });
  assert.ok(session);
  sessions.end(session);
  return session;
}

const answer = (result: string) => readMessage(Buffer.from(`{"jsonrpc":"2.0","id":1,"result":${result}}`));

const results: [string, string, string[]][] = [
  ["a link", '{"content":[{"type":"text","text":"x"},{"type":"resource_link","uri":"a:1","name":"n"}]}', ["a:1"]],
  ["an embedded resource", '{"content":[{"type":"resource","resource":{"uri":"a:1","text":"\\"uri\\""}}]}', ["a:1"]],
  ["contents that were read", '{"contents":[{"uri":"a:1","text":""},{"uri":"a:2","blob":""}]}', ["a:1", "a:2"]],
  [
    "messages of a prompt, one block or many",
    '{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"a:1"}}},{"content":[{"uri":"a:2"}]}]}',
    ["a:1", "a:2"],
  ],
  ["escapes", '{"content":[{"uri":"a:\\u00fc\\/x"}]}', ["a:ü/x"]],
  [
    "a URI that is only mentioned",
    '{"structuredContent":{"uri":"a:1"},"content":[{"type":"text","text":"\\"uri\\":\\"a:2\\""}]}',
    [],
  ],
  ["what is not a URI", '{"content":[{"uri":7},{"uri":{"uri":"a:1"}},null,[{"uri":"a:1"}],"uri"],"contents":{"uri":null}}', []],
  ["what is not JSON", '{"content":[{"uri":"a:\\x"}]}', []],
];
for (const [name, result, wanted] of results) {
  test(`${name}: ${wanted.length > 0 ? wanted.join(" and ") : "nothing"} is noted`, async () => {
    const session = newSession();
    const noting = noteUris(session, "docs", answer(result));
    assert.equal(noting !== undefined, wanted.length > 0);
    await noting;
    const known = ["a:1", "a:2", "a:ü/x", "7"].filter((uri) => session.state.links.get(uri) === "docs");
    assert.deepEqual(known, wanted);
  });
}

test("who handed a URI out last owns it, and what is known already changes nothing", async () => {
  const session = newSession();
  const link = answer('{"content":[{"uri":"x:1"}]}');
  for (const backend of ["a", "b", "a", "b"]) await noteUris(session, backend, link);
  assert.equal(session.state.links.get("x:1"), "b");
  assert.equal(noteUris(session, "b", link), undefined);
});

test("the URIs that were given first make room, for more of them and for longer ones", () => {
  const many = Array.from({ length: 1_001 }, (_, i) => `x:${i}`);
  const links = withLinks(new Map([["y:1", "b"]]), many, "a");
  assert.deepEqual([links.size, links.has("y:1"), links.has("x:0"), links.get("x:1")], [1_000, false, false, "a"]);
  const long = Array.from({ length: 70 }, (_, i) => `${i}`.padEnd(2_048, "x"));
  assert.equal(withLinks(links, long, "a").size, 64);
});

test("a URI too long to be one takes no room", () => {
  const long = `data:${"x".repeat(3_000)}`;
  assert.equal(noteUris(newSession(), "a", answer(JSON.stringify({ content: [{ uri: long }] }))), undefined);
});

test("no result makes noting throw", () => {
  const session = newSession();
  const check = fc.property(
    fc.jsonValue(),
    fc.constantFrom("content", "contents", "messages"),
    fc.nat(200),
    (value, key, cut) => {
      const whole = `{"uri":1,"${key}":${JSON.stringify(value)}}`;
      void noteUris(session, "a", answer(whole));
      const json = answer(whole).json;
      const broken = Buffer.concat([json.subarray(0, json.length - 1 - (cut % (whole.length - 1))), Buffer.from("x")]);
      void noteUris(session, "a", { ...answer(whole), json: broken });
    },
  );
  fc.assert(check, { numRuns: 2_000 });
});
