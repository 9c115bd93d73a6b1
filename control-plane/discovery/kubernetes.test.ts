import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { makeCertificates } from "../../test/support/certificates.ts";
import { eventually } from "../../test/support/eventually.ts";
import { type FakeObject, fakeObject, startKubernetesApi } from "../../test/support/kubernetes-api.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { watch } from "../../test/support/sightings.ts";
import { createKubernetesProvider, type KubernetesOptions } from "./kubernetes.ts";
import { ProviderError } from "./provider.ts";

/** A kubeconfig with one context; members are JSON, which is YAML. */
function kubeconfigOf(server: string, user: object = {}, cluster: object = {}): string {
  return JSON.stringify({
    ...{ apiVersion: "v1", kind: "Config", "current-context": "test" },
    clusters: [{ name: "c", cluster: { server, ...cluster } }],
    users: [{ name: "u", user }],
    contexts: [{ name: "test", context: { cluster: "c", user: "u", namespace: "mcp" } }],
  });
}

/** A cluster, and a provider that looks at it; `logged` are its warnings. */
async function start(options: Partial<KubernetesOptions> = {}) {
  await using stack = new AsyncDisposableStack();
  const cluster = stack.use(await startKubernetesApi());
  const directory = stack.use(await temporaryDirectory());
  const kubeconfig = await directory.write("config", kubeconfigOf(cluster.address));
  const logged: string[] = [];
  const log = pino({ level: "warn" }, { write: (line: string) => void logged.push(line) });
  const provider = createKubernetesProvider({ log, kubeconfig, environment: {}, ...options });
  const owned = stack.move();
  return { cluster, provider, logged, directory, kubeconfig, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const groupRef = { name: "team" };
const internal = (name: string): string => `http://mcp-${name}-proxy.mcp.svc.cluster.local:8080/mcp`;

function server(
  name: string,
  { spec = {}, status = {}, ...metadata }: { spec?: object; status?: object; [other: string]: unknown } = {},
) {
  return fakeObject("MCPServer", name, {
    spec: { image: "example/server:1", transport: "stdio", groupRef, ...spec },
    status: { phase: "Ready", url: internal(name), ...status },
    ...metadata,
  });
}

function entry(name: string, { spec = {}, status = {} }: { spec?: object; status?: object } = {}): FakeObject {
  return fakeObject("MCPServerEntry", name, {
    spec: { remoteUrl: "https://mcp.example.com/v1", transport: "streamable-http", groupRef, ...spec },
    status: { phase: "Valid", ...status },
  });
}

function proxy(name: string, { spec = {}, status = {} }: { spec?: object; status?: object } = {}): FakeObject {
  return fakeObject("MCPRemoteProxy", name, {
    spec: { remoteUrl: "https://mcp.example.com/v1?key=hidden", transport: "streamable-http", groupRef, ...spec },
    status: { phase: "Ready", url: internal(name), ...status },
  });
}

function service(
  name: string,
  { spec = {}, annotations = {} }: { spec?: object; annotations?: Record<string, string> } = {},
): FakeObject {
  return fakeObject("Service", name, {
    labels: { "vmcp.enable": "true" },
    annotations: { "vmcp.group": "team", ...annotations },
    spec: {
      type: "ClusterIP",
      clusterIP: "10.96.0.7",
      ports: [{ name: "http", port: 80, protocol: "TCP", targetPort: 8080 }],
      ...spec,
    },
  });
}

for (const [what, object, wanted] of [
  ["a server that is ready", server("a"), [`team/a → ${internal("a")}`]],
  ["a server on its way", server("a", { status: { phase: "Pending" } }), [`team/a → ${internal("a")} (down)`]],
  ["a server that failed", server("a", { status: { phase: "Failed" } }), [`team/a → ${internal("a")} (down)`]],
  ["a server that stops", server("a", { status: { phase: "Terminating" } }), [`team/a → ${internal("a")} (down)`]],
  ["a server being deleted", server("a", { deletionTimestamp: "2026-03-01T11:00:00Z" }), [`team/a → ${internal("a")} (down)`]],
  ["a server without URL yet", server("a", { status: { phase: "Pending", url: "" } }), []],
  ["a server that is in no group", server("a", { spec: { groupRef: undefined } }), []],
  [
    "a server whose URL has a fragment",
    server("a", { spec: { transport: "sse" }, status: { url: "http://mcp-a-proxy.mcp.svc.cluster.local:8080/sse#a" } }),
    ["team/a → http://mcp-a-proxy.mcp.svc.cluster.local:8080/sse"],
  ],
  [
    "a server whose URL has no path",
    server("a", { spec: { proxyMode: "sse" }, status: { url: "http://mcp-a-proxy.mcp.svc.cluster.local:8080" } }),
    ["team/a → http://mcp-a-proxy.mcp.svc.cluster.local:8080/sse"],
  ],
  ["a remote proxy", proxy("r"), [`team/r → ${internal("r")}`]],
  ["an entry", entry("e"), ["team/e → https://mcp.example.com/v1"]],
  ["an entry that is not valid", entry("e", { status: { phase: "Failed" } }), []],
  ["a Service", service("s"), ["team/s → http://s.mcp.svc:80/mcp"]],
  ["a Service without group", service("s", { annotations: { "vmcp.group": "" } }), ["default/s → http://s.mcp.svc:80/mcp"]],
  [
    "a Service with several ports, one named",
    service("s", {
      spec: {
        ports: [
          { name: "metrics", port: 9090 },
          { name: "mcp", port: 7000 },
        ],
      },
    }),
    ["team/s → http://s.mcp.svc:7000/mcp"],
  ],
  [
    "a Service with annotations",
    service("s", {
      annotations: { "vmcp.port": "admin", "vmcp.path": "/x", "vmcp.transport": "sse" },
      spec: {
        ports: [
          { name: "mcp", port: 1 },
          { name: "admin", port: 8443, appProtocol: "https" },
        ],
      },
    }),
    ["team/s → https://s.mcp.svc:8443/x"],
  ],
  ["a Service with a port by number", service("s", { annotations: { "vmcp.port": "80" } }), ["team/s → http://s.mcp.svc:80/mcp"]],
  ["a Service without label", { ...service("s"), metadata: { name: "s", namespace: "mcp" } }, []],
  ["something in another namespace", server("a", { namespace: "other" }), []],
] as const) {
  test(`${what} is seen as it is`, async () => {
    await using world = await start();
    world.cluster.put(object);
    await using watching = watch(world.provider);
    await watching.sees(wanted);
    assert.equal(world.logged.join(""), "");
  });
}

const auth = { externalAuthConfigRef: { name: "github-token" } };
for (const [what, object, wanted] of [
  ["a server that wants credentials", server("a", { spec: auth }), /MCPServer mcp\/a.*externalAuthConfigRef \("github-token"\)/],
  ["a remote proxy that wants credentials", proxy("r", { spec: auth }), /MCPRemoteProxy mcp\/r.*externalAuthConfigRef/],
  ["an entry that wants credentials", entry("e", { spec: auth }), /MCPServerEntry mcp\/e.*externalAuthConfigRef/],
  ["an entry that wants headers", entry("e", { spec: { headerForward: { addPlaintextHeaders: { a: "b" } } } }), /headerForward/],
  ["an entry that wants a CA", entry("e", { spec: { caBundleRef: { configMapRef: { name: "ca" } } } }), /caBundleRef/],
  [
    "an entry with a user in its URL",
    entry("e", { spec: { remoteUrl: "https://u:p@example.com/" } }),
    /remoteUrl is "https:\/\/example.com\/"; wanted an http or https URL without credentials/,
  ],
  [
    "an entry that leads to the caller itself",
    entry("e", { spec: { remoteUrl: "http://127.0.0.1:7400/" } }),
    /leads to 127\.0\.0\.1, the machine that calls/,
  ],
  [
    "an entry that leads to link-local addresses",
    entry("e", { spec: { remoteUrl: "http://169.254.169.254/" } }),
    /leads to 169\.254\.169\.254, the machine/,
  ],
  [
    "an entry of another transport",
    entry("e", { spec: { transport: "stdio" } }),
    /transport is "stdio"; wanted streamable-http or sse/,
  ],
  [
    "a server with a strange URL",
    server("a", { status: { url: "file:///etc" } }),
    /status\.url is "file:\/\/\/etc"; wanted an http/,
  ],
  ["a server without spec", { ...server("a"), spec: "none" }, /unknown shape at spec/],
  [
    "a server in a group with dots",
    server("a", { spec: { groupRef: { name: "a.b" } } }),
    /its group is "a\.b"; wanted a group name/,
  ],
  ["a server with a long name", server("a".repeat(70)), /has 70 characters; wanted 63/],
  [
    "a Service for something outside",
    service("s", { spec: { type: "ExternalName", externalName: "x.example" } }),
    /ExternalName/,
  ],
  [
    "a Service with two ports",
    service("s", {
      spec: {
        ports: [
          { name: "a", port: 1 },
          { name: "b", port: 2 },
        ],
      },
    }),
    /set vmcp\.port: it has 1 \(a\), 2 \(b\)/,
  ],
  [
    "a Service whose port is not there",
    service("s", { annotations: { "vmcp.port": "81" } }),
    /vmcp\.port is "81"; wanted one of its TCP ports: it has 80 \(http\)/,
  ],
  [
    "a Service on stdio",
    service("s", { annotations: { "vmcp.transport": "stdio" } }),
    /transport is "stdio"; wanted streamable-http or sse/,
  ],
  ["a Service with a strange path", service("s", { annotations: { "vmcp.path": "x y" } }), /vmcp\.path is "x y"; wanted a path/],
] as const) {
  test(`${what} is left out, and that is said once`, async () => {
    await using world = await start();
    world.cluster.put(object);
    world.cluster.put(server("b"));
    await using watching = watch(world.provider);
    await watching.sees([`team/b → ${internal("b")}`]);
    world.cluster.put(server("c"));
    await watching.sees([`team/b → ${internal("b")}`, `team/c → ${internal("c")}`]);
    assert.equal(world.logged.length, 1);
    const problems = watching.sightings.at(-1)?.problems ?? [];
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? "", /^MCP\w+ mcp\/|^Service mcp\//);
    assert.match(problems[0] ?? "", wanted);
  });
}

test("metadata are what the original gives, without what Kubernetes notes for itself and without queries", async () => {
  await using world = await start();
  world.cluster.put({
    ...proxy("r"),
    metadata: { ...proxy("r").metadata, annotations: { owner: "ann", "kubectl.kubernetes.io/x": "y" } },
  });
  await using watching = watch(world.provider);
  await eventually("it", () => watching.sightings.at(-1)?.workloads.length);
  assert.deepEqual(watching.sightings.at(-1)?.workloads[0]?.metadata, {
    ...{ owner: "ann", tool_type: "mcp", workload_type: "remote_proxy", workload_status: "Ready", namespace: "mcp" },
    remote_url: "https://mcp.example.com/v1",
  });
});

test("groups are known, also empty ones; without their kind nothing is said about groups", async () => {
  await using world = await start();
  world.cluster.put(fakeObject("MCPGroup", "team", { spec: { description: "ours" }, status: { phase: "Ready" } }));
  world.cluster.put(fakeObject("MCPGroup", "empty"));
  await using watching = watch(world.provider);
  await eventually("a sighting", () => watching.sightings.length > 0);
  assert.deepEqual(watching.sightings[0]?.groups, ["empty", "team"]);

  await using bare = await start();
  for (const plural of ["mcpgroups", "mcpservers", "mcpremoteproxies", "mcpserverentries"]) bare.cluster.absent.add(plural);
  bare.cluster.put(service("s"));
  await using only = watch(bare.provider);
  await only.sees(["team/s → http://s.mcp.svc:80/mcp"]);
  assert.equal(only.sightings[0]?.groups, undefined);
});

test("of two objects of one name the older one is seen", async () => {
  await using world = await start();
  world.cluster.put(server("x", { creationTimestamp: "2026-03-01T12:00:00Z" }));
  world.cluster.put(service("x"));
  await using watching = watch(world.provider);
  await watching.sees(["team/x → http://x.mcp.svc:80/mcp"]);
  assert.match(world.logged.join(""), /MCPServer mcp\/x.*has an older workload of that name/);
});

test("all namespaces are looked at when that is wanted, or another one", async () => {
  for (const [namespace, wanted] of [
    ["*", [`team/a → ${internal("a")}`, `team/b → ${internal("b")}`]],
    ["other", [`team/b → ${internal("b")}`]],
  ] as const) {
    await using world = await start({ namespace });
    world.cluster.put(server("a"));
    world.cluster.put(server("b", { namespace: "other" }));
    await using watching = watch(world.provider);
    await watching.sees(wanted);
  }
});

test("what comes, changes and goes is seen within a second", async () => {
  await using world = await start();
  const { cluster } = world;
  cluster.put(server("a"));
  await using watching = watch(world.provider);
  await watching.sees([`team/a → ${internal("a")}`]);
  cluster.put(service("s"));
  await watching.sees([`team/a → ${internal("a")}`, "team/s → http://s.mcp.svc:80/mcp"], 1_000);
  cluster.put(server("a", { status: { phase: "Failed" } }));
  await watching.sees([`team/a → ${internal("a")} (down)`, "team/s → http://s.mcp.svc:80/mcp"], 1_000);
  cluster.put({ ...service("s"), metadata: { name: "s", namespace: "mcp" } }); // loses its label
  await watching.sees([`team/a → ${internal("a")} (down)`], 1_000);
  cluster.repeat(server("a"));
  cluster.repeat(server("a"));
  cluster.put(server("b"));
  await watching.sees([`team/a → ${internal("a")} (down)`, `team/b → ${internal("b")}`], 1_000);
  cluster.remove(server("a"));
  await watching.sees([`team/b → ${internal("b")}`], 1_000);
});

test("nothing left is said again only after everything was listed again", async () => {
  await using world = await start();
  world.cluster.put(server("a"));
  await using watching = watch(world.provider);
  await watching.sees([`team/a → ${internal("a")}`]);
  const lists = world.cluster.requests.filter(isList).length;
  world.cluster.remove(server("a"));
  await eventually("it twice", () => watching.sightings.slice(-2).every(({ workloads }) => workloads.length === 0));
  assert.equal(world.cluster.requests.filter(isList).length, lists + 5);
});

const isWatch = ({ url }: { url: URL }): boolean => url.searchParams.get("watch") === "true";
const isList = (request: { url: URL }): boolean => !isWatch(request);
const lists = (world: { cluster: { requests: readonly { url: URL }[] } }): number => world.cluster.requests.filter(isList).length;

for (const [how, cut] of [
  ["ends", undefined],
  ["is cut in the middle of a line", '{"type":"ADDED","object":{"kind":"MCPServer","metadata":{"name":"hal'],
] as const) {
  test(`a watch that ${how} goes on where it was, without a list`, async () => {
    await using world = await start();
    world.cluster.put(server("a"));
    await using watching = watch(world.provider);
    await watching.sees([`team/a → ${internal("a")}`]);
    await eventually("watches", () => world.cluster.watches().length === 5);
    const before = lists(world);
    world.cluster.bookmark();
    for (const stream of world.cluster.watches()) cut === undefined ? stream.end() : stream.cut(cut);
    world.cluster.put(server("b"));
    await watching.sees([`team/a → ${internal("a")}`, `team/b → ${internal("b")}`]);
    await eventually("watches again", () => world.cluster.watches().length === 5);
    assert.equal(lists(world), before);
    world.cluster.put(server("c"));
    await eventually("one more", () => watching.seen()?.length === 3);
  });
}

for (const how of ["event", "status"] as const) {
  test(`a watch whose version is forgotten (410 as ${how}) lists again`, async () => {
    await using world = await start();
    world.cluster.put(server("a"));
    await using watching = watch(world.provider);
    await watching.sees([`team/a → ${internal("a")}`]);
    await eventually("watches", () => world.cluster.watches().length === 5);
    const before = lists(world);
    world.cluster.endWatches();
    world.cluster.remove(server("a"));
    world.cluster.put(server("b"));
    world.cluster.compact(how);
    await watching.sees([`team/b → ${internal("b")}`]);
    await eventually("a list of each kind, and one only", () => lists(world) === before + 5);
    world.cluster.put(server("c"));
    await eventually("what comes then", () => watching.seen()?.length === 2);
  });
}

test("a bookmark saves the list when everything before it is forgotten", async () => {
  await using world = await start();
  await using watching = watch(world.provider);
  await watching.sees([]);
  await eventually("watches", () => world.cluster.watches().length === 5);
  const before = lists(world);
  world.cluster.compact();
  world.cluster.bookmark();
  await new Promise((resolve) => setTimeout(resolve, 100)); // for the bookmarks to be read; no sign tells
  world.cluster.endWatches();
  world.cluster.put(server("a"));
  await watching.sees([`team/a → ${internal("a")}`]);
  assert.equal(lists(world), before);
});

test("an event that is no JSON leads to a list", async () => {
  await using world = await start();
  await using watching = watch(world.provider);
  await watching.sees([]);
  await eventually("a watch", () => world.cluster.watches("mcpservers").length === 1);
  const [stream] = world.cluster.watches("mcpservers");
  const before = lists(world);
  stream?.write('{"type":"ADDED","object":{"metadata"\n');
  await eventually("a list", () => lists(world) > before);
  world.cluster.put(server("a"));
  await watching.sees([`team/a → ${internal("a")}`]);
});

test("a watch lasts as long as it was asked to, and the next one goes on", async () => {
  await using world = await start({ watchSeconds: 1 });
  await using watching = watch(world.provider);
  await watching.sees([]);
  await eventually("second watches", () => world.cluster.requests.filter(isWatch).length >= 10);
  world.cluster.put(server("a"));
  await watching.sees([`team/a → ${internal("a")}`]);
  assert.equal(lists(world), 5);
});

test("a server that always has forgotten is asked with pauses, and becomes a failure", async () => {
  await using world = await start({ kinds: ["Service"] });
  world.cluster.misbehave((request) => (isWatch(request) ? { status: 410 } : undefined));
  await using watching = watch(world.provider);
  assert.match((await watching.failure(30_000)).message, /the watch of services ends at once/);
  assert.ok(world.cluster.requests.length < 20);
});

test("a kind that the cluster does not have is no failure, and is seen when it comes", async () => {
  await using world = await start({ absentMs: 100 });
  world.cluster.absent.add("mcpservers");
  world.cluster.put(server("a"));
  world.cluster.put(service("s"));
  await using watching = watch(world.provider);
  await watching.sees(["team/s → http://s.mcp.svc:80/mcp"]);
  world.cluster.absent.clear();
  await watching.sees([`team/a → ${internal("a")}`, "team/s → http://s.mcp.svc:80/mcp"]);
});

test("a kind that vanishes with its objects is a failure, not an empty list", async () => {
  await using world = await start();
  world.cluster.put(server("a"));
  await using watching = watch(world.provider);
  await watching.sees([`team/a → ${internal("a")}`]);
  await eventually("watches", () => world.cluster.watches().length === 5);
  world.cluster.absent.add("mcpservers");
  world.cluster.compact();
  world.cluster.endWatches();
  assert.match((await watching.failure()).message, /no longer knows mcpservers, of which there were 1/);
  assert.ok(watching.sightings.every(({ workloads }) => workloads.length === 1));
});

test("something that is no Kubernetes API is a failure", async () => {
  await using world = await start();
  for (const plural of ["mcpgroups", "mcpservers", "mcpremoteproxies", "mcpserverentries", "services"])
    world.cluster.absent.add(plural);
  await using watching = watch(world.provider);
  assert.match((await watching.failure()).message, /is that a Kubernetes API/);
  assert.deepEqual(watching.sightings, []);
});

for (const [what, fault, wanted] of [
  [
    "is refused (403)",
    { status: 403 },
    /does not let this identity list mcpservers in namespace "mcp" \(HTTP 403\).*deploy\/kubernetes/,
  ],
  [
    "fails",
    { status: 500, body: '{"kind":"Status","message":"etcd is away"}' },
    /answers HTTP 500 when asked to list mcpservers: etcd is away/,
  ],
  ["is too much", { status: 429 }, /HTTP 429/],
  ["is of another shape", { status: 200, body: '{"items":{}}' }, /in an unknown shape/],
  ["has no version", { status: 200, body: '{"items":[],"metadata":{}}' }, /in an unknown shape/],
  ["is redirected", { status: 302, headers: { location: "http://127.0.0.1:1/" } }, /HTTP 302/],
  ["hangs after its head", "hang after the head", /did not answer in 300 ms/],
  ["breaks", "hang up", /the connection broke/],
] as const) {
  test(`a list that ${what} is a failure with its reason, and a new watch recovers`, async () => {
    await using world = await start({ answerMs: 300 });
    world.cluster.put(server("a"));
    world.cluster.misbehave((request) => (isList(request) && request.url.pathname.endsWith("/mcpservers") ? fault : undefined));
    await using watching = watch(world.provider);
    const failure = await watching.failure();
    assert.ok(failure instanceof ProviderError);
    assert.match(failure.message, wanted);
    assert.deepEqual(watching.sightings, []);
    await eventually("no socket", () => world.cluster.connections() === 0);
    world.cluster.misbehave();
    await using again = watch(world.provider);
    await again.sees([`team/a → ${internal("a")}`]);
  });
}

test("a watch that is refused, or hangs before its head, is a failure", async () => {
  for (const [fault, wanted] of [
    [{ status: 403 }, /does not let this identity watch/],
    ["hang", /did not answer in 300 ms/],
  ] as const) {
    await using world = await start({ answerMs: 300 });
    world.cluster.misbehave((request) => (isWatch(request) ? fault : undefined));
    await using watching = watch(world.provider);
    const failure = await watching.failure();
    assert.ok(failure instanceof ProviderError);
    assert.match(failure.message, wanted);
  }
});

test("objects in an unknown shape are left out, the others stay", async () => {
  await using world = await start({ kinds: ["MCPServer"] });
  world.cluster.put(server("a"));
  world.cluster.oddities.push(null, 7, { metadata: { name: 5 } }, { metadata: { name: "x", namespace: "mcp" } });
  await using watching = watch(world.provider);
  await watching.sees([`team/a → ${internal("a")}`]);
  assert.match(world.logged.join(""), /MCPServer mcp\/x.*unknown shape at spec/);
});

test("the signal ends everything, whatever it waits for, and leaves no socket", async () => {
  for (const fault of [undefined, { delayMs: 60_000 }, "hang", "hang after the head"] as const) {
    await using world = await start();
    if (fault) world.cluster.misbehave(() => fault);
    await using watching = watch(world.provider);
    await eventually("requests", () => world.cluster.requests.length >= (fault ? 5 : 10));
    await watching.stop();
    await eventually("no socket", () => world.cluster.connections() === 0, 1_000);
  }
});

test("leaving the loop ends everything too", async () => {
  await using world = await start();
  for await (const _sighting of world.provider.watch(new AbortController().signal)) break;
  await eventually("no socket", () => world.cluster.connections() === 0, 1_000);
});

test("only GET is used, and nothing but the five kinds is read", async () => {
  await using world = await start();
  await using watching = watch(world.provider);
  await watching.sees([]);
  await eventually("watches", () => world.cluster.watches().length === 5);
  const toolhive = "GET /apis/toolhive.stacklok.dev/v1beta1/namespaces/mcp";
  const plurals = ["mcpgroups", "mcpremoteproxies", "mcpserverentries", "mcpservers"];
  assert.deepEqual([...new Set(world.cluster.requests.map(({ method, url }) => `${method} ${url.pathname}`))].sort(), [
    "GET /api/v1/namespaces/mcp/services",
    ...plurals.map((plural) => `${toolhive}/${plural}`),
  ]);
});

test("600 workloads come in pages, and one change at a time; pages that expire are begun again", async () => {
  await using world = await start({ kinds: ["MCPServer"] });
  for (let n = 0; n < 600; n++) world.cluster.put(server(`s${n}`, { spec: { groupRef: { name: `g${n % 20}` } } }));
  let isCompacted = false;
  world.cluster.misbehave(({ url }) => {
    if (!isCompacted && url.searchParams.has("continue")) {
      isCompacted = true;
      world.cluster.compact();
    }
    return undefined;
  });
  await using watching = watch(world.provider);
  await eventually("all of them", () => watching.sightings[0]?.workloads.length === 600);
  assert.equal(lists(world), 5); // one and an expired one, then three
  world.cluster.put(server("late"));
  await eventually("one more", () => watching.sightings.at(-1)?.workloads.length === 601, 1_000);
});

test("in a pod: server, CA and namespace as kubelet gives them, and a token that is read anew", async () => {
  await using certificates = await makeCertificates();
  await using directory = await temporaryDirectory();
  await directory.write("ca.crt", certificates.ca);
  await directory.write("namespace", "mcp\n");
  await directory.write("token", "first-token\n");
  await using cluster = await startKubernetesApi({ tls: certificates.server });
  cluster.put(server("a"));
  const { port } = new URL(cluster.address);
  const provider = createKubernetesProvider({
    log: pino({ level: "silent" }),
    environment: { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: port },
    serviceAccountDirectory: directory.path,
  });
  await using watching = watch(provider);
  await watching.sees([`team/a → ${internal("a")}`]);
  await eventually("watches", () => cluster.watches().length === 5);
  assert.ok(cluster.requests.every(({ headers }) => headers.authorization === "Bearer first-token"));
  await directory.write("token", "second-token\n");
  cluster.endWatches();
  await eventually("watches again", () => cluster.watches().length === 5);
  assert.equal(cluster.requests.at(-1)?.headers.authorization, "Bearer second-token");
});

test("a kubeconfig: CA, client certificate and token are used, and a server of another CA is refused", async () => {
  await using certificates = await makeCertificates();
  await using directory = await temporaryDirectory();
  await using cluster = await startKubernetesApi({
    token: "s3cret",
    tls: { ...certificates.server, ca: certificates.ca, requestCert: true, rejectUnauthorized: true },
  });
  cluster.put(server("a"));
  const base64 = (text: string): string => Buffer.from(text).toString("base64");
  await directory.write("ca.pem", certificates.ca);
  await directory.write("cert.pem", certificates.client.cert);
  const user = { token: "s3cret", "client-certificate": "cert.pem", "client-key-data": base64(certificates.client.key) };
  const log = pino({ level: "silent" });
  // Paths are relative to the file; the second file of KUBECONFIG gives what the first does not have.
  const file = await directory.write("config", kubeconfigOf(cluster.address, user, { "certificate-authority": "ca.pem" }));
  const first = await directory.write("first", JSON.stringify({ "current-context": "test", clusters: [], contexts: null }));
  await using watching = watch(createKubernetesProvider({ log, environment: { KUBECONFIG: `${first}:/nowhere:${file}` } }));
  await watching.sees([`team/a → ${internal("a")}`]);

  await directory.write(
    "config",
    kubeconfigOf(cluster.address, { ...user, token: "wrong" }, { "certificate-authority": "ca.pem" }),
  );
  await using wrong = watch(createKubernetesProvider({ log, kubeconfig: file }));
  const failure = await wrong.failure();
  assert.match(failure.message, /does not accept the credentials/);
  assert.doesNotMatch(failure.message, /wrong/);

  await using others = await makeCertificates();
  const foreign = kubeconfigOf(cluster.address, user, { "certificate-authority-data": base64(others.ca) });
  await using refused = watch(createKubernetesProvider({ log, kubeconfig: await directory.write("foreign", foreign) }));
  assert.match((await refused.failure()).message, /is not vouched for/);
});

const https = "https://127.0.0.1:1";
for (const [what, config, wanted] of [
  [
    "credentials from a program",
    kubeconfigOf(https, { exec: { command: "aws" } }),
    /from a program \(exec\), which is not supported/,
  ],
  ["an auth-provider", kubeconfigOf(https, { "auth-provider": { name: "gcp" } }), /auth-provider, which is not supported/],
  ["a password", kubeconfigOf(https, { username: "u", password: "p" }), /signs in with a password/],
  ["impersonation", kubeconfigOf(https, { token: "t", as: "admin" }), /impersonation/],
  ["no check of the server", kubeconfigOf(https, {}, { "insecure-skip-tls-verify": true }), /insecure-skip-tls-verify/],
  ["a proxy", kubeconfigOf(https, {}, { "proxy-url": "http://proxy" }), /proxy-url/],
  ["a token in plain text", kubeconfigOf("http://127.0.0.1:1", { token: "t" }), /would be sent in plain text/],
  ["a token with a line break", kubeconfigOf(https, { token: "hid\nden" }), /holds no token/],
  [
    "a token file that is not there",
    kubeconfigOf(https, { tokenFile: "/nowhere/token" }),
    /can't read the token \/nowhere\/token.*ENOENT/,
  ],
  ["a CA that is not there", kubeconfigOf(https, {}, { "certificate-authority": "/nowhere/ca" }), /can't read \/nowhere\/ca/],
  ["no context", "{}", /has no current-context/],
  ["a context that is not there", '{"current-context":"x"}', /has no context "x"/],
  ["a server that is no URL", kubeconfigOf("somewhere"), /its server is no URL/],
  ["another shape", '{"clusters":{}}', /unknown shape at clusters/],
  ["no YAML", "a: [", /is no YAML/],
] as const) {
  test(`a kubeconfig with ${what} is refused with a sentence`, async () => {
    await using directory = await temporaryDirectory();
    const kubeconfig = await directory.write("config", config);
    await using watching = watch(createKubernetesProvider({ log: pino({ level: "silent" }), kubeconfig }));
    const failure = await watching.failure();
    assert.ok(failure instanceof ProviderError);
    assert.match(failure.message, wanted);
    assert.doesNotMatch(failure.message, /hid|den\n/);
  });
}

test("neither pod nor kubeconfig is said so", async () => {
  await using watching = watch(createKubernetesProvider({ log: pino({ level: "silent" }), environment: { HOME: "/nowhere" } }));
  assert.match((await watching.failure()).message, /this is no pod, and there is no kubeconfig at \/nowhere\/\.kube\/config/);
});
