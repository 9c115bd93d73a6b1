import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { prepareList } from "./pages.ts";

/** What the cursors lead to, and the cursors. */
function walk(list: ReturnType<typeof prepareList>): { items: unknown[]; cursors: string[] } {
  const items: unknown[] = [];
  const cursors: string[] = [];
  for (let cursor: string | undefined, isLast = false; !isLast; ) {
    const page = list.page(cursor);
    assert.ok(page, `cursor ${cursor} leads nowhere`);
    const { tools } = JSON.parse(`{${page.json}}`) as { tools: unknown[] };
    items.push(...tools);
    if (page.next !== undefined) cursors.push(page.next);
    cursor = page.next;
    isLast = page.next === undefined;
  }
  return { items, cursors };
}

const listOf = (items: readonly unknown[], field = "tools") =>
  prepareList(
    field,
    items.map((item) => Buffer.from(JSON.stringify(item))),
    { ttlMs: 0, isPublic: false },
  );

test("walking the cursors of any list gives every item once and in order", () => {
  const check = fc.property(fc.array(fc.jsonValue({ maxDepth: 1 }), { maxLength: 12 }), (items) => {
    assert.deepEqual(walk(listOf(items)).items, JSON.parse(JSON.stringify(items)));
  });
  fc.assert(check, { numRuns: 20_000 });
});

test("so it does when items by number or by size fill several pages", () => {
  const many = fc.integer({ min: 990, max: 3_010 }).map((length) => Array.from({ length }, (_, i) => i));
  const sizes = fc.array(fc.constantFrom(1, 1_000, 400_000, 600_000, 1_100_000), { minLength: 2, maxLength: 5 });
  const large = sizes.map((lengths) => lengths.map((length, i) => String(i).repeat(length)));
  for (const [lists, numRuns] of [
    [many, 200],
    [large, 60],
  ] as const) {
    const check = fc.property(lists as fc.Arbitrary<unknown[]>, (items) => {
      const list = listOf(items);
      const { items: seen, cursors } = walk(list);
      assert.deepEqual(seen, items);
      assert.equal(new Set(cursors).size, cursors.length);
      for (const cursor of [undefined, ...cursors]) {
        const json = list.page(cursor)?.json ?? Buffer.alloc(0);
        const { tools } = JSON.parse(`{${json}}`) as { tools: unknown[] };
        assert.ok(tools.length <= 1_000 && (tools.length === 1 || json.length < 1.1 * 1024 * 1024));
      }
    });
    fc.assert(check, { numRuns });
  }
});

const long = (offset: number, field?: string) =>
  listOf(
    Array.from({ length: 12_000 }, (_, i) => i + offset),
    field,
  );
const list = long(0);
const { cursors } = walk(list);

test("a cursor with any character changed, missing or added is refused", () => {
  const character = fc.oneof(fc.constantFrom(..."ABCDwxyz0189-_"), fc.string({ minLength: 1, maxLength: 2, unit: "binary" }));
  const change = fc.constantFrom<[number, boolean]>([1, true], [1, false], [0, true]);
  const check = fc.property(
    fc.constantFrom(...cursors),
    fc.nat(),
    change,
    character,
    (cursor, place, [removed, isAdding], text) => {
      const at = place % cursor.length;
      const changed = cursor.slice(0, at) + (isAdding ? text : "") + cursor.slice(at + removed);
      assert.equal(list.page(changed) === undefined, changed !== cursor);
    },
  );
  fc.assert(check, { numRuns: 50_000 });
});

test("no cursor is one character away from another", () => {
  for (const one of cursors)
    for (const other of cursors) {
      const differing = [...one].filter((character, i) => character !== other[i]).length;
      assert.ok(one === other || differing > 5);
    }
});

test("a cursor of another list is refused: of other items, or of another kind with the same", () => {
  for (const other of [long(1), long(0, "prompts"), listOf([])])
    for (const cursor of cursors) assert.equal(other.page(cursor), undefined);
  assert.equal(list.page(""), undefined);
});

test("the same list has the same cursors on every proxy", () => {
  assert.deepEqual(walk(long(0)).cursors, cursors);
});
