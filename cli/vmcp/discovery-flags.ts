// Which discovery providers a command runs: its flags, or what its file needs.
import { type DiscoveryChoice, isProviderName, providerNames } from "../../control-plane/index.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";

export interface DiscoveryFlags {
  /** Names, each alone or several with commas; `none` for no discovery. */
  readonly discovery?: readonly string[];
  /** Path for the provider `file`, which runs first unless it is named. */
  readonly discoveryFile?: string;
  readonly dockerHost?: string;
  readonly dockerPublishedHost?: string;
  readonly kubeconfig?: string;
  readonly kubernetesContext?: string;
  readonly kubernetesNamespace?: string;
}

/** Flags that mean something to one provider only. */
const flagsOf = {
  docker: { dockerHost: "--docker-host", dockerPublishedHost: "--docker-published-host" },
  kubernetes: {
    kubeconfig: "--kubeconfig",
    kubernetesContext: "--kubernetes-context",
    kubernetesNamespace: "--kubernetes-namespace",
  },
} as const satisfies Record<string, Partial<Record<keyof DiscoveryFlags, string>>>;

/** Undefined: nothing was said. Throws ExitError 64. */
export function discoveryChoice(flags: DiscoveryFlags): DiscoveryChoice | undefined {
  const { discovery, discoveryFile } = flags;
  for (const [provider, own] of Object.entries(flagsOf)) refuseUnused(provider, own, flags);
  if (discovery === undefined && discoveryFile === undefined) return undefined;
  const names = namesOf(flags);
  const unknown = names.filter((name) => !isProviderName(name));
  if (unknown.length > 0) {
    const known = [...providerNames, "none"].join(", ");
    throw new ExitError(exitCodes.usage, `there is no discovery provider ${JSON.stringify(unknown[0])}; known: ${known}`);
  }
  if (names.includes("file") && discoveryFile === undefined)
    throw new ExitError(exitCodes.usage, "say where with --discovery-file PATH");
  if (discoveryFile !== undefined && !names.includes("file")) names.unshift("file");
  const { dockerHost: host, dockerPublishedHost: publishedHost } = flags;
  const { kubeconfig, kubernetesContext: context, kubernetesNamespace: namespace } = flags;
  return {
    providers: [...new Set(names)].filter(isProviderName),
    file: discoveryFile,
    docker: { ...(host === undefined ? {} : { host }), ...(publishedHost === undefined ? {} : { publishedHost }) },
    kubernetes: {
      ...(kubeconfig === undefined ? {} : { kubeconfig }),
      ...(context === undefined ? {} : { context }),
      ...(namespace === undefined ? {} : { namespace }),
    },
  };
}

function namesOf({ discovery }: DiscoveryFlags): string[] {
  return (discovery ?? []).flatMap((name) => name.split(",")).filter((name) => name !== "" && name !== "none");
}

/** A flag that nobody reads would leave its giver in the belief that it is obeyed. */
function refuseUnused(provider: string, own: Readonly<Record<string, string>>, flags: DiscoveryFlags): void {
  const given = Object.keys(own).find((key) => flags[key as keyof DiscoveryFlags] !== undefined);
  if (given !== undefined && !namesOf(flags).includes(provider))
    throw new ExitError(exitCodes.usage, `${own[given]} is for --discovery ${provider}, which is not among the providers`);
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
