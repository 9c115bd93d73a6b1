// Follows the store and gives the fleet a new target whenever the compiled content has changed.
import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../common/log.ts";
import { snapshotVersion } from "../common/snapshot-digest.ts";
import type { Resource } from "../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { CatalogKeeper } from "./catalogs/keeper.ts";
import { type Compiled, compile } from "./compiler/compile.ts";
import { blocking, problemLine } from "./compiler/problem-text.ts";
import { effectsOf } from "./config/effects.ts";
import type { Discovery } from "./discovery/discovery.ts";
import { overlay } from "./discovery/merge.ts";
import type { Fleet } from "./push/fleet.ts";
import { createTarget } from "./push/target.ts";
import { hasErrors, type Problem } from "./resources/problems.ts";
import { isUrgent } from "./resources/urgency.ts";
import { validateResources } from "./resources/validate.ts";
import { type Listing, type Store, StoreError } from "./store/store.ts";

// Commits that come in a burst become one push: wait for a moment of quiet, but not for ever.
const quietMs = 50;
const delayMaxMs = 1000;

// Backends that come up together are listed together.
const catalogsMs = 250;

const retryMs = 1000;

/** What a proxy takes in one message, with room for the envelope (it accepts 32 MiB). */
export const snapshotBytesMax = 16 * 1024 * 1024;

export interface Reconciler extends AsyncDisposable {
  /** Resolves when the first build was tried. */
  readonly started: Promise<void>;
  /**
   * The version that holds the commit of this revision: an older version's name when the commit changed nothing for proxies.
   * Undefined when the deadline passes first, or when the state could not be built.
   */
  versionOf(revision: bigint, deadlineMs: number): Promise<string | undefined>;
  /** What was built last; undefined before the first. */
  current(): Built | undefined;
  /** Everything there is to say about a set: what is wrong, what has no effect yet, what must not be served. */
  problemsOf(resources: readonly Resource[]): Problem[];
  /** What would be built of a set, with what is discovered right now. */
  compile(resources: readonly Resource[]): Compiled;
}

export interface Built {
  /** Of the store when it was read; the version may be an earlier revision's. */
  readonly revision: bigint;
  readonly version: string;
  readonly digest: Uint8Array;
  readonly resourceCount: number;
}

export interface ReconcilerOptions {
  readonly store: Store;
  readonly fleet: Fleet;
  readonly discovery: Pick<Discovery, "isOn" | "current" | "changes">;
  readonly catalogs: Pick<CatalogKeeper, "resources" | "use" | "changes">;
  readonly log: Log;
}

interface Waiter {
  readonly revision: bigint;
  readonly resolve: (version: string | undefined) => void;
}

