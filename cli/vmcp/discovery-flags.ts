// Which discovery providers a command runs: its flags, or what its file needs.
import { type DiscoveryChoice, isProviderName, providerNames } from "../../control-plane/index.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";

export interface DiscoveryFlags {
  /** Names, each alone or several with commas; `none` for no discovery. */
  readonly discovery?: readonly string[];
  /** Path for the provider `file`, which runs first unless it is named. */
  readonly discoveryFile?: string;
}

/** Undefined: nothing was said. Throws ExitError 64. */
export function discoveryChoice({ discovery, discoveryFile }: DiscoveryFlags): DiscoveryChoice | undefined {
  if (discovery === undefined && discoveryFile === undefined) return undefined;
  const names = (discovery ?? []).flatMap((name) => name.split(",")).filter((name) => name !== "" && name !== "none");
  const unknown = names.filter((name) => !isProviderName(name));
  if (unknown.length > 0) {
    const known = [...providerNames, "none"].join(", ");
    throw new ExitError(exitCodes.usage, `there is no discovery provider ${JSON.stringify(unknown[0])}; known: ${known}`);
  }
  if (names.includes("file") && discoveryFile === undefined)
    throw new ExitError(exitCodes.usage, "say where with --discovery-file PATH");
  if (discoveryFile !== undefined && !names.includes("file")) names.unshift("file");
  return { providers: [...new Set(names)].filter(isProviderName), file: discoveryFile };
}

/** ToolHive's own workloads: by its server, and by its files while there is none. */
export const toolhiveChoice: DiscoveryChoice = { providers: ["toolhive", "toolhive-files"] };

/** Groups that virtual servers refer to and that nothing here gives backends: somebody has to find them. */
export function openGroups(resources: readonly Resource[]): string[] {
  const groups = resources.flatMap(({ spec }) =>
    spec.case === "virtualServer" && spec.value.backends.length === 0 ? [spec.value.groupRef] : [],
  );
  const isOpen = (group: string) => !resources.some(({ name }) => name.startsWith(`groups/${group}/backends/`));
  return [...new Set(groups)].filter(isOpen);
}
