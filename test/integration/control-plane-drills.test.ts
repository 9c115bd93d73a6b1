// What clients notice of a control plane that dies, freezes, comes back, or says nonsense: nothing. Real processes, live calls.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { httpBackend } from "../support/config.ts";
import { whyMissing } from "../support/debian.ts";
import { type Drill, startDrill } from "../support/drill.ts";
import { eventually } from "../support/eventually.ts";
import { startPostgres } from "../support/postgres.ts";
import { openAdmin } from "../support/proxy-streams.ts";

test("a proxy that is restarted while no control plane is there serves from disk, says so, and is found again later", async () => {
  await using drill = await startDrill();
  const [plane, proxy] = [at(drill.planes, 0), at(drill.proxies, 0)];
  assert.equal((await proxy.config()).source, "control plane");
  await plane.kill();
  const readyMs = await proxy.restart();
  assert.ok(readyMs < 5_000, `${readyMs} ms from start to ready`);
  const config = await proxy.config();
  assert.deepEqual([config.source, config.control_plane], ["disk", undefined]);
  assert.ok(config.age_seconds > 0, JSON.stringify(config));
  await sleep(1_000); // calls are served by it too
  await plane.start();
  await drill.all("SYNCED");
  const { stdout } = await drill.ctl("proxy", "status");
  assert.match(stdout, /^proxy-1 .* disk /m);
  assert.match(stdout, /^proxy-2 .* cp /m);
  assert.equal((await proxy.config()).control_plane, plane.address);
  await noneFailed(drill);
});

test("a control plane that is killed and comes back is followed again within 3 s, and changes go on", async () => {
  await using drill = await startDrill();
  const plane = at(drill.planes, 0);
  await plane.kill();
  await sleep(5_000); // the pauses between attempts have grown
  for (const proxy of drill.proxies) assert.ok((await proxy.config()).age_seconds >= 4);
  await plane.start();
  const backMs = performance.now();
  const follows = async () => (await Promise.all(drill.proxies.map((proxy) => proxy.config()))).every((one) => one.control_plane);
  await eventually("both follow it", follows, 5_000);
  const tookMs = performance.now() - backMs;
  assert.ok(tookMs < 3_000, `${tookMs} ms`);
  const { code, stderr } = await drill.apply([httpBackend("later", "http://127.0.0.1:9/mcp")]);
  assert.equal(code, 0, stderr);
  await noneFailed(drill);
});

test("a control plane that freezes is noticed within 16 s, and followed again when it thaws", async () => {
  await using drill = await startDrill();
  const plane = at(drill.planes, 0);
  plane.process.kill("SIGSTOP");
  const alone = async () => (await Promise.all(drill.proxies.map((proxy) => proxy.config()))).every((one) => !one.control_plane);
  try {
    await eventually("both notice", alone, 16_000);
  } finally {
    plane.process.kill("SIGCONT");
  }
  // A connection that was tried meanwhile is given up after 10 s.
  await drill.all("SYNCED", 15_000);
  await noneFailed(drill);
});

test("a version that the first proxy refuses goes no further, and another revision does", async () => {
  // Only the second has what it refers to: it would take the version, and is not asked.
  await using drill = await startDrill({ env: (proxy) => (proxy === 1 ? { VMCP_DRILL_TOKEN: "x" } : {}) });
  const auth = { type: "header_injection", headerInjection: { headerName: "x-token", headerValueEnv: "VMCP_DRILL_TOKEN" } };
  const { code, stderr } = await drill.apply([httpBackend("needy", "http://127.0.0.1:9/mcp")], {
    outgoingAuth: { source: "inline", backends: { needy: auth } },
  });
  assert.equal(code, 1, stderr);
  assert.match(stderr, /proxy-1 refused [\s\S]*VMCP_DRILL_TOKEN/);
  assert.match((await drill.ctl("rollout", "status")).stdout, / HALTED +0\/2 +0 +1 +1 /);
  const status = await drill.ctl("proxy", "status");
  assert.match(status.stdout, /^proxy-1 .* NACKED /m);
  assert.match(status.stdout, /^proxy-2 .* HELD /m);
  const repaired = await drill.apply();
  assert.equal(repaired.code, 0, repaired.stderr);
  await drill.all("SYNCED");
  assert.match((await drill.ctl("rollout", "status")).stdout, / COMPLETE +2\/2 /);
  await noneFailed(drill);
});

