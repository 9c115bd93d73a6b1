// How a proxy comes to its certificate, and to whom it shows what.
import assert from "node:assert/strict";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pino } from "pino";
import { DiscoveryService } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { createClient } from "../../proto/grpc.ts";
import { eventually } from "../../test/support/eventually.ts";
import { temporaryDirectory } from "../../test/support/processes.ts";
import { grpcDeadline, startTrustedPlane, type TrustedPlane } from "../../test/support/trusted-plane.ts";
import { loadIdentity, saveIdentity } from "./identity.ts";
import { type Link, type LinkOptions, openLink } from "./link.ts";

const stack = new AsyncDisposableStack();
const lines: string[] = [];
const log = pino({ level: "info" }, { write: (line) => void lines.push(line) });
let plane: TrustedPlane;
let rogue: TrustedPlane;

before(async () => {
  [plane, rogue] = [stack.use(await startTrustedPlane()), stack.use(await startTrustedPlane())];
});
after(() => stack.disposeAsync());

test("control planes on this machine need nothing", async () => {
  for (const address of ["127.0.0.1:7400", "localhost:7400", "[::1]:7400", "unix:/run/vmcp.sock"])
    await (await openLink({ controlPlanes: [address], id: "p", log }))[Symbol.asyncDispose]();
});

for (const [what, options, wanted] of [
  [
    "a control plane elsewhere, without a certificate",
    { controlPlanes: ["127.0.0.1:1", "10.0.0.1:7400"] },
    /refusing to speak to 10\.0\.0\.1:7400 in plain text/,
  ],
  ["a token, and nowhere to keep a key", { enrolTokenFile: "/nowhere" }, /needs a directory for its key/],
  [
    "a name that fits no certificate",
    { enrolTokenFile: "/nowhere", stateDirectory: "/tmp", id: "a b" },
    /can't be the name in a certificate/,
  ],
  [
    "files that are not there",
    { certificate: { certFile: "/nowhere/a", keyFile: "/nowhere/b", authorityFile: "/nowhere/c" } },
    /can't read \/nowhere\/a/,
  ],
] satisfies [string, Partial<LinkOptions>, RegExp][]) {
  test(`${what} is refused at the start`, () =>
    assert.rejects(openLink({ controlPlanes: ["127.0.0.1:1"], id: "p", log, ...options }), {
      name: "IdentityError",
      message: wanted,
    }));
}

test("a proxy enrols, keeps key and certificate for itself, and starts with them when no control plane is there", async () => {
  await using folder = await temporaryDirectory();
  const at = { stateDirectory: join(folder.path, "state"), enrolTokenFile: await token(folder, plane) };
  {
    await using link = await openLink({ controlPlanes: [plane.address], id: "edge-1", log, ...at });
    await securityOf(link);
  }
  const [file] = await readdir(at.stateDirectory);
  assert.equal(file, "identity.pem");
  assert.equal((await stat(join(at.stateDirectory, "identity.pem"))).mode & 0o777, 0o600);
  await using link = await openLink({ controlPlanes: ["127.0.0.1:1"], id: "edge-1", stateDirectory: at.stateDirectory, log });
  assert.notEqual(link.security(), undefined);
});

test("a proxy is not another one, and says where it has its name from", async () => {
  await using folder = await temporaryDirectory();
  const stateDirectory = join(folder.path, "state");
  {
    await using link = await openLink({
      controlPlanes: [plane.address],
      id: "edge-2",
      stateDirectory,
      enrolTokenFile: await token(folder, plane),
      log,
    });
    await securityOf(link);
  }
  const opening = openLink({ controlPlanes: [plane.address], id: "edge-3", stateDirectory, log });
  await assert.rejects(opening, {
    name: "IdentityError",
    message: /has the certificate of "edge-2", and this proxy is "edge-3"/,
  });
});

