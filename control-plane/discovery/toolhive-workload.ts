// What ToolHive's words for workloads mean, wherever they were read.
import type { Workload } from "./provider.ts";

// Every other word means that calls may work, or are worth a try.
const stoppedStatuses: ReadonlySet<string> = new Set(["stopped", "stopping", "error", "removing", "policy_stopped"]);

export function isRunningStatus(status: string): boolean {
  return !stoppedStatuses.has(status);
}

/** Labels, with the status as the original has it. */
export function workloadMetadata(labels: unknown, status: unknown): Record<string, string> {
  const texts = typeof labels === "object" && labels !== null ? Object.entries(labels) : [];
  const metadata = Object.fromEntries(texts.filter((entry): entry is [string, string] => typeof entry[1] === "string"));
  return typeof status === "string" && status !== "" ? { ...metadata, workload_status: status } : metadata;
}

/** An address that was given to another workload is not that of the one that stopped: its tools would be somebody else's. */
export function withoutTakenAddresses(workloads: readonly Workload[], problems: string[]): Workload[] {
  const running = new Map(workloads.filter(({ isRunning }) => isRunning).map(({ url, name }) => [url, name]));
  return workloads.filter(({ name, url, isRunning }) => {
    const other = isRunning ? undefined : running.get(url);
    if (other !== undefined)
      problems.push(`workload ${JSON.stringify(name)} is left out: it is stopped, and ${JSON.stringify(other)} has its address`);
    return other === undefined;
  });
}
