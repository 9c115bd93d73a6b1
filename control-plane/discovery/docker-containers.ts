// What the labels of containers say → workloads. No I/O.
import { z } from "zod";
import { groupName, groupNameWanted, nameWanted, plainName } from "../resources/schema/fields.ts";
import type { Complaint } from "./complaints.ts";
import type { Workload } from "./provider.ts";

/** The parts of a container in `GET /containers/json` that are read (Docker Engine API v1.43, ContainerSummary). */
export const containerSummary = z.object({
  Id: z.string().min(1),
  Names: z.array(z.string()).nullish(),
  Image: z.string().nullish(),
  Created: z.number().nullish(),
  Labels: z.record(z.string(), z.string()).nullish(),
  /** `created`, `running`, `paused`, `restarting`, `exited`, `removing` or `dead`. */
  State: z.string(),
  /** For people, as `Up 2 minutes (unhealthy)`. Until v1.52 the health of a container stands nowhere else in a list. */
  Status: z.string().nullish(),
  Health: z.object({ Status: z.string().nullish() }).nullish(),
  Ports: z
    .array(z.object({ IP: z.string().nullish(), PrivatePort: z.number(), PublicPort: z.number().nullish(), Type: z.string() }))
    .nullish(),
  HostConfig: z.object({ NetworkMode: z.string().nullish() }).nullish(),
  NetworkSettings: z
    .object({
      Networks: z
        .record(z.string(), z.object({ IPAddress: z.string().nullish(), GlobalIPv6Address: z.string().nullish() }).nullable())
        .nullish(),
    })
    .nullish(),
});

export type Container = z.infer<typeof containerSummary>;

export interface Surroundings {
  /** Host at which published ports are reached. */
  readonly publishedHost: string;
  /** Whether that is this machine, so that ports published on its loopback address are reached too. */
  readonly isLocal: boolean;
  /** Where a container was last seen, by its id: one that does not run has no address. */
  lastUrl(id: string): string | undefined;
}

/** A workload, a reason why there is none, or undefined when the container is nobody's concern. */
export type Read = { readonly workload: Workload } | { readonly complaint: Complaint } | undefined;

type Place = { readonly url: string } | { readonly reason: string } | undefined;

/** Labels either of which may make a container one of ours. */
export const enablingLabels = ["vmcp.enable", "toolhive=true"] as const;

export function isOurs(labels: Readonly<Record<string, unknown>>): boolean {
  if (labels["vmcp.enable"] !== undefined) return labels["vmcp.enable"] !== "false";
  const isAuxiliary = Object.entries(labels).some(([key, value]) => key.startsWith("toolhive-auxiliary") && value === "true");
  return labels.toolhive === "true" && !isAuxiliary;
}

export function readContainer(container: Container, around: Surroundings): Read {
  const labels = container.Labels ?? {};
  if (!isOurs(labels) || container.State === "removing" || container.State === "dead") return undefined;
  const isToolhive = labels["vmcp.enable"] === undefined;
  const own = containerName(container);
  const complain = (reason: string): Read => ({ complaint: { about: `container ${own}`, reason } });

  if (!isToolhive && labels["vmcp.enable"] !== "true")
    return complain(`vmcp.enable is ${seen(labels["vmcp.enable"])}; wanted true or false`);
  const groupLabel = isToolhive ? "toolhive-group" : "vmcp.group";
  const group = labels[groupLabel] || "default";
  if (!groupName.safeParse(group).success)
    return complain(`${groupLabel} is ${JSON.stringify(group)}; wanted ${groupNameWanted}`);
  const name = (isToolhive ? labels["toolhive-name"] : labels["vmcp.name"] || labels["com.docker.compose.service"]) || own;
  if (!plainName.safeParse(name).success)
    return complain(`its name is ${JSON.stringify(name)}; wanted ${nameWanted}: set vmcp.name`);
  const transport = transportOf(isToolhive, labels);
  if (!transport) return complain(`vmcp.transport is ${JSON.stringify(labels["vmcp.transport"])}; wanted streamable-http or sse`);

  const place = isToolhive ? toolhivePlace(labels, transport, around) : placeOf(container, labels, transport, around);
  if (place === undefined) return undefined;
  if ("reason" in place) return complain(place.reason);
  const isRunning = container.State === "running" && healthOf(container) === "healthy";
  return { workload: { group, name, url: place.url, transport, isRunning, metadata: metadataOf(container, labels, own) } };
}

