import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { makeCertificates } from "../../test/support/certificates.ts";
import {
  type FakeContainer,
  type FakeDockerOptions,
  fakeContainer,
  fakeNetwork,
  startDockerApi,
} from "../../test/support/docker-api.ts";
import { eventually } from "../../test/support/eventually.ts";
import { watch } from "../../test/support/sightings.ts";
import { createDockerProvider, type DockerOptions } from "./docker.ts";
import { ProviderError } from "./provider.ts";

const on = { "vmcp.enable": "true", "vmcp.group": "team" };

/** A daemon, and a provider that looks at it; `logged` are its warnings. */
async function start(options: Partial<DockerOptions> = {}, fake: FakeDockerOptions = {}) {
  const docker = await startDockerApi(fake);
  const logged: string[] = [];
  const log = pino({ level: "warn" }, { write: (line: string) => void logged.push(line) });
  const provider = createDockerProvider({ log, host: docker.address, environment: {}, ...options });
  return { docker, provider, logged, [Symbol.asyncDispose]: () => docker[Symbol.asyncDispose]() };
}

/** What one container is seen as. */
async function seenAs(container: FakeContainer, options: Partial<DockerOptions> = {}) {
  await using world = await start(options);
  world.docker.containers.push(container);
  await using watching = watch(world.provider);
  await eventually("a sighting", () => watching.sightings.length > 0);
  return {
    seen: watching.seen(),
    workloads: watching.sightings[0]?.workloads,
    problems: watching.sightings[0]?.problems,
    logged: world.logged,
  };
}

const running = { port: 8080, publishedAs: 49_153 };

for (const [what, labels, container, wanted] of [
  ["a published port is reached on the host", on, running, ["team/web → http://127.0.0.1:49153/mcp"]],
  ["the group is default", { "vmcp.enable": "true" }, running, ["default/web → http://127.0.0.1:49153/mcp"]],
  ["vmcp.name names it", { ...on, "vmcp.name": "jira" }, running, ["team/jira → http://127.0.0.1:49153/mcp"]],
  [
    "a compose service gives its name",
    { ...on, "com.docker.compose.service": "files", "com.docker.compose.project": "p" },
    running,
    ["team/files → http://127.0.0.1:49153/mcp"],
  ],
  ["vmcp.path is its path", { ...on, "vmcp.path": "/api/mcp?x=1" }, running, ["team/web → http://127.0.0.1:49153/api/mcp?x=1"]],
  ["SSE has its own path", { ...on, "vmcp.transport": "sse" }, running, ["team/web → http://127.0.0.1:49153/sse"]],
  [
    "vmcp.port chooses between ports",
    { ...on, "vmcp.port": "9000" },
    {
      Ports: [
        { PrivatePort: 8080, PublicPort: 1, IP: "0.0.0.0", Type: "tcp" },
        { PrivatePort: 9000, PublicPort: 2, IP: "0.0.0.0", Type: "tcp" },
      ],
    },
    ["team/web → http://127.0.0.1:2/mcp"],
  ],
  [
    "a port published on one address is reached there",
    on,
    { Ports: [{ PrivatePort: 8080, PublicPort: 7, IP: "192.168.7.7", Type: "tcp" }] },
    ["team/web → http://192.168.7.7:7/mcp"],
  ],
  [
    "without published port its own address is used",
    on,
    { NetworkSettings: { Networks: { b: fakeNetwork("10.0.0.2"), a: fakeNetwork("10.0.0.1") } } },
    ["team/web → http://10.0.0.1:8080/mcp"],
  ],
  [
    "an address of IPv6 stands in brackets",
    on,
    { NetworkSettings: { Networks: { a: fakeNetwork("fd00::7") } } },
    ["team/web → http://[fd00::7]:8080/mcp"],
  ],
  [
    "vmcp.network chooses the network, published or not",
    { ...on, "vmcp.network": "mesh", "com.docker.compose.project": "shop" },
    { ...running, NetworkSettings: { Networks: { a: fakeNetwork("10.0.0.1"), shop_mesh: fakeNetwork("10.9.0.1") } } },
    ["team/web → http://10.9.0.1:8080/mcp"],
  ],
  [
    "the host's network is the host",
    { ...on, "vmcp.port": "8123" },
    { Ports: [], HostConfig: { NetworkMode: "host" }, NetworkSettings: { Networks: { host: fakeNetwork("") } } },
    ["team/web → http://127.0.0.1:8123/mcp"],
  ],
  [
    "one that starts is not called",
    on,
    { ...running, Status: "Up 1 second (health: starting)" },
    ["team/web → http://127.0.0.1:49153/mcp (down)"],
  ],
  [
    "an unhealthy one is not called",
    on,
    { ...running, Status: "Up 1 hour (unhealthy)" },
    ["team/web → http://127.0.0.1:49153/mcp (down)"],
  ],
  ["a healthy one is", on, { ...running, Status: "Up 1 hour (healthy)" }, ["team/web → http://127.0.0.1:49153/mcp"]],
  [
    "a paused one is not called",
    on,
    { ...running, State: "paused", Status: "Up 1 hour (Paused)" },
    ["team/web → http://127.0.0.1:49153/mcp (down)"],
  ],
  ["one that was never started has no address", on, { State: "created", Status: "Created", Ports: [] }, []],
  ["a dead one is gone", on, { ...running, State: "dead" }, []],
  ["another program's label is nothing", { "vmcp.group": "team" }, running, []],
  ["vmcp.enable=false switches off", { ...on, "vmcp.enable": "false", toolhive: "true", "toolhive-port": "1" }, running, []],
  [
    "ToolHive's proxy is reached on the host",
    {
      toolhive: "true",
      "toolhive-name": "github",
      "toolhive-basename": "github",
      "toolhive-transport": "stdio",
      "toolhive-port": "33211",
    },
    running,
    ["default/github → http://127.0.0.1:33211/mcp"],
  ],
  [
    "ToolHive's group and SSE are known",
    { toolhive: "true", "toolhive-name": "x", "toolhive-transport": "sse", "toolhive-port": "33211", "toolhive-group": "team" },
    { State: "exited", Status: "Exited (0) 2 hours ago" },
    ["team/x → http://127.0.0.1:33211/sse (down)"],
  ],
  [
    "ToolHive's auxiliaries are none",
    { toolhive: "true", "toolhive-name": "inspector", "toolhive-port": "1", "toolhive-auxiliary": "true" },
    running,
    [],
  ],
] as const) {
  test(`${what}`, async () => {
    const { seen, problems, logged } = await seenAs(fakeContainer("web", labels as Record<string, string>, container as object));
    assert.deepEqual(seen, wanted);
    assert.deepEqual([problems, logged], [[], []]);
  });
}

