// Keeps what backends offer: takes what proxies list, remembers it in the store, where other control planes find it, and gives it to
// snapshots. It also knows which definition of each tool is approved.
import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import type { SnapshotResource } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { type ChangeFeed, createChangeFeed } from "../change-feed.ts";
import { backendOfCatalog } from "../compiler/catalog-names.ts";
import { type Attempt, type Store, StoreError, type UncommittedChange } from "../store/store.ts";
import { decodeEntry, type Entry, encodeEntry, readListing, toSnapshotResource } from "./entry.ts";
import { approve, followTools, type Pin, textOf } from "./pins.ts";

export interface CatalogKeeper extends AsyncDisposable {
  /** Those that can be shared, by name, as snapshots carry them. */
  resources(): ReadonlyMap<string, SnapshotResource>;
  readonly changes: Pick<ChangeFeed, "next">;
  /** SHA-256 of the listing that is kept, in hex. */
  digestOf(catalog: string): string | undefined;
  /** Says which catalogs there may be. Others are not taken, and those that are kept are for backends that come back. */
  use(catalogs: ReadonlySet<string>): void;
  /** Takes the place of what was kept. Settles when it is in the store, or was refused; never rejects. */
  take(report: TakenReport): Promise<void>;
  /** Those of backends that are in use, sorted by backend and name. */
  tools(): KeptTool[];
  /** Approves definitions that are listed now; gives those that are not, all or nothing. Throws StoreError. */
  approve(asked: readonly Approval[], by: Attempt): Promise<readonly Approval[]>;
}

export interface TakenReport {
  readonly catalog: string;
  /** Encoded vmcp.discovery.v1.Listing; empty when it is too large to be shared. */
  readonly listing: Uint8Array;
  /** SHA-256 of the listing as the proxy said it before, in hex; counts only where there is no listing. */
  readonly digest: string;
  /** Id of the proxy. */
  readonly proxy: string;
}

/** A definition, by its hash in hex. */
export interface Approval {
  readonly catalog: string;
  readonly tool: string;
  readonly hash: string;
}

export interface KeptTool extends Approval {
  /** Resource name. */
  readonly backend: string;
  readonly definition: string;
  /** Hash of what is approved, in hex; empty when nothing is. */
  readonly approvedHash: string;
  /** Since when it is another than that, milliseconds since 1970; undefined: it is not. */
  readonly changedMs: number | undefined;
  /** What is approved, when that is another and known. */
  readonly approvedDefinition: string | undefined;
}

export interface CatalogKeeperOptions {
  readonly store: Pick<Store, "catalogs">;
  readonly log: Log;
  readonly nowMs: () => number;
}

const attemptsMax = 5;

// The store may fail to tell of what another control plane put there.
const lookAgainMs = 15_000;

// A store that hangs is not waited for.
const goodbyeMs = 500;

// What backends listed that are gone. They may come back, and with other tools than were approved.
const unusedMax = 1_000;

interface Kept {
  readonly version: bigint;
  readonly entry: Entry;
  readonly resource: SnapshotResource | undefined;
}

