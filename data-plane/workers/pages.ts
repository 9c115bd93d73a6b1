// What workers say of themselves, as the pages of one proxy.
import { type ConfigFacts, configStatus, type OwnStatus } from "../ingress/probes.ts";
import { createExposition, type Family, textOf, together } from "../telemetry/exposition.ts";
import type { Member } from "./member.ts";
import { mergeStatus } from "./merge.ts";

export interface PagesOptions {
  /** Those that serve, and where each is by itself. */
  readonly joined: ReadonlyMap<Member, string>;
  /** How many there should be. */
  readonly workers: number;
  readonly restarts: () => number;
  readonly config: () => ConfigFacts | undefined;
}

export interface WholePages {
  /** Rejects when no worker answers; one of several that does not is left out. */
  status(): Promise<object>;
  metrics(): Promise<string>;
  /** It has ended: what it counted still counts. */
  forget(member: Member): void;
}

const answerMs = 1_000;

export function createPages({ joined, workers, restarts, config }: PagesOptions): WholePages {
  const exposed = new Map<Member, readonly Family[]>();
  let departed: readonly Family[] = []; // counters of those that ended, so that sums never fall

  function ownMetrics(): readonly Family[] {
    const exposition = createExposition();
    exposition.gauge("process_resident_memory_bytes", "Resident memory.", process.memoryUsage.rss());
    const { user, system } = process.cpuUsage();
    exposition.counter("process_cpu_seconds_total", "User and system time.", (user + system) / 1e6);
    exposition.gauge("vmcp_workers", "Processes that serve.", joined.size);
    exposition.counter("vmcp_worker_restarts_total", "Workers that took the place of one that ended.", restarts());
    return exposition.families();
  }

  return {
    async status() {
      const answers = await Promise.all(
        [...joined].map(async ([member, own]) => {
          const status = await member.askWithin(answerMs, "status").catch(() => undefined);
          return status && { status, row: rowOf(member, own, status) };
        }),
      );
      const told = answers.filter((one) => one !== undefined);
      if (told.length === 0) throw new Error("no worker says how it is");
      const all = told.map(({ status }) => status);
      const running = told.map(({ row }) => row).sort((a, b) => a.worker - b.worker);
      return {
        ...mergeStatus(all, process.memoryUsage.rss()),
        config: configStatus(config()),
        workers: { wanted: workers, restarts: restarts(), running },
      };
    },
    async metrics() {
      await Promise.all(
        [...joined.keys()].map(async (member) => {
          const families = await member.askWithin(answerMs, "metrics").catch(() => undefined);
          if (families && joined.has(member)) exposed.set(member, families);
        }),
      );
      return textOf(together([...exposed.values(), departed, ownMetrics()]));
    },
    forget(member) {
      const counters = (exposed.get(member) ?? []).filter(({ type }) => type !== "gauge");
      departed = together([departed, counters]);
      exposed.delete(member);
    },
  };
}

/** One worker, for operators. */
function rowOf({ worker, pid, sinceMs }: Member, address: string, { memory, limits }: OwnStatus) {
  const used = (limit: string) => limits.find(({ name }) => name === limit)?.used ?? 0;
  const inHand = { connections: used("connections"), sessions: used("sessions"), in_flight: used("in_flight") };
  return { worker, pid, since: new Date(sinceMs).toISOString(), address, resident_bytes: memory.resident_bytes, ...inHand };
}