for (const [labels, container, wanted] of [
  [{ ...on, "vmcp.group": "My Team" }, running, /vmcp\.group is "My Team"; wanted a group name/],
  [{ ...on, "vmcp.name": "a/b" }, running, /its name is "a\/b"; wanted .*set vmcp\.name/],
  [{ ...on, "vmcp.port": "80a" }, running, /vmcp\.port is "80a"; wanted a port/],
  [{ ...on, "vmcp.port": "70000" }, running, /vmcp\.port is "70000"; wanted a port/],
  [{ ...on, "vmcp.path": "mcp" }, running, /vmcp\.path is "mcp"; wanted a path/],
  [{ ...on, "vmcp.transport": "stdio" }, running, /vmcp\.transport is "stdio"; wanted streamable-http or sse/],
  [{ ...on, "vmcp.network": "x" }, running, /vmcp\.network is "x"; wanted one of its networks: bridge/],
  [{ ...on, "vmcp.enable": "yes" }, running, /vmcp\.enable is "yes"; wanted true or false/],
  [
    on,
    {
      Ports: [
        { PrivatePort: 1, Type: "tcp" },
        { PrivatePort: 2, Type: "tcp" },
      ],
    },
    /has the TCP ports 1, 2; wanted exactly one: set vmcp\.port/,
  ],
  [on, { NetworkSettings: { Networks: {} } }, /does not publish port 8080 and is in no network/],
  [{ toolhive: "true", "toolhive-name": "x", "toolhive-port": "?" }, running, /toolhive-port is "\?"; wanted a port/],
] as const) {
  test(`left out with a sentence that matches ${wanted}`, async () => {
    const { seen, problems, logged } = await seenAs(fakeContainer("web", labels as Record<string, string>, container as object));
    assert.deepEqual(seen, []);
    assert.match(problems?.join("\n") ?? "", wanted);
    assert.match(problems?.[0] ?? "", /^container web is left out: /);
    assert.deepEqual([problems?.length, logged.length], [1, 1]);
  });
}

