// The files that ToolHive keeps about its workloads, for when no `thv serve` runs.
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { createLastGood } from "./last-good.ts";
import { type Provider, ProviderError, type ProviderOptions, type Sighting, type Workload } from "./provider.ts";
import { type ToolhivePaths, toolhivePaths } from "./toolhive-paths.ts";
import { isAlive } from "./toolhive-server.ts";
import { isRunningStatus, withoutTakenAddresses, workloadMetadata } from "./toolhive-workload.ts";
import { watchDirectories } from "./watch-directories.ts";

export interface ToolhiveFilesOptions extends ProviderOptions {
  /** Default: those of this user. */
  readonly paths?: ToolhivePaths;
  /** How often to look without being told, and whether processes live. Default 5 s. */
  readonly pollMs?: number;
}

type Json = Readonly<Record<string, unknown>>;

const limits = { bytesMax: 1024 * 1024, filesMax: 5_000 };

export function createToolhiveFilesProvider({ paths = toolhivePaths(), pollMs = 5_000 }: ToolhiveFilesOptions): Provider {
  const options = { parse: parseObject, bytesMax: limits.bytesMax };
  const groups = createLastGood<Json>(options);
  const runConfigs = createLastGood<Json>(options);
  const statuses = createLastGood<Json>(options);

  async function look(): Promise<Sighting> {
    const files = { groups: await jsonFiles(paths.groups), runConfigs: await jsonFiles(paths.runConfigs) };
    if (files.groups === undefined && files.runConfigs === undefined)
      throw new ProviderError(`ToolHive has no files here: there is no ${paths.runConfigs}`);
    const configs = await runConfigs.read(files.runConfigs ?? []);
    const states = await statuses.read((await jsonFiles(paths.statuses)) ?? []);
    const problems: string[] = [];
    const workloads: Workload[] = [];
    for (const [path, { value, fault }] of configs) {
      const name = basename(path, ".json");
      const becomes = value === undefined ? "is left out" : "counts as it was";
      if (fault !== undefined) problems.push(`workload ${JSON.stringify(name)} ${becomes}: its file can't be read: ${fault}`);
      if (value === undefined) continue;
      const status = states.get(join(paths.statuses, `${name.replaceAll("/", "-")}.json`))?.value;
      const workload = toWorkload(name, value, status);
      if (typeof workload === "string") problems.push(workload);
      else workloads.push(workload);
    }
    const names = [...(await groups.read(files.groups ?? []))].map(([path, { value }]) =>
      typeof value?.name === "string" ? value.name : basename(path, ".json"),
    );
    return { workloads: withoutTakenAddresses(workloads, problems), groups: names, problems };
  }

  return {
    name: "toolhive-files",
    async *watch(signal) {
      const directories = [paths.groups, paths.runConfigs, paths.statuses];
      for await (const _ of watchDirectories({ directories, pollMs, signal })) yield await look();
    },
  };
}

/** Undefined when there is no such directory. What is being written has a name that begins with a dot. */
async function jsonFiles(directory: string): Promise<string[] | undefined> {
  try {
    const names = (await readdir(directory)).filter((name) => name.endsWith(".json") && !name.startsWith("."));
    return names
      .sort()
      .slice(0, limits.filesMax)
      .map((name) => join(directory, name));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new ProviderError(`${directory} can't be read: ${code}`);
  }
}

function parseObject(bytes: Buffer): Json {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString("utf8"));
  } catch {
    throw new Error("it is no JSON"); // what the parser says would quote from it, and there are secrets in it
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw new Error("it is no JSON object");
  return json as Json;
}

/** Or why it is none. */
function toWorkload(name: string, config: Json, status: Json | undefined): Workload | string {
  const leftOut = (why: string) => `workload ${JSON.stringify(name)} is left out: ${why}`;
  const { transport, proxy_mode: mode, remote_url: remote, host, port, group, container_labels: labels } = config;
  // A server that speaks stdio is reached in the proxy's own way; any other in its own.
  const spoken = transport === "stdio" ? mode || "streamable-http" : transport;
  if (spoken !== "streamable-http" && spoken !== "sse") return leftOut(`its transport ${JSON.stringify(spoken)} is not known`);
  if (!Number.isInteger(port) || (port as number) < 1 || (port as number) > 65_535) return leftOut("it has no port");
  const path = typeof remote === "string" && remote !== "" ? URL.parse(remote)?.pathname : spoken === "sse" ? "/sse" : "/mcp";
  if (path === undefined) return leftOut("its remote_url is no URL");
  const word = typeof status?.status === "string" ? status.status : "unknown";
  const pid = status?.process_id;
  const isDead = Number.isSafeInteger(pid) && (pid as number) > 0 && !isAlive(pid as number);
  return {
    name,
    group: (group || "default") as string, // looked at by whoever takes it
    url: `http://${reachable(host)}:${port}${path}`,
    transport: spoken,
    isRunning: isRunningStatus(word) && !isDead,
    metadata: workloadMetadata(labels, word),
  };
}

/** Where a proxy that listens everywhere is reached from here. */
function reachable(host: unknown): string {
  if (typeof host !== "string" || host === "" || host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}
