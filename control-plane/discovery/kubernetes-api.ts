// Lists and watches of the Kubernetes API, bounded and with deadlines. Our own over undici, as the client library's weight is not worth
// it (see kubernetes-credentials.ts) and its watch has neither.
import { createHttpReader, parseJson } from "./http-reader.ts";
import type { Access } from "./kubernetes-credentials.ts";
import { ProviderError } from "./provider.ts";

export interface Resource {
  /** As in URLs: lower case, plural. */
  readonly plural: string;
  /** `/api/v1` or `/apis/<group>/<version>`. */
  readonly prefix: string;
  readonly labelSelector?: string;
}

export interface Listed {
  readonly items: readonly unknown[];
  /** Where a watch goes on. */
  readonly resourceVersion: string;
}

/** `end` is the end of what can be followed from here: only a new list tells what is there. */
export type Change =
  | { readonly type: "put" | "deleted"; readonly object: unknown; readonly resourceVersion: string | undefined }
  | { readonly type: "bookmark"; readonly resourceVersion: string | undefined }
  | { readonly type: "end" };

export interface KubernetesApi extends AsyncDisposable {
  /** Everything, page by page; undefined when the cluster has no such kind. */
  list(resource: Resource, signal: AbortSignal): Promise<Listed | undefined>;
  /** What happens from there on, for some minutes. Ends silently when the connection does. */
  watch(resource: Resource, resourceVersion: string, signal: AbortSignal): AsyncIterable<Change>;
}

export interface KubernetesApiOptions {
  readonly access: Access;
  /** Undefined for all. */
  readonly namespace: string | undefined;
  readonly answerMs?: number;
  /** How long the server is asked to keep a watch. Default 180: a connection that died unnoticed costs that at most. */
  readonly watchSeconds?: number;
}

const pageSize = 250;
/** Objects of one kind. */
const objectsMax = 10_000;
const listTriesMax = 3;
// The server ends a watch itself; one that it does not end is dead.
const watchGraceMs = 10_000;

export function openKubernetes({ access, namespace, answerMs, watchSeconds = 180 }: KubernetesApiOptions): KubernetesApi {
  const { origin, pathname } = new URL(access.server);
  const what = `Kubernetes at ${access.server}`;
  const reader = createHttpReader({ origin, what, connect: access.tls, ...(answerMs ? { answerMs } : {}) });
  const root = pathname === "/" ? "" : pathname;

  function pathOf({ prefix, plural, labelSelector }: Resource, query: Readonly<Record<string, string>>): string {
    const place = namespace === undefined ? "" : `/namespaces/${encodeURIComponent(namespace)}`;
    const parameters = new URLSearchParams({ ...(labelSelector ? { labelSelector } : {}), ...query });
    return `${root}${prefix}${place}/${plural}?${parameters}`;
  }

  async function headers(): Promise<Record<string, string>> {
    const token = await access.token();
    return token ? { authorization: `Bearer ${token}` } : {};
  }

  function refusalOf(status: number, text: string, { resource, verb }: { resource: Resource; verb: string }): ProviderError {
    if (status === 401) return new ProviderError(`${what} does not accept the credentials (HTTP 401)`);
    if (status === 403) {
      const where = namespace === undefined ? "in all namespaces" : `in namespace ${JSON.stringify(namespace)}`;
      const hint = "the RBAC it needs stands in deploy/kubernetes";
      return new ProviderError(`${what} does not let this identity ${verb} ${resource.plural} ${where} (HTTP 403); ${hint}`);
    }
    const said = /"message":\s*"((?:[^"\\]|\\.){1,200})/.exec(text)?.[1];
    return new ProviderError(`${what} answers HTTP ${status} when asked to ${verb} ${resource.plural}${said ? `: ${said}` : ""}`);
  }

  /** Undefined when the cluster has no such kind; "expired" when the pages do not go on. */
  async function listOnce(resource: Resource, signal: AbortSignal): Promise<Listed | undefined | "expired"> {
    const items: unknown[] = [];
    for (let next = ""; ; ) {
      const path = pathOf(resource, { limit: String(pageSize), ...(next ? { continue: next } : {}) });
      const answer = await reader.read({ path, signal, headers: await headers() });
      if (answer.status === 404) return undefined;
      if (answer.status === 410 && next) return "expired";
      if (answer.status !== 200) throw refusalOf(answer.status, answer.text, { resource, verb: "list" });
      const list = parseJson(answer.text, what) as { items?: unknown; metadata?: Record<string, unknown> } | null;
      const { resourceVersion, continue: more } = list?.metadata ?? {};
      if (!Array.isArray(list?.items) || typeof resourceVersion !== "string" || resourceVersion === "") {
        throw new ProviderError(`${what} lists ${resource.plural} in an unknown shape`);
      }
      items.push(...list.items);
      if (items.length > objectsMax) throw new ProviderError(`${what} has more than ${objectsMax} ${resource.plural}`);
      if (typeof more !== "string" || more === "") return { items, resourceVersion };
      next = more;
    }
  }

  return {
    async list(resource, signal) {
      for (let tries = 0; tries < listTriesMax; tries++) {
        const listed = await listOnce(resource, signal);
        if (listed !== "expired") return listed;
      }
      throw new ProviderError(`${what} does not finish a list of ${resource.plural}: its pages expire too early`);
    },
    async *watch(resource, resourceVersion, signal) {
      // Not all at the same moment, and never all again.
      const seconds = Math.ceil(watchSeconds * (0.75 + Math.random() / 4));
      const dead = new AbortController();
      const timer = setTimeout(() => dead.abort(), seconds * 1_000 + watchGraceMs);
      const query = { watch: "true", resourceVersion, allowWatchBookmarks: "true", timeoutSeconds: String(seconds) };
      const path = pathOf(resource, query);
      try {
        const lines = await reader.readLines({
          path,
          headers: await headers(),
          signal: AbortSignal.any([signal, dead.signal]),
        });
        if ("status" in lines) {
          if (lines.status !== 410 && lines.status !== 404) {
            throw refusalOf(lines.status, lines.text, { resource, verb: "watch" });
          }
          yield { type: "end" };
          return;
        }
        yield* changesOf(lines, signal);
      } finally {
        clearTimeout(timer);
      }
    },
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

async function* changesOf(lines: AsyncIterable<string>, signal: AbortSignal): AsyncIterable<Change> {
  const iterator = lines[Symbol.asyncIterator]();
  try {
    for (;;) {
      // However a connection ends, the next one says what was missed, or why nothing can be seen.
      const next = await iterator.next().catch(() => undefined);
      signal.throwIfAborted();
      if (next === undefined || next.done) return;
      const change = changeOf(next.value);
      yield change;
      if (change.type === "end") return;
    }
  } finally {
    await iterator.return?.();
  }
}

/** What can't be understood, like an ERROR of whatever code, is the end: something was said that is not known now. */
function changeOf(line: string): Change {
  let event: { type?: unknown; object?: { metadata?: { resourceVersion?: unknown } } } | null;
  try {
    event = JSON.parse(line);
  } catch {
    return { type: "end" };
  }
  const version = event?.object?.metadata?.resourceVersion;
  const resourceVersion = typeof version === "string" && version !== "" ? version : undefined;
  switch (event?.type) {
    case "ADDED":
    case "MODIFIED":
      return { type: "put", object: event.object, resourceVersion };
    case "DELETED":
      return { type: "deleted", object: event.object, resourceVersion };
    case "BOOKMARK":
      return { type: "bookmark", resourceVersion };
    default:
      return { type: "end" };
  }
}
