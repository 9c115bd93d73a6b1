// The part of a Docker daemon that discovery reads, in the shapes of the Docker Engine API v1.43 to v1.51: `/_ping`, lists of containers
// with their filters, and the stream of events. Everything else is refused, above all whatever changes something.
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { TlsOptions } from "node:tls";
import { type ApiServer, type Reply, type Stream, startApiServer } from "./api-server.ts";
import { temporaryDirectory } from "./processes.ts";

/** ContainerSummary, as `GET /containers/json` gives it. */
export interface FakeContainer {
  readonly Id: string;
  Names: string[];
  Image: string;
  ImageID: string;
  Command: string;
  Created: number;
  Ports: { IP?: string; PrivatePort: number; PublicPort?: number; Type: string }[];
  Labels: Record<string, string>;
  State: string;
  Status: string;
  HostConfig: { NetworkMode: string };
  NetworkSettings: { Networks: Record<string, FakeNetwork> };
  Mounts: unknown[];
}

interface FakeNetwork {
  IPAddress: string;
  GlobalIPv6Address: string;
  readonly [other: string]: unknown;
}

export interface FakeDocker extends ApiServer {
  readonly containers: FakeContainer[];
  /** Stands in the lists as it is, whatever it is. */
  readonly oddities: unknown[];
  /** Adds it and says that it started. */
  start(container: FakeContainer): FakeContainer;
  /** Says something about it on every stream of events. */
  say(action: string, container: FakeContainer): void;
  stop(container: FakeContainer): void;
  destroy(container: FakeContainer): void;
  eventStreams(): Stream[];
}

export interface FakeDockerOptions {
  /** Listens on TCP with it instead of on a Unix socket; null is TCP without TLS. */
  readonly tls?: TlsOptions | null;
  /** Newest API version. Default 1.43. */
  readonly version?: string;
  /** Oldest API version. Default 1.24. */
  readonly oldest?: string;
}

let count = 0;

/** A running one on the bridge network; `port` is exposed, not published. */
export function fakeContainer(
  name: string,
  labels: Record<string, string>,
  { port = 8080, publishedAs, ...changes }: Partial<FakeContainer> & { port?: number; publishedAs?: number } = {},
): FakeContainer {
  count++;
  const [a, b] = [Math.floor(count / 250), (count % 250) + 2];
  const published = [
    { IP: "0.0.0.0", PrivatePort: port, PublicPort: publishedAs ?? 0, Type: "tcp" },
    { IP: "::", PrivatePort: port, PublicPort: publishedAs ?? 0, Type: "tcp" },
  ];
  return {
    Id: randomBytes(32).toString("hex"),
    Names: [`/${name}`],
    Image: "example/server:1",
    ImageID: `sha256:${"ab".repeat(32)}`,
    Command: "/server",
    Created: 1_760_000_000 + count,
    Ports: publishedAs ? published : [{ PrivatePort: port, Type: "tcp" }],
    Labels: labels,
    State: "running",
    Status: "Up 2 minutes",
    HostConfig: { NetworkMode: "bridge" },
    NetworkSettings: { Networks: { bridge: fakeNetwork(`172.17.${a}.${b}`) } },
    Mounts: [],
    ...changes,
  };
}

export function fakeNetwork(address: string): FakeNetwork {
  return {
    ...{ IPAMConfig: null, Links: null, Aliases: null, MacAddress: "02:42:ac:11:00:02", DriverOpts: null },
    ...{ NetworkID: "7ea29fc14122", EndpointID: "2cdc4edb1ded", Gateway: "172.17.0.1", IPPrefixLen: 16 },
    ...{ IPv6Gateway: "", GlobalIPv6PrefixLen: 0, DNSNames: null },
    IPAddress: address.includes(":") ? "" : address,
    GlobalIPv6Address: address.includes(":") ? address : "",
  };
}

export async function startDockerApi({ tls, version = "1.43", oldest = "1.24" }: FakeDockerOptions = {}): Promise<FakeDocker> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const containers: FakeContainer[] = [];
  const oddities: unknown[] = [];

  const api = await startApiServer(
    ({ method, url }) => {
      const [, asked, path] = /^(?:\/v(\d+\.\d+))?(\/.*)$/.exec(url.pathname) ?? [];
      if (method !== "GET") return refuse(405, "this test's daemon is read only");
      if (path === "/_ping") return { body: "OK", headers: { "content-type": "text/plain", "api-version": version } };
      if (asked === undefined) return refuse(400, "this test's daemon wants a version in the path");
      const minor = Number(asked.split(".")[1]);
      if (minor > Number(version.split(".")[1])) {
        return refuse(400, `client version ${asked} is too new. Maximum supported API version is ${version}`);
      }
      if (minor < Number(oldest.split(".")[1])) {
        return refuse(400, `client version ${asked} is too old. Minimum supported API version is ${oldest}`);
      }
      const filters = JSON.parse(url.searchParams.get("filters") ?? "{}") as Record<string, string[]>;
      if (path === "/containers/json") {
        const isAll = /^(1|true)$/i.test(url.searchParams.get("all") ?? "");
        const found = containers.filter(
          ({ Labels, State }) => (isAll || State === "running") && hasAll(Labels, filters.label ?? []),
        );
        return { body: [...found, ...oddities] };
      }
      return path === "/events" ? { stream: () => {} } : refuse(404, "page not found");
    },
    tls === undefined ? { socketPath: join(directory.path, "docker.sock") } : tls === null ? {} : { tls },
  );
  stack.use(api);

  const owned = stack.move();
  const daemon: FakeDocker = {
    ...api,
    containers,
    oddities,
    start(container: FakeContainer) {
      containers.push(container);
      daemon.say("start", container);
      return container;
    },
    say(action: string, container: FakeContainer) {
      const event = `${JSON.stringify(eventOf(action, container))}\n`;
      for (const stream of daemon.eventStreams()) {
        const filters = JSON.parse(stream.request.url.searchParams.get("filters") ?? "{}") as Record<string, string[]>;
        const isWanted = !filters.event || filters.event.some((wanted) => action === wanted || action.startsWith(`${wanted}:`));
        if (isWanted && (!filters.type || filters.type.includes("container"))) stream.write(event);
      }
    },
    stop(container: FakeContainer) {
      Object.assign(container, { State: "exited", Status: "Exited (0) 1 second ago", Ports: [] });
      for (const network of Object.values(container.NetworkSettings.Networks)) network.IPAddress = "";
      daemon.say("die", container);
    },
    destroy(container: FakeContainer) {
      containers.splice(containers.indexOf(container), 1);
      daemon.say("destroy", container);
    },
    eventStreams: () => [...api.streams].filter(({ request }) => request.url.pathname.endsWith("/events")),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
  return daemon;
}

/** EventMessage, as it stands on a line of `GET /events`. */
function eventOf(action: string, { Id, Names, Image, Labels }: FakeContainer): unknown {
  const Attributes = { ...Labels, image: Image, name: Names[0]?.slice(1) };
  const time = 1_760_000_000;
  return {
    ...{ status: action, id: Id, from: Image, Type: "container", Action: action },
    ...{ Actor: { ID: Id, Attributes }, scope: "local", time, timeNano: time * 1e9 },
  };
}

function hasAll(labels: Readonly<Record<string, string>>, wanted: readonly string[]): boolean {
  return wanted.every((one) => {
    const [key = "", value] = one.split("=");
    return value === undefined ? key in labels : labels[key] === value;
  });
}

function refuse(status: number, message: string): Reply {
  return { status, body: `${JSON.stringify({ message })}\n` };
}
