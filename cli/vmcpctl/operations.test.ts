// What looks after vmcpctl and the mesh: contexts, completion in a real bash, help, the doctor. The real program, a real control plane.
import assert from "node:assert/strict";
import { chmod, mkdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { pino } from "pino";
import { startControlPlane } from "../../control-plane/index.ts";
import { startDataPlane } from "../../data-plane/index.ts";
import { httpBackend, virtualServer } from "../../test/support/config.ts";
import { eventually } from "../../test/support/eventually.ts";
import { runProcess, temporaryDirectory } from "../../test/support/processes.ts";
import { startSdkBackend } from "../../test/support/sdk-backend.ts";

const log = pino({ level: "silent" });
const program = join(import.meta.dirname, "../vmcpctl.ts");
const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());

const plane = stack.use(await startControlPlane({ listen: "127.0.0.1:0", store: ":memory:", id: "cp-a", log }));
const backend = stack.use(await startSdkBackend("notes"));
const home = stack.use(await temporaryDirectory());
const live = Promise.withResolvers<string>();
const where = { controlPlanes: [plane.address], host: "127.0.0.1", port: 0, id: "edge-1" };
stack.use(await startDataPlane({ ...where, log, onLive: live.resolve }));
const declared = await home.write(
  "team.yaml",
  JSON.stringify(virtualServer("team", { backends: [httpBackend("b", backend.url)] })),
);
assert.equal((await run(["apply", "-f", declared], { VMCP_SERVER: plane.address })).code, 0);
await live.promise;

test("set-context keeps what flags say, with absolute paths, in a file for its owner alone", async () => {
  await using config = await emptyConfig();
  const made = await config.run([
    "config",
    "set-context",
    "prod",
    "--server",
    "cp.example:7400",
    "--tls-ca",
    "ca.pem",
    "--token-file",
    "t",
  ]);
  assert.deepEqual([made.code, made.stdout], [0, "contexts/prod created\n"]);
  assert.equal((await config.run(["config", "set-context", "prod", "--token-file", "other"])).stdout, "contexts/prod changed\n");
  await config.run(["--server", plane.address, "config", "set-context", "here"]);
  assert.equal((await stat(config.file)).mode & 0o777, 0o600);
  const text = await readFile(config.file, "utf8");
  assert.match(text, /^currentContext: prod$/m);
  assert.match(text, new RegExp(`tokenFile: ${process.cwd()}/other$`, "m"));
  const listed = await config.run(["config", "get-contexts"]);
  assert.match(
    listed.stdout,
    /^CURRENT +NAME +SERVER +TLS +SHOWS\n\* +prod +cp\.example:7400 +\/\S+ca\.pem +token\n- +here +127\.0\.0\.1:\d+ +no +-\n$/,
  );
  assert.equal((await config.run(["config", "use-context", "here"])).code, 0);
  assert.equal((await config.run(["get", "vs", "-o", "name"])).stdout, "virtualServers/team\n");
  assert.equal((await config.run(["config", "set-context", "no name", "--server", "x:1"])).code, 64);
  assert.equal((await config.run(["config", "set-context", "empty"])).code, 64);
  assert.match((await config.run(["config", "use-context", "nope"])).stderr, /no context "nope" .*there are: prod, here/);
});

test("flags come before the environment, and the environment before the file", async () => {
  await using config = await emptyConfig();
  await config.run(["config", "set-context", "here", "--server", plane.address]);
  await config.run(["config", "set-context", "away", "--server", "127.0.0.1:1"]);
  const code = async (args: string[], env: Record<string, string> = {}) => (await config.run([...args, "get", "vs"], env)).code;
  assert.deepEqual(
    [
      await code([]),
      await code([], { VMCP_CONTEXT: "away" }),
      await code(["--context", "here"], { VMCP_CONTEXT: "away" }),
      await code(["--context", "here"], { VMCP_SERVER: "127.0.0.1:1" }),
      await code([], { VMCP_SERVER: "127.0.0.1:1" }),
      await code([], { VMCP_SERVER: plane.address, VMCP_CONTEXT: "away" }),
      await code(["--server", plane.address, "--context", "away"]),
    ],
    [0, 69, 0, 0, 69, 0, 0],
  );
});

