// What Prometheus reads of a proxy that has served calls.
import assert from "node:assert/strict";
import { test } from "node:test";
import { plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession, send } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { serve } from "../support/serve.ts";

test("calls, limits and backends are exposed, and nothing that is no metric", async () => {
  await using backend = await startBackend({ tools: [plainTool("hello")], calls: { hello: () => textResult("hi") } });
  const operational = { timeouts: { default: "1s" } };
  await using vmcp = await serve({ backends: [httpBackend("b", backend.url)], operational }, ["--max-in-flight", "7"]);
  const session = await openRawSession(vmcp.url);
  await eventually("it is listed", async () => (await session.result("tools/list")).includes("b_hello"));
  for (let i = 0; i < 3; i++) assert.match(await session.result("tools/call", `{"name":"b_hello"}`), /hi/);
  backend.set({ calls: { hello: () => new Promise<never>(() => undefined) } });
  assert.match(await session.result("tools/call", `{"name":"b_hello"}`), /"error"/);

  const page = await send(`${vmcp.address}/metrics`, { method: "GET" });
  assert.equal(page.status, 200);
  assert.equal(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
  const lines = `${page.body}`.trimEnd().split("\n");
  const shape = /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{([a-z_]+="[^"\n]*",?)+\})? (-?\d+(\.\d+)?(e-?\d+)?|\+Inf|NaN))$/;
  assert.deepEqual(
    lines.filter((line) => !shape.test(line)),
    [],
  );
  const series = lines.filter((line) => !line.startsWith("#")).map((line) => line.slice(0, line.lastIndexOf(" ")));
  assert.equal(new Set(series).size, series.length, "a series comes once");

  const value = (start: string): number =>
    Number(
      lines
        .find((line) => line.startsWith(start))
        ?.split(" ")
        .at(-1),
    );
  const resource = /backend="([^"]+)",outcome="success"/.exec(`${page.body}`)?.[1];
  assert.match(`${resource}`, /backends\/b$/);
  assert.equal(value(`vmcp_backend_calls_total{backend="${resource}",outcome="success"}`), 3);
  assert.equal(value(`vmcp_backend_calls_total{backend="${resource}",outcome="timeout"}`), 1);
  assert.equal(value(`vmcp_backend_call_duration_seconds_count{backend="${resource}"}`), 4);
  assert.ok(value(`vmcp_backend_call_duration_seconds_sum{backend="${resource}"}`) >= 1);
  assert.equal(value(`vmcp_backend_call_duration_seconds_bucket{backend="${resource}",le="0.75"}`), 3);
  assert.equal(value(`vmcp_limit{limit="in_flight"}`), 7);
  assert.equal(value(`vmcp_limit_used{limit="sessions"}`), 1);
  assert.equal(value(`vmcp_virtual_server_tools{`), 1);
  assert.ok(value("process_resident_memory_bytes") > 1e7);
});
