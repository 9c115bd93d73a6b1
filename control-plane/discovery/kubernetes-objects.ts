// What objects of Kubernetes say → workloads and groups. No I/O. Long because all five kinds stand here, side by side to compare.
import { z } from "zod";
import { groupName, groupNameWanted, plainName } from "../resources/schema/fields.ts";
import type { Complaint } from "./complaints.ts";
import type { Resource } from "./kubernetes-api.ts";
import type { Workload } from "./provider.ts";

/** A workload, a group, a reason why there is none, or undefined when it is nobody's concern (yet). */
export type Read = { readonly workload: Workload } | { readonly group: string } | { readonly complaint: Complaint } | undefined;

export interface Kind extends Resource {
  /** As in objects. */
  readonly kind: string;
  /** Whether a cluster without it is an ordinary one. */
  readonly isOptional: boolean;
  read(object: unknown): Read;
}

const metadata = z.object({
  name: z.string().min(1),
  namespace: z.string().min(1),
  creationTimestamp: z.string().nullish(),
  deletionTimestamp: z.string().nullish(),
  annotations: z.record(z.string(), z.string()).nullish(),
});
type Metadata = z.infer<typeof metadata>;
/** What every object has. */
export const anyObject = z.object({ metadata });

const ref = z.object({ name: z.string().min(1) }).nullish();
const phase = z.object({ phase: z.string().nullish(), url: z.string().nullish() }).nullish();
const toolhive = { prefix: "/apis/toolhive.stacklok.dev/v1beta1", isOptional: true };

const mcpServer = z.object({
  metadata,
  spec: z.object({
    groupRef: ref,
    transport: z.string().nullish(),
    proxyMode: z.string().nullish(),
    externalAuthConfigRef: z.unknown().optional(),
  }),
  status: phase,
});

const mcpRemoteProxy = z.object({
  metadata,
  spec: z.object({
    groupRef: ref,
    transport: z.string().nullish(),
    remoteUrl: z.string().nullish(),
    externalAuthConfigRef: z.unknown().optional(),
  }),
  status: phase,
});

const mcpServerEntry = z.object({
  metadata,
  spec: z.object({
    groupRef: ref,
    transport: z.string(),
    remoteUrl: z.string(),
    externalAuthConfigRef: z.unknown().optional(),
    headerForward: z.unknown().optional(),
    caBundleRef: z.unknown().optional(),
  }),
  status: phase,
});

const service = z.object({
  metadata,
  spec: z.object({
    type: z.string().nullish(),
    ports: z
      .array(
        z.object({
          name: z.string().nullish(),
          port: z.number().int(),
          protocol: z.string().nullish(),
          appProtocol: z.string().nullish(),
        }),
      )
      .nullish(),
  }),
});

/** In the order in which names are given when two kinds want the same one at the same time. */
export const kinds: readonly Kind[] = [
  kind({ ...toolhive, kind: "MCPGroup", plural: "mcpgroups" }, anyObject, readGroup),
  kind({ ...toolhive, kind: "MCPServer", plural: "mcpservers" }, mcpServer, readServer),
  kind({ ...toolhive, kind: "MCPRemoteProxy", plural: "mcpremoteproxies" }, mcpRemoteProxy, readRemoteProxy),
  kind({ ...toolhive, kind: "MCPServerEntry", plural: "mcpserverentries" }, mcpServerEntry, readEntry),
  kind(
    { prefix: "/api/v1", isOptional: false, kind: "Service", plural: "services", labelSelector: "vmcp.enable=true" },
    service,
    readService,
  ),
];

/** What a reader of one kind says: a sentence is why the object is left out. */
type Verdict = Workload | { readonly group: string } | string | undefined;

function kind<T extends z.ZodType<{ metadata: Metadata }>>(
  about: Omit<Kind, "read">,
  shape: T,
  verdictOn: (object: z.output<T>) => Verdict,
): Kind {
  return {
    ...about,
    read(object) {
      const { name = "?", namespace = "?" } = (object as { metadata?: Partial<Metadata> } | null)?.metadata ?? {};
      const complain = (reason: string): Read => ({ complaint: { about: `${about.kind} ${namespace}/${name}`, reason } });
      const parsed = shape.safeParse(object);
      if (!parsed.success) {
        const [issue] = parsed.error.issues;
        return complain(`it is in an unknown shape at ${issue?.path.join(".") || "its root"}: ${issue?.message}`);
      }
      const verdict = verdictOn(parsed.data);
      if (verdict === undefined) return undefined;
      if (typeof verdict === "string") return complain(verdict);
      const { group } = verdict;
      if (!groupName.safeParse(group).success)
        return complain(`its group is ${JSON.stringify(group)}; wanted ${groupNameWanted}`);
      if (!("name" in verdict)) return { group };
      if (!plainName.safeParse(name).success) return complain(`its name has ${name.length} characters; wanted 63 at most`);
      return { workload: verdict };
    },
  };
}

