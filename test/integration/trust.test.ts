// Certificates between real processes, while clients call: enrolled, renewed, replaced, revoked. No call may notice.
import assert from "node:assert/strict";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "node:tls";
import { requestCertificate } from "../../common/certificate-request.ts";
import { openAuthority } from "../../control-plane/trust/authority.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { whyMissing } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { startPostgres } from "../support/postgres.ts";
import { type Finished, type RunningVmcp, runVmcp, runVmcpctl, startVmcp, temporaryDirectory } from "../support/processes.ts";
import { completeText, startStatelessBackend } from "../support/stateless-backend.ts";
import { callTool } from "../support/stateless-client.ts";

type Folder = Awaited<ReturnType<typeof temporaryDirectory>>;

test("proxies enrol, certificates on both sides change under calls, and one that is revoked is out until it gets a new token", async (t) => {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryDirectory());
  const url = await backendUrl(stack);
  const server = await serverCertificate(folder);
  await server.replace();
  const flags = ["--trust-dir", join(folder.path, "trust"), ...server.flags, "--certificate-ttl", "10s"];
  const plane = stack.use(await startTrusted(folder, "a", [...flags, "--store", join(folder.path, "vmcp.db")]));
  const [one, two] = [await plane.proxy("edge-1"), await plane.proxy("edge-2")];
  stack.use(one);
  stack.use(two);

  const plain = await runVmcpctl(plane.address, ["whoami"]);
  assert.equal(plain.code, 69);
  assert.match(plain.stderr, /no control plane answers at .* \(it hangs up; when it speaks TLS, see --tls-ca\)/);

  // An operator far away, who may edit and nothing more.
  const alice = await plane.operator("alice", "admin");
  const applied = await alice("apply", "-f", await folder.write("team.yaml", teamOf(url)));
  assert.equal(applied.code, 0, applied.stderr);
  assert.match(applied.stdout + applied.stderr, /2\/2 proxies acknowledged/);
  assert.match((await alice("whoami")).stdout, /^spiffe:\/\/vmcp\.local\/operator\/alice \(certificate, until .*\)\nadmin\n$/);

  const calls = startCalls([one, two]);
  const before = await shownSerial(plane.address);
  await server.replaceHalf();
  await sleep(2_500);
  assert.equal(await shownSerial(plane.address), before, "half of a pair is not taken");
  await server.finish();
  await eventually("the new certificate is shown", async () => (await shownSerial(plane.address)) !== before);
  // Half of ten seconds, so each is renewed three times meanwhile.
  await sleep(17_000);
  const changed = await alice("apply", "-f", await folder.write("more.yaml", teamOf(url, "another")));
  assert.match(changed.stdout + changed.stderr, /2\/2 proxies acknowledged/);
  const issued = (await plane.ctl("proxy", "certificates")).stdout;
  assert.ok(countOf(issued, "/edge-1 ") >= 4, issued);
  assert.ok(countOf(issued, "/edge-2 ") >= 4, issued);
  for (const proxy of [one, two]) assert.equal(countOf(proxy.stderr(), "no stream to the control plane"), 0, proxy.stderr());

  const { config } = (await (await fetch(`${two.address}/status`)).json()) as { config: { certificate_ends: string } };
  const endsMs = Date.parse(config.certificate_ends) - Date.now();
  assert.ok(endsMs > 0 && endsMs <= 10_000, config.certificate_ends);

  const revoked = await plane.ctl("proxy", "revoke", "edge-1", "--reason", "drill");
  assert.equal(revoked.code, 0, revoked.stderr);
  await eventually("its stream is gone", async () =>
    /^edge-1 .* DISCONNECTED /m.test((await plane.ctl("proxy", "status")).stdout),
  );
  await eventually("it is refused when it comes again", () => /the certificate has been revoked/.test(one.stderr()));
  assert.match((await plane.ctl("proxy", "status")).stdout, /^edge-2 .* SYNCED /m);
  await sleep(1_000); // it goes on with what it has
  const { made, failed } = await calls.stop();
  t.diagnostic(`${made} calls, ${failed.length} failed`);
  assert.ok(made > 200, `${made} calls`);
  assert.deepEqual(failed, []);

  await plane.token("edge-1");
  await eventually("it is back", async () => /^edge-1 .* SYNCED /m.test((await plane.ctl("proxy", "status")).stdout), 30_000);
  const trail = (await plane.ctl("audit", "list", "--limit", "200")).stdout;
  assert.match(trail, /spiffe:\/\/vmcp\.local\/operator\/alice +ApplyResources +allowed/);
  assert.match(trail, /RevokeCertificates +allowed/);
  assert.match(trail, /spiffe:\/\/vmcp\.local\/proxy\/default\/edge-2 +Enrol +allowed/);
  assert.match(trail, /spiffe:\/\/vmcp\.local\/proxy\/default\/edge-1 +StreamSnapshots +denied UNAUTHENTICATED/);
  assert.equal((await plane.ctl("audit", "verify")).code, 0);
});

