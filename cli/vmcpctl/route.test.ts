// `vmcpctl route` as a program, with a real proxy and a real backend.
import assert from "node:assert/strict";
import { test } from "node:test";
import { plainTool, startBackend, textResult } from "../../test/support/backend.ts";
import { declared, startCtlMesh } from "../../test/support/ctl-mesh.ts";
import { eventually } from "../../test/support/eventually.ts";

test("route says where a call goes, or why nowhere", async () => {
  await using backend = await startBackend({
    tools: [plainTool("hello"), plainTool("secret")],
    calls: { hello: () => textResult("hello") },
  });
  await using mesh = await startCtlMesh();
  const rules = "prefix, tools: [{ workload: fetch, filter: [hello] }]";
  await mesh.run(["apply", "-f", "-"], declared.replace("http://127.0.0.1:9/mcp", backend.url).replace("prefix", rules));
  const unknown = await mesh.run(["route", "dev", "fetch_hello"]);
  assert.deepEqual([unknown.code, unknown.stderr], [1, "no connected proxy has reported yet what clients see\n"]);
  assert.match(unknown.stdout, /^fetch_hello on dev: UNKNOWN, .*by its prefix it would be "hello" of "fetch"\n/);
  await mesh.proxy("edge");
  const routed = await eventually("the proxy has reported", async () => {
    const answer = await mesh.run(["route", "dev", "fetch_hello"]);
    return answer.code === 0 && answer;
  });
  assert.match(
    routed.stdout,
    /^fetch_hello on dev: ROUTED, it is tool "hello" of "fetch"\nbackend groups\/tools\/backends\/fetch, tool hello\n\nRULE +SAYS +WHERE\n/,
  );
  assert.match(routed.stdout, /^visibility +the filter lists "hello" +virtualServers\/dev: aggregation\.tools\[0\]\.filter$/m);
  assert.match(routed.stdout, /^edge +healthy +-$/m);
  const hidden = await mesh.run(["route", "dev", "secret", "--as", "alice"]);
  assert.equal(hidden.code, 1);
  assert.match(hidden.stdout, /^secret on dev: HIDDEN, .*the filter does not list "secret"\n/);
  const missing = await mesh.run(["route", "dev", "fetch_helo"]);
  assert.match(missing.stdout, /NOT_FOUND.*\ndid you mean fetch_hello\?\n/);
  assert.equal(
    JSON.parse((await mesh.run(["route", "dev", "fetch_hello", "-o", "json"])).stdout).outcome,
    "ROUTE_OUTCOME_ROUTED",
  );
  assert.equal((await mesh.run(["route", "dev", "x", "--claims", "[]"])).code, 64);
});