test("labels of other programs do not become metadata", async () => {
  const labels = { ...on, "vmcp.owner": "ann", "traefik.http.middlewares.auth.basicauth.users": "admin:hash" };
  const { workloads } = await seenAs(fakeContainer("web", labels, running));
  assert.deepEqual(workloads?.[0]?.metadata, {
    ...{ "vmcp.owner": "ann", container: "web", image: "example/server:1", workload_status: "running" },
  });
});

test("containers of one compose service are instances of one workload", async () => {
  await using world = await start();
  const service = { ...on, "com.docker.compose.service": "files", "com.docker.compose.project": "p" };
  for (const n of [1, 2]) world.docker.containers.push(fakeContainer(`p-files-${n}`, service, { publishedAs: 5_000 + n }));
  world.docker.containers.push(
    fakeContainer("q-files-1", { ...service, "com.docker.compose.project": "q" }, { publishedAs: 6_000 }),
  );
  await using watching = watch(world.provider);
  await watching.sees(["team/files → http://127.0.0.1:5001/mcp", "team/files → http://127.0.0.1:5002/mcp"]);
  assert.match(world.logged.join(""), /another project has a workload/);
});

test("containers of one vmcp.name are instances of one workload", async () => {
  await using world = await start();
  for (const n of [1, 2])
    world.docker.containers.push(fakeContainer(`c${n}`, { ...on, "vmcp.name": "x" }, { publishedAs: 5_000 + n }));
  await using watching = watch(world.provider);
  await watching.sees(["team/x → http://127.0.0.1:5001/mcp", "team/x → http://127.0.0.1:5002/mcp"]);
});

test("what starts, fails, stops, is renamed and goes is seen within a second", async () => {
  await using world = await start();
  const { docker } = world;
  docker.containers.push(fakeContainer("a", on, { publishedAs: 1_001 }));
  await using watching = watch(world.provider);
  await watching.sees(["team/a → http://127.0.0.1:1001/mcp"]);
  const b = docker.start(fakeContainer("b", on));
  const url = `http://${b.NetworkSettings.Networks.bridge?.IPAddress}:8080/mcp`;
  await watching.sees(["team/a → http://127.0.0.1:1001/mcp", `team/b → ${url}`], 1_000);
  b.Status = "Up 5 minutes (unhealthy)";
  docker.say("health_status: unhealthy", b);
  await watching.sees(["team/a → http://127.0.0.1:1001/mcp", `team/b → ${url} (down)`], 1_000);
  b.Names = ["/c"];
  docker.say("rename", b);
  await watching.sees(["team/a → http://127.0.0.1:1001/mcp", `team/c → ${url} (down)`], 1_000);
  docker.stop(b); // has no address any more, but is still known
  await watching.sees(["team/a → http://127.0.0.1:1001/mcp", `team/c → ${url} (down)`], 1_000);
  docker.destroy(b);
  await watching.sees(["team/a → http://127.0.0.1:1001/mcp"], 1_000);
});

test("what concerns other containers is not asked about, and an event that came twice does no harm", async () => {
  await using world = await start();
  const own = world.docker.start(fakeContainer("a", on, running));
  await using watching = watch(world.provider);
  await watching.sees(["team/a → http://127.0.0.1:49153/mcp"]);
  const before = world.docker.requests.length;
  for (let n = 0; n < 50; n++) world.docker.start(fakeContainer(`other${n}`, {}));
  world.docker.say("start", own);
  world.docker.say("start", own);
  await eventually("another list", () => watching.sightings.length >= 2);
  assert.equal(world.docker.requests.length, before + 2);
  assert.deepEqual(watching.seen(), ["team/a → http://127.0.0.1:49153/mcp"]);
});

test("only GET is used, and only three paths", async () => {
  await using world = await start({ resyncMs: 50 });
  world.docker.start(fakeContainer("a", on, running));
  await using watching = watch(world.provider);
  await eventually("some rounds", () => watching.sightings.length > 3);
  const asked = new Set(world.docker.requests.map(({ method, url }) => `${method} ${url.pathname}`));
  assert.deepEqual([...asked].sort(), ["GET /_ping", "GET /v1.43/containers/json", "GET /v1.43/events"]);
});

test("a change that no event told is found by the resync, which also opens the stream anew", async () => {
  await using world = await start({ resyncMs: 150 });
  await using watching = watch(world.provider);
  await watching.sees([]);
  world.docker.containers.push(fakeContainer("a", on, running));
  await watching.sees(["team/a → http://127.0.0.1:49153/mcp"]);
  await eventually("the stream is opened anew", () => world.docker.requests.filter(isEvents).length > 1);
  await eventually("one stream, the others closed", () => world.docker.eventStreams().length === 1);
});

