// What roles, groups and proofs let somebody do, over TLS, as the real server decides it.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import {
  type ClientReadableStream,
  credentials,
  InterceptingCall,
  type Interceptor,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { SignJWT } from "jose";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "../../proto/gen/grpc/health/v1/health_pb.ts";
import { ServerReflection, type ServerReflectionResponse } from "../../proto/gen/grpc/reflection/v1/reflection_pb.ts";
import { AdminService } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { Role, TrustService } from "../../proto/gen/vmcp/admin/v1/trust_pb.ts";
import { DiscoveryService, StreamSnapshotsRequestSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { type Client, createClient, openChannel, type Tls } from "../../proto/grpc.ts";
import { eventually } from "../../test/support/eventually.ts";
import { type Issuer, startIssuer } from "../../test/support/issuer.ts";
import { callRaw, grpcDeadline, startTrustedPlane, type TrustedPlane } from "../../test/support/trusted-plane.ts";

type Init = MessageInitShape<typeof ResourceSchema>;

const outgoingAuth = { source: "inline", default: { type: "unauthenticated" } };
const audience = "vmcp-control-plane";
const stack = new AsyncDisposableStack();
let issuer: Issuer;
let plane: TrustedPlane;
let local: Client<typeof AdminService>;

before(async () => {
  issuer = stack.use(await startIssuer());
  plane = stack.use(await startTrustedPlane({ security: { oidc: { issuer: issuer.issuer, audience } } }));
  local = stack.use(createClient(AdminService, plane.socket, credentials.createInsecure()));
  const resources = [
    group("red"),
    backend("red", "one"),
    group("blue"),
    backend("blue", "one"),
    server("shop", "red", { type: "anonymous" }),
    policy("anonymous"),
  ];
  await local.applyResources({ resources }, grpcDeadline());
});
after(() => stack.disposeAsync());

describe("an editor of a group", () => {
  let editor: Client<typeof AdminService>;
  before(async () => {
    editor = client(await plane.operator("red-editor", Role.EDITOR, "red"));
  });

  for (const [what, resources] of [
    ["changes a backend of the group", [backend("red", "one", "http://127.0.0.1:9/other")]],
    ["adds a backend to it", [backend("red", "two")]],
    ["changes the group", [group("red", "ours")]],
    ["changes what its virtual server shows", [server("shop", "red", { type: "anonymous" }, { metadata: { a: "b" } })]],
  ] satisfies [string, Init[]][]) {
    test(what, async () => {
      const { changes } = await editor.applyResources({ resources, validateOnly: true }, grpcDeadline());
      assert.equal(changes.length, 1);
    });
  }

  for (const [what, resources, wanted] of [
    [
      "change a backend of another group",
      [backend("blue", "one", "http://127.0.0.1:9/x")],
      /needs the role editor in the group "blue"/,
    ],
    ["hide one such among others", [backend("red", "two"), backend("blue", "two")], /in the group "blue"/],
    ["ask whether another group's is what he thinks", [backend("blue", "one")], /in the group "blue"/],
    ["make another group", [group("green")], /in the group "green"/],
    [
      "weaken who may call",
      [server("shop", "red", { type: "local" })],
      /needs the role security-admin everywhere to change "virtualServers\/shop"/,
    ],
    ["publish the group at a second place", [server("shop2", "red", { type: "anonymous" })], /security-admin/],
    ["take another policy", [server("shop", "red", undefined, { authPolicyRef: "strict" })], /security-admin/],
    [
      "pass on headers of clients",
      [server("shop", "red", { type: "anonymous" }, { passthroughHeaders: ["x-a"] })],
      /security-admin/,
    ],
    ["move a virtual server to another group", [server("shop", "blue", { type: "anonymous" })], /in the group "blue"/],
    ["change a policy", [policy("local")], /security-admin/],
  ] satisfies [string, Init[], RegExp][]) {
    test(`can't ${what}, not even on trial`, async () => {
      for (const validateOnly of [true, false])
        await refused(editor.applyResources({ resources, validateOnly }, grpcDeadline()), status.PERMISSION_DENIED, wanted);
    });
  }

  test("can't delete what is not of the group", async () => {
    await refused(
      editor.deleteResource({ name: "groups/blue", force: true }, grpcDeadline()),
      status.PERMISSION_DENIED,
      /"blue"/,
    );
    await refused(
      editor.deleteResource({ name: "authPolicies/strict" }, grpcDeadline()),
      status.PERMISSION_DENIED,
      /security-admin/,
    );
  });

  test("sees the group, and nothing else", async () => {
    assert.equal((await editor.listResources({ kind: "backends", group: "red" }, grpcDeadline())).resources.length, 1);
    assert.equal((await editor.getResource({ name: "groups/red" }, grpcDeadline())).resource?.name, "groups/red");
    await refused(
      editor.listResources({ kind: "backends", group: "blue" }, grpcDeadline()),
      status.PERMISSION_DENIED,
      /viewer in the group "blue"/,
    );
    await refused(editor.getResource({ name: "groups/blue/backends/one" }, grpcDeadline()), status.PERMISSION_DENIED, /"blue"/);
    for (const ask of [
      () => editor.listResources({}, grpcDeadline()),
      () => editor.getResource({ name: "virtualServers/shop" }, grpcDeadline()),
      () => editor.listProxies({}, grpcDeadline()),
      () => editor.listRevisions({}, grpcDeadline()),
    ])
      await refused(ask(), status.PERMISSION_DENIED, /needs the role viewer everywhere/);
  });
});

test("an operator rolls back what is no policy, and no policy", async () => {
  const operator = client(await plane.operator("night-shift", Role.OPERATOR));
  await local.applyResources({ resources: [backend("blue", "one", "http://127.0.0.1:9/changed")] }, grpcDeadline());
  assert.equal((await operator.rollbackResources({}, grpcDeadline())).changes.length, 1);
  await local.applyResources({ resources: [server("shop", "red", { type: "local" })] }, grpcDeadline());
  const back = operator.rollbackResources({}, grpcDeadline());
  await refused(back, status.PERMISSION_DENIED, /security-admin/);
  await local.rollbackResources({}, grpcDeadline());
});

test("a security-admin gives roles, but not admin, and makes nobody's certificate", async () => {
  const tls = await plane.operator("guard", Role.SECURITY_ADMIN);
  using trust = createClient(TrustService, plane.address, tls);
  const subject = "spiffe://vmcp.local/operator/guard";
  await trust.createRoleBinding({ binding: { name: "g1", subject: "oidc:x", role: Role.VIEWER } }, grpcDeadline());
  const rise = trust.createRoleBinding({ binding: { name: "g2", subject, role: Role.ADMIN } }, grpcDeadline());
  await refused(rise, status.PERMISSION_DENIED, /only an admin gives or takes the role admin/);
  await refused(trust.issueOperatorCertificate({ name: "root" }, grpcDeadline()), status.PERMISSION_DENIED, /role admin/);
});

for (const [what, binding, wanted] of [
  ["a subject that is nobody", { subject: "alice", role: Role.VIEWER }, /"alice" is no subject/],
  ["a proxy", { subject: "spiffe://vmcp.local/proxy/a/b", role: Role.VIEWER }, /is no subject/],
  ["no role", { subject: "oidc:a" }, /binding\.role: is not set/],
  ["admin of a group", { subject: "oidc:a", role: Role.ADMIN, group: "red" }, /is for everything/],
] as const) {
  test(`a role is not bound to ${what}`, async () => {
    await refused(
      plane.local.createRoleBinding({ binding: { name: "bad", ...binding } }, grpcDeadline()),
      status.INVALID_ARGUMENT,
      wanted,
    );
  });
}

describe("a bearer token", () => {
  const calling = async (token: string) => {
    using trust = createClient(TrustService, plane.address, plane.stranger, showing(token));
    return await trust.whoAmI({}, grpcDeadline());
  };

  test("of the provider says who somebody is, with the roles of his groups", async () => {
    await plane.local.createRoleBinding(
      { binding: { name: "platform", subject: "oidc-group:platform", role: Role.VIEWER } },
      grpcDeadline(),
    );
    const me = await calling(await issuer.sign({ sub: "alice", aud: audience, groups: ["platform", 7] }));
    assert.deepEqual(
      [me.identity, me.provenBy, me.bindings.map(({ name }) => name)],
      ["oidc:alice", "bearer token", ["platform"]],
    );
  });

  for (const [what, token, wanted] of [
    ["for somebody else", () => issuer.sign({ sub: "a", aud: "other" }), /unexpected "aud"/],
    ["of another issuer", () => issuer.sign({ sub: "a", aud: audience, iss: "https://other.example" }), /unexpected "iss"/],
    ["that has ended", () => issuer.sign({ sub: "a", aud: audience, exp: Math.floor(Date.now() / 1000) - 120 }), /"exp"/],
    ["that never ends", () => issuer.sign({ sub: "a", aud: audience, exp: undefined }), /"exp"/],
    ["without a subject", () => issuer.sign({ aud: audience }), /"sub"/],
    ["that nobody signed", () => issuer.sign({ sub: "a", aud: audience }, { header: { alg: "none" } }), /not valid/],
    ["signed with what everybody knows", () => signedWithPublicKey(), /not valid/],
  ] satisfies [string, () => Promise<string>, RegExp][]) {
    test(`${what} is refused, and not repeated`, async () => {
      const text = await token();
      const error = await refused(calling(text), status.UNAUTHENTICATED, wanted);
      assert.ok(!error.details.includes(text.split(".")[2] || "…"));
    });
  }

  test("counts on this machine too: who shows one is not admin", async () => {
    const token = await issuer.sign({ sub: "bob", aud: audience });
    using trust = createClient(TrustService, plane.socket, credentials.createInsecure(), showing(token));
    const me = await trust.whoAmI({}, grpcDeadline());
    assert.deepEqual([me.identity, me.bindings], ["oidc:bob", []]);
  });
});

describe("an open stream", () => {
  test("of a proxy is its own: with another's name it is refused", async () => {
    const tls = await plane.proxy("mine");
    const hello = (id: string) =>
      toBinary(
        StreamSnapshotsRequestSchema,
        create(StreamSnapshotsRequestSchema, { message: { case: "hello", value: { node: { id } } } }),
      );
    const path = "/vmcp.discovery.v1.DiscoveryService/StreamSnapshots";
    const channel = openChannel(plane.address, tls);
    const other = await callRaw(channel, { path, isStream: true }, { bytes: Buffer.from(hello("yours")) });
    const own = await callRaw(channel, { path, isStream: true }, { bytes: Buffer.from(hello("mine")), ms: 1_000 });
    channel.close();
    assert.deepEqual([other.code, other.messages], [status.PERMISSION_DENIED, 0]);
    assert.match(other.details, /of the proxy "mine", and not of "yours"/);
    assert.deepEqual([own.code, own.messages], [status.CANCELLED, 1], "by us, once it was answered");
  });

  test("of a proxy ends when its certificate is revoked", async () => {
    using discovery = createClient(DiscoveryService, plane.address, await plane.proxy("short"));
    const call = discovery.streamSnapshots();
    const ended = endOf(call);
    const answered = new Promise((resolve) => call.on("data", resolve));
    call.write({ message: { case: "hello", value: { node: { id: "short" } } } });
    await answered;
    await plane.local.revokeCertificates({ name: "short" }, grpcDeadline());
    const { code, details } = await ended;
    assert.deepEqual([code, details], [status.UNAUTHENTICATED, "the certificate has been revoked"]);
    await eventually("it is not connected", async () => {
      const { proxies } = await local.listProxies({}, grpcDeadline());
      return proxies.find(({ node }) => node?.id === "short")?.disconnectTime !== undefined;
    });
  });

  test("of an operator ends when the certificate does", async () => {
    const tls = await plane.made({ name: "brief" }, { ttlMs: 4_000 });
    const binding = { name: "brief", subject: "spiffe://vmcp.local/operator/brief", role: Role.VIEWER };
    await plane.local.createRoleBinding({ binding }, grpcDeadline());
    const stream = client(tls).watchProxies({});
    const ended = endOf(stream.on("data", () => undefined));
    const { code, details } = await ended;
    assert.deepEqual([code, details], [status.UNAUTHENTICATED, "the certificate has ended"]);
  });

  test("of an operator ends when the role is taken away, and other streams go on", async () => {
    const [watcher, other] = [
      client(await plane.operator("watcher", Role.VIEWER)),
      client(await plane.operator("stays", Role.VIEWER)),
    ];
    const [stream, kept] = [watcher.watchProxies({}), other.watchProxies({})];
    const [ended, keptEnd] = [endOf(stream), endOf(kept)];
    await Promise.all([stream, kept].map((one) => new Promise((resolve) => one.once("data", resolve))));
    const { bindings } = await plane.local.listRoleBindings({}, grpcDeadline());
    const its = bindings.find(({ subject }) => subject.endsWith("/watcher"));
    await plane.local.deleteRoleBinding({ name: its?.name ?? "" }, grpcDeadline());
    assert.equal((await ended).code, status.PERMISSION_DENIED);
    assert.equal(
      await Promise.race([keptEnd.then(() => "ended"), new Promise((resolve) => setTimeout(resolve, 200, "open"))]),
      "open",
    );
    kept.cancel();
  });
});

test("refusals are in the audit trail, but can't fill it", async () => {
  const nobody = client(plane.stranger);
  for (let at = 0; at < 120; at++)
    await refused(
      nobody.deleteResource({ name: `groups/g${at}` }, grpcDeadline()),
      status.UNAUTHENTICATED,
      /show a client certificate/,
    );
  const viewer = client(await plane.operator("looker", Role.VIEWER));
  await refused(viewer.deleteResource({ name: "groups/red" }, grpcDeadline()), status.PERMISSION_DENIED, /may change nothing/);
  const { events } = await local.listAuditEvents({ pageSize: 1000 }, grpcDeadline());
  const denied = events.filter(({ decision, method }) => decision === "denied" && method === "DeleteResource");
  assert.ok(denied.filter(({ actor }) => actor === "unknown").length <= 60, `${denied.length} lines`);
  const his = denied.find(({ actor }) => actor === "spiffe://vmcp.local/operator/looker");
  assert.deepEqual([his?.code, his?.reason], ["PERMISSION_DENIED", "spiffe://vmcp.local/operator/looker may change nothing"]);
  assert.equal((await local.verifyAudit({}, grpcDeadline())).fault, "");
});

test("health says how the services are, to whoever is known", async () => {
  using health = createClient(Health, plane.address, await plane.operator("monitor"));
  for (const service of ["", "vmcp.admin.v1", "vmcp.discovery.v1"])
    assert.equal((await health.check({ service }, grpcDeadline())).status, Serving.SERVING, service);
  await refused(health.check({ service: "constructor" }, grpcDeadline()), status.NOT_FOUND, /no such service/);
  const watching = health.watch({ service: "vmcp.discovery.v1" });
  const first = await new Promise<{ status: Serving }>((resolve) => watching.once("data", resolve));
  assert.equal(first.status, Serving.SERVING);
  watching.on("error", () => undefined).cancel();
});

test("reflection gives an admin the files as they were compiled, with all that they import", async () => {
  using reflection = createClient(ServerReflection, plane.address, await plane.operator("tools", Role.ADMIN));
  const call = reflection.serverReflectionInfo();
  const ask = async (messageRequest: object) => {
    call.write({ messageRequest } as never);
    return (await new Promise<ServerReflectionResponse>((resolve) => call.once("data", resolve))).messageResponse;
  };
  const listed = await ask({ case: "listServices", value: "" });
  assert.ok(
    listed.case === "listServicesResponse" && listed.value.service.some(({ name }) => name === "vmcp.admin.v1.TrustService"),
  );
  const found = await ask({ case: "fileContainingSymbol", value: "vmcp.admin.v1.AdminService.GetResource" });
  assert.ok(found.case === "fileDescriptorResponse");
  const files = found.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
  const names = files.map(({ name }) => name);
  for (const file of files)
    for (const needed of file.dependency) assert.ok(names.includes(needed), `${file.name} needs ${needed}`);
  const none = await ask({ case: "fileContainingSymbol", value: "no.Such" });
  assert.ok(none.case === "errorResponse" && none.value.errorCode === status.NOT_FOUND);
  call.end();
});

function client(tls: Tls): Client<typeof AdminService> {
  return stack.use(createClient(AdminService, plane.address, tls));
}

function showing(token: string) {
  const interceptor: Interceptor = (options, next) =>
    new InterceptingCall(next(options), {
      start(metadata, listener, go) {
        metadata.set("authorization", `Bearer ${token}`);
        go(metadata, listener);
      },
    });
  return { interceptors: [interceptor] };
}

/** HMAC with the public key as secret: the old trick against those who let the token say how it is to be checked. */
async function signedWithPublicKey(): Promise<string> {
  const { kid = "" } = issuer.publicJwk();
  const claims = { sub: "a", aud: audience, iss: issuer.issuer, exp: Math.floor(Date.now() / 1000) + 60 };
  return new SignJWT(claims).setProtectedHeader({ alg: "HS256", kid }).sign(Buffer.from(issuer.publicPem()));
}

async function refused(call: Promise<unknown>, code: status, wanted: RegExp): Promise<ServiceError> {
  const error = (await call.then(
    () => assert.fail("it was not refused"),
    (caught: unknown) => caught,
  )) as ServiceError;
  assert.equal(error.code, code, error.message);
  assert.match(error.details, wanted);
  return error;
}

function endOf(call: Pick<ClientReadableStream<unknown>, "on">): Promise<ServiceError> {
  return new Promise((resolve) => void call.on("error", resolve));
}

function group(name: string, description = ""): Init {
  return { name: `groups/${name}`, spec: { case: "group", value: { description } } };
}

function backend(of: string, name: string, url = "http://127.0.0.1:9/mcp"): Init {
  return { name: `groups/${of}/backends/${name}`, spec: { case: "backend", value: { name, url, transport: "streamable-http" } } };
}

function policy(type: string): Init {
  return { name: "authPolicies/strict", spec: { case: "authPolicy", value: { incomingAuth: { type }, outgoingAuth } } };
}

function server(name: string, groupRef: string, incomingAuth: { type: string } | undefined, more: object = {}): Init {
  const auth = incomingAuth && { incomingAuth, outgoingAuth };
  const value = { name, groupRef, aggregation: { conflictResolution: "prefix" }, ...auth, ...more };
  return { name: `virtualServers/${name}`, spec: { case: "virtualServer", value } };
}
