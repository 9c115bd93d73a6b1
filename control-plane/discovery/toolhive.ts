// ToolHive's REST API (`thv serve`): asked again and again, because it tells nobody of changes.
import { timingSafeEqual } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "undici";
import { type Provider, ProviderError, type ProviderOptions, type Sighting, type Workload } from "./provider.ts";
import { toolhivePaths } from "./toolhive-paths.ts";
import { isAlive, readServerFile, type ToolhiveServer } from "./toolhive-server.ts";
import { isRunningStatus, withoutTakenAddresses, workloadMetadata } from "./toolhive-workload.ts";

export interface ToolhiveOptions extends ProviderOptions {
  /** Default: where ToolHive puts it for this user. */
  readonly serverFile?: string;
  /** Default 2 s. */
  readonly pollMs?: number;
  /** For one answer. Default 5 s. */
  readonly answerMs?: number;
}

const bytesMax = 8 * 1024 * 1024; // 5,000 workloads take 2 MB
const connectMs = 2_000;

export function createToolhiveProvider(options: ToolhiveOptions): Provider {
  const { serverFile = toolhivePaths().serverFile, pollMs = 2_000, answerMs = 5_000 } = options;
  // Where a workload was: one that is stopped may have no address, and has it again when it starts.
  const urls = new Map<string, string>();
  return {
    name: "toolhive",
    async *watch(signal) {
      const server = await readServerFile(serverFile);
      const api = openApi(server, answerMs, signal);
      try {
        while (!signal.aborted) {
          await api.checkHealth();
          const [groups, workloads] = [await api.get("/api/v1beta/groups"), await api.get("/api/v1beta/workloads?all=true")];
          yield toSighting(groups, workloads, urls);
          // Not all at once when several control planes ask.
          await sleep(pollMs * (0.9 + Math.random() * 0.2), undefined, { signal });
        }
      } catch (error) {
        if (!signal.aborted) throw error;
      } finally {
        await api.close();
      }
    },
  };
}

interface Api {
  /** Throws ProviderError unless the server of the file answers, and its container runtime is up. */
  checkHealth(): Promise<void>;
  /** Parsed JSON; throws ProviderError. */
  get(path: string): Promise<unknown>;
  close(): Promise<void>;
}

function openApi({ origin, socketPath, nonce, pid }: ToolhiveServer, answerMs: number, signal: AbortSignal): Api {
  const client = new Client(origin, {
    ...(socketPath !== undefined && { socketPath }),
    connect: { timeout: connectMs },
    headersTimeout: answerMs,
    bodyTimeout: answerMs,
    maxHeaderSize: 16 * 1024,
  });

  async function ask(path: string): Promise<{ status: number; nonce: string; text: string }> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(answerMs)]);
    try {
      const answer = await client.request({ method: "GET", path, signal: deadline, headers: { accept: "application/json" } });
      const chunks: Buffer[] = [];
      let bytes = 0;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        bytes += chunk.byteLength;
        if (bytes > bytesMax) throw new ProviderError(`the ToolHive server answered ${path} with more than ${bytesMax} bytes`);
        chunks.push(chunk);
      }
      const shown = answer.headers["x-toolhive-nonce"];
      return { status: answer.statusCode, nonce: String(shown ?? ""), text: Buffer.concat(chunks).toString("utf8") };
    } catch (error) {
      if (signal.aborted || error instanceof ProviderError) throw error;
      throw noAnswer(error, pid);
    }
  }

  return {
    async checkHealth() {
      const { status, nonce: shown } = await ask("/health");
      if (!isSame(shown, nonce)) throw new ProviderError("what answers there is not the ToolHive server that left its address");
      if (status === 503) throw new ProviderError("the container runtime of the ToolHive server is down");
      if (status !== 204) throw new ProviderError(`the ToolHive server answers ${status} when asked for its health`);
    },
    async get(path) {
      const { status, text } = await ask(path);
      if (status === 401 || status === 403)
        throw new ProviderError(`the ToolHive server wants a sign-in (${status}); start thv serve without its --oidc flags`);
      if (status !== 200) throw new ProviderError(`the ToolHive server answered ${path} with ${status}`);
      try {
        return JSON.parse(text);
      } catch {
        throw new ProviderError(`the ToolHive server answered ${path} with something that is no JSON`);
      }
    },
    close: () => client.destroy(),
  };
}

function isSame(shown: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(shown), Buffer.from(wanted)];
  return a.byteLength === b.byteLength && timingSafeEqual(a, b);
}

function noAnswer(error: unknown, pid: number | undefined): ProviderError {
  const { code, name } = error as { code?: string; name?: string };
  const why = name === "TimeoutError" || code?.endsWith("_TIMEOUT") ? "in time" : `(${code ?? name})`;
  const process = pid === undefined ? "" : isAlive(pid) ? ", though its process lives" : ", and its process is gone";
  return new ProviderError(`the ToolHive server does not answer ${why}${process}`);
}

/** Throws ProviderError when it is not what the API answers. */
function toSighting(groups: unknown, workloads: unknown, urls: Map<string, string>): Sighting {
  const problems: string[] = [];
  const names = listIn(groups, "groups").flatMap((group) => {
    const { name } = (group ?? {}) as { name?: unknown };
    return typeof name === "string" ? [name] : [];
  });
  const found: Workload[] = [];
  for (const entry of listIn(workloads, "workloads")) {
    const workload = toWorkload(entry, urls);
    if (typeof workload === "string") problems.push(workload);
    else found.push(workload);
  }
  const known = new Set(found.map(({ name }) => name));
  for (const name of urls.keys()) if (!known.has(name)) urls.delete(name);
  return { workloads: withoutTakenAddresses(found, problems), groups: names, problems };
}

/** A list may be null when it is empty; that there is none means that it is not this API. */
function listIn(answer: unknown, key: string): readonly unknown[] {
  const list = typeof answer === "object" && answer !== null ? (answer as Record<string, unknown>)[key] : undefined;
  if (list === null) return [];
  if (!Array.isArray(list)) throw new ProviderError(`the ToolHive server answered something without a list of ${key}`);
  return list;
}

/** Or why it is none. */
function toWorkload(entry: unknown, urls: Map<string, string>): Workload | string {
  if (typeof entry !== "object" || entry === null) return "a workload is left out: it is no map";
  const { name, group, url, proxy_mode, transport_type, status, labels } = entry as Record<string, unknown>;
  if (typeof name !== "string") return "a workload without a name is left out";
  const address = typeof url === "string" && url !== "" ? url.replace(/#.*$/, "") : urls.get(name);
  if (address === undefined) return `workload ${JSON.stringify(name.slice(0, 100))} is left out: it has no address yet`;
  urls.set(name, address);
  return {
    name,
    group: (group || "default") as string, // looked at by whoever takes it
    url: address,
    transport: (proxy_mode || transport_type) as Workload["transport"],
    isRunning: isRunningStatus(String(status)),
    metadata: workloadMetadata(labels, status),
  };
}