test("what one control plane issued and revoked holds at the other", {
  skip: await whyMissing("postgres", "postgresql"),
}, async () => {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryDirectory());
  const postgres = stack.use(await startPostgres());
  await openAuthority({ directory: join(folder.path, "ca") }, "example.org", Date.now);
  const given = ["--ca-cert", join(folder.path, "ca/ca.pem"), "--ca-key", join(folder.path, "ca/ca-key.pem")];
  const flags = [...given, "--trust-domain", "example.org", "--store", postgres.freshUrl()];
  const first = stack.use(await startTrusted(folder, "a", flags));
  const second = stack.use(await startTrusted(folder, "b", flags));
  const bob = await first.operator("bob", "viewer");
  await eventually("the second knows him", async () => (await bob("get", "proxies", "--server", second.address)).code === 0);
  // A token of one, spent at the other.
  await first.token("edge-1");
  const proxy = stack.use(await second.proxy("edge-1", false));
  await eventually("it follows the second", async () => /^edge-1 .* SYNCED /m.test((await second.ctl("proxy", "status")).stdout));
  const refused = await bob("apply", "-f", await folder.write("team.yaml", teamOf("http://127.0.0.1:9/mcp")));
  assert.equal(refused.code, 77, refused.stderr);
  assert.equal((await first.ctl("proxy", "revoke", "edge-1")).code, 0);
  await eventually("the second ends its stream", () => /the certificate has been revoked/.test(proxy.stderr()), 30_000);
  assert.equal((await second.ctl("operator", "revoke", "spiffe://example.org/operator/bob")).code, 0);
  await eventually("the first refuses him", async () => (await bob("get", "proxies")).code === 77, 30_000);
});