for (const [how, cut] of [
  ["ended", undefined],
  ["was cut in the middle of a line", '{"Type":"container","Act'],
] as const) {
  test(`what was missed while the stream of events ${how} is seen`, async () => {
    await using world = await start();
    await using watching = watch(world.provider);
    await watching.sees([]);
    world.docker.containers.push(fakeContainer("a", on, running));
    for (const stream of world.docker.eventStreams()) cut === undefined ? stream.end() : stream.cut(cut);
    await watching.sees(["team/a → http://127.0.0.1:49153/mcp"]);
    await eventually("a new stream", () => world.docker.eventStreams().length === 1);
    world.docker.start(fakeContainer("b", on, { publishedAs: 9 }));
    await watching.sees(["team/a → http://127.0.0.1:49153/mcp", "team/b → http://127.0.0.1:9/mcp"]);
  });
}

test("an event that is no JSON is taken as one that may concern us", async () => {
  await using world = await start();
  await using watching = watch(world.provider);
  await watching.sees([]);
  world.docker.containers.push(fakeContainer("a", on, running));
  for (const stream of world.docker.eventStreams()) stream.write('{"Type":"container","Action":\n');
  await watching.sees(["team/a → http://127.0.0.1:49153/mcp"]);
});

test("an empty list where there were containers is asked for again soon", async () => {
  await using world = await start();
  const own = world.docker.start(fakeContainer("a", on, running));
  await using watching = watch(world.provider);
  await watching.sees(["team/a → http://127.0.0.1:49153/mcp"]);
  world.docker.destroy(own);
  await watching.sees([]);
  const count = watching.sightings.length;
  await eventually("a second empty list", () => watching.sightings.length > count, 5_000);
});

test("a stream that ends at once, each time, becomes a failure", async () => {
  await using world = await start();
  await using watching = watch(world.provider);
  const cutting = setInterval(() => {
    for (const stream of world.docker.eventStreams()) stream.end();
  }, 5);
  try {
    const failure = await watching.failure(20_000);
    assert.ok(failure instanceof ProviderError);
    assert.match(failure.message, /ends its stream of events at once/);
  } finally {
    clearInterval(cutting);
  }
  assert.ok(watching.sightings.length < 20);
});

const isList = ({ url }: { url: URL }): boolean => url.pathname.endsWith("/containers/json");
const isEvents = ({ url }: { url: URL }): boolean => url.pathname.endsWith("/events");

