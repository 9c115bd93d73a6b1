// The first thing a newcomer runs.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { whyMissing } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, runProcess, startProcess } from "../support/processes.ts";

const tour = join(import.meta.dirname, "../../deploy/demo/tour.ts");
const run = (...args: string[]) => runProcess(process.execPath, [tour, ...args], { ms: 110_000 });

test("the tour calls a tool on each server, ends with 0, and works a second time", async () => {
  for (const _round of [1, 2]) {
    const { code, stdout, stderr } = await run("--once", "--port", String(await freePort()));
    assert.equal(code, 0, stdout + stderr);
    for (const seen of ["everything_echo", "filesystem_read_text_file", "memory_create_entities", "hello through the mesh"]) {
      assert.ok(stdout.includes(seen), stdout);
    }
  }
});

test("a taken port is said in one line, with what to do", async () => {
  const taken = createServer();
  const port = await freePort();
  await new Promise<void>((resolve) => taken.listen(port, "127.0.0.1", resolve));
  try {
    const { code, stderr } = await run("--once", "--port", String(port));
    assert.equal(code, 1);
    assert.match(stderr.trim(), new RegExp(`^Port ${port} is in use\\..*--port ${port + 1}$`));
  } finally {
    taken.close();
  }
});

test("without --once it keeps serving until it is interrupted, then leaves nothing behind", async () => {
  const port = await freePort();
  await using demo = startProcess(process.execPath, [tour, "--port", String(port)]);
  await eventually("it says what to try", () => demo.stdout().includes("Ctrl-C stops everything"), 60_000);
  assert.equal((await fetch(`http://127.0.0.1:${port}/health`)).status, 200);
  demo.kill("SIGINT");
  assert.equal(await demo.ended, 0, demo.stdout() + demo.stderr());
  await assert.rejects(fetch(`http://127.0.0.1:${port}/health`));
});

const skip =
  (await whyMissing("postgres", "postgresql")) ||
  (await whyMissing("nginx", "nginx")) ||
  (await whyMissing("redis-server", "redis-server"));

test("a cluster of plain processes loses a control plane and restarts a proxy, and no call fails", { skip }, async () => {
  const cluster = join(import.meta.dirname, "../../deploy/demo/cluster.ts");
  const { code, stdout, stderr } = await runProcess(process.execPath, [cluster, "--once"], { ms: 110_000 });
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /\d+ calls of one session meanwhile, 0 failed/);
  assert.match(stdout, /^whole: lines 1 to [1-9]/m);
  assert.match(stdout, / {2}\d\d:\d\d:\d\d\.\d{3} +edge-\d +team +tools\/call +everything_echo +everything +ok /);
  assert.equal(stderr, "");
});
