// A list as prepared result texts, page by page.
import { createHash } from "node:crypto";

const pageItemsMax = 1_000;
const pageBytesMax = 1024 * 1024;

export interface PreparedList {
  /** Names the content; equal lists have equal digests. */
  readonly digest: string;
  /** How long clients may keep it, and who may have it then: members of a result, as text. */
  readonly caching: string;
  /** The page a cursor names, the first without a cursor; undefined when the cursor is not of this list. */
  page(cursor: string | undefined): PreparedPage | undefined;
}

export interface PreparedPage {
  /** The member of the result that holds the items, as text. */
  readonly json: Buffer;
  /** The cursor of the page after this one. */
  readonly next: string | undefined;
}

/** `field` is the member of the result that holds the items. */
export function prepareList(
  field: string,
  items: readonly Buffer[],
  { ttlMs, isPublic }: { readonly ttlMs: number; readonly isPublic: boolean },
): PreparedList {
  const caching = `"ttlMs":${ttlMs},"cacheScope":"${isPublic ? "public" : "private"}"`;
  const digest = createHash("sha256").update(items.length.toString());
  for (const item of items) digest.update(item).update("\n");
  const name = digest.digest("base64url").slice(0, 16);
  const groups = paged(items);
  // A hash, so that no cursor is a slip away from another; without a key, so that every proxy has the same ones.
  const cursorOf = (page: number): string =>
    createHash("sha256").update(`${field}.${name}.${page}`).digest("base64url").slice(0, 22);
  const pages = groups.map((group, i): PreparedPage => {
    const json = [Buffer.from(`"${field}":[`), ...group.flatMap((item, n) => (n > 0 ? [comma, item] : [item])), Buffer.from("]")];
    return { json: Buffer.concat(json), next: i + 1 < groups.length ? cursorOf(i + 1) : undefined };
  });
  const byCursor = new Map(pages.map((page, i) => [i === 0 ? undefined : cursorOf(i), page]));
  return { digest: name, caching, page: (cursor) => byCursor.get(cursor) };
}

const comma = Buffer.from(",");

function paged(items: readonly Buffer[]): Buffer[][] {
  const pages: Buffer[][] = [[]];
  let bytes = 0;
  for (const item of items) {
    const page = pages.at(-1) as Buffer[];
    if (page.length > 0 && (page.length >= pageItemsMax || bytes + item.length > pageBytesMax)) {
      pages.push([item]);
      bytes = item.length;
    } else {
      page.push(item);
      bytes += item.length;
    }
  }
  return pages;
}
