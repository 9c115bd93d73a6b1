import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { anyUnpack, durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { snapshotDigest } from "../../common/snapshot-digest.ts";
import { RevocationsSchema, VirtualServerConfigSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { RevocationSchema } from "../../proto/gen/vmcp/resource/v1/revocation_pb.ts";
import type { VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { type Compiled, compile } from "./compile.ts";

const anonymous = { type: "anonymous" };

test("a virtual server brings the backends of its group, and only those", () => {
  const compiled = compile([
    backend("g", "zeta"),
    backend("g", "alpha"),
    backend("other", "unused"),
    virtualServer("dev", { groupRef: "g", incomingAuth: anonymous }),
  ]);
  assert.deepEqual(names(compiled), ["groups/g/backends/alpha", "groups/g/backends/zeta", "virtualServers/dev"]);
  assert.deepEqual(configOf(compiled, "dev").backends, ["groups/g/backends/alpha", "groups/g/backends/zeta"]);
});

test("backends of its own replace those of the group", () => {
  const own = [{ name: "mine", url: "http://127.0.0.1:3001/mcp" }];
  const compiled = compile([backend("g", "theirs"), virtualServer("dev", { groupRef: "g", backends: own })]);
  assert.deepEqual(names(compiled), ["virtualServers/dev", "virtualServers/dev/backends/mine"]);
  const { spec, backends } = configOf(compiled, "dev");
  assert.deepEqual(spec?.backends, []);
  assert.deepEqual(backends, ["virtualServers/dev/backends/mine"]);
});

test("backends are in the order of their last segment, which is the order clients see", () => {
  const own = ["b", "a-b", "a"].map((name) => ({ name, url: "http://127.0.0.1:1/mcp" }));
  const { backends } = configOf(compile([virtualServer("v", { backends: own })]), "v");
  assert.deepEqual(
    backends.map((name) => name.split("/").at(-1)),
    ["a", "a-b", "b"],
  );
});

test("two virtual servers share the backends of one group", () => {
  const compiled = compile([backend("g", "a"), virtualServer("x", { groupRef: "g" }), virtualServer("y", { groupRef: "g" })]);
  assert.deepEqual(names(compiled), ["groups/g/backends/a", "virtualServers/x", "virtualServers/y"]);
});

test("an auth policy is written into the virtual servers that name it", () => {
  const policy: MessageInitShape<typeof ResourceSchema> = {
    name: "authPolicies/open",
    spec: { case: "authPolicy", value: { incomingAuth: anonymous, outgoingAuth: { default: { type: "unauthenticated" } } } },
  };
  const compiled = compile([create(ResourceSchema, policy), virtualServer("dev", { authPolicyRef: "open" })]);
  const { spec } = configOf(compiled, "dev");
  assert.equal(spec?.incomingAuth?.type, "anonymous");
  assert.equal(spec?.outgoingAuth?.default?.type, "unauthenticated");
  assert.deepEqual(names(compiled), ["virtualServers/dev"]);
});

test("what is unset gets its default here, so that proxies have none", () => {
  const own = [
    { name: "web", url: "http://127.0.0.1:1/mcp" },
    { name: "local", command: "server" },
  ];
  const compiled = compile([virtualServer("dev", { backends: own })]);
  const { spec } = configOf(compiled, "dev");
  assert.equal(spec?.aggregation?.conflictResolution, "prefix");
  assert.equal(spec?.aggregation?.conflictResolutionConfig?.prefixFormat, "{workload}_");
  assert.deepEqual(spec?.operational?.timeouts?.default, durationFromMs(30_000));
  const breaker = spec?.operational?.failureHandling?.circuitBreaker;
  assert.deepEqual([breaker?.enabled, breaker?.failureThreshold, breaker?.timeout], [true, 5, durationFromMs(60_000)]);
  assert.equal(backendOf(compiled, "virtualServers/dev/backends/web").transport, "streamable-http");
  assert.equal(backendOf(compiled, "virtualServers/dev/backends/local").transport, "stdio");
});

test("what is set stays as it is", () => {
  const breaker = { enabled: false, failureThreshold: 2, timeout: durationFromMs(1_000) };
  const operational = { timeouts: { default: durationFromMs(5_000) }, failureHandling: { circuitBreaker: breaker } };
  const { spec } = configOf(compile([virtualServer("dev", { operational })]), "dev");
  assert.deepEqual(spec?.operational?.timeouts?.default, durationFromMs(5_000));
  const seen = spec?.operational?.failureHandling?.circuitBreaker;
  assert.deepEqual([seen?.enabled, seen?.failureThreshold, seen?.timeout], [false, 2, durationFromMs(1_000)]);
});

test("literal credentials stay out of the snapshot, and a warning names each", () => {
  const secret = "not-for-proxies";
  const outgoingAuth = {
    default: { type: "header_injection", headerInjection: { headerName: "X-Key", headerValue: secret } },
    backends: {
      a: { type: "token_exchange", tokenExchange: { clientId: "id", clientSecret: secret } },
      b: { type: "client_credentials", clientCredentials: { clientId: "id", clientSecret: secret } },
      c: { type: "upstream_oauth", upstreamOauth: { clientId: "id", clientSecret: secret } },
    },
  };
  const compiled = compile([virtualServer("dev", { outgoingAuth })]);
  assert.ok(compiled.resources.every(({ body }) => !Buffer.from(body?.value ?? []).includes(secret)));
  assert.deepEqual(
    compiled.warnings.map(({ resource, path }) => [resource, path.join(".")]),
    [
      ["virtualServers/dev", "outgoingAuth.default.headerInjection.headerValue"],
      ["virtualServers/dev", "outgoingAuth.backends.a.tokenExchange.clientSecret"],
      ["virtualServers/dev", "outgoingAuth.backends.b.clientCredentials.clientSecret"],
      ["virtualServers/dev", "outgoingAuth.backends.c.upstreamOauth.clientSecret"],
    ],
  );
  assert.equal(configOf(compiled, "dev").spec?.outgoingAuth?.default?.headerInjection?.headerName, "X-Key");
});

test("nothing declared is an empty snapshot with a digest", () => {
  const { resources, digest, bytes } = compile([]);
  assert.deepEqual([resources, bytes, digest.byteLength], [[], 0, 32]);
});

// The bytes are a promise to proxies that run already: when they change without a change of what is declared, every proxy of
// every customer gets a full push after an upgrade. Change the digest on purpose only.
test("golden: this declaration has this digest", () => {
  const compiled = compile([
    backend("g", "fetch"),
    backend("g", "github"),
    virtualServer("dev", {
      groupRef: "g",
      incomingAuth: anonymous,
      metadata: { team: "tools", cost: "low" },
      aggregation: { conflictResolution: "priority", conflictResolutionConfig: { priorityOrder: ["github", "fetch"] } },
    }),
  ]);
  assert.equal(Buffer.from(compiled.digest).toString("hex").slice(0, 12), "e4cc7456984c");
});

test("property: neither the order of resources nor of map entries changes a byte", () => {
  const word = fc.stringMatching(/^[a-z][a-z0-9]{0,5}$/);
  const labels = fc.array(fc.tuple(word, fc.string()), { maxLength: 6 });
  const servers = fc.uniqueArray(fc.record({ name: word, group: fc.constantFrom("g", "h"), labels }), {
    selector: ({ name }) => name,
  });
  const backends = fc.uniqueArray(fc.record({ name: word, labels }), { selector: ({ name }) => name });
  const declared = (all: { servers: Server[]; backends: Labelled[] }, flip: boolean): Resource[] => {
    const order = <T>(list: readonly T[]) => (flip ? [...list].reverse() : [...list]);
    // A later entry of an equal key wins, so equal keys keep their order.
    const metadata = (entries: readonly [string, string][]) => Object.fromEntries(order([...new Map(entries)]));
    return order([
      ...all.backends.map(({ name, labels }) => backend("g", name, metadata(labels))),
      ...all.servers.map(({ name, group, labels }) => virtualServer(name, { groupRef: group, metadata: metadata(labels) })),
    ]);
  };
  fc.assert(
    fc.property(fc.record({ servers, backends }), (all) => {
      const one = compile(declared(all, false));
      const other = compile(declared(all, true));
      assert.deepEqual(one, other);
      assert.deepEqual(one.digest, snapshotDigest(one.resources));
      assert.deepEqual(names(one), [...names(one)].sort());
    }),
  );
});

test("revocations go to every proxy as one resource, in the order of their epochs, with nothing that is for people", () => {
  const key = "k".repeat(22);
  const declared = [
    revocation(12n, { all: true, virtualServer: "dev", reason: "leaked" }),
    revocation(9n, { session: key }),
    revocation(100n, { issuer: "https://idp", subject: "alice" }),
  ];
  const compiled = compile([...declared, virtualServer("dev", { groupRef: "g" })]);
  assert.deepEqual(names(compiled), ["revocations", "virtualServers/dev"]);
  const unset = { session: "", issuer: "", subject: "", all: false, virtualServer: "" };
  assert.deepEqual(revocationsOf(compiled), [
    { ...unset, epoch: 9n, session: key },
    { ...unset, epoch: 12n, all: true, virtualServer: "dev" },
    { ...unset, epoch: 100n, issuer: "https://idp", subject: "alice" },
  ]);
  assert.deepEqual(compile([virtualServer("dev", { groupRef: "g" }), ...declared.reverse()]), compiled);
});

test("without revocations there is no such resource, and the age of one changes nothing", () => {
  assert.deepEqual(names(compile([virtualServer("dev", { groupRef: "g" })])), ["virtualServers/dev"]);
  const one = revocation(3n, { all: true });
  const old = { ...one, createTime: timestampFromMs(0), updateTime: timestampFromMs(0) };
  assert.deepEqual(compile([old]), compile([one]));
  assert.notDeepEqual(compile([{ ...one, revision: 4n }]).digest, compile([one]).digest);
});

interface Labelled {
  readonly name: string;
  readonly labels: [string, string][];
}

interface Server extends Labelled {
  readonly group: string;
}

function backend(group: string, name: string, metadata: Record<string, string> = {}): Resource {
  const value = { name, url: `http://127.0.0.1:1/${name}`, metadata };
  return create(ResourceSchema, { name: `groups/${group}/backends/${name}`, spec: { case: "backend", value } });
}

function virtualServer(name: string, init: MessageInitShape<typeof VirtualServerSchema>): Resource {
  const value = { ...init, name } as MessageInitShape<typeof VirtualServerSchema>;
  return create(ResourceSchema, { name: `virtualServers/${name}`, spec: { case: "virtualServer", value } });
}

function revocation(revision: bigint, value: MessageInitShape<typeof RevocationSchema>): Resource {
  return create(ResourceSchema, { name: `revocations/r${revision}`, revision, spec: { case: "revocation", value } });
}

function revocationsOf(compiled: Compiled) {
  const body = compiled.resources.find(({ name }) => name === "revocations")?.body;
  assert.ok(body);
  const entries = anyUnpack(body, RevocationsSchema)?.entries ?? [];
  return entries.map(({ $typeName: _, ...entry }) => entry);
}

function names({ resources }: Compiled): string[] {
  return resources.map(({ name }) => name);
}

function configOf(compiled: Compiled, name: string) {
  const body = compiled.resources.find((resource) => resource.name === `virtualServers/${name}`)?.body;
  assert.ok(body);
  const config = anyUnpack(body, VirtualServerConfigSchema);
  assert.ok(config);
  return config;
}

function backendOf(compiled: Compiled, name: string) {
  const body = compiled.resources.find((resource) => resource.name === name)?.body;
  assert.ok(body);
  const found = anyUnpack(body, BackendSchema);
  assert.ok(found);
  return found;
}
