import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { validate } from "./validate.ts";

const good = `name: my-vmcp
groupRef: my-team
backends:
  - { name: github, url: "http://127.0.0.1:3001/mcp" }
incomingAuth: { type: anonymous }
outgoingAuth: { source: inline, backends: { github: { type: header_injection, headerInjection: { headerName: X-Key, headerValue: hunter2 } } } }
aggregation: { conflictResolution: prefix }
codeMode: { enabled: true }
`;

async function run(text: string | undefined, output?: "text" | "json", isTTY = false) {
  const config = join(mkdtempSync(join(tmpdir(), "vmcp-validate-")), "vmcp.yaml");
  if (text !== undefined) writeFileSync(config, text);
  let stdout = "";
  let stderr = "";
  const io = {
    stdout: { write: (part: string) => (stdout += part) },
    stderr: { write: (part: string) => (stderr += part), isTTY },
  };
  const code = await validate({ config, ...(output !== undefined && { output }) }, io);
  return { code, stdout, stderr, config };
}

test("a valid file is summed up, and what has no effect is named beside", async () => {
  const { code, stdout, stderr, config } = await run(good);
  assert.equal(code, 0);
  assert.ok(stdout.startsWith(`✓ ${config} is valid\n`));
  for (const words of [
    /name +my-vmcp/,
    /group +my-team/,
    /backends +1: github/,
    /incoming auth +anonymous/,
    /conflict resolution +prefix/,
    /composite tools +0/,
  ]) {
    assert.match(stdout, words);
  }
  assert.match(stderr, /warning: codeMode has no effect/);
  assert.doesNotMatch(stdout + stderr, /hunter2|literal/, "serve uses what stands in its file");
});

test("an invalid file is reported on standard error", async () => {
  const { code, stdout, stderr, config } = await run(good.replace("prefix", "prefixx"));
  assert.deepEqual([code, stdout], [65, ""]);
  assert.ok(stderr.startsWith(`${config}:7:36: error: found "prefixx", wanted one of prefix, priority, manual\n`));
  assert.match(stderr, /did you mean "prefix"\?/);
});

test("a file that is not there, or no file, is a clear line", async () => {
  const missing = await run(undefined);
  assert.equal(missing.code, 65);
  assert.match(missing.stderr, /can't be read: there is no such file/);
  assert.doesNotMatch(missing.stderr, /\n +at /);
  let stderr = "";
  assert.equal(
    await validate({ config: tmpdir() }, { stdout: { write: () => {} }, stderr: { write: (text) => (stderr += text) } }),
    65,
  );
  assert.match(stderr, /it is a directory/);
});

test("machines get one JSON object", async () => {
  const bad = await run(good.replace("prefix", "prefixx"), "json");
  assert.deepEqual([bad.code, bad.stderr], [65, ""]);
  const report = JSON.parse(bad.stdout);
  assert.equal(report.valid, false);
  assert.deepEqual(report.problems, [
    {
      severity: "error",
      file: bad.config,
      line: 7,
      column: 36,
      resource: "virtualServers/my-vmcp",
      path: ["aggregation", "conflictResolution"],
      message: 'found "prefixx", wanted one of prefix, priority, manual',
      hint: 'did you mean "prefix"?',
    },
  ]);
  const valid = JSON.parse((await run(good, "json")).stdout);
  assert.deepEqual([valid.valid, valid.summary.virtualServers[0].backends], [true, ["github"]]);
});

test("colours are for terminals", async () => {
  const esc = String.fromCharCode(0x1b);
  const before = process.env.NO_COLOR;
  delete process.env.NO_COLOR;
  const term = process.env.TERM;
  process.env.TERM = "xterm";
  try {
    assert.match((await run("a: 1", "text", true)).stderr, new RegExp(`${esc}\\[31merror`));
    assert.doesNotMatch((await run("a: 1", "text", false)).stderr, new RegExp(esc));
    process.env.NO_COLOR = "1";
    assert.doesNotMatch((await run("a: 1", "text", true)).stderr, new RegExp(esc));
  } finally {
    process.env.TERM = term;
    if (before === undefined) delete process.env.NO_COLOR;
    else process.env.NO_COLOR = before;
  }
});
