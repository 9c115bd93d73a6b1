import assert from "node:assert/strict";
import { test } from "node:test";
import { indexTemplates, type OwnedUri } from "./resources.ts";

const owned = (backend: string, uriTemplate: string): OwnedUri => ({
  backend,
  item: { key: uriTemplate, json: Buffer.from(JSON.stringify({ uriTemplate })) },
  exposed: uriTemplate,
});

for (const template of ["{", "file:///{+}", "{+a}".repeat(17), "a".repeat(3_000)]) {
  test(`a backend's template ${template.slice(0, 30)} does not keep others from being matched`, () => {
    const index = indexTemplates([owned("bad", template), owned("good", "file:///{path}")]);
    assert.deepEqual(index.match("file:///x"), { backend: "good", original: "file:///x" });
  });
}

test("a backend with hostile templates spends its own share of the time", () => {
  const hostile = Array.from({ length: 2_000 }, (_, i) => owned("bad", `file:///a{+a}${"{+b}a".repeat(12)}a${i}b{+c}!`));
  const index = indexTemplates([...hostile, owned("good", "file:///{+path}")]);
  const uri = `file:///${"a".repeat(8_000)}!`;
  const started = process.cpuUsage();
  assert.deepEqual(index.match(uri), { backend: "good", original: uri });
  const { user, system } = process.cpuUsage(started);
  assert.ok((user + system) / 1_000 < 500, `${(user + system) / 1_000} ms`); // 10 s without shares
});

test("ten thousand ordinary templates are all matched", () => {
  const many = Array.from({ length: 10_000 }, (_, i) => owned("big", `https://big.example/items/${i}/{id}{?fields}`));
  const uri = "https://big.example/items/9999/7?fields=name";
  assert.deepEqual(indexTemplates(many).match(uri), { backend: "big", original: uri });
});