for (const [what, fault, wanted] of [
  ["is refused (403)", { status: 403, body: "<html>" }, /refuses this reader \(HTTP 403\)/],
  ["fails", { status: 500, body: '{"message":"no space left"}' }, /answers HTTP 500: no space left/],
  ["is no list", { status: 200, body: '{"Id":"a"}' }, /what is no list/],
  ["is redirected", { status: 307, headers: { location: "http://127.0.0.1:1/" } }, /answers HTTP 307/],
  ["hangs after its head", "hang after the head", /did not answer in 300 ms/],
  ["breaks", "hang up", /the connection broke/],
] as const) {
  test(`a list that ${what} is a failure with its reason, and a new watch recovers`, async () => {
    await using world = await start({ answerMs: 300 });
    world.docker.containers.push(fakeContainer("a", on, running));
    world.docker.misbehave((request) => (isList(request) ? fault : undefined));
    await using watching = watch(world.provider);
    const failure = await watching.failure();
    assert.ok(failure instanceof ProviderError);
    assert.match(failure.message, wanted);
    assert.match(failure.message, /^Docker at unix:\/\//);
    await eventually("no socket", () => world.docker.connections() === 0);
    world.docker.misbehave();
    await using again = watch(world.provider);
    await again.sees(["team/a → http://127.0.0.1:49153/mcp"]);
  });
}

test("a stream of events that hangs or is refused is a failure", async () => {
  for (const fault of ["hang", { status: 403 }] as const) {
    await using world = await start({ answerMs: 200 });
    world.docker.misbehave((request) => (isEvents(request) ? fault : undefined));
    await using watching = watch(world.provider);
    assert.ok((await watching.failure()) instanceof ProviderError);
    assert.deepEqual(watching.sightings, []);
  }
});

test("containers in an unknown shape are left out, the others stay", async () => {
  await using world = await start();
  world.docker.containers.push(fakeContainer("a", on, running));
  world.docker.oddities.push(null, 7, { Id: "0123456789abcdef", State: 1 }, { ...fakeContainer("b", on), Ports: "none" });
  await using watching = watch(world.provider);
  await watching.sees(["team/a → http://127.0.0.1:49153/mcp"]);
  assert.match(world.logged.join(""), /container 0123456789ab.*unknown shape/);
});

test("what is wrong is said once", async () => {
  await using world = await start({ resyncMs: 30 });
  world.docker.containers.push(fakeContainer("a", { ...on, "vmcp.port": "x" }));
  await using watching = watch(world.provider);
  await eventually("some lists", () => watching.sightings.length > 5);
  assert.equal(world.logged.length, 1);
});

test("the signal ends everything, whatever it waits for, and leaves no socket", async () => {
  for (const fault of [undefined, { delayMs: 60_000 }, "hang"] as const) {
    await using world = await start();
    if (fault) world.docker.misbehave(() => fault);
    await using watching = watch(world.provider);
    await eventually("a request", () => world.docker.requests.length > (fault ? 0 : 2));
    await watching.stop();
    await eventually("no socket", () => world.docker.connections() === 0, 1_000);
  }
});

test("leaving the loop ends everything too", async () => {
  await using world = await start();
  for await (const _sighting of world.provider.watch(new AbortController().signal)) break;
  await eventually("no socket", () => world.docker.connections() === 0, 1_000);
});

for (const [version, oldest, wanted] of [
  ["1.41", "1.12", "/v1.41/"],
  ["1.52", "1.44", "/v1.51/"],
] as const) {
  test(`a daemon that speaks ${oldest} to ${version} is spoken to in ${wanted}`, async () => {
    await using world = await start({}, { version, oldest });
    world.docker.containers.push(fakeContainer("a", on, running));
    await using watching = watch(world.provider);
    await watching.sees(["team/a → http://127.0.0.1:49153/mcp"]);
    assert.ok(world.docker.requests.slice(1).every(({ url }) => url.pathname.startsWith(wanted)));
  });
}

test("DOCKER_HOST over TCP: published ports are reached at the daemon's host", async () => {
  await using docker = await startDockerApi({ tls: null });
  const host = docker.address.replace("http://", "tcp://").replace("127.0.0.1", "localhost");
  docker.containers.push(fakeContainer("a", on, running));
  const provider = createDockerProvider({ log: pino({ level: "silent" }), environment: { DOCKER_HOST: host } });
  await using watching = watch(provider);
  await watching.sees(["team/a → http://localhost:49153/mcp"]);
});

test("DOCKER_HOST with certificates: both sides are checked", async () => {
  await using certificates = await makeCertificates();
  await using docker = await startDockerApi({
    tls: { ...certificates.server, ca: certificates.ca, requestCert: true, rejectUnauthorized: true },
  });
  docker.containers.push(fakeContainer("a", on, running));
  const log = pino({ level: "silent" });
  const host = docker.address.replace("https://", "tcp://");
  for (const environment of [
    { DOCKER_HOST: host, DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: certificates.directory },
    { DOCKER_HOST: host, DOCKER_CERT_PATH: certificates.directory },
  ]) {
    await using watching = watch(createDockerProvider({ log, environment }));
    await watching.sees(["team/a → http://127.0.0.1:49153/mcp"]);
  }
  await using others = await makeCertificates();
  await using watching = watch(
    createDockerProvider({ log, environment: { DOCKER_HOST: host, DOCKER_CERT_PATH: others.directory } }),
  );
  assert.match((await watching.failure()).message, /is not vouched for/);
});

for (const [host, environment, wanted] of [
  ["unix:///nowhere/docker.sock", {}, /there is no such socket/],
  ["ssh://somebody@host", {}, /is no address of Docker; wanted unix:\/\/\/path or tcp:/],
  ["tcp://user:word@host:1", {}, /is no address of Docker/],
  ["tcp://127.0.0.1:1", {}, /nothing listens there/],
  ["tcp://127.0.0.1:1", { DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: "/nowhere" }, /can't read \/nowhere\/ca\.pem.*ENOENT/],
] as const) {
  test(`${host} ${JSON.stringify(environment)} says ${wanted}`, async () => {
    await using watching = watch(createDockerProvider({ log: pino({ level: "silent" }), host, environment }));
    const failure = await watching.failure();
    assert.ok(failure instanceof ProviderError);
    assert.match(failure.message, wanted);
  });
}
