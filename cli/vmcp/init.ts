// vmcp init: a commented starter file, empty or from the servers that a desktop MCP client knows.
import { randomBytes } from "node:crypto";
import { link, open, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { openLog } from "../../common/log.ts";
import { type DesktopServer, lookOnce, readDesktopServers } from "../../control-plane/index.ts";
import { exitCodes } from "../exit-codes.ts";
import { toolhiveChoice } from "./discovery-flags.ts";
import { starterText } from "./starter.ts";
import type { CommandIo } from "./validate.ts";

export interface InitOptions {
  /** Default: `my-team`. One that is named without `from` is looked up in ToolHive. */
  readonly group?: string;
  /** Path of a JSON file with `mcpServers`. */
  readonly from?: string;
  /** Default: standard output. */
  readonly output?: string;
  readonly force?: boolean;
}

/** Exit code: 0; 64 a group name that can't be; 65 unusable `from`; 73 the output file exists or can't be written. */
export async function init({ group: named, from, output, force = false }: InitOptions, io: CommandIo): Promise<number> {
  const group = named ?? "my-team";
  if (!/^(?=.{1,63}$)[a-z0-9_-]+(?: [a-z0-9_-]+)*$/.test(group)) {
    io.stderr.write(`vmcp init: ${JSON.stringify(group)} is not a group name; use lowercase letters, digits, '_' and '-'\n`);
    return exitCodes.usage;
  }
  const source = from === undefined ? undefined : await read(from);
  if (typeof source === "string") {
    io.stderr.write(`vmcp init: ${source}\n`);
    return exitCodes.badInput;
  }
  const found = named !== undefined && from === undefined ? await lookFor(named) : undefined;
  const text = starterText(group, { servers: source?.servers, found: found?.servers });
  if (output === undefined) io.stdout.write(text);
  else {
    const refusal = await writeWhole(output, text, force);
    if (refusal !== undefined) {
      io.stderr.write(`vmcp init: ${refusal}\n`);
      return exitCodes.conflict;
    }
  }
  for (const note of [...(source?.notes ?? []), ...(found?.notes ?? [])]) io.stderr.write(`note: ${note}\n`);
  if (output !== undefined) io.stderr.write(`wrote ${output}; check it with: vmcp validate --config ${output}\n`);
  return exitCodes.ok;
}

/** The workloads of a group that ToolHive knows right now, as entries of the file. */
async function lookFor(group: string): Promise<{ servers: DesktopServer[]; notes: readonly string[] }> {
  const { resources, providers, failures } = await lookOnce(toolhiveChoice, openLog("vmcp", "silent"));
  const servers = resources.flatMap(({ name, spec }): DesktopServer[] => {
    if (spec.case !== "backend" || !name.startsWith(`groups/${group}/backends/`)) return [];
    const { name: id, url, endpoints, transport } = spec.value;
    const place = endpoints.length > 0 ? { endpoints: endpoints.map((one) => ({ url: one.url })) } : { url };
    return [{ name: id, entry: { name: id, ...place, transport }, comments: [], isDisabled: true }];
  });
  if (providers.length === 0) return { servers, notes: failures };
  const isGroup = resources.some(({ name }) => name === `groups/${group}`);
  const what = isGroup ? `group "${group}" has ${servers.length} workloads` : `there is no group "${group}" yet`;
  return { servers, notes: [`${what}, says ${providers.join(" and ")}`] };
}

async function read(path: string): Promise<ReturnType<typeof readDesktopServers>> {
  try {
    return readDesktopServers(await readFile(path, "utf8"), path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return `${path} can't be read: ${code === "ENOENT" ? "there is no such file" : (code ?? "unknown error")}`;
  }
}

/** All of it or nothing, for its owner only: it may come to hold what is nobody else's business. Returns why not. */
async function writeWhole(path: string, text: string, force: boolean): Promise<string | undefined> {
  const draft = join(dirname(path), `.vmcp-init-${randomBytes(6).toString("hex")}`);
  try {
    const file = await open(draft, "wx", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    // A link refuses to replace a file, so nothing is lost that appeared since; a rename replaces it.
    if (force) await rename(draft, path);
    else await link(draft, path);
    return undefined;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return code === "EEXIST" ? `${path} exists; --force overwrites it` : `${path} can't be written: ${code ?? "unknown error"}`;
  } finally {
    await rm(draft, { force: true });
  }
}
