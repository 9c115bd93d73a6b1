// Containers that carry labels, as they come and go: a list whenever an event says that one may have changed.
import { setTimeout as sleep } from "node:timers/promises";
import { type Bell, createBell } from "./bell.ts";
import { type Complaint, createComplaints, problemLine } from "./complaints.ts";
import { type DockerApi, type DockerApiOptions, openDocker } from "./docker-api.ts";
import { type Container, isOurs, readContainer, type Surroundings } from "./docker-containers.ts";
import { type Provider, ProviderError, type ProviderOptions, type Sighting, type Workload } from "./provider.ts";

export interface DockerOptions extends ProviderOptions, DockerApiOptions {
  /** Host at which published ports are reached. Default: that of the daemon, 127.0.0.1 when it has a Unix socket. */
  readonly publishedHost?: string;
  /** How often everything is listed without an event, and the stream of events opened anew. Default 60,000. */
  readonly resyncMs?: number;
}

// Events come in bursts: `docker compose up` starts ten containers in a second.
const settleMs = 100;
// An empty list where there were containers is asked for again soon, so that whoever wants it twice has it.
const confirmMs = 2_000;
const quickRoundMs = 1_000;
const quickRoundsMax = 5;

export function createDockerProvider(options: DockerOptions): Provider {
  const { log, nowMs = () => performance.now(), resyncMs = 60_000 } = options;
  const complain = createComplaints(log, "left out of discovery");
  const lastUrls = new Map<string, string>();

  function see(api: DockerApi, { containers, malformed }: Awaited<ReturnType<DockerApi["list"]>>): Sighting {
    const publishedHost = options.publishedHost ?? api.host ?? "127.0.0.1";
    const isLocal = api.host === undefined || /^(localhost|127\..*|\[::1\])$/.test(api.host);
    const around: Surroundings = { publishedHost, isLocal, lastUrl: (id) => lastUrls.get(id) };
    const complaints: Complaint[] = malformed.map((id) => ({
      about: `container ${id}`,
      reason: "it is listed in an unknown shape; wanted a container as the Docker Engine API lists it",
    }));
    const seen: Seen[] = [];
    for (const container of containers) {
      const read = readContainer(container, around);
      if (read === undefined) continue;
      if ("complaint" in read) complaints.push(read.complaint);
      else seen.push({ container, workload: read.workload });
    }
    const ids = new Set(containers.map(({ Id }) => Id));
    for (const id of lastUrls.keys()) if (!ids.has(id)) lastUrls.delete(id);
    for (const { container, workload } of seen) lastUrls.set(container.Id, workload.url);
    const workloads = withoutStrangers(seen, complaints);
    complain(complaints);
    return { workloads, problems: complaints.map(problemLine) };
  }

  async function* watch(signal: AbortSignal): AsyncGenerator<Sighting, void> {
    await using api = openDocker(options);
    let wasEmpty = true;
    for (let quickRounds = 0; ; ) {
      // First the events, then the list: what happens between them is heard of.
      const startedMs = nowMs();
      const bell = createBell();
      await using events = await follow(api, bell, signal);
      for (let isDue = false; !isDue && !events.isOver(); ) {
        const sighting = see(api, await api.list(signal));
        yield sighting;
        const isDoubtful = sighting.workloads.length === 0 && !wasEmpty;
        wasEmpty = sighting.workloads.length === 0;
        const isHeard = await bell.heard(isDoubtful ? confirmMs : startedMs + resyncMs - nowMs(), signal);
        signal.throwIfAborted();
        isDue = !isHeard && (!isDoubtful || nowMs() - startedMs >= resyncMs); // not by the clock alone: timers may be early
        if (isHeard) await sleep(settleMs, undefined, { signal });
      }
      const isQuick = events.isOver() && nowMs() - startedMs < quickRoundMs;
      quickRounds = isQuick ? quickRounds + 1 : 0;
      if (quickRounds > quickRoundsMax)
        throw new ProviderError(`Docker at ${api.address} ends its stream of events at once, again and again`);
      if (isQuick) await sleep(settleMs * 2 ** quickRounds * (0.5 + Math.random() / 2), undefined, { signal });
    }
  }

  return {
    name: "docker",
    async *watch(signal) {
      try {
        yield* watch(signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
  };
}

/** Rings for each event of a container with our labels, and when the stream is over. */
async function follow(api: DockerApi, bell: Bell, signal: AbortSignal) {
  const stop = new AbortController();
  const lines = await api.events(AbortSignal.any([signal, stop.signal]));
  let isOver = false;
  const reading = (async () => {
    try {
      for await (const line of lines) if (mayConcernUs(line)) bell.ring();
    } catch {
      // However it ended, the next list says what was missed, or why nothing can be seen.
    }
    isOver = true;
    bell.ring();
  })();
  return {
    isOver: () => isOver,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await reading;
    },
  };
}

function mayConcernUs(line: string): boolean {
  try {
    const { Actor } = JSON.parse(line) as { Actor?: { Attributes?: Record<string, unknown> } };
    return isOurs(Actor?.Attributes ?? {});
  } catch {
    return line.trim() !== ""; // not to be understood, so nobody knows
  }
}

interface Seen {
  readonly container: Container;
  readonly workload: Workload;
}

/**
 * Containers of one name are instances of one workload, unless they have the name only because two compose projects call a service
 * the same: then those of the project that is there longest stay.
 */
function withoutStrangers(seen: readonly Seen[], complaints: Complaint[]): Workload[] {
  const oldest = [...seen].sort(
    (a, b) => (a.container.Created ?? 0) - (b.container.Created ?? 0) || (a.container.Id < b.container.Id ? -1 : 1),
  );
  const owners = new Map<string, string>();
  const kept: Seen[] = [];
  for (const one of oldest) {
    const labels = one.container.Labels ?? {};
    const key = `${one.workload.group}\0${one.workload.name}`;
    const project = labels["vmcp.name"] ? "" : (labels["com.docker.compose.project"] ?? "");
    const owner = owners.get(key) ?? project;
    owners.set(key, owner);
    if (owner === project) {
      kept.push(one);
      continue;
    }
    const reason = `another project has a workload ${JSON.stringify(one.workload.name)} in group ${JSON.stringify(one.workload.group)}; set vmcp.name`;
    complaints.push({ about: `container ${one.workload.metadata.container}`, reason });
  }
  return kept.map(({ workload }) => workload);
}