for (const [what, args, code, said] of [
  [
    "a control plane that others could reach",
    ["control-plane", "--listen", "0.0.0.0:0", "--store", ":memory:"],
    1,
    /refusing to listen on 0\.0\.0\.0:0 in plain text: give it certificates \(--trust-dir DIR/,
  ],
  [
    "a proxy of a control plane elsewhere",
    ["proxy", "--id", "p", "--port", "0", "--control-plane", "192.0.2.1:7400"],
    65,
    /refusing to speak to 192\.0\.2\.1:7400 in plain text: enrol p with --enrol-token-file/,
  ],
  [
    "half of a pair of flags",
    ["control-plane", "--ca-cert", "ca.pem"],
    64,
    /--ca-cert and --ca-key go together; --ca-key is missing/,
  ],
  [
    "an authority that is not there",
    ["control-plane", "--ca-cert", "/nowhere/ca.pem", "--ca-key", "/nowhere/key.pem", "--store", ":memory:"],
    1,
    /can't read \/nowhere\/ca\.pem: ENOENT/,
  ],
] satisfies [string, string[], number, RegExp][]) {
  test(`${what} does not start, and says why`, async () => {
    const ended = await runVmcp(args, { ms: 20_000 });
    assert.equal(ended.code, code, ended.stderr);
    assert.match(ended.stderr, said);
    assert.doesNotMatch(ended.stderr, /^ +at /m);
  });
}

test("vmcpctl speaks plain text to this machine only", async () => {
  const { code, stderr } = await runVmcpctl("192.0.2.1:7400", ["whoami"]);
  assert.equal(code, 64, stderr);
  assert.match(stderr, /refusing to speak to 192\.0\.2\.1:7400 in plain text/);
});

interface TrustedProcess extends AsyncDisposable {
  readonly address: string;
  /** Of this machine. */
  ctl(...args: string[]): Promise<Finished>;
  /** Writes the file that this proxy's token comes from. */
  token(name: string): Promise<void>;
  /** Enrolled when it is given; `withToken` (default) makes a token first. */
  proxy(name: string, withToken?: boolean): Promise<RunningVmcp>;
  /** Gives `vmcpctl` as this operator, over TLS. */
  operator(name: string, role: string): Promise<(...args: string[]) => Promise<Finished>>;
}

async function startTrusted(folder: Folder, name: string, flags: readonly string[]): Promise<TrustedProcess> {
  const socket = `unix:${join(folder.path, `${name}.sock`)}`;
  const plane = await startVmcp(["control-plane", "--listen", "127.0.0.1:0", socket, ...flags]);
  const address = plane.adminAddress;
  const ctl = (...args: string[]) => runVmcpctl(socket, args);
  const tokenFile = (proxy: string) => join(folder.path, `${proxy}.token`);

  async function token(proxy: string): Promise<void> {
    const { code, stdout, stderr } = await ctl("proxy", "token", "create", "--name-prefix", proxy);
    assert.equal(code, 0, stderr);
    await writeFile(tokenFile(proxy), stdout);
  }

  return {
    ...{ address, ctl, token },
    async proxy(id, withToken = true) {
      if (withToken) await token(id);
      const where = ["--control-plane", address, "--port", "0", "--state-dir", join(folder.path, id)];
      const proxy = await startVmcp(["proxy", "--id", id, "--drain-delay", "0s", "--enrol-token-file", tokenFile(id), ...where], {
        isReady: false,
      });
      await eventually(`${id} is enrolled`, () => proxy.logs().some(({ msg }) => msg === "enrolled"));
      return proxy;
    },
    async operator(operator, role) {
      const made = await ctl("operator", "certificate", operator, "--out", folder.path);
      assert.equal(made.code, 0, made.stderr);
      const bound = await ctl("role", "bind", operator, "--subject", made.stdout.trim(), "--role", role);
      assert.equal(bound.code, 0, bound.stderr);
      const [cert, key] = [join(folder.path, `${operator}.pem`), join(folder.path, `${operator}-key.pem`)];
      const proof = ["--tls-ca", join(folder.path, "ca.pem"), "--tls-cert", cert, "--tls-key", key];
      return (...args) => runVmcpctl(address, [...proof, ...args]);
    },
    [Symbol.asyncDispose]: async () => void (await plane.stop()),
  };
}

/** A certificate for the server in files, of the authority in the trust directory. */
async function serverCertificate(folder: Folder) {
  const authority = await openAuthority({ directory: join(folder.path, "trust") }, "vmcp.local", Date.now);
  const [certFile, keyFile] = [join(folder.path, "server.pem"), join(folder.path, "server-key.pem")];
  let waitingKey = "";

  async function put(file: string, text: string): Promise<void> {
    await writeFile(`${file}.new`, text, { mode: 0o600 });
    await rename(`${file}.new`, file);
  }

  async function replaceHalf(): Promise<void> {
    const { key, request } = await requestCertificate();
    const identity = { kind: "control-plane", trustDomain: "vmcp.local", scope: "", name: "test" } as const;
    const { certificate } = await authority.issue(request, { identity, usage: "server", ttlMs: 3_600_000 });
    await put(certFile, certificate);
    waitingKey = key;
  }

  const finish = () => put(keyFile, waitingKey);
  return {
    flags: ["--tls-cert", certFile, "--tls-key", keyFile],
    ...{ replaceHalf, finish },
    async replace() {
      await replaceHalf();
      await finish();
    },
  };
}

/** Serial number of the certificate that new connections see. */
async function shownSerial(address: string): Promise<string> {
  const [host, port] = address.split(":");
  const socket = connect({ host: host as string, port: Number(port), rejectUnauthorized: false, ALPNProtocols: ["h2"] });
  try {
    await new Promise((resolve, reject) => void socket.once("secureConnect", resolve).once("error", reject));
    return socket.getPeerCertificate().serialNumber;
  } finally {
    socket.destroy();
  }
}

function startCalls(proxies: readonly RunningVmcp[]) {
  const failed: string[] = [];
  let made = 0;
  let isStopped = false;
  const running = proxies.map(async ({ address }) => {
    while (!isStopped) {
      const answer = await callTool(`${address}/team/mcp`, "b_echo").catch((error: unknown) => ({
        text: "",
        body: String(error),
      }));
      made += 1;
      if (answer.text !== "here") failed.push(answer.body.slice(0, 200));
      await sleep(5);
    }
  });
  return {
    async stop() {
      isStopped = true;
      await Promise.all(running);
      return { made, failed };
    },
  };
}

async function backendUrl(stack: AsyncDisposableStack): Promise<string> {
  const tool = JSON.stringify({ name: "echo", inputSchema: { type: "object" } });
  return stack.use(await startStatelessBackend({ tools: [tool], calls: { echo: () => completeText("here") } })).url;
}

function teamOf(url: string, more?: string): string {
  const others = more === undefined ? [] : [httpBackend(more, "http://127.0.0.1:9/mcp")];
  return JSON.stringify(virtualServer("team", { backends: [httpBackend("b", url), ...others] }));
}

function countOf(text: string, what: string): number {
  return text.split(what).length - 1;
}
