// vmcp validate: everything that is wrong with a configuration file, or a summary of what it declares.
import { readFile, stat } from "node:fs/promises";
import { formatReport, hasErrors, loadConfig, type Problem, problemToJson } from "../../control-plane/index.ts";
import type { OutgoingAuth } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { exitCodes } from "../exit-codes.ts";

export interface ValidateOptions {
  readonly config: string;
  readonly output?: "text" | "json";
}

/** The streams of a command; a test gives its own. */
export interface CommandIo {
  readonly stdout: Stream;
  readonly stderr: Stream;
}

interface Stream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
}

const bytesMax = 16 * 1024 * 1024; // more is not even read; what is too much to parse is for loadConfig to say

/** Exit code: 0 valid, warnings or not; 65 invalid or unreadable. */
export async function validate({ config, output = "text" }: ValidateOptions, io: CommandIo): Promise<number> {
  const bytes = await readBytes(config);
  const { resources, problems } =
    typeof bytes === "string" ? { resources: [], problems: [unreadable(bytes)] } : loadConfig(bytes, { file: config });
  const isValid = !hasErrors(problems);
  if (output === "json") {
    const summary = isValid ? { virtualServers: virtualServers(resources) } : undefined;
    io.stdout.write(`${JSON.stringify({ valid: isValid, problems: problems.map(problemToJson), summary }, undefined, 2)}\n`);
  } else {
    io.stderr.write(formatReport(problems, { colour: isColourful(io.stderr) }));
    if (isValid) io.stdout.write(summaryText(config, resources));
  }
  return isValid ? exitCodes.ok : exitCodes.badInput;
}

/** Whether a stream wants colours (https://no-color.org). */
export function isColourful(stream: Stream): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== "dumb";
}

async function readBytes(path: string): Promise<Buffer | string> {
  try {
    const { size } = await stat(path);
    return size > bytesMax ? `${path} has ${size} bytes; that is no configuration file` : await readFile(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "unknown error";
    const reasons: Record<string, string> = {
      ENOENT: "there is no such file",
      EACCES: "it may not be read by this user",
      EISDIR: "it is a directory",
      ENOTDIR: "a part of the path is no directory",
    };
    return `${path} can't be read: ${reasons[code] ?? code}`;
  }
}

function unreadable(message: string): Problem {
  return { severity: "error", message, path: [] };
}

interface Summary {
  readonly name: string;
  readonly group: string;
  /** Names of its own backends and those that the file declares for its group; empty when only discovery knows them. */
  readonly backends: readonly string[];
  readonly incomingAuth: string;
  readonly outgoingAuth: string;
  readonly conflictResolution: string;
  readonly compositeTools: number;
}

function virtualServers(resources: readonly Resource[]): Summary[] {
  return resources.flatMap(({ spec }) => {
    if (spec.case !== "virtualServer") return [];
    const server = spec.value;
    const own = server.backends.map(({ name }) => name);
    const prefix = `groups/${server.groupRef}/backends/`;
    const members = resources.flatMap(({ name }) => (name.startsWith(prefix) ? [name.slice(prefix.length)] : []));
    const policy = resources.find(({ name }) => name === `authPolicies/${server.authPolicyRef}`)?.spec;
    const { incomingAuth, outgoingAuth } = policy?.case === "authPolicy" ? policy.value : server;
    return [
      {
        name: server.name,
        group: server.groupRef,
        backends: own.length > 0 ? own : members,
        incomingAuth: incomingAuth?.type ?? "",
        outgoingAuth: outgoingText(outgoingAuth),
        conflictResolution: server.aggregation?.conflictResolution ?? "",
        compositeTools: server.compositeTools.length,
      },
    ];
  });
}

function outgoingText(auth: Pick<OutgoingAuth, "source" | "default" | "backends"> | undefined): string {
  const source = auth?.source || "inline";
  const own = Object.keys(auth?.backends ?? {}).length;
  return `${source}, default ${auth?.default?.type || "unauthenticated"}${own === 0 ? "" : `, ${own} of their own`}`;
}

function summaryText(file: string, resources: readonly Resource[]): string {
  const servers = virtualServers(resources);
  const counts = (["group", "backend", "authPolicy"] as const).flatMap((kind) => {
    const count = resources.filter(({ spec }) => spec.case === kind).length;
    return count === 0
      ? []
      : [`${count} of kind ${kind === "authPolicy" ? "AuthPolicy" : kind === "group" ? "Group" : "Backend"}`];
  });
  const lines = servers.map((server) =>
    [
      ["name", server.name],
      ["group", server.group || "none"],
      [
        "backends",
        server.backends.length === 0
          ? "those that discovery finds in the group"
          : `${server.backends.length}: ${server.backends.join(", ")}`,
      ],
      ["incoming auth", server.incomingAuth],
      ["outgoing auth", server.outgoingAuth],
      ["conflict resolution", server.conflictResolution],
      ["composite tools", String(server.compositeTools)],
    ]
      .map(([label = "", value = ""]) => `  ${label.padEnd(20)}${value}\n`)
      .join(""),
  );
  return `✓ ${file} is valid\n${lines.join("\n")}${counts.length === 0 ? "" : `  also declared       ${counts.join(", ")}\n`}`;
}
