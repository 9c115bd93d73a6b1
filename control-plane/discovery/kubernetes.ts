// Workloads of a cluster: ToolHive's objects, and Services that carry a label.
import { setTimeout as sleep } from "node:timers/promises";
import { createBell } from "./bell.ts";
import { type Complaint, createComplaints, problemLine } from "./complaints.ts";
import { openKubernetes } from "./kubernetes-api.ts";
import { type CredentialOptions, findAccess } from "./kubernetes-credentials.ts";
import { type Followed, type Follower, followKind } from "./kubernetes-follow.ts";
import { kinds } from "./kubernetes-objects.ts";
import type { Provider, ProviderOptions, Sighting, Workload } from "./provider.ts";

export interface KubernetesOptions extends ProviderOptions, CredentialOptions {
  /** `*` for all. Default: that of the credentials. */
  readonly namespace?: string;
  /** Kinds to look at, by their names in objects. Default: all that are known. */
  readonly kinds?: readonly string[];
  /** When a kind that the cluster does not have is looked for again. Default 60,000. */
  readonly absentMs?: number;
  /** A list, and the head of a watch. Default 10,000. */
  readonly answerMs?: number;
  /** How long one watch lasts. Default 180. */
  readonly watchSeconds?: number;
}

// Changes come in bursts: a rollout writes a status several times in a second.
const settleMs = 100;
// Said again without a change, so that whoever asks how old this is learns that it is true still.
const againMs = 60_000;
const waitMs = 1_000;

export function createKubernetesProvider(options: KubernetesOptions): Provider {
  const { log, nowMs = () => performance.now(), absentMs = 60_000, answerMs, watchSeconds } = options;
  const complain = createComplaints(log, "left out of discovery");
  const wanted = kinds.filter(({ kind }) => options.kinds?.includes(kind) ?? true);

  function see(followers: readonly Follower[]): Sighting {
    const complaints: Complaint[] = [];
    const groups: string[] = [];
    const found: (Followed & { readonly workload: Workload })[] = [];
    for (const one of followers.flatMap((follower) => [...(follower.objects()?.values() ?? [])])) {
      if (one.read === undefined) continue;
      if ("complaint" in one.read) complaints.push(one.read.complaint);
      else if ("group" in one.read) groups.push(one.read.group);
      else found.push({ ...one, workload: one.read.workload });
    }
    const workloads = withoutClashes(found, complaints);
    complain(complaints);
    const knowsGroups = followers.some(({ kind, isThere }) => kind.kind === "MCPGroup" && isThere());
    return { workloads, problems: complaints.map(problemLine), ...(knowsGroups ? { groups: [...new Set(groups)].sort() } : {}) };
  }

  async function* watch(signal: AbortSignal): AsyncGenerator<Sighting, void> {
    const access = findAccess(options);
    const namespace = options.namespace === "*" ? undefined : (options.namespace ?? access.namespace);
    await using api = openKubernetes({
      access,
      namespace,
      ...(answerMs === undefined ? {} : { answerMs }),
      ...(watchSeconds === undefined ? {} : { watchSeconds }),
    });
    const stop = new AbortController();
    const either = AbortSignal.any([signal, stop.signal]);
    const bell = createBell();
    let failure: unknown;
    const followers = wanted.map((kind) => followKind(kind, { api, signal: either, onChange: bell.ring, nowMs, absentMs }));
    for (const { ended } of followers) {
      ended.catch((error: unknown) => {
        failure ??= error;
        bell.ring();
      });
    }
    const check = (): void => {
      signal.throwIfAborted();
      if (failure !== undefined) throw failure;
    };

    try {
      for (let wasEmpty = true; ; ) {
        while (followers.some(({ objects }) => objects() === undefined)) {
          await bell.heard(waitMs, signal);
          check();
        }
        const sighting = see(followers);
        yield sighting;
        const isDoubtful = sighting.workloads.length === 0 && !wasEmpty;
        wasEmpty = sighting.workloads.length === 0;
        // Nothing left of what was there: that is said again only after everything was listed again.
        if (isDoubtful) for (const follower of followers) follower.relist();
        else if (await bell.heard(againMs, signal)) await sleep(settleMs, undefined, { signal });
        check();
      }
    } finally {
      stop.abort();
      await Promise.allSettled(followers.map(({ ended }) => ended));
    }
  }

  return {
    name: "kubernetes",
    async *watch(signal) {
      try {
        yield* watch(signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
  };
}

/** Of several objects that want one name in one group the oldest has it: who comes later can't take calls away from it. */
function withoutClashes(found: readonly (Followed & { readonly workload: Workload })[], complaints: Complaint[]): Workload[] {
  const order = (one: Followed): number => kinds.indexOf(one.kind);
  const oldest = [...found].sort(
    (a, b) =>
      compare(a.created, b.created) ||
      order(a) - order(b) ||
      compare(a.workload.metadata.namespace ?? "", b.workload.metadata.namespace ?? ""),
  );
  const owners = new Map<string, Workload>();
  for (const { kind, workload } of oldest) {
    const key = `${workload.group}\0${workload.name}`;
    if (!owners.has(key)) {
      owners.set(key, workload);
      continue;
    }
    const about = `${kind.kind} ${workload.metadata.namespace}/${workload.name}`;
    complaints.push({ about, reason: `group ${JSON.stringify(workload.group)} has an older workload of that name` });
  }
  return [...owners.values()];
}

function compare(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
