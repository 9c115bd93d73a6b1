// Every method that there is, as the generated code has it, called by everybody who must get nothing there. A method that is added to a
// .proto is among them by itself; without a row in control-plane/admin/access.ts it fails here, by name.
import assert from "node:assert/strict";
import { globSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { DescService } from "@bufbuild/protobuf";
import { credentials, Metadata, status } from "@grpc/grpc-js";
import { rowOf } from "../control-plane/admin/access.ts";
import { services } from "../control-plane/admin/services.ts";
import { Role } from "../proto/gen/vmcp/admin/v1/trust_pb.ts";
import { openChannel, type Tls } from "../proto/grpc.ts";
import { temporaryDirectory } from "./support/processes.ts";
import { callRaw, grpcDeadline, startTrustedPlane, type TrustedPlane } from "./support/trusted-plane.ts";

interface Method {
  readonly path: string;
  readonly name: string;
  readonly isStream: boolean;
}

const everyService = await generatedServices();
const methods: Method[] = everyService.flatMap(({ typeName, methods: all }) =>
  all.map(({ name, methodKind }) => ({ path: `/${typeName}/${name}`, name, isStream: methodKind !== "unary" })),
);

test("every method has a row that says who may call it", () => {
  const missing = methods.filter(({ path }) => rowOf(path) === undefined).map(({ path }) => path);
  assert.deepEqual(missing, [], "add these to control-plane/admin/access.ts");
});

test("every service is served, so that what follows calls the real thing", () => {
  assert.deepEqual(services.map(({ typeName }) => typeName).sort(), everyService.map(({ typeName }) => typeName).sort());
  assert.ok(methods.length >= 34, `${methods.length} methods`);
});

test("a method that nobody knows is for nobody", () => assert.equal(rowOf("/vmcp.admin.v1.AdminService/NotThere"), undefined));

test("what a viewer may call only looks, by its name", () => {
  const looks = /^(Get|Fetch|List|Watch|Verify|Diff|Analyze|Explain|Tap|Top|Check|WhoAmI)/;
  const others = methods.filter(({ path, name }) => rowOf(path)?.who === "viewer" && !looks.test(name));
  assert.deepEqual(
    others.map(({ path }) => path),
    [],
  );
});

describe("over TLS", () => {
  let plane: TrustedPlane;
  before(async () => {
    plane = await startTrustedPlane();
  });
  after(async () => plane[Symbol.asyncDispose]());

  for (const [who, show, bearer] of [
    ["nobody known", async () => plane.stranger, undefined],
    ["somebody with a certificate of another authority", foreign, undefined],
    [
      "an operator whose certificate has ended",
      () => plane.made({ name: "root" }, { nowMs: Date.now() - 3_600_000, ttlMs: 60_000 }),
      undefined,
    ],
    ["an operator whose certificate was revoked", revokedOperator, undefined],
    ["a proxy whose certificate was revoked", revokedProxy, undefined],
    ["an operator of another trust domain", () => plane.made({ trustDomain: "other.example" }), undefined],
    ["a control plane", () => plane.made({ kind: "control-plane" }), undefined],
    ["whoever uses a server's certificate", () => plane.made({ kind: "operator" }, { usage: "server" }), undefined],
    ["somebody with a bearer token that is none", async () => plane.stranger, "Bearer not-a-token"],
    ["somebody with a password", async () => plane.stranger, "Basic YWRtaW46YWRtaW4="],
    ["an admin who shows a bad bearer token too", () => plane.operator("both", Role.ADMIN), "Bearer x.y.z"],
  ] as const satisfies [string, () => Promise<Tls>, string | undefined][]) {
    test(`${who} gets nothing from any method`, async () => {
      const metadata = new Metadata();
      if (bearer) metadata.set("authorization", bearer);
      assert.deepEqual(await whoAnswered(plane, await show(), methods, metadata), []);
    });
  }

  test("plain text gets nothing from any method", async () => {
    assert.deepEqual(await whoAnswered(plane, undefined, methods), []);
  });

  test("a proxy gets snapshots and its next certificate, and nothing else", async () => {
    const own = methods.filter(({ path }) => ["proxy", "anyone"].includes(rowOf(path)?.who ?? ""));
    assert.deepEqual(own.map(({ name }) => name).sort(), ["Enrol", "StreamSnapshots"]);
    const others = methods.filter((method) => !own.includes(method));
    assert.deepEqual(await whoAnswered(plane, await plane.proxy("edge-1"), others), []);
  });

  test("an operator without a role learns who he is and that the server is there", async () => {
    const answered = await whoAnswered(plane, await plane.operator("newcomer"), methods);
    assert.deepEqual(
      answered.map((text) => text.split(":")[0]),
      methods.filter(({ path }) => rowOf(path)?.who === "authenticated").map(({ path }) => path),
    );
  });

  for (const [name, role, may] of [
    ["viewer", Role.VIEWER, ["viewer"]],
    ["operator", Role.OPERATOR, ["viewer", "operator", "change"]],
    ["editor", Role.EDITOR, ["viewer", "editor", "change"]],
    ["security-admin", Role.SECURITY_ADMIN, ["viewer", "security-admin", "change"]],
    ["admin", Role.ADMIN, ["viewer", "operator", "editor", "security-admin", "admin", "change"]],
  ] as const) {
    test(`the role ${name} opens its rows, and no others`, async () => {
      const answered = await whoAnswered(plane, await plane.operator(`the-${name}`, role), methods);
      const wanted = methods.filter(({ path }) => ["authenticated", ...may].includes(rowOf(path)?.who ?? ""));
      assert.deepEqual(answered.map((text) => text.split(":")[0]).sort(), wanted.map(({ path }) => path).sort());
    });
  }

  async function foreign(): Promise<Tls> {
    await using folder = await temporaryDirectory();
    return await plane.made({ name: "the-admin" }, { directory: join(folder.path, "other") });
  }

  async function revokedOperator(): Promise<Tls> {
    const tls = await plane.operator("left", Role.ADMIN);
    await plane.local.revokeCertificates({ name: "spiffe://vmcp.local/operator/left" }, grpcDeadline());
    return tls;
  }

  async function revokedProxy(): Promise<Tls> {
    const tls = await plane.proxy("edge-9");
    await plane.local.revokeCertificates({ name: "edge-9" }, grpcDeadline());
    return tls;
  }
});

/** One line for every method that did not refuse: it answered, or failed for another reason than who calls. */
async function whoAnswered(
  { address }: TrustedPlane,
  tls: Tls | undefined,
  called: readonly Method[],
  metadata = new Metadata(),
): Promise<string[]> {
  using channel = disposable(openChannel(address, tls ?? credentials.createInsecure()));
  const refusals = tls === undefined ? [status.UNAVAILABLE] : [status.UNAUTHENTICATED, status.PERMISSION_DENIED];
  const answered: string[] = [];
  for (const method of called) {
    const { code, details, messages } = await callRaw(channel, method, { metadata, ms: 4_000 });
    if (messages > 0 || !refusals.includes(code))
      answered.push(`${method.path}: ${status[code]} ${details} (${messages} messages)`);
  }
  return answered;
}

function disposable<T extends { close(): void }>(channel: T): T & Disposable {
  return Object.assign(channel, { [Symbol.dispose]: () => channel.close() });
}

async function generatedServices(): Promise<DescService[]> {
  const root = join(import.meta.dirname, "..");
  const modules = await Promise.all(globSync("proto/gen/**/*_pb.ts", { cwd: root }).map((file) => import(join(root, file))));
  const all = modules.flatMap((module) => Object.values(module as Record<string, DescService | undefined>));
  return all.filter((one): one is DescService => one?.kind === "service");
}
