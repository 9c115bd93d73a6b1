import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { beginPage, donePage, problemPage, text } from "./sign-in-html.ts";

test("what others chose is text, whatever it is", () => {
  const hostile = `<script>alert(1)</script>"'&\u202egnp.exe\u0000`;
  const shown = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;gnp.exe";
  assert.equal(text(hostile), shown);
  const page = beginPage({ backend: hostile, virtualServer: hostile, user: hostile, server: hostile });
  for (const html of [page, donePage(hostile), problemPage(hostile)]) {
    assert.ok(html.includes(shown));
    assert.doesNotMatch(html, /<script/);
  }
});

test("no text opens a tag or leaves an attribute", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (value) => !/[<>"']/.test(text(value)) && text(value).length <= 200 * 6 + 1),
  );
});

test("a long name is cut", () => {
  assert.equal(text("a".repeat(500)), `${"a".repeat(200)}…`);
});