function readGroup({ metadata: { name } }: z.infer<typeof anyObject>): Verdict {
  return { group: name };
}

function readServer({ metadata: about, spec, status }: z.infer<typeof mcpServer>): Verdict {
  if (!spec.groupRef) return undefined;
  const { phase, url } = status ?? {};
  if (spec.externalAuthConfigRef) return authReason(spec.externalAuthConfigRef);
  if (!url) return undefined; // the operator has not come to it yet
  // proxyMode is for stdio; servers of the other transports are passed on as they are.
  const spoken = spec.transport === "sse" || spec.transport === "streamable-http" ? spec.transport : spec.proxyMode;
  const transport = spoken === "sse" ? "sse" : "streamable-http";
  const place = toolhiveUrl(url, transport);
  if (!place) return `its status.url is ${shown(url)}; wanted ${urlWanted}`;
  return {
    ...{ group: spec.groupRef.name, name: about.name, url: place, transport },
    isRunning: isReady(about, phase),
    metadata: metadataOf(about, { type: "mcp_server", phase }),
  };
}

function readRemoteProxy({ metadata: about, spec, status }: z.infer<typeof mcpRemoteProxy>): Verdict {
  if (!spec.groupRef) return undefined;
  const { phase, url } = status ?? {};
  if (spec.externalAuthConfigRef) return authReason(spec.externalAuthConfigRef);
  if (!url) return undefined;
  const transport = spec.transport === "sse" ? "sse" : "streamable-http";
  const place = toolhiveUrl(url, transport);
  if (!place) return `its status.url is ${shown(url)}; wanted ${urlWanted}`;
  return {
    ...{ group: spec.groupRef.name, name: about.name, url: place, transport },
    isRunning: isReady(about, phase),
    metadata: metadataOf(about, { type: "remote_proxy", phase, remoteUrl: spec.remoteUrl ?? undefined }),
  };
}

/** Nobody stands between an entry and whoever calls it, so all that it asks for would have to be given by the caller. */
function readEntry({ metadata: about, spec, status }: z.infer<typeof mcpServerEntry>): Verdict {
  if (!spec.groupRef) return undefined;
  if (spec.externalAuthConfigRef) return authReason(spec.externalAuthConfigRef);
  if (spec.headerForward) return "it wants headers (headerForward), which discovery does not give: declare it as a backend";
  if (spec.caBundleRef) return "it wants a CA of its own (caBundleRef), which discovery does not give: declare it as a backend";
  // Whether the URL may be called at all was checked only then.
  if (status?.phase !== "Valid") return undefined;
  const { transport } = spec;
  if (transport !== "sse" && transport !== "streamable-http")
    return `its transport is ${shown(transport)}; wanted ${transportWanted}`;
  const url = callable(spec.remoteUrl);
  if (!url) return `its remoteUrl is ${shown(spec.remoteUrl)}; wanted ${urlWanted}`;
  if (isNear(url)) return `its remoteUrl leads to ${url.hostname}, the machine that calls or its link; wanted another machine`;
  return {
    ...{ group: spec.groupRef.name, name: about.name, url: url.href, transport },
    isRunning: isReady(about, status.phase),
    metadata: metadataOf(about, { type: "server_entry", phase: status.phase, remoteUrl: spec.remoteUrl }),
  };
}