test("routes change all the time under calls, and every proxy has the last change at once", async (t) => {
  const changes = Number(process.env.VMCP_DRILL_CHANGES ?? 100); // 1,000 in the long round
  await using drill = await startDrill();
  using admin = openAdmin(at(drill.planes, 0).address);
  const listed = await admin.listResources({}, { deadline: Date.now() + 5_000 });
  const server = listed.resources.find(({ spec }) => spec.case === "virtualServer");
  assert.ok(server?.spec.case === "virtualServer");
  const [base] = server.spec.value.backends;
  let version = "";
  for (let change = 0; change < changes; change++) {
    const more = [`one-${change}`, `two-${change % 7}`].map((name) => ({ ...base, name, url: `http://127.0.0.1:9/${change}` }));
    const value = { ...server.spec.value, backends: [...server.spec.value.backends, ...more] } as typeof server.spec.value;
    const resources = [{ ...server, etag: "", spec: { case: "virtualServer" as const, value } }];
    ({ version } = await admin.applyResources({ resources, reason: "drill" }, { deadline: Date.now() + 10_000 }));
  }
  const committedMs = performance.now();
  const live = async () => {
    const { proxies } = await admin.listProxies({}, { deadline: Date.now() + 5_000 });
    return proxies.every(
      ({ liveVersion, targetVersion }) => liveVersion === targetVersion && revisionOf(liveVersion) >= revisionOf(version),
    );
  };
  await eventually("every proxy has the last one", live);
  const lastMs = Math.round(performance.now() - committedMs);
  t.diagnostic(`${changes} changes, ${await noneFailed(drill)} calls; the last was everywhere ${lastMs} ms after its commit`);
});

const revisionOf = (version: string): number => Number(/^r(\d+)/.exec(version)?.[1]);

const skip = await whyMissing("postgres", "postgresql");

test("of two control planes on PostgreSQL one is killed, then both: proxies go on, and to whom is there", { skip }, async () => {
  await using postgres = await startPostgres();
  const store = ["--store", postgres.freshUrl()];
  await using drill = await startDrill({ proxies: 3, controlPlanes: [store, store] });
  const [one, other] = [at(drill.planes, 0), at(drill.planes, 1)];
  const followed = () => Promise.all(drill.proxies.map(async (proxy) => (await proxy.config()).control_plane));

  await one.kill();
  const allWith = (plane: string) => async () => (await followed()).every((address) => address === plane);
  await eventually("all follow the other", allWith(other.address), 5_000);
  const added = await drill.apply([httpBackend("second", "http://127.0.0.1:9/mcp")]);
  assert.equal(added.code, 0, added.stderr);
  await drill.all("SYNCED");

  await other.kill();
  await eventually("they follow nobody", async () => (await followed()).every((address) => address === undefined), 5_000);
  const proxy = at(drill.proxies, 0);
  await proxy.restart();
  assert.equal((await proxy.config()).source, "disk");
  await sleep(Number(process.env.VMCP_DRILL_OUTAGE_MS ?? 5_000)); // a minute in the long round

  await one.start();
  await other.start();
  await eventually("all follow somebody", async () => (await followed()).every(Boolean), 5_000);
  await drill.all("SYNCED");
  const removed = await drill.apply();
  assert.equal(removed.code, 0, removed.stderr);
  await drill.all("SYNCED");
  await noneFailed(drill);
});

async function noneFailed(drill: Drill): Promise<number> {
  const { calls, failed } = await drill.stop();
  assert.deepEqual(failed, []);
  assert.ok(calls > 100, `only ${calls} calls`);
  return calls;
}

function at<T>(list: readonly T[], index: number): T {
  const one = list[index];
  assert.ok(one);
  return one;
}