for (const [what, spoil] of [
  ["cut off", (text: string) => text.slice(0, text.length / 2)],
  [
    "of two proxies",
    (text: string, other: string) =>
      text.replace(
        /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----/,
        /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----/.exec(other)?.[0] ?? "",
      ),
  ],
  ["empty", () => ""],
] as const) {
  test(`an identity on disk that is ${what} stops the start, with its path`, async () => {
    await using folder = await temporaryDirectory();
    const [one, two] = [await enrolledIn(join(folder.path, "one"), folder), await enrolledIn(join(folder.path, "two"), folder)];
    await writeFile(join(folder.path, "one", "identity.pem"), spoil(one, two));
    await assert.rejects(loadIdentity(join(folder.path, "one")), {
      name: "IdentityError",
      message: /one\/identity\.pem can't be used: .*; move it away to enrol anew/,
    });
  });
}

test("what is written is whole: what another start left aside is written over", async () => {
  await using folder = await temporaryDirectory();
  await enrolledIn(folder.path, folder);
  const identity = await loadIdentity(folder.path);
  assert.ok(identity);
  await writeFile(join(folder.path, "identity.pem.new"), "x".repeat(10_000), { mode: 0o644 });
  await saveIdentity(folder.path, identity);
  assert.deepEqual(await loadIdentity(folder.path), identity);
  assert.equal((await stat(join(folder.path, "identity.pem"))).mode & 0o777, 0o600);
});

test("a certificate in files is shown, and the next one when it is replaced", async () => {
  await using folder = await temporaryDirectory();
  const put = async () => {
    const tls = await plane.made({ kind: "proxy", name: "given" });
    await folder.write("key.pem", tls.key ?? "");
    await folder.write("ca.pem", tls.authority ?? "");
    return { certFile: await folder.write("cert.pem", tls.certificate ?? ""), text: tls.certificate };
  };
  const first = await put();
  const at = (name: string) => join(folder.path, name);
  const certificate = { certFile: first.certFile, keyFile: at("key.pem"), authorityFile: at("ca.pem") };
  await using link = await openLink({ controlPlanes: [plane.address], id: "given", certificate, log });
  const shown = async () => {
    const security = link.security();
    assert.ok(security && "certificate" in security);
    using discovery = createClient(DiscoveryService, plane.address, security);
    const call = discovery.streamSnapshots();
    call.on("error", () => undefined).write({ message: { case: "hello", value: { node: { id: "given" } } } });
    await new Promise((resolve) => call.once("data", resolve));
    call.cancel();
    return security.certificate;
  };
  assert.equal(await shown(), first.text);
  const changed = link.changed(AbortSignal.timeout(10_000));
  const second = await put();
  await changed;
  assert.equal(await shown(), second.text);
});

test("a server of another authority gets no token", async () => {
  await using folder = await temporaryDirectory();
  const enrolTokenFile = await token(folder, plane);
  await using link = await openLink({
    controlPlanes: [rogue.address],
    id: "careful",
    stateDirectory: folder.path,
    enrolTokenFile,
    log,
  });
  await eventually("it says why", () =>
    lines.some((line) => line.includes("careful") && line.includes("not of the authority that the enrolment token is for")),
  );
  assert.equal(link.security(), undefined);
  const { certificates } = await rogue.local.listCertificates({}, grpcDeadline());
  assert.deepEqual(certificates, []);
});

async function token(folder: { write(name: string, text: string): Promise<string> }, of: TrustedPlane): Promise<string> {
  const { token: text } = await of.local.createEnrolmentToken({}, grpcDeadline());
  return folder.write("token", text);
}

let count = 0;

/** Gives the text of the identity. */
async function enrolledIn(
  stateDirectory: string,
  folder: { write(name: string, text: string): Promise<string> },
): Promise<string> {
  await using link = await openLink({
    controlPlanes: [plane.address],
    id: `n${++count}`,
    stateDirectory,
    enrolTokenFile: await token(folder, plane),
    log,
  });
  await securityOf(link);
  return readFile(join(stateDirectory, "identity.pem"), "utf8");
}

async function securityOf(link: Link): Promise<void> {
  await eventually("it has a certificate", () => link.security() !== undefined);
}