test("what a context holds for its server is not shown to another that the environment names", async () => {
  await using config = await emptyConfig();
  const token = join(config.path, "missing-token");
  await config.run(["config", "set-context", "prod", "--server", "127.0.0.1:1", "--token-file", token]);
  assert.equal((await config.run(["get", "vs"])).code, 65, "it would be shown there");
  assert.equal((await config.run(["get", "vs"], { VMCP_SERVER: plane.address })).code, 0);
});

test("a file that others may write, or that holds what it must not, is refused, and view blanks that", async () => {
  await using config = await emptyConfig();
  await config.write("currentContext: a\ncontexts:\n  a: { server: x:1, token: s3cret }\nother: s3cret\n");
  const view = await config.run(["config", "view"]);
  assert.equal(view.code, 0);
  assert.match(view.stdout, /server: x:1\n +token: \(?"?\(redacted/);
  const used = await config.run(["get", "vs"]);
  assert.equal(used.code, 65);
  assert.match(used.stderr, /contexts\.a: unknown token; .*secrets stay in files of their own/);
  for (const { stdout, stderr } of [view, used]) assert.doesNotMatch(stdout + stderr, /s3cret/);
  await config.write("contexts: {}\n");
  await chmod(config.file, 0o666);
  assert.match((await config.run(["get", "vs"])).stderr, /others may write it; run "chmod 600/);
  await chmod(config.file, 0o600);
  await config.write("a: [s3cret\n");
  const broken = await config.run(["get", "vs"]);
  assert.deepEqual([broken.code, /s3cret/.test(broken.stderr)], [65, false]);
});

for (const [line, wanted] of [
  ["vmcpctl ge", ["get"]],
  ["vmcpctl get vir", ["virtualservers"]],
  ["vmcpctl get vs ", ["team"]],
  ["vmcpctl describe backend ", []],
  ["vmcpctl proxy ", ["certificates", "drain", "revoke", "status", "token"]],
  ["vmcpctl proxy drain ", ["edge-1"]],
  ["vmcpctl tap --out", ["--output"]],
  ["vmcpctl tap --output ", ["json", "table"]],
  ["vmcpctl tap --tool b_se", ["b_search"]],
  ["vmcpctl tap --virtual-server ", ["team"]],
  ["vmcpctl top w", ["workloads"]],
  ["vmcpctl config use-context ", ["only"]],
  ["vmcpctl nonsense ", []],
] as const) {
  test(`bash completes "${line}" to ${wanted.join(", ") || "nothing of ours"}`, async () => {
    await using config = await emptyConfig();
    await config.run(["config", "set-context", "only", "--server", plane.address]);
    const offers = await inBash(config.path, line);
    assert.deepEqual(
      offers.filter((offer) => line !== "vmcpctl proxy " || wanted.includes(offer as never)),
      wanted,
    );
  });
}

test("names are asked for within a second, and nothing is said when nobody answers", async () => {
  await using config = await emptyConfig();
  const startMs = performance.now();
  const { code, stdout, stderr } = await config.run(["__complete", "--", "--server", "192.0.2.1:7400", "--tls", "get", "vs", ""]);
  assert.deepEqual([code, stdout, stderr], [0, "", ""]);
  assert.ok(performance.now() - startMs < 5_000);
});

test("scripts for the other shells say how to use them", async () => {
  for (const shell of ["zsh", "fish"])
    assert.match((await run(["completion", shell])).stdout, /^#.*\n(# Put this into |complete )/);
  assert.equal((await run(["completion", "csh"])).code, 64);
});

test("help loads nothing that speaks to a control plane or reads files", async () => {
  const hook = `import { registerHooks } from "node:module";
    registerHooks({ resolve(name, context, next) {
      if (/grpc|protobuf|_pb|zod|^yaml/.test(name)) process.stderr.write(name + " ");
      return next(name, context);
    } });`;
  const args = ["--import", `data:text/javascript,${encodeURIComponent(hook)}`, program];
  assert.equal((await runProcess(process.execPath, [...args, "--help"])).stderr, "");
  assert.match(
    (await runProcess(process.execPath, [...args, "doctor", "--server", "127.0.0.1:1"])).stderr,
    /grpc/,
    "it would show",
  );
});

test("help knows commands and exit codes, and guesses at others", async () => {
  assert.match((await run(["help", "exit-codes"])).stdout, /^ {3}79 {2}.*\n {2}130 /m);
  assert.match((await run(["help", "proxy", "drain"])).stdout, /^Usage: vmcpctl proxy drain/);
  const unknown = await run(["help", "drian"]);
  assert.deepEqual([unknown.code, unknown.stdout], [64, ""]);
  assert.match((await run(["rolout"])).stderr, /Did you mean rollout\?/);
  assert.match((await run(["get", "bakcends"])).stderr, /did you mean "backends"\?/);
});

test("the doctor finds nothing wrong with what is well", async () => {
  await eventually("the backend is seen", async () => {
    return /all are well/.test((await run(["doctor"], { VMCP_SERVER: plane.address })).stdout);
  });
  const { code, stdout, stderr } = await run(["doctor"], { VMCP_SERVER: plane.address });
  assert.deepEqual([code, stderr], [0, ""]);
  const lines = stdout.split("\n").map((line) => line.replace(/:.*/, ""));
  assert.deepEqual(lines.slice(0, 10), [
    ...["✓ client", "✓ address", "✓ control plane", "✓ clock", "✓ store", "✓ snapshot", "✓ control planes", "✓ proxies"],
    ...["✓ rollout", "✓ backends"],
  ]);
  const { findings } = JSON.parse((await run(["doctor", "-o", "json"], { VMCP_SERVER: plane.address })).stdout);
  assert.ok(findings.every(({ outcome }: { outcome: string }) => outcome === "ok"));
});

test("the doctor says what is wrong and what to do, and is 79", async () => {
  await using sick = await startControlPlane({
    listen: "127.0.0.1:0",
    store: ":memory:",
    log,
    nowMs: () => Date.now() - 3_600_000,
  });
  const clock = await run(["doctor"], { VMCP_SERVER: sick.address });
  assert.equal(clock.code, 79);
  assert.match(clock.stdout, /^✗ clock: that of the control plane is 3[56]\d\d\.\d s behind\n {4}certificates .* NTP$/m);
  assert.match(clock.stdout, /^! proxies: none is connected\n {4}start one/m);
  const nobody = await run(["doctor"], { VMCP_SERVER: "127.0.0.1:1" });
  assert.equal(nobody.code, 79);
  assert.match(nobody.stdout, /^✗ address: 127\.0\.0\.1:1: ECONNREFUSED\n {4}is a control plane running/m);
  assert.match(nobody.stdout, /^- backends: nobody can be asked$/m);
  const tls = await run(["doctor", "--tls"], { VMCP_SERVER: plane.address });
  assert.equal(tls.code, 79);
  assert.match(tls.stdout, /^✗ control plane: [\s\S]*whether it speaks TLS/m);
});

async function run(args: readonly string[], env: Record<string, string> = {}) {
  return await runProcess(process.execPath, [program, ...args], {
    env: { XDG_CONFIG_HOME: join(home.path, "none"), NO_COLOR: "1", ...env },
  });
}

/** A home without contexts. */
async function emptyConfig() {
  const folder = await temporaryDirectory();
  const file = join(folder.path, "vmcp", "config.yaml");
  return {
    path: folder.path,
    file,
    async write(text: string) {
      await mkdir(join(folder.path, "vmcp"), { recursive: true });
      await writeFile(file, text, { mode: 0o600 });
    },
    run: (args: readonly string[], env: Record<string, string> = {}) => run(args, { XDG_CONFIG_HOME: folder.path, ...env }),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

/** What a bash with our completion offers for a line, with the cursor at its end. */
async function inBash(configHome: string, line: string): Promise<string[]> {
  const bin = join(configHome, "bin");
  await mkdir(bin, { recursive: true });
  await symlink(program, join(bin, "vmcpctl")).catch(() => undefined);
  const script = `
    source <(vmcpctl completion bash)
    COMP_LINE=$1; COMP_POINT=\${#1}
    IFS=' ' read -r -a COMP_WORDS <<< "$1"
    [[ $1 == *' ' ]] && COMP_WORDS+=("")
    COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
    _vmcpctl
    printf '%s\\n' "\${COMPREPLY[@]}"
  `;
  const path = `${bin}:${join(process.execPath, "..")}:${process.env.PATH}`;
  const { stdout, stderr, code } = await runProcess("bash", ["-c", script, "bash", line], {
    env: { XDG_CONFIG_HOME: configHome, PATH: path },
  });
  assert.deepEqual([code, stderr], [0, ""]);
  return stdout.split("\n").filter((offer) => offer !== "");
}
