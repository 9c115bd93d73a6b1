import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { comparableUri, readUriTemplate } from "./uri-template.ts";

function matches(template: string, uri: string): boolean {
  const comparable = comparableUri(uri);
  const read = readUriTemplate(template);
  if (comparable === undefined || !read) return false;
  const isMatch = read.matches(comparable);
  assert.ok(!isMatch || read.fitsEnds(comparable), "a match whose ends do not fit");
  return isMatch;
}

const cases: [template: string, yes: string[], no: string[]][] = [
  ["file:///x", ["file:///x"], ["file:///", "file:///xy", ""]],
  ["t://{id}", ["t://7", "t://a%2Fb", "t://é", "t://"], ["t://a/b", "t://a?b", "t://a#b", "u://7"]],
  ["t://{+path}", ["t://a/b?c#d", "t://"], ["t:/a"]],
  ["t://x{/id}", ["t://x/1", "t://x"], ["t://x/1/2", "t://xy"]],
  ["t://x{/a,b}", ["t://x/1/2"], ["t://x/1?2"]],
  ["t://x{/path*}", ["t://x/1/2/3"], ["t://x1"]],
  ["t://x{?q,page}", ["t://x?q=1&page=2", "t://x?page=2", "t://x"], ["t://xy", "t://x?q=1#z"]],
  ["t://x?fixed=1{&q}", ["t://x?fixed=1&q=2", "t://x?fixed=1"], ["t://x?fixed=12"]],
  ["t://x{#part}", ["t://x#a/b", "t://x"], ["t://xa"]],
  ["t://x{.format}", ["t://x.json", "t://x"], ["t://xjson", "t://x.a/b"]],
  ["t://x{;a,b}/y", ["t://x;a=1;b=2/y", "t://x/y"], ["t://x;a/b/y"]],
  ["t://{list*}/{x}", ["t://a,b,c/d"], ["t://a/b/c"]],
  ["t://{id:2}/{id}", ["t://ab/abcdef", "t://%F0%9F%98%80b/x"], [`t://${"a".repeat(30)}/x`]],
  ["t://{a}{b}", ["t://ab", "t://"], ["t://a/b"]],
  ["t://{id}{?q}", ["t://7?q=1", "t://7"], ["t://7/8"]],
  ["{+dir}/{name}.md", ["a/b/c.md", "x/.md"], ["a/b/c.txt", "c.md"]],
  ["{+a}x{b}.md", ["x/x.md"], ["x/y.md"]],
  ["t://ü/{id}", ["t://ü/1", "t://%C3%BC/1"], ["t://u/1"]],
  ["t://{user-id}/aa{x}aab", ["t://7/aaaab", "t://7/aaaaab"], ["t://7/aab"]],
];
for (const [template, yes, no] of cases) {
  test(`${template} matches what it makes and nothing else`, () => {
    for (const uri of yes) assert.ok(matches(template, uri), uri);
    for (const uri of no) assert.ok(!matches(template, uri), uri);
  });
}

const unusable = ["{", "}", "{}", "{+}", "{?}", "{a", "a}", "{{a}}", "{a,}", "{=a}", "{|a}", "{a:0}", "{a:b}", "{a**}", "{a b}"];
for (const template of [...unusable, "{a}".repeat(17), "a".repeat(2_049)]) {
  test(`${template.slice(0, 60)} is no template that we match`, () => assert.equal(readUriTemplate(template), undefined));
}

test("a URI of more than 8,192 characters matches nothing", () => {
  assert.ok(matches("t:{a}", `t:${"a".repeat(8_190)}`));
  assert.ok(!matches("t:{a}", `t:${"a".repeat(8_191)}`));
  assert.ok(!matches("t:{a}", `t:${"é".repeat(2_000)}`));
});

const value = fc.string({ unit: "grapheme", maxLength: 12 });
const literal = fc.string({ unit: fc.constantFrom(..."ab/.:-é"), minLength: 1, maxLength: 6 });

test("whatever a template of simple expressions makes, matches it", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(literal, value), { maxLength: 8 }), literal, (parts, end) => {
      const template = parts.map(([text], i) => `${text}{v${i}}`).join("") + end;
      const uri = parts.map(([text, expanded]) => text + encodeURIComponent(expanded)).join("") + end;
      assert.ok(matches(template, uri));
    }),
    { numRuns: 5_000 },
  );
});

// A RegExp says the same, in its own time; texts are short here.
const pieces: [string, string][] = [
  ["{a}", "[^/?#]*"],
  ["{+a}", ".*"],
  ["{#a}", "(?:#.*)?"],
  ["{.a}", "(?:\\.[^/?#]*)?"],
  ["{/a}", "(?:/[^/?#]*)?"],
  ["{/a*}", "(?:/[^?#]*)?"],
  ["{;a}", "(?:;[^/?#]*)?"],
  ["{?a,b}", "(?:\\?[^#]*)?"],
  ["{&a}", "(?:&[^#]*)?"],
  ...["a", "aa", "aba", "/", "?", "#", ".", "&", ";"].map((text): [string, string] => [text, text.replace(/[?.]/, "\\$&")]),
];

test("says what a regular expression would say", () => {
  const parts = fc.array(fc.constantFrom(...pieces), { maxLength: 5 });
  const uris = fc.string({ unit: fc.constantFrom(..."aab/?#.&;"), maxLength: 10 });
  fc.assert(
    fc.property(parts, uris, (template, uri) => {
      const expected = new RegExp(`^${template.map(([, pattern]) => pattern).join("")}$`).test(uri);
      assert.equal(matches(template.map(([text]) => text).join(""), uri), expected);
    }),
    { numRuns: 20_000 },
  );
});

test("never throws, whatever the texts", () => {
  const any = fc.oneof(fc.string({ unit: "binary" }), fc.string({ unit: fc.constantFrom(..."{}+#./;?&,:*a1 \ud800") }));
  fc.assert(
    fc.property(any, any, (template, uri) => void matches(template, uri)),
    { numRuns: 20_000 },
  );
});

test("takes 5 ms at most for any URI and any template", () => {
  const half = "a".repeat(1_000);
  const hostile = ["{+a}{+b}{+c}{+d}{+e}{+f}{+g}{+h}!", `${"{+a}a".repeat(16)}!`, `{+a}${half}{+b}b${half}`, "{+a}/{+b}.md"];
  const uris = ["a", "/", "ab", "é"].map((text) => comparableUri(text.repeat(8_192 / toLength(text))) as never);
  const started = process.cpuUsage();
  for (const template of hostile) for (const uri of uris) readUriTemplate(template)?.matches(uri);
  const { user, system } = process.cpuUsage(started);
  assert.ok((user + system) / 1_000 / (hostile.length * uris.length) < 5);
});

function toLength(text: string): number {
  return encodeURI(text).length;
}
