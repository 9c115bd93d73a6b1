// `vmcpctl analyze` as a program.
import assert from "node:assert/strict";
import { test } from "node:test";
import { declared, runCtl, startCtlMesh } from "../../test/support/ctl-mesh.ts";

const unused = `${declared}---\nkind: Group\nname: old\n`;
const nobody = "127.0.0.1:1";

test("offline it needs no control plane, names the line, and is exit code 79", async () => {
  const { code, stdout, stderr } = await runCtl({ args: ["analyze", "--offline", "-f", "-"], stdin: unused, server: nobody });
  assert.equal(code, 79);
  assert.equal(
    stdout,
    "VMCP0102 Warning UnusedGroup  groups/old  (<stdin>:15:1)\n  no virtual server aggregates this group\n  = name it as groupRef, or delete it\n",
  );
  assert.equal(stderr, "0 errors, 1 warning, 0 info in 4 resources\n");
});

for (const [what, args, wanted] of [
  ["what is suppressed by name", ["--suppress", "VMCP0102=groups/old"], 0],
  ["what is suppressed by a pattern", ["--suppress", "VMCP0102=groups/*"], 0],
  ["another name than it has", ["--suppress", "VMCP0102=groups/older"], 79],
  ["less than is asked for", ["--fail-on", "error"], 0],
  ["anything, with never", ["--fail-on", "never"], 0],
  ["no code at all", ["--suppress", "nonsense"], 64],
] as const) {
  test(`${what} is exit code ${wanted}`, async () => {
    const { code, stderr } = await runCtl({ args: ["analyze", "--offline", "-f", "-", ...args], stdin: unused, server: nobody });
    assert.equal(code, wanted, stderr);
    if (wanted === 0 && args[0] === "--suppress") assert.equal(stderr, "nothing found in 4 resources, 1 suppressed\n");
  });
}

test("a good set is exit code 0, and JSON is for programs", async () => {
  const good = await runCtl({ args: ["analyze", "--offline", "-f", "-"], stdin: declared, server: nobody });
  assert.deepEqual([good.code, good.stdout, good.stderr], [0, "", "nothing found in 3 resources\n"]);
  const json = await runCtl({ args: ["analyze", "--offline", "-f", "-", "-o", "json"], stdin: unused, server: nobody });
  assert.deepEqual(JSON.parse(json.stdout).findings[0].place, "<stdin>:15:1");
  const codes = await runCtl({ args: ["analyze", "--codes"], server: nobody });
  assert.match(codes.stdout, /^VMCP0101 +error +ReferencedResourceNotFound /m);
  assert.equal((await runCtl({ args: ["analyze", "--offline"], server: nobody })).code, 64);
});

test("without files it looks at what is declared, with files as if they were applied", async () => {
  await using mesh = await startCtlMesh();
  await mesh.run(["apply", "-f", "-"], unused);
  const live = await mesh.run(["analyze"]);
  assert.deepEqual([live.code, live.stderr], [79, "0 errors, 1 warning, 0 info in 4 resources and the reports of 0 proxies\n"]);
  assert.match(live.stdout, /^VMCP0102 Warning UnusedGroup {2}groups\/old\n/);
  const breaking = declared.replace(
    "prefix }",
    "prefix }\noperational: { failureHandling: { circuitBreaker: { enabled: false } } }",
  );
  const merged = await mesh.run(["analyze", "-f", "-"], breaking);
  assert.match(
    merged.stdout,
    /VMCP0601 Warning BreakerOff {2}virtualServers\/dev: operational\.failureHandling\.circuitBreaker\.enabled {2}\(<stdin>:14:62\)/,
  );
  assert.equal((await mesh.run(["rollout", "history", "-o", "name"])).stdout, "r1\n");
});
