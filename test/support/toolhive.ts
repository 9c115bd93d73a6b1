// A ToolHive that a test scripts: its REST API over TCP or a socket with the file that says where, and the files it keeps.
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmod, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** As the API lists it; what is not given is as ToolHive has it for a running server over streamable HTTP. */
export interface FakeWorkload {
  readonly name: string;
  readonly group?: string;
  readonly url?: string;
  readonly transport_type?: string;
  readonly proxy_mode?: string;
  readonly status?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

/** How the API misbehaves. */
export type Fault =
  | "none"
  /** Connections are refused. */
  | "down"
  /** It takes the request and never answers. */
  | "hung"
  /** It answers after 400 ms. */
  | "slow"
  /** The body is no JSON. */
  | "malformed"
  /** The body is JSON of another kind. */
  | "nonsense"
  /** The connection breaks in the middle of the body. */
  | "cut"
  /** The body has no end. */
  | "endless"
  | "unauthorized"
  /** The container runtime is down. */
  | "unhealthy"
  /** Another server answers there. */
  | "wrong-nonce"
  /** Empty lists are null. */
  | "null-lists";

export interface FakeToolhive extends AsyncDisposable {
  /** Where `server.json` is. */
  readonly serverFile: string;
  /** For a program that should find it. */
  readonly env: Readonly<Record<string, string>>;
  readonly groups: Set<string>;
  /** Exactly these; anything may stand among them, to be malformed. */
  set(workloads: readonly unknown[]): void;
  behave(fault: Fault): Promise<void>;
  /** Requests so far. */
  readonly requests: number;
  /** Writes `server.json`; a test may want another content or mode. */
  announce(content?: Readonly<Record<string, unknown>>, mode?: number): Promise<void>;
}

export interface FakeToolhiveOptions {
  /** Stands for the user's home; its owner removes it. */
  readonly directory: string;
  /** Listen on a socket. */
  readonly isSocket?: boolean;
  /** Default true: `server.json` is there at once. */
  readonly isAnnounced?: boolean;
}

/** Where a program started with these variables looks for ToolHive's files. */
export function toolhiveEnv(directory: string): Record<string, string> {
  return { XDG_STATE_HOME: join(directory, "state"), XDG_DATA_HOME: join(directory, "share") };
}

export async function startToolhive(options: FakeToolhiveOptions): Promise<FakeToolhive> {
  const { directory, isSocket = false, isAnnounced = true } = options;
  const nonce = randomBytes(16).toString("hex");
  const groups = new Set<string>();
  let workloads: readonly unknown[] = [];
  let fault: Fault = "none";
  let requests = 0;
  let server: Server | undefined;
  let place: string | number = isSocket ? join(directory, "thv.sock") : 0;
  const folder = join(toolhiveEnv(directory).XDG_STATE_HOME as string, "toolhive", "server");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const serverFile = join(folder, "server.json");

  async function answer(path: string, response: ServerResponse): Promise<void> {
    requests += 1;
    if (fault === "hung") return;
    if (fault === "slow") await sleep(400);
    response.setHeader("X-Toolhive-Nonce", fault === "wrong-nonce" ? "0".repeat(32) : nonce);
    if (path === "/health") return void response.writeHead(fault === "unhealthy" ? 503 : 204).end();
    if (fault === "unauthorized") return void response.writeHead(401).end("Unauthorized");
    response.setHeader("content-type", "application/json");
    if (fault === "malformed") return void response.end('{"workloads":[{"name":');
    if (fault === "cut") return void response.write('{"workloads":[{"name":', () => response.destroy());
    if (fault === "nonsense") return void response.end('"hello"');
    if (fault === "endless") return endless(response);
    const url = new URL(path, "http://fake");
    if (url.pathname === "/api/v1beta/version") response.end('{"version":"v0.30.0"}');
    else if (url.pathname === "/api/v1beta/groups")
      response.end(JSON.stringify({ groups: orNull([...groups].map((name) => ({ name, registered_clients: [] }))) }));
    else if (url.pathname === "/api/v1beta/workloads") {
      const group = url.searchParams.get("group");
      if (group !== null && !groups.has(group)) return void response.writeHead(404).end();
      const isWanted = (one: unknown) => group === null || ((one as { group?: string } | null)?.group ?? "default") === group;
      const isShown = (one: unknown) =>
        url.searchParams.get("all") === "true" ||
        ["running", "auth_retrying"].includes((one as FakeWorkload)?.status ?? "running");
      response.end(JSON.stringify({ workloads: orNull(workloads.filter((one) => isWanted(one) && isShown(one)).map(asListed)) }));
    } else response.writeHead(404).end();
  }

  function orNull(list: readonly unknown[]): readonly unknown[] | null {
    return list.length === 0 && fault === "null-lists" ? null : list;
  }

  async function listen(): Promise<void> {
    if (server) return;
    if (typeof place === "string") await rm(place, { force: true });
    server = createServer((request, response) => void answer(request.url ?? "", response));
    if (typeof place === "string") server.listen(place);
    else server.listen(place, "127.0.0.1");
    await once(server, "listening");
    if (typeof place === "number") place = (server.address() as AddressInfo).port;
  }

  async function close(): Promise<void> {
    server?.closeAllConnections();
    await new Promise<void>((resolve) => (server ? server.close(() => resolve()) : resolve()));
    server = undefined;
  }

  async function announce(content: Readonly<Record<string, unknown>> = {}, mode = 0o600): Promise<void> {
    const url = typeof place === "string" ? `unix://${place}` : `http://127.0.0.1:${place}`;
    const whole = { url, pid: process.pid, nonce, started_at: new Date().toISOString(), ...content };
    await writeFile(serverFile, JSON.stringify(whole), { mode });
    await chmod(serverFile, mode);
  }

  await listen();
  if (isAnnounced) await announce();
  return {
    serverFile,
    env: toolhiveEnv(directory),
    groups,
    set(next) {
      workloads = next;
      for (const one of next) {
        const group = (one as FakeWorkload | null)?.group;
        if (typeof group === "string") groups.add(group);
      }
    },
    async behave(next) {
      fault = next;
      if (next === "down") await close();
      else await listen();
    },
    get requests() {
      return requests;
    },
    announce,
    [Symbol.asyncDispose]: close,
  };
}

function asListed(one: unknown): unknown {
  if (typeof one !== "object" || one === null) return one;
  const usual = {
    package: "image",
    port: 1,
    transport_type: "streamable-http",
    proxy_mode: "streamable-http",
    status: "running",
  };
  return { ...usual, created_at: "2026-03-23T10:00:00Z", ...one };
}

function endless(response: ServerResponse): void {
  const chunk = Buffer.alloc(64 * 1024, " ");
  const more = (): void => {
    while (!response.destroyed && response.write(chunk));
  };
  response.on("drain", more);
  more();
}

/** The files of ToolHive, written as it writes them. */
export interface FakeToolhiveFiles {
  readonly paths: {
    readonly serverFile: string;
    readonly groups: string;
    readonly runConfigs: string;
    readonly statuses: string;
  };
  readonly env: Readonly<Record<string, string>>;
  group(name: string): Promise<void>;
  /** A run config and its status; `status` undefined writes none. */
  workload(name: string, config: Readonly<Record<string, unknown>>, status?: Readonly<Record<string, unknown>>): Promise<void>;
  remove(name: string): Promise<void>;
  /** Writes something in the middle of being written, or that. */
  tear(name: string, text?: string): Promise<void>;
}

export async function toolhiveFiles(directory: string): Promise<FakeToolhiveFiles> {
  const env = toolhiveEnv(directory);
  const state = join(env.XDG_STATE_HOME as string, "toolhive");
  const paths = {
    serverFile: join(state, "server", "server.json"),
    groups: join(state, "groups"),
    runConfigs: join(state, "runconfigs"),
    statuses: join(env.XDG_DATA_HOME as string, "toolhive", "statuses"),
  };
  for (const path of [paths.groups, paths.runConfigs, paths.statuses]) await mkdir(path, { recursive: true, mode: 0o700 });
  const publish = async (folder: string, name: string, value: unknown) => {
    const draft = join(folder, `.${name}.json.tmp-${randomBytes(4).toString("hex")}`);
    await writeFile(draft, JSON.stringify(value));
    await rename(draft, join(folder, `${name}.json`));
  };
  return {
    paths,
    env,
    group: (name) => publish(paths.groups, name, { name, registered_clients: [] }),
    async workload(name, config, status) {
      if (status) await publish(paths.statuses, name, status);
      const usual = { schema_version: "v0.1.0", name, host: "127.0.0.1", transport: "streamable-http" };
      await publish(paths.runConfigs, name, { ...usual, ...config });
    },
    async remove(name) {
      for (const folder of [paths.runConfigs, paths.statuses]) await rm(join(folder, `${name}.json`), { force: true });
    },
    tear: (name, text = '{"name": "torn", "gro') => writeFile(join(paths.runConfigs, `${name}.json`), text),
  };
}
