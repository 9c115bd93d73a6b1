// One kind of object, followed: a list, then watches from where it ended, and a new list when that leads no further.
import { setTimeout as sleep } from "node:timers/promises";
import type { KubernetesApi } from "./kubernetes-api.ts";
import { anyObject, type Kind, type Read } from "./kubernetes-objects.ts";
import { ProviderError } from "./provider.ts";

export interface Followed {
  readonly kind: Kind;
  /** When it was made, RFC 3339 in UTC. */
  readonly created: string;
  readonly read: Read;
}

export interface Follower {
  readonly kind: Kind;
  /** By `namespace/name`; undefined until there was a list, and while a new one is wanted. */
  objects(): ReadonlyMap<string, Followed> | undefined;
  /** Whether the cluster has the kind. */
  isThere(): boolean;
  /** Does not believe what it knows until it has listed everything again. */
  relist(): void;
  /** Settles with the signal, or rejects when nothing can be seen. */
  readonly ended: Promise<void>;
}

export interface FollowOptions {
  readonly api: KubernetesApi;
  readonly signal: AbortSignal;
  readonly onChange: () => void;
  readonly nowMs: () => number;
  /** When a kind that the cluster does not have is looked for again. */
  readonly absentMs: number;
}

const quickMs = 1_000;
const quickRoundsMax = 4;
const pauseMs = 200;

export function followKind(kind: Kind, { api, signal, onChange, nowMs, absentMs }: FollowOptions): Follower {
  const objects = new Map<string, Followed>();
  let isKnown = false;
  let isThere = false;
  let round = new AbortController();

  function put(object: unknown, fallbackKey?: string): void {
    const parsed = anyObject.safeParse(object);
    const { name, namespace, creationTimestamp } = parsed.data?.metadata ?? {};
    const key = parsed.success ? `${namespace}/${name}` : fallbackKey;
    if (key !== undefined) objects.set(key, { kind, created: creationTimestamp ?? "", read: kind.read(object) });
  }

  async function list(): Promise<string | undefined> {
    const listed = await api.list(kind, signal);
    if (!listed && !kind.isOptional) throw new ProviderError(`the cluster knows no ${kind.plural}: is that a Kubernetes API?`);
    // Whoever takes a kind away deletes its objects first, one by one; all at once it may be something else that answers.
    if (!listed && objects.size > 0)
      throw new ProviderError(`the cluster no longer knows ${kind.plural}, of which there were ${objects.size}`);
    objects.clear();
    for (const [index, object] of listed?.items.entries() ?? []) put(object, `#${index}`);
    isThere = listed !== undefined;
    isKnown = true;
    onChange();
    return listed?.resourceVersion;
  }

  /** Gives where the next watch goes on; undefined when a list is needed. */
  async function watch(from: string): Promise<{ next: string | undefined; isQuiet: boolean }> {
    let next: string | undefined = from;
    let isQuiet = true;
    for await (const change of api.watch(kind, from, AbortSignal.any([signal, round.signal]))) {
      if (change.type === "end") return { next: undefined, isQuiet };
      isQuiet = false;
      next = change.resourceVersion ?? next;
      if (change.type === "bookmark") continue;
      if (change.type === "put") put(change.object);
      else objects.delete(keyOf(change.object));
      onChange();
    }
    return { next, isQuiet };
  }

  async function follow(): Promise<void> {
    let version: string | undefined;
    for (let quickRounds = 0; ; ) {
      const startedMs = nowMs();
      if (round.signal.aborted) {
        round = new AbortController();
        version = undefined;
      }
      let isQuiet = true;
      try {
        version ??= await list();
        if (version === undefined) {
          await sleep(absentMs, undefined, { signal: AbortSignal.any([signal, round.signal]) });
          continue;
        }
        ({ next: version, isQuiet } = await watch(version));
      } catch (error) {
        if (signal.aborted || !round.signal.aborted) throw error;
        continue; // a new list is wanted
      }
      if (nowMs() - startedMs >= quickMs) quickRounds = 0;
      else {
        // A server that ends each watch at once, or says each time that it has forgotten, must not be asked without pause.
        quickRounds = isQuiet ? quickRounds + 1 : 0;
        if (quickRounds > quickRoundsMax) throw new ProviderError(`the watch of ${kind.plural} ends at once, again and again`);
        await sleep(pauseMs * 2 ** quickRounds * (0.5 + Math.random() / 2), undefined, { signal });
      }
    }
  }

  return {
    kind,
    objects: () => (isKnown ? objects : undefined),
    isThere: () => isThere,
    relist() {
      isKnown = false;
      round.abort();
    },
    ended: follow().catch((error: unknown) => {
      if (!signal.aborted) throw error;
    }),
  };
}

function keyOf(object: unknown): string {
  const { name, namespace } = (object as { metadata?: { name?: unknown; namespace?: unknown } } | null)?.metadata ?? {};
  return `${namespace}/${name}`;
}