function containerName({ Id, Names }: Container): string {
  // Names of links have further slashes; the container's own has one.
  const [own] = (Names ?? []).filter((name) => name.lastIndexOf("/") === 0);
  return own?.slice(1) || Id.slice(0, 12);
}

function transportOf(isToolhive: boolean, labels: Readonly<Record<string, string>>): Workload["transport"] | undefined {
  // ToolHive's proxy speaks streamable HTTP for servers on stdio unless told otherwise, which no label says.
  if (isToolhive) return labels["toolhive-transport"] === "sse" ? "sse" : "streamable-http";
  const wanted = labels["vmcp.transport"] || "streamable-http";
  return wanted === "streamable-http" || wanted === "sse" ? wanted : undefined;
}

/** `toolhive-port` is the port of ToolHive's proxy, a process beside the Docker daemon and not in the container. */
function toolhivePlace(labels: Readonly<Record<string, string>>, transport: Workload["transport"], around: Surroundings): Place {
  const port = portOf(labels["toolhive-port"]);
  if (!port) return { reason: `toolhive-port is ${seen(labels["toolhive-port"])}; wanted ${portWanted}` };
  return { url: `http://${around.publishedHost}:${port}${transport === "sse" ? "/sse" : "/mcp"}` };
}

function placeOf(
  container: Container,
  labels: Readonly<Record<string, string>>,
  transport: Workload["transport"],
  around: Surroundings,
): Place {
  const path = labels["vmcp.path"] || (transport === "sse" ? "/sse" : "/mcp");
  if (!/^\/[^\s#\\]*$/.test(path))
    return { reason: `vmcp.path is ${seen(path)}; wanted a path of a URL, from its first slash on` };
  const hasPort = labels["vmcp.port"] !== undefined && labels["vmcp.port"] !== "";
  if (hasPort && !portOf(labels["vmcp.port"]))
    return { reason: `vmcp.port is ${seen(labels["vmcp.port"])}; wanted ${portWanted}` };
  if (container.State === "created" || container.State === "exited") {
    const url = around.lastUrl(container.Id);
    return url === undefined ? undefined : { url };
  }
  const ports = tcpPorts(container);
  const port = hasPort ? portOf(labels["vmcp.port"]) : ports.length === 1 ? ports[0] : undefined;
  if (!port) return { reason: `it has ${portsSeen(ports)}; wanted exactly one: set vmcp.port` };
  const host = hostOf(container, { port, labels, around });
  return "reason" in host ? host : { url: `http://${host.host}${path}` };
}

function hostOf(
  container: Container,
  { port, labels, around }: { port: number; labels: Readonly<Record<string, string>>; around: Surroundings },
): { readonly host: string } | { readonly reason: string } {
  const networks = container.NetworkSettings?.Networks ?? {};
  const wanted = labels["vmcp.network"];
  if (wanted) {
    // Compose puts its project before the names that its files use.
    const network = networks[wanted] ?? networks[`${labels["com.docker.compose.project"]}_${wanted}`];
    if (!network)
      return {
        reason: `vmcp.network is ${seen(wanted)}; wanted one of its networks: ${Object.keys(networks).sort().join(", ") || "it has none"}`,
      };
    const address = addressOf(network);
    return address ? { host: `${address}:${port}` } : { reason: `it has no address in network ${JSON.stringify(wanted)}` };
  }
  const published = publishedAt(container, port, around);
  if (published) return { host: published };
  if (container.HostConfig?.NetworkMode === "host") return { host: `${around.publishedHost}:${port}` };
  // The daemon gives them in any order; the same one has to be first each time.
  for (const name of Object.keys(networks).sort()) {
    const address = addressOf(networks[name] ?? undefined);
    if (address) return { host: `${address}:${port}` };
  }
  return { reason: `it does not publish port ${port} and is in no network with an address; wanted either` };
}

function publishedAt(container: Container, port: number, { publishedHost, isLocal }: Surroundings): string | undefined {
  const candidates = (container.Ports ?? []).filter(
    ({ PrivatePort, PublicPort, Type }) => Type === "tcp" && PrivatePort === port && PublicPort,
  );
  for (const { IP, PublicPort } of candidates) {
    if (!IP || IP === "0.0.0.0" || IP === "::") return `${publishedHost}:${PublicPort}`;
  }
  for (const { IP = "", PublicPort } of candidates) {
    const isLoopback = IP === "::1" || IP?.startsWith("127.");
    if (!isLoopback || isLocal) return `${bracketed(IP ?? "")}:${PublicPort}`;
  }
  return undefined;
}

function tcpPorts({ Ports }: Container): number[] {
  return [...new Set((Ports ?? []).filter(({ Type }) => Type === "tcp").map(({ PrivatePort }) => PrivatePort))].sort(
    (a, b) => a - b,
  );
}

function portsSeen(ports: readonly number[]): string {
  return ports.length === 0 ? "no TCP port" : `the TCP ports ${ports.slice(0, 8).join(", ")}`;
}

function seen(value: string | undefined): string {
  return value === undefined ? "not set" : JSON.stringify(value.slice(0, 100));
}

function addressOf(
  network: { IPAddress?: string | null | undefined; GlobalIPv6Address?: string | null | undefined } | undefined,
): string | undefined {
  if (network?.IPAddress) return network.IPAddress;
  return network?.GlobalIPv6Address ? bracketed(network.GlobalIPv6Address) : undefined;
}

function bracketed(address: string): string {
  return address.includes(":") ? `[${address}]` : address;
}

/** `healthy` also when nobody checks it. */
function healthOf({ Health, Status }: Container): "healthy" | "starting" | "unhealthy" {
  if (Health?.Status === "starting" || Health?.Status === "unhealthy") return Health.Status;
  if (Status?.includes("(health: starting)")) return "starting";
  return Status?.includes("(unhealthy)") ? "unhealthy" : "healthy";
}

/** Labels of other programs stay out: some hold hashes of passwords, and whoever sees backends need not see those. */
function metadataOf(container: Container, labels: Readonly<Record<string, string>>, own: string): Record<string, string> {
  const health = healthOf(container);
  const status = container.State === "running" && health !== "healthy" ? health : container.State;
  const facts = {
    container: own,
    image: container.Image ?? "",
    compose_project: labels["com.docker.compose.project"] ?? "",
    workload_status: status,
  };
  const told = Object.entries(labels).filter(([key]) => key.startsWith("vmcp.") && !settings.has(key));
  return Object.fromEntries(
    [...told.sort().slice(0, labelsMax), ...Object.entries(facts)]
      .filter(([, value]) => value !== "")
      .map(([key, value]) => [key, value.slice(0, labelCharsMax)]),
  );
}

const portWanted = "a port from 1 to 65535";
const labelsMax = 16;
const labelCharsMax = 128;
const settings = new Set(["enable", "group", "name", "port", "path", "transport", "network"].map((name) => `vmcp.${name}`));

function portOf(text: string | undefined): number | undefined {
  const port = /^\d{1,5}$/.test(text ?? "") ? Number(text) : 0;
  return port >= 1 && port <= 65_535 ? port : undefined;
}
