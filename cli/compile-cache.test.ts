import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { test } from "node:test";
import { runVmcp, temporaryDirectory } from "../test/support/processes.ts";

test("what was compiled is kept in the user's own cache, and nothing depends on there being one", async () => {
  await using cache = await temporaryDirectory();
  const kept = await runVmcp(["validate", "-c", "/nowhere.yaml"], { env: { XDG_CACHE_HOME: cache.path } });
  assert.deepEqual(await readdir(cache.path), ["vmcp"]);
  const [version] = await readdir(`${cache.path}/vmcp`);
  assert.ok((await readdir(`${cache.path}/vmcp/${version}`)).length > 10);
  const without = await runVmcp(["validate", "-c", "/nowhere.yaml"], { env: { XDG_CACHE_HOME: "/proc/none" } });
  assert.deepEqual([without.code, without.stdout, without.stderr], [kept.code, kept.stdout, kept.stderr]);
});
