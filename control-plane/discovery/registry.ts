// Which discovery providers there are.
import type { Log } from "../../common/log.ts";
import type { Started } from "./discovery.ts";
import { createDockerProvider, type DockerOptions } from "./docker.ts";
import { createFileProvider } from "./file.ts";
import { createKubernetesProvider, type KubernetesOptions } from "./kubernetes.ts";
import type { Provider, ProviderOptions } from "./provider.ts";
import { createToolhiveProvider } from "./toolhive.ts";
import { createToolhiveFilesProvider } from "./toolhive-files.ts";

export interface DiscoveryChoice {
  /** In the order of their precedence. */
  readonly providers: readonly ProviderName[];
  /** A file or directory for `file`. */
  readonly file?: string | undefined;
  readonly docker?: Pick<DockerOptions, "host" | "publishedHost"> | undefined;
  readonly kubernetes?: Pick<KubernetesOptions, "namespace" | "kubeconfig" | "context"> | undefined;
}

interface Row {
  readonly create: (options: ProviderOptions, choice: DiscoveryChoice) => Provider;
  /** Sees the same as another one, and counts only while that one sees nothing. */
  readonly standsInFor?: string;
}

const rows = {
  toolhive: { create: createToolhiveProvider },
  "toolhive-files": { create: createToolhiveFilesProvider, standsInFor: "toolhive" },
  docker: { create: (options, { docker }) => createDockerProvider({ ...options, ...docker }) },
  kubernetes: { create: (options, { kubernetes }) => createKubernetesProvider({ ...options, ...kubernetes }) },
  file: { create: (options, { file = "" }) => createFileProvider({ ...options, path: file }) },
} as const satisfies Record<string, Row>;

export type ProviderName = keyof typeof rows;

export const providerNames = Object.keys(rows) as readonly ProviderName[];

export function isProviderName(name: string): name is ProviderName {
  return Object.hasOwn(rows, name);
}

/** In the order of the choice; nothing is started yet. */
export function createProviders(choice: DiscoveryChoice, log: Log): Started[] {
  return choice.providers.map((name) => {
    const { create, standsInFor }: Row = rows[name];
    return { provider: create({ log }, choice), standsInFor };
  });
}
