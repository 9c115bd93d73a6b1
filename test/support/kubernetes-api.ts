// The part of a Kubernetes API server that discovery reads: lists in pages and watches with bookmarks, in the shapes of the Kubernetes
// API, for Services and the kinds of ToolHive's operator. Everything else is refused, above all whatever changes something.
import type { TlsOptions } from "node:tls";
import { type ApiServer, type Reply, type Stream, startApiServer } from "./api-server.ts";

export interface FakeObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    resourceVersion?: string;
    readonly creationTimestamp?: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [member: string]: unknown;
}

export interface FakeKubernetes extends ApiServer {
  /** Creates or replaces it. */
  put(object: FakeObject): void;
  remove(object: FakeObject): void;
  /** Says its last change once more to whoever watches. */
  repeat(object: FakeObject): void;
  /** Stands in lists as it is, whatever it is. */
  readonly oddities: unknown[];
  /** Tells who watches how far they are. */
  bookmark(): void;
  /** Forgets everything that happened until now; `how` old watches hear of it. */
  compact(how?: "event" | "status"): void;
  /** Ends the watches, as the server does now and then. */
  endWatches(): void;
  watches(plural?: string): Stream[];
  /** Kinds, as in URLs, that the cluster does not have. */
  readonly absent: Set<string>;
}

const prefixes: Readonly<Record<string, string>> = { services: "/api/v1" };
const toolhivePrefix = "/apis/toolhive.stacklok.dev/v1beta1";
const kindOf: Readonly<Record<string, string>> = {
  services: "Service",
  mcpgroups: "MCPGroup",
  mcpservers: "MCPServer",
  mcpremoteproxies: "MCPRemoteProxy",
  mcpserverentries: "MCPServerEntry",
};

interface Happening {
  readonly version: number;
  readonly plural: string;
  readonly before: FakeObject | undefined;
  readonly after: FakeObject | undefined;
}