/** A Service does not say whether anybody stands behind it; whoever calls finds out. */
function readService({ metadata: about, spec }: z.infer<typeof service>): Verdict {
  const annotations = about.annotations ?? {};
  if (spec.type === "ExternalName") return "it is a name for something outside (ExternalName): use an MCPServerEntry";
  const transport = annotations["vmcp.transport"] || "streamable-http";
  if (transport !== "streamable-http" && transport !== "sse")
    return `vmcp.transport is ${shown(transport)}; wanted ${transportWanted}`;
  const path = annotations["vmcp.path"] || (transport === "sse" ? "/sse" : "/mcp");
  if (!/^\/[^\s#\\]*$/.test(path)) return `vmcp.path is ${shown(path)}; wanted a path of a URL, from its first slash on`;
  const ports = (spec.ports ?? []).filter(({ protocol }) => !protocol || protocol === "TCP");
  const wanted = annotations["vmcp.port"];
  const port = wanted
    ? ports.find((one) => String(one.port) === wanted || one.name === wanted)
    : ports.length === 1
      ? ports[0]
      : ports.find((one) => one.name === "mcp");
  if (!port) {
    const has = ports.map(({ name, port }) => (name ? `${port} (${name})` : String(port))).join(", ") || "none";
    const why = wanted
      ? `vmcp.port is ${shown(wanted)}; wanted one of its TCP ports`
      : 'wanted one port, or one that is called "mcp"; set vmcp.port';
    return `${why}: it has ${has.slice(0, 100)}`;
  }
  const scheme = port.appProtocol?.toLowerCase() === "https" ? "https" : "http";
  const told = Object.fromEntries(Object.entries(annotations).filter(([key]) => key.startsWith("vmcp.")));
  return {
    group: annotations["vmcp.group"] || "default",
    name: about.name,
    // Without the cluster's domain, which may be any: a pod's resolver adds it.
    url: `${scheme}://${about.name}.${about.namespace}.svc:${port.port}${path}`,
    transport,
    isRunning: !about.deletionTimestamp,
    metadata: metadataOf({ ...about, annotations: told }, { type: "service" }),
  };
}

const transportWanted = "streamable-http or sse";
const urlWanted = "an http or https URL without credentials in it";

/** What stands there, without what may be a secret in a URL. */
function shown(value: string): string {
  const url = URL.parse(value);
  const text = url?.host ? `${url.protocol}//${url.host}${url.pathname}` : value;
  return JSON.stringify(text.slice(0, 100));
}

function authReason(reference: unknown): string {
  const name = (reference as { name?: unknown }).name;
  const which = typeof name === "string" ? ` (${JSON.stringify(name)})` : "";
  return `it wants credentials (externalAuthConfigRef${which}), which discovery does not give: declare it as a backend with outgoing auth`;
}

/** `Running` is what phase Ready was called once. */
function isReady({ deletionTimestamp }: Metadata, phase: string | null | undefined): boolean {
  return !deletionTimestamp && (phase === "Ready" || phase === "Running" || phase === "Valid");
}

/** ToolHive writes the name of an SSE server into the fragment; older operators wrote no path. */
function toolhiveUrl(address: string, transport: Workload["transport"]): string | undefined {
  const url = callable(address);
  if (url?.pathname === "/") url.pathname = transport === "sse" ? "/sse" : "/mcp";
  return url?.href;
}

function callable(address: string): URL | undefined {
  const url = /^https?:\/\/[^\s\\]+$/i.test(address) ? URL.parse(address) : null;
  if (!url?.hostname || url.username !== "" || url.password !== "") return undefined;
  url.hash = "";
  return url;
}

/** ToolHive's operator refuses these too; whoever may write a status must not lead proxies there. */
function isNear({ hostname }: URL): boolean {
  return /^(localhost|.*\.localhost|127\..*|0\.0\.0\.0|169\.254\..*|\[(::1?|::ffff:.*|fe[89ab].*)\])$/.test(hostname);
}

function metadataOf(
  about: Metadata,
  facts: { readonly type: string; readonly phase?: string | null | undefined; readonly remoteUrl?: string | undefined },
): Record<string, string> {
  const remote = facts.remoteUrl ? callable(facts.remoteUrl) : undefined;
  const own = Object.entries(about.annotations ?? {}).filter(([key]) => !isOfKubernetes(key) && !settings.has(key));
  return Object.fromEntries(
    [
      ...own.sort().slice(0, annotationsMax),
      ["tool_type", "mcp"],
      ["workload_type", facts.type],
      ["workload_status", facts.phase ?? ""],
      ["namespace", about.namespace],
      // Its query may hold a key.
      ["remote_url", remote ? remote.origin + remote.pathname : ""],
    ]
      .filter(([, value]) => value !== "")
      .map(([key, value = ""]) => [key, value.slice(0, annotationCharsMax)]),
  );
}

const annotationsMax = 16;
const annotationCharsMax = 128;
const settings = new Set(["enable", "group", "port", "path", "transport"].map((name) => `vmcp.${name}`));

function isOfKubernetes(key: string): boolean {
  return /(^|\.)(kubernetes|k8s)\.io\//.test(key);
}