/** Reads what the store has, then goes on until disposed. */
export async function createCatalogKeeper({ store, log, nowMs }: CatalogKeeperOptions): Promise<CatalogKeeper> {
  const shelf = store.catalogs;
  const feed = createChangeFeed();
  const stop = new AbortController();
  const kept = new Map<string, Kept>();
  let used: ReadonlySet<string> = new Set();
  let last: Promise<unknown> = Promise.resolve();

  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(work);
    last = turn.catch(() => undefined);
    return turn;
  }

  function keep(version: bigint, entry: Entry): void {
    kept.set(entry.name, { version, entry, resource: toSnapshotResource(entry) });
    feed.wake();
  }

  async function read(name: string): Promise<void> {
    const found = await shelf.get(name);
    try {
      if (found) keep(found.version, decodeEntry(name, found.body));
      else if (kept.delete(name)) feed.wake();
    } catch (error) {
      log.error({ catalog: name, reason: (error as Error).message }, "a catalog in the store can't be read");
    }
  }

  async function readAll(): Promise<void> {
    const versions = await shelf.versions();
    for (const name of kept.keys()) if (!versions.has(name)) await read(name);
    for (const [name, version] of versions) if (kept.get(name)?.version !== version) await read(name);
  }

  async function follow(): Promise<void> {
    while (!stop.signal.aborted) {
      const changed = shelf.changed(AbortSignal.any([stop.signal, AbortSignal.timeout(lookAgainMs)]));
      await inTurn(readAll).catch(async (error) => {
        log.debug({ reason: (error as Error).message }, "the catalogs could not be read");
        await delay(1_000, undefined, { signal: stop.signal }).catch(() => undefined);
      });
      await changed;
    }
  }

  /** Where approvals of a backend begin that is listed another way from now on. */
  function inherited(name: string): readonly Pin[] {
    const siblings = [...kept.values()].filter(({ entry }) => isSibling(entry.name, name));
    const pins = new Map(siblings.flatMap(({ entry }) => entry.pins).map(({ tool, approved }) => [tool, { tool, approved }]));
    return [...pins.values()];
  }

  /** Writes what `change` makes of what is there, and again when somebody else was faster. */
  async function write(name: string, change: (before: Entry | undefined) => Written | undefined): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const before = kept.get(name);
      const written = change(before?.entry);
      if (!written) return;
      const { entry, lines } = written;
      try {
        keep(await shelf.put({ name, body: encodeEntry(entry) }, { expectedVersion: before?.version ?? 0n, lines }), entry);
        return;
      } catch (error) {
        if (!(error instanceof StoreError) || error.code !== "conflict" || attempt === attemptsMax) throw error;
        await read(name);
      }
    }
  }

  async function take(report: TakenReport): Promise<void> {
    const { catalog: name, listing: bytes, proxy } = report;
    if (!used.has(name)) return;
    const said = bytes.byteLength === 0 ? { digest: report.digest, listing: undefined, tools: [] } : readListing(bytes);
    if (typeof said === "string") {
      log.warn({ catalog: name, proxy, reason: said }, "a listing of a proxy was not taken");
      return;
    }
    await write(name, (before) => {
      if (before?.digest === said.digest) return undefined;
      const pins = before?.pins ?? inherited(name);
      const followed = followTools(pins, { before: before?.tools ?? [], tools: said.tools, nowMs: nowMs() });
      if (followed.changed.length > 0)
        log.warn({ backend: backendOfCatalog(name), tools: followed.changed.slice(0, 20) }, "tools are not what was approved");
      const entry = { name, ...said, proxy, pins: followed.pins };
      return { entry, lines: linesOf(name, proxy, followed) };
    });
    await forget();
  }

  /** A bound for what is kept of backends that are gone, oldest first. */
  async function forget(): Promise<void> {
    const unused = [...kept.keys()].filter((name) => !used.has(name));
    const known = new Set([...kept.keys()].filter((name) => used.has(name)).map(backendOfCatalog));
    const replaced = unused.filter((name) => known.has(backendOfCatalog(name)));
    const excess = unused.slice(0, Math.max(0, unused.length - unusedMax));
    const gone = [...new Set([...replaced, ...excess])];
    if (gone.length === 0) return;
    await shelf.remove(gone);
    for (const name of gone) kept.delete(name);
  }

  async function approveAll(asked: readonly Approval[], by: Attempt): Promise<readonly Approval[]> {
    const missing = asked.filter(({ catalog, tool, hash }) => {
      const listed = used.has(catalog) ? kept.get(catalog)?.entry.tools : undefined;
      return !listed?.some((one) => one.name === tool && one.hash === hash);
    });
    if (missing.length > 0) return missing;
    for (const [name, approvals] of Map.groupBy(asked, ({ catalog }) => catalog)) {
      const targets = approvals.map(({ tool }) => `${backendOfCatalog(name)}/tools/${tool}`);
      await write(name, (before) => {
        const pins = approve(before?.pins ?? [], new Map(approvals.map(({ tool, hash }) => [tool, hash])));
        return before && { entry: { ...before, pins }, lines: [{ ...by, code: "APPROVED", targets }] };
      });
    }
    return [];
  }

  await readAll();
  const following = follow();

  return {
    changes: feed,
    resources: () => new Map([...kept].flatMap(([name, { resource }]) => (resource ? [[name, resource]] : []))),
    digestOf: (catalog) => kept.get(catalog)?.entry.digest,
    use(catalogs) {
      used = catalogs;
    },
    take: (report) =>
      inTurn(() => take(report)).catch((error) => {
        log.warn({ catalog: report.catalog, reason: (error as Error).message }, "a catalog could not be kept");
      }),
    tools: () =>
      [...kept.values()]
        .filter(({ entry }) => used.has(entry.name))
        .flatMap(({ entry }) => keptTools(entry))
        .sort((a, b) => (a.backend === b.backend ? (a.tool < b.tool ? -1 : 1) : a.backend < b.backend ? -1 : 1)),
    approve: (asked, by) => inTurn(() => approveAll(asked, by)),
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.race([following.then(() => last), delay(goodbyeMs, undefined, { ref: false })]);
    },
  };
}

interface Written {
  readonly entry: Entry;
  readonly lines: readonly UncommittedChange[];
}

function isSibling(one: string, other: string): boolean {
  return one !== other && backendOfCatalog(one) === backendOfCatalog(other);
}

function linesOf(
  name: string,
  proxy: string,
  { firstSeen, changed }: { firstSeen: readonly string[]; changed: readonly string[] },
) {
  const by = { actor: `proxy:${proxy}`, method: "CatalogReport", requestId: "" };
  const backend = backendOfCatalog(name);
  const lineOf = (code: string, reason: string, tools: readonly string[]): UncommittedChange[] =>
    tools.length === 0 ? [] : [{ ...by, code, reason, targets: tools.map((tool) => `${backend}/tools/${tool}`) }];
  return [
    ...lineOf("FIRST_SEEN", "approved, because they were never seen before", firstSeen),
    ...lineOf("CHANGED", "not what was approved", changed),
  ];
}

function keptTools({ name, tools, pins }: Entry): KeptTool[] {
  const byTool = new Map(pins.map((pin) => [pin.tool, pin]));
  return tools.map((listed) => {
    const { name: tool, hash } = listed;
    const pin = byTool.get(tool);
    const isChanged = pin?.approved !== hash;
    return {
      ...{ catalog: name, backend: backendOfCatalog(name), tool, hash, definition: textOf(listed) },
      approvedHash: pin?.approved ?? "",
      changedMs: isChanged ? (pin?.changedMs ?? 0) : undefined,
      approvedDefinition: isChanged ? pin?.definition : undefined,
    };
  });
}
