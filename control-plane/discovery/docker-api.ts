// The part of the Docker Engine API that is read, over a Unix socket or TCP: GET and nothing else. Read with undici, since dockerode
// brings 66 packages (19 MB, with ssh2 and native builds) for these three requests.
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { type Container, containerSummary, enablingLabels } from "./docker-containers.ts";
import { type Answer, createHttpReader, type HttpReaderOptions, parseJson } from "./http-reader.ts";
import { ProviderError } from "./provider.ts";

export interface DockerApi extends AsyncDisposable {
  /** Containers with one of the labels, also those that do not run; `malformed` are the ids, or places in the list, of what is none. */
  list(signal: AbortSignal): Promise<{ readonly containers: readonly Container[]; readonly malformed: readonly string[] }>;
  /** Lines of JSON, one per event of any container, from now on. */
  events(signal: AbortSignal): Promise<AsyncIterable<string>>;
  /** Where the daemon is, for messages. */
  readonly address: string;
  /** Its host; undefined when it is reached over a Unix socket. */
  readonly host: string | undefined;
}

export interface DockerApiOptions {
  /** `unix:///path` or `tcp://host:port`. Default: DOCKER_HOST, else `unix:///var/run/docker.sock`. */
  readonly host?: string;
  /** Default: the process's. DOCKER_HOST, DOCKER_CERT_PATH and DOCKER_TLS_VERIFY are read. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly answerMs?: number;
}

// The newest one whose shapes were read; daemons since 20.10 (1.41) answer as well, and those that know only newer ones are met
// at this one: Docker 29 begins at 1.44.
const versionWanted = "1.51";
// Whatever may change address, health or existence. `health_status` also selects "health_status: healthy" and its like.
const actions = ["start", "die", "pause", "unpause", "health_status", "rename", "destroy", "update"];

/** Throws ProviderError when the settings lead nowhere. Nothing is opened before the first request. */
export function openDocker(options: DockerApiOptions = {}): DockerApi {
  const environment = options.environment ?? process.env;
  const address = options.host ?? (environment.DOCKER_HOST || "unix:///var/run/docker.sock");
  const what = `Docker at ${address}`;
  const target = targetOf(address, environment);
  const reader = createHttpReader({ ...target, what, ...(options.answerMs ? { answerMs: options.answerMs } : {}) });
  let prefix: string | undefined;

  async function versioned(path: string, signal: AbortSignal): Promise<string> {
    if (prefix === undefined) {
      const ping = await reader.read({ path: "/_ping", signal });
      if (ping.status !== 200) throw refusalOf(ping, what);
      const offered = /^\d+\.\d+$/.exec(String(ping.headers["api-version"]))?.[0];
      if (!offered) throw new ProviderError(`${what} does not answer as Docker does`);
      prefix = `/v${isOlder(offered, versionWanted) ? offered : versionWanted}`;
    }
    return prefix + path;
  }

  async function listWith(label: string, signal: AbortSignal): Promise<unknown[]> {
    // Several labels in one filter must all be there, so each is asked for on its own.
    const path = await versioned(`/containers/json?all=true&filters=${filtersOf({ label: [label] })}`, signal);
    const answer = await reader.read({ path, signal });
    if (answer.status !== 200) throw refusalOf(answer, what);
    const list = parseJson(answer.text, what);
    if (!Array.isArray(list)) throw new ProviderError(`${what} lists containers as what is no list`);
    return list;
  }

  return {
    address,
    host: target.socketPath === undefined ? new URL(target.origin).hostname : undefined,
    async list(signal) {
      await versioned("", signal);
      const lists = await Promise.all(enablingLabels.map((label) => listWith(label, signal)));
      const byId = new Map<string, Container>();
      const malformed: string[] = [];
      for (const [index, item] of lists.flat().entries()) {
        const container = containerSummary.safeParse(item);
        if (container.success) byId.set(container.data.Id, container.data);
        else malformed.push(idOf(item) ?? `#${index + 1}`);
      }
      return { containers: [...byId.values()], malformed };
    },
    async events(signal) {
      const path = await versioned(`/events?filters=${filtersOf({ type: ["container"], event: actions })}`, signal);
      const lines = await reader.readLines({ path, signal });
      if ("status" in lines) throw refusalOf(lines, what);
      return lines;
    },
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

type Target = Pick<HttpReaderOptions, "origin" | "connect"> & { readonly socketPath?: string };

function targetOf(address: string, environment: Readonly<Record<string, string | undefined>>): Target {
  const socketPath = /^unix:\/\/(\/.+)$/.exec(address)?.[1];
  if (socketPath) return { origin: "http://docker", socketPath, connect: { socketPath } };
  const url = /^(tcp|https?):\/\//.test(address) ? URL.parse(address.replace(/^tcp:/, "http:")) : null;
  if (!url?.hostname || url.username !== "" || url.password !== "" || url.pathname !== "/" || url.search !== "") {
    throw new ProviderError(`${JSON.stringify(address)} is no address of Docker; wanted unix:///path or tcp://host:port`);
  }
  const isTls = address.startsWith("https:") || Boolean(environment.DOCKER_TLS_VERIFY || environment.DOCKER_CERT_PATH);
  const port = url.port || (isTls ? "2376" : "2375");
  if (!isTls) return { origin: `http://${url.hostname}:${port}` };
  // Docker's own client does not check the daemon when only DOCKER_CERT_PATH is set; whoever answers decides where calls go, so here
  // it is always checked.
  const directory = environment.DOCKER_CERT_PATH || join(environment.HOME || homedir(), ".docker");
  const connect = { ca: pem(directory, "ca.pem"), cert: pem(directory, "cert.pem"), key: pem(directory, "key.pem") };
  return { origin: `https://${url.hostname}:${port}`, connect };
}

function pem(directory: string, name: string): string {
  try {
    return readFileSync(join(directory, name), "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ProviderError(`can't read ${join(directory, name)}, needed for TLS with Docker: ${code}`, { cause: error });
  }
}

function refusalOf({ status, text }: Answer, what: string): ProviderError {
  const said = /^\{"message":"([^"]{1,200})"\}\s*$/.exec(text)?.[1];
  if (status === 401 || status === 403) {
    const who = "its proxy or authorization plugin must let _ping, containers/json and events be read";
    return new ProviderError(`${what} refuses this reader (HTTP ${status}); ${who}`);
  }
  return new ProviderError(`${what} answers HTTP ${status}${said ? `: ${said}` : ""}`);
}

function idOf(item: unknown): string | undefined {
  const id = (item as { Id?: unknown } | null)?.Id;
  return typeof id === "string" ? id.slice(0, 12) : undefined;
}

function filtersOf(filters: Readonly<Record<string, readonly string[]>>): string {
  return encodeURIComponent(JSON.stringify(filters));
}

function isOlder(left: string, right: string): boolean {
  const [leftMajor = 0, leftMinor = 0] = left.split(".").map(Number);
  const [rightMajor = 0, rightMinor = 0] = right.split(".").map(Number);
  return leftMajor < rightMajor || (leftMajor === rightMajor && leftMinor < rightMinor);
}