/** With `token`, only who shows it is answered. */
export async function startKubernetesApi({ token, tls }: { token?: string; tls?: TlsOptions } = {}): Promise<FakeKubernetes> {
  const stored = new Map<string, FakeObject>();
  const history: Happening[] = [];
  const oddities: unknown[] = [];
  const absent = new Set<string>();
  let version = 1_000;
  let oldest = 0;
  let gone: "event" | "status" = "event";

  const api = await startApiServer(
    ({ method, url, headers }) => {
      if (token !== undefined && headers.authorization !== `Bearer ${token}`) return refuse(401, "Unauthorized", "Unauthorized");
      if (method !== "GET") return refuse(405, "MethodNotAllowed", "this test's server is read only");
      const { plural, namespace, isKnown } = placeOf(url);
      if (!isKnown || absent.has(plural))
        return { status: 404, body: "404 page not found\n", headers: { "content-type": "text/plain" } };
      const isWanted = (object: FakeObject | undefined): object is FakeObject =>
        object !== undefined && (!namespace || object.metadata.namespace === namespace) && isSelected(object, url);
      if (!/^(1|true)$/.test(url.searchParams.get("watch") ?? "")) return list(plural, url, isWanted);
      const from = Number(url.searchParams.get("resourceVersion"));
      const status = statusOf(410, "Expired", `too old resource version: ${from} (${oldest})`);
      if (from < oldest && gone === "status") return { status: 410, body: status };
      return {
        stream(stream) {
          if (from < oldest) {
            stream.write(`${JSON.stringify({ type: "ERROR", object: status })}\n`);
            return stream.end();
          }
          setTimeout(() => stream.end(), 1_000 * Number(url.searchParams.get("timeoutSeconds"))).unref();
          for (const one of history) if (one.version > from) tell(stream, one);
        },
      };
    },
    tls ? { tls } : {},
  );

  function list(plural: string, url: URL, isWanted: (object: FakeObject) => boolean): Reply {
    const limit = Number(url.searchParams.get("limit") ?? 500);
    const [at = version, start = 0] = (url.searchParams.get("continue") ?? "").split("_").filter(Boolean).map(Number);
    if (at < oldest) return refuse(410, "Expired", "The provided continue parameter is too old");
    const all = [...stored]
      .filter(([key, object]) => key.startsWith(`${plural}/`) && isWanted(object))
      .map(([, object]) => object);
    const items = [...all, ...oddities].slice(start, start + limit);
    const isMore = start + limit < all.length + oddities.length;
    const metadata = { resourceVersion: String(at), ...(isMore ? { continue: `${at}_${start + limit}` } : {}) };
    return { body: { kind: `${kindOf[plural]}List`, apiVersion: versionOf(plural), metadata, items } };
  }

  function tell(stream: Stream, { plural, before, after, version }: Happening): void {
    const { url } = stream.request;
    const place = placeOf(url);
    if (place.plural !== plural) return;
    const matches = (object: FakeObject | undefined): boolean =>
      object !== undefined && (!place.namespace || object.metadata.namespace === place.namespace) && isSelected(object, url);
    const type = matches(after) ? (matches(before) ? "MODIFIED" : "ADDED") : matches(before) ? "DELETED" : undefined;
    // What is deleted, or no longer selected, comes with the version of that.
    const object = after ?? { ...before, metadata: { ...before?.metadata, resourceVersion: String(version) } };
    if (type) stream.write(`${JSON.stringify({ type, object })}\n`);
  }

  function happen(plural: string, before: FakeObject | undefined, after: FakeObject | undefined): void {
    const one = { version, plural, before, after };
    history.push(one);
    for (const stream of api.streams) tell(stream, one);
  }

  const server: FakeKubernetes = {
    ...api,
    oddities,
    absent,
    put(object) {
      const plural = pluralOf(object);
      const key = `${plural}/${object.metadata.namespace}/${object.metadata.name}`;
      const before = stored.get(key);
      version++;
      const after = structuredClone({ ...object, metadata: { ...object.metadata, resourceVersion: String(version) } });
      stored.set(key, after);
      happen(plural, before, after);
    },
    remove(object) {
      const plural = pluralOf(object);
      const key = `${plural}/${object.metadata.namespace}/${object.metadata.name}`;
      const before = stored.get(key);
      stored.delete(key);
      version++;
      happen(plural, before, undefined);
    },
    repeat(object) {
      const last = history.findLast(({ after }) => after?.metadata.name === object.metadata.name);
      if (last) for (const stream of api.streams) tell(stream, last);
    },
    bookmark() {
      for (const stream of server.watches()) {
        const { plural } = placeOf(stream.request.url);
        const about = { metadata: { resourceVersion: String(version), creationTimestamp: null } };
        const object = { kind: kindOf[plural], apiVersion: versionOf(plural), ...about };
        if (stream.request.url.searchParams.get("allowWatchBookmarks") === "true") {
          stream.write(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
        }
      }
    },
    compact(how = "event") {
      version++;
      oldest = version;
      gone = how;
      history.length = 0;
    },
    endWatches() {
      for (const stream of server.watches()) stream.end();
    },
    watches: (plural) => [...api.streams].filter(({ request }) => !plural || placeOf(request.url).plural === plural),
  };
  return server;
}

/** `spec` is the whole one; `status` too. */
export function fakeObject(
  kind: string,
  name: string,
  {
    spec = {},
    status,
    namespace = "mcp",
    ...metadata
  }: {
    spec?: unknown;
    status?: unknown;
    namespace?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    creationTimestamp?: string;
    deletionTimestamp?: string;
  } = {},
): FakeObject {
  return {
    apiVersion: kind === "Service" ? "v1" : "toolhive.stacklok.dev/v1beta1",
    kind,
    metadata: { name, namespace, creationTimestamp: "2026-03-01T10:00:00Z", ...metadata },
    spec,
    ...(status === undefined ? {} : { status }),
  };
}

function pluralOf({ kind }: FakeObject): string {
  const plural = Object.keys(kindOf).find((one) => kindOf[one] === kind);
  if (!plural) throw new Error(`the fake knows no kind ${kind}`);
  return plural;
}

function versionOf(plural: string): string {
  return plural === "services" ? "v1" : "toolhive.stacklok.dev/v1beta1";
}

function placeOf({ pathname }: URL): { plural: string; namespace: string | undefined; isKnown: boolean } {
  const [, prefix, namespace, plural = ""] =
    /^(\/api\/v1|\/apis\/[^/]+\/[^/]+)(?:\/namespaces\/([^/]+))?\/([^/]+)$/.exec(pathname) ?? [];
  return { plural, namespace, isKnown: plural in kindOf && prefix === (prefixes[plural] ?? toolhivePrefix) };
}

function isSelected({ metadata: { labels = {} } }: FakeObject, url: URL): boolean {
  const [key = "", value] = (url.searchParams.get("labelSelector") ?? "").split("=");
  return key === "" || labels[key] === value;
}

function statusOf(code: number, reason: string, message: string): unknown {
  return { kind: "Status", apiVersion: "v1", metadata: {}, status: "Failure", message, reason, code };
}

function refuse(code: number, reason: string, message: string): Reply {
  return { status: code, body: statusOf(code, reason, message) };
}