/** Starts at once, and goes on until disposed. */
export function startReconciler({ store, fleet, discovery, catalogs, log }: ReconcilerOptions): Reconciler {
  const stop = new AbortController();
  const waiting = new Set<Waiter>();
  const nextNonce = counter();
  let built: Built | undefined;
  let listed: Listing | undefined;
  /** Why it can't be built. */
  let problems: readonly Problem[] = [];
  /** Newest revision that a build was tried for. */
  let tried = -1n;

  function problemsOf(resources: readonly Resource[]): Problem[] {
    // Only what is declared: what is discovered was looked through, and must not make a declaration wrong.
    const problems = validateResources(resources, {
      discovered: discovery.isOn ? new Set(discovery.current().groups) : undefined,
    });
    return hasErrors(problems) ? problems : [...problems, ...resources.flatMap(effectsOf)];
  }

  const compileNow = (resources: readonly Resource[]): Compiled =>
    compile(overlay(resources, discovery.current()), catalogs.resources());

  let toldLeftOut = "";
  function noteLeftOut(leftOut: readonly string[]): void {
    const text = leftOut.join(" ");
    if (text !== toldLeftOut && text !== "")
      log.warn({ catalogs: leftOut }, "the snapshot has no room for these catalogs; each proxy lists these backends itself");
    toldLeftOut = text;
  }

  /** While the store is away, what was read last: what is discovered meanwhile is laid over that. */
  async function list(): Promise<Listing> {
    try {
      listed = await store.list();
    } catch (error) {
      const isAway = error instanceof StoreError && error.code === "unavailable";
      if (!isAway || listed === undefined) throw error;
    }
    return listed;
  }

  /** `isSame`: what is declared and discovered is what it was at the last build. */
  async function build(isSame: boolean): Promise<void> {
    const { revision, resources } = isSame && listed ? listed : await list();
    if (!isSame) problems = blocking(problemsOf(resources));
    if (problems.length > 0) {
      // Everything committed was valid for the version that committed it; this one must not serve what it can't vouch for.
      log.error(
        { revision, problems: problems.map(problemLine) },
        "the stored resources are not valid; proxies keep what they have",
      );
    } else {
      const { digest, resources: compiled, bytes, ...offers } = compileNow(resources);
      const same = built && Buffer.compare(built.digest, digest) === 0;
      const emptied = built && built.resourceCount > 0 && compiled.length === 0;
      if (bytes > snapshotBytesMax) {
        log.error({ revision, bytes }, "with what is discovered the snapshot is too large; proxies keep what they have");
      } else if (emptied && !(await wasDeleted(built?.revision ?? 0n))) {
        log.error({ revision }, "the store lost its resources without a delete; proxies keep what they have");
      } else {
        const version = same && built ? built.version : snapshotVersion(revision, digest);
        built = { revision, version, digest, resourceCount: compiled.length };
        catalogs.use(offers.catalogs);
        noteLeftOut(offers.leftOut);
        if (!same) {
          log.info({ version, resources: compiled.length }, "new snapshot");
          const content = { version, revision, digest, storeUid: store.uid, resources: compiled };
          fleet.retarget(createTarget(content, nextNonce, fleet.target()));
        }
      }
    }
    tried = revision;
    for (const waiter of [...waiting]) if (waiter.revision <= tried) answer(waiter);
  }

  /** Whether the history since then holds a deletion; a store that knows nothing of that revision is not the same store. */
  async function wasDeleted(since: bigint): Promise<boolean> {
    const commits = await store.changesSince(since, 1000).catch(() => []);
    return commits.some(({ changes }) => changes.some(({ after }) => after === undefined));
  }

  function answer(waiter: Waiter): void {
    waiting.delete(waiter);
    waiter.resolve(built !== undefined && built.revision >= waiter.revision ? built.version : undefined);
  }

  /** Builds, waits for commits, lets them settle, and again; whatever fails is tried again. */
  async function follow(onFirst: () => void): Promise<void> {
    for (let isSame = false; !stop.signal.aborted; ) {
      const round = new AbortController();
      const signal = AbortSignal.any([stop.signal, round.signal]);
      const listedAnew = catalogs.changes
        .next(signal)
        .then(() => delay(catalogsMs, undefined, { signal }).catch(() => undefined));
      let isDiscovered = false;
      const discovered = discovery.changes.next(signal).then(() => {
        isDiscovered = true;
      });
      const observed = Promise.race([discovered, listedAnew]);
      try {
        await build(isSame);
        onFirst();
        isSame = !(await settled({ store, revision: tried, observed, signal })) && !isDiscovered;
      } catch (error) {
        isSame = false;
        if (stop.signal.aborted) return;
        const forgotten = error instanceof StoreError && error.code === "compacted";
        if (!forgotten) log.error({ err: error }, "the snapshot could not be built; trying again");
        onFirst();
        if (!forgotten) await delay(retryMs, undefined, { signal: stop.signal }).catch(() => undefined);
      } finally {
        round.abort();
      }
    }
  }

  const first = Promise.withResolvers<void>();
  const following = follow(first.resolve);

  return {
    started: first.promise,
    current: () => built,
    problemsOf,
    compile: compileNow,
    versionOf(revision, deadlineMs) {
      if (tried >= revision) return Promise.resolve(built && built.revision >= revision ? built.version : undefined);
      const { promise, resolve } = Promise.withResolvers<string | undefined>();
      const waiter = { revision, resolve };
      waiting.add(waiter);
      const timer = setTimeout(() => answer(waiter), deadlineMs);
      return promise.finally(() => clearTimeout(timer));
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      for (const waiter of [...waiting]) answer(waiter);
      await following;
    },
  };
}

interface Settling {
  readonly store: Store;
  readonly revision: bigint;
  /** Resolves when something else is discovered, or listed. */
  readonly observed: Promise<void>;
  readonly signal: AbortSignal;
}

/**
 * Resolves when something was committed after `revision` and then nothing for `quietMs`, or `delayMaxMs` have passed. What is
 * urgent waits for nothing, nor does what is observed, which has settled already. Gives whether there was a commit.
 */
async function settled({ store, revision, observed, signal }: Settling): Promise<boolean> {
  const done = new AbortController();
  const either = AbortSignal.any([signal, done.signal]);
  let quiet: NodeJS.Timeout | undefined;
  let latest: NodeJS.Timeout | undefined;
  let isCommitted = false;
  void observed.then(() => done.abort());
  try {
    for await (const { changes } of store.watch(revision, either)) {
      isCommitted = true;
      if (changes.some(isUrgent)) done.abort();
      clearTimeout(quiet);
      quiet = setTimeout(() => done.abort(), quietMs);
      latest ??= setTimeout(() => done.abort(), delayMaxMs);
    }
  } finally {
    clearTimeout(quiet);
    clearTimeout(latest);
  }
  return isCommitted;
}

function counter(): () => bigint {
  let last = 0n;
  return () => {
    last += 1n;
    return last;
  };
}
