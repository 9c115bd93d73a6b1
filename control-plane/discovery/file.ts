// Groups and backends from files of one's own: documents as `vmcpctl apply` takes them, or the server list of a desktop client.
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { problemLine } from "../compiler/problem-text.ts";
import { readDesktopServers } from "../config/desktop-servers.ts";
import { loadConfig } from "../config/load.ts";
import { createLastGood } from "./last-good.ts";
import { type Provider, ProviderError, type ProviderOptions, type Sighting, type Workload } from "./provider.ts";
import { watchDirectories } from "./watch-directories.ts";

export interface FileOptions extends ProviderOptions {
  /** A file, or a directory of .yaml, .yml and .json files. */
  readonly path: string;
  /** How often to look without being told. Default 2 s. */
  readonly pollMs?: number;
}

const limits = { bytesMax: 4 * 1024 * 1024, filesMax: 1_000 };

/** Of one file. */
interface Content {
  readonly workloads: readonly Workload[];
  readonly groups: readonly string[];
  readonly problems: readonly string[];
  /** Something in it is wrong, so what it lacks may stand there. */
  readonly isFaulty: boolean;
}

export function createFileProvider({ path, pollMs = 2_000 }: FileOptions): Provider {
  const files = createLastGood<Content>({ parse: parseFile, bytesMax: limits.bytesMax });
  /** By path: as it was without faults. */
  let whole = new Map<string, Content>();

  async function look(): Promise<Sighting> {
    const readings = await files.read(await pathsIn(path));
    if (readings.size === 0 && (await stat(path).catch(() => undefined))?.isDirectory() !== true)
      throw new ProviderError(`${path} can't be read: there is no such file`);
    const contents: Content[] = [];
    const problems: string[] = [];
    const next = new Map<string, Content>();
    for (const [file, { value, fault }] of readings) {
      const before = whole.get(file);
      const isFaulty = fault !== undefined || value === undefined || value.isFaulty;
      const used = isFaulty ? (before ?? value) : value;
      if (used && !used.isFaulty) next.set(file, used);
      if (used) contents.push(used);
      if (fault !== undefined) problems.push(`${file}: ${fault}`);
      problems.push(...(value?.problems ?? []));
      if (isFaulty && before) problems.push(`${file} counts as it was before it had faults`);
    }
    whole = next;
    if (contents.length === 0 && problems.length > 0) throw new ProviderError(problems[0]);
    return { workloads: contents.flatMap((one) => one.workloads), groups: contents.flatMap((one) => one.groups), problems };
  }

  return {
    name: "file",
    async *watch(signal) {
      // Files are often replaced by a rename, which a watch on the file itself would not see.
      for await (const _ of watchDirectories({ directories: [path, dirname(path)], pollMs, signal })) yield await look();
    },
  };
}

async function pathsIn(path: string): Promise<string[]> {
  try {
    if (!(await stat(path)).isDirectory()) return [path];
    const names = (await readdir(path)).filter((name) => /\.(ya?ml|json)$/.test(name) && !name.startsWith("."));
    return names
      .sort()
      .slice(0, limits.filesMax)
      .map((name) => join(path, name));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ProviderError(`${path} can't be read: ${code === "ENOENT" ? "there is no such file" : code}`);
  }
}

function parseFile(bytes: Buffer, path: string): Content {
  return desktopList(bytes, path) ?? documents(bytes, path);
}

function documents(bytes: Buffer, path: string): Content {
  const { resources, problems } = loadConfig(bytes, { file: path, partial: true });
  const errors = problems.filter(({ severity }) => severity === "error");
  const lines = errors.map((problem) => `${path}:${problem.place?.line ?? 1}: ${problemLine(problem)}`);
  const groups = resources.flatMap(({ name, spec }) => (spec.case === "group" ? [name.slice("groups/".length)] : []));
  const workloads: Workload[] = [];
  for (const resource of resources) {
    const found = workloadsOf(resource);
    if (typeof found === "string") lines.push(`${path}: ${resource.name} is left out: ${found}`);
    else workloads.push(...found);
  }
  return { workloads, groups, problems: lines, isFaulty: errors.length > 0 };
}

/** One for each place of the backend; or why there is none. */
function workloadsOf({ name, spec }: Resource): Workload[] | string {
  if (spec.case === "group") return [];
  if (spec.case !== "backend") return "only groups and backends are discovered; declare it with vmcpctl apply";
  const { url, endpoints, transport, command, caBundlePath, metadata } = spec.value;
  if (command !== "" || transport === "stdio")
    return "a program is not started because a file appears; declare it with vmcpctl apply";
  if (caBundlePath !== "") return "caBundlePath is only for declared backends";
  const [, group = "", , id = ""] = name.split("/");
  const urls = endpoints.length > 0 ? endpoints.map((endpoint) => endpoint.url) : [url];
  const kind = transport === "sse" ? "sse" : "streamable-http";
  return urls.map((one) => ({ group, name: id, url: one, transport: kind, isRunning: true, metadata }));
}

/** Undefined when it is no such list. Its servers belong to the group that the file is named for. */
function desktopList(bytes: Buffer, path: string): Content | undefined {
  if (extname(path) !== ".json") return undefined;
  const list = readDesktopServers(bytes.toString("utf8"), path);
  const group = basename(path, ".json").toLowerCase();
  if (typeof list === "string") {
    return list.endsWith(" lists no servers") ? { workloads: [], groups: [group], problems: [], isFaulty: false } : undefined;
  }
  // Of what the reader notes, what is missing here: the others are about programs.
  const problems = list.notes
    .filter((note) => note.includes(" got header "))
    .map((note) => `${path}: ${note.split(";")[0]}, which is not copied`);
  const workloads: Workload[] = [];
  for (const { name, entry, isDisabled } of list.servers) {
    const { url, transport } = entry;
    if (!isDisabled && typeof url === "string")
      workloads.push({
        group,
        name,
        url,
        transport: transport === "sse" ? "sse" : "streamable-http",
        isRunning: true,
        metadata: {},
      });
    else
      problems.push(
        `${path}: ${JSON.stringify(name)} is left out: ${isDisabled ? "it can't be used as it is" : "it is no server with a URL"}`,
      );
  }
  return { workloads, groups: [group], problems, isFaulty: false };
}
