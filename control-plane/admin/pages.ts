// Pages of one list that fit together, though the store goes on: a token names the revision of the first page, and later pages
// show that revision again by undoing what was committed since.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { parseName } from "../resource-names.ts";
import { listingAt } from "../store/past.ts";
import type { Store } from "../store/store.ts";
import { checkKind, checkPageSize, invalid } from "./requests.ts";

export interface PageRequest {
  readonly kind: string;
  readonly group: string;
  readonly pageSize: number;
  readonly pageToken: string;
}

export interface Page {
  readonly resources: Resource[];
  readonly nextPageToken: string;
  readonly revision: bigint;
}

interface Token {
  readonly revision: bigint;
  readonly after: string;
}

/** Throws AdminError for a bad request, StoreError `compacted` when the token's revision is too old to be shown again. */
export async function pageOf(store: Store, request: PageRequest): Promise<Page> {
  const kind = checkKind(request.kind);
  const size = checkPageSize(request.pageSize);
  const token = parseToken(request);
  const present = await store.list();
  const { revision, resources } = token === undefined ? present : await listingAt(store, present, token.revision);
  const wanted = resources.filter(({ name }) => {
    const parsed = parseName(name);
    const fits = (kind === undefined || parsed?.kind === kind) && (request.group === "" || parsed?.group === request.group);
    return fits && (token === undefined || name > token.after);
  });
  const page = wanted.slice(0, size);
  const last = page.at(-1);
  const nextPageToken = last !== undefined && wanted.length > size ? formatToken({ revision, after: last.name }, request) : "";
  return { resources: page, nextPageToken, revision };
}

// The filter is part of the token, so that a token can't be used with another.
function formatToken({ revision, after }: Token, { kind, group }: PageRequest): string {
  return Buffer.from(JSON.stringify([String(revision), after, kind, group])).toString("base64url");
}

function parseToken({ pageToken, kind, group }: PageRequest): Token | undefined {
  if (pageToken === "") return undefined;
  const parts = decodeToken(pageToken);
  const [revision = "", after = "", ofKind, ofGroup] = parts;
  if (parts.length !== 4 || !/^\d{1,19}$/.test(revision) || ofKind !== kind || ofGroup !== group) {
    throw invalid([{ field: "page_token", description: "not a token of this list" }]);
  }
  return { revision: BigInt(revision), after };
}

function decodeToken(pageToken: string): string[] {
  try {
    const parts: unknown = JSON.parse(Buffer.from(pageToken, "base64url").toString());
    return Array.isArray(parts) && parts.every((part) => typeof part === "string") ? parts : [];
  } catch {
    return [];
  }
}
