// The configuration file of `vmcp serve`: read, checked, and read again when it changes.
import { readFileSync, statSync, unwatchFile, watchFile } from "node:fs";
import { blocking, formatReport, hasErrors, loadConfig, problemLine } from "../../control-plane/index.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";

export interface ConfigFile {
  readonly path: string;
  readonly resources: readonly Resource[];
  /** Names of the virtual servers in it. */
  readonly virtualServers: readonly string[];
  /** What has no effect, a line each. */
  readonly warnings: readonly string[];
  /** Why it can't be served; with the whole report. */
  readonly refusal: string | undefined;
}

const pollMs = 250;
const fileBytesMax = 16 * 1024 * 1024; // the loader has a lower bound, and says more

export interface ReadOptions {
  /** Whether it runs: always, or when a group has no backends otherwise. Asked for, it may know what the file does not declare. */
  readonly discovery: "asked" | "as needed" | "off";
}

/** Never throws: what is wrong stands in `refusal`. */
export function readConfigFile(path: string, { discovery }: ReadOptions): ConfigFile {
  const nothing = { path, resources: [], virtualServers: [], warnings: [] };
  let bytes: Buffer;
  try {
    if (statSync(path).size > fileBytesMax) return { ...nothing, refusal: `${path} is larger than ${fileBytesMax} bytes` };
    bytes = readFileSync(path);
  } catch (error) {
    return { ...nothing, refusal: `${path} can't be read: ${(error as NodeJS.ErrnoException).code}` };
  }
  const { resources, problems } = loadConfig(bytes, { file: path, discovery: discovery === "asked" });
  const serious = blocking(problems);
  if (serious.length > 0) {
    const verdict = hasErrors(problems)
      ? `${path} is not valid`
      : `${path} asks for protection that this version does not have, so it is not served`;
    return { ...nothing, refusal: `${verdict}\n\n${formatReport(serious)}` };
  }
  // Who will look for a group says what came of it.
  const shown = discovery === "off" ? problems : problems.filter(({ path: [key] }) => key !== "groupRef");
  const virtualServers = resources.flatMap(({ spec }) => (spec.case === "virtualServer" ? [spec.value.name] : []));
  return { path, resources, virtualServers, warnings: shown.map(problemLine), refusal: undefined };
}

/**
 * Tells of every change of the file's content. Polls: editors and config maps replace files in ways that a watch on one
 * inode does not see.
 */
export function watchConfigFile(path: string, options: ReadOptions, onChange: (file: ConfigFile) => void): Disposable {
  const listener = (): void => onChange(readConfigFile(path, options));
  watchFile(path, { interval: pollMs, bigint: true }, listener);
  return { [Symbol.dispose]: () => unwatchFile(path, listener) };
}
