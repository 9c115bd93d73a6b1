// What `-f` names: a file, a folder or standard input, parsed into resources or refused with the whole report.
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { blocking, formatReport, type LoadResult, loadConfig, type Place, type Problem } from "../../control-plane/index.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";

const stdinBytesMax = 1024 * 1024;

export interface Declared {
  readonly resources: readonly Resource[];
  readonly warnings: readonly Problem[];
  /** Where something about a resource stands; undefined when that is in none of the files. */
  locate(resource: string, path: Problem["path"]): Place | undefined;
}

/** Reads all paths. Throws ExitError 65 with every problem of every file, or when a name is declared twice. */
export async function readDeclared(paths: readonly string[]): Promise<Declared> {
  const files = (await Promise.all(paths.map(expand))).flat();
  const resources: Resource[] = [];
  const problems: Problem[] = [];
  const places = new Map<string, string>();
  const locators = new Map<string, LoadResult["locate"]>();
  for (const file of files) {
    const text = await (file === "-" ? readStdin() : read(file));
    const loaded = loadConfig(text, { file: file === "-" ? "<stdin>" : file, partial: true });
    problems.push(...loaded.problems);
    for (const resource of loaded.resources) {
      const other = places.get(resource.name);
      if (other !== undefined && other !== file)
        throw new ExitError(exitCodes.badInput, `${resource.name} is declared in ${other} and in ${file}`);
      places.set(resource.name, file);
      locators.set(resource.name, loaded.locate);
      resources.push(resource);
    }
  }
  if (blocking(problems).length > 0) throw new ExitError(exitCodes.badInput, `the files are not valid\n\n${reportOf(problems)}`);
  if (resources.length === 0) throw new ExitError(exitCodes.badInput, `nothing is declared in ${paths.join(", ")}`);
  return { resources, warnings: problems, locate: (resource, path) => locators.get(resource)?.(resource, path) };
}

/** The report of problems, for standard error; several lines without a newline at the end. */
export function reportOf(problems: readonly Problem[]): string {
  const colour = process.stderr.isTTY && !process.env.NO_COLOR;
  return formatReport(problems, { colour }).trimEnd();
}

async function expand(path: string): Promise<string[]> {
  if (path === "-") return [path];
  const found = await stat(path).catch((error) => Promise.reject(unreadable(path, error)));
  if (!found.isDirectory()) return [path];
  const names = (await readdir(path)).filter((name) => /\.(ya?ml|json)$/.test(name)).sort();
  if (names.length === 0) throw new ExitError(exitCodes.badInput, `${path} holds no .yaml, .yml or .json file`);
  return names.map((name) => join(path, name));
}

async function read(file: string): Promise<Buffer> {
  return readFile(file).catch((error) => Promise.reject(unreadable(file, error)));
}

async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of process.stdin) {
    bytes += chunk.length;
    if (bytes > stdinBytesMax) throw new ExitError(exitCodes.badInput, `standard input is larger than ${stdinBytesMax} bytes`);
    chunks.push(Buffer.from(chunk));
  }
  return Buffer.concat(chunks);
}

function unreadable(path: string, error: NodeJS.ErrnoException): ExitError {
  const why = error.code === "ENOENT" ? "there is no such file" : error.code === "EACCES" ? "permission denied" : error.message;
  return new ExitError(exitCodes.badInput, `can't read ${path}: ${why}`);
}
