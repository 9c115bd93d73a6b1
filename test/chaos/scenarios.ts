// What is done to a fleet under load, and what has to hold. Each gives a line that says what was seen; it throws when something
// did not hold.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { publicKeyOf } from "../../data-plane/session/session-ids.ts";
import { mcpHeaders, openRawSession, send } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { checkLedgers } from "../support/ledger.ts";
import { startRedis, startSentinels } from "../support/redis.ts";
import { type Fleet, startFleet } from "./fleet.ts";
import { type Load, startLoad } from "./load.ts";
import type { Random } from "./random.ts";

export interface Scenario {
  readonly name: string;
  run(random: Random, size: "short" | "full"): Promise<string>;
}

const callMs = 60_000;
const clients = { session: 12, stateless: 6 };

export const scenarios: readonly Scenario[] = [
  {
    name: "rolling restarts",
    async run(random, size) {
      const [rounds, callsMin] = size === "full" ? [20, 100_000] : [1, 1_000];
      await using redis = await startRedis();
      await using fleet = await startFleet(redis.url);
      const load = await startLoad({ fleet, random, clients });
      await eventually("calls are made", () => load.ended() > 100);
      for (let round = 0; round < rounds; round++) {
        const first = random.below(fleet.proxies.length);
        for (let i = 0; i < fleet.proxies.length; i++) {
          await fleet.restart((first + i) % fleet.proxies.length);
          if (load.trouble.length > 0) break;
        }
      }
      await eventually("enough calls were made", () => load.ended() >= callsMin || load.trouble.length > 0, 15 * 60_000);
      await load.stop();
      assert.deepEqual(load.trouble.slice(0, 5), [], `${load.trouble.length} of ${load.ended()} calls failed`);
      checkAll(fleet, load);
      return `${rounds} rounds over ${fleet.proxies.length} proxies: 0 of ${load.ended()} calls failed`;
    },
  },
  {
    name: "a proxy is killed",
    async run(random, size) {
      const kills = size === "full" ? 10 : 1;
      await using redis = await startRedis();
      await using fleet = await startFleet(redis.url);
      const load = await startLoad({ fleet, random, clients });
      await eventually("calls are made", () => load.ended() > 100);
      const failures: number[] = [];
      for (let kill = 0; kill < kills; kill++) {
        await sleep(random.below(500));
        const before = load.trouble.length;
        const inFlight = load.inFlight();
        await fleet.replace(random.below(fleet.proxies.length));
        const failed = load.trouble.length - before;
        assert.ok(failed <= inFlight, `${failed} calls failed, ${inFlight} were in flight`);
        failures.push(failed);
      }
      const before = load.ended();
      await eventually("it goes on", () => load.ended() > before + 200);
      await load.stop();
      assert.equal(load.lost.size, 0, "sessions were lost");
      assert.ok(load.trouble.every((end) => end.kind !== "error" || end.outcome === "unknown"));
      checkAll(fleet, load);
      return `${kills} kills: ${failures.join(", ")} calls in flight failed of ${load.ended()}, none ran twice, no session lost`;
    },
  },
  ...(["killed", "frozen"] as const).map(
    (what): Scenario => ({
      name: `the Redis primary is ${what}`,
      run: (random, size) => redisFails(what, random, size),
    }),
  ),
];

async function redisFails(what: "killed" | "frozen", random: Random, size: "short" | "full"): Promise<string> {
  const idleCount = size === "full" ? 1_000 : 200;
  const pauseMsMax = { killed: 3_000, frozen: 4_000 }[what];
  await using redis = await startSentinels();
  await using fleet = await startFleet(`redis+sentinel://${redis.sentinels.join(",")}/${redis.name}`);
  const load = await startLoad({ fleet, random, clients, pauseMs: 20 });
  await eventually("calls are made", () => load.ended() > 100);
  const idle: string[] = [];
  for (let i = 0; i < idleCount; i += 20)
    idle.push(...(await Promise.all(Array.from({ length: 20 }, async () => (await openRawSession(fleet.url)).id))));
  const ended = idle.splice(0, idleCount / 10);
  for (const id of ended) assert.equal((await send(fleet.url, { method: "DELETE", headers: headersOf(id) })).status, 204);
  const revoked = idle.splice(0, 5);
  await revoke(fleet, revoked);
  await sleep(1_500); // what was told has been copied

  load.sessionPauseMs();
  const primary = await redis.primary();
  primary.kill(what === "killed" ? "SIGKILL" : "SIGSTOP");
  await eventually("another is primary", async () => (await redis.primary()) !== primary, 20_000);
  const results = load.ended();
  await eventually("calls go on", () => load.ended() > results + 500, 30_000);
  const pauseMs = load.sessionPauseMs();
  if (what === "frozen") primary.kill("SIGCONT");
  await sleep(2_000);
  await load.stop();

  assert.ok(pauseMs <= pauseMsMax, `clients with sessions waited ${Math.round(pauseMs)} ms`);
  const refused = load.trouble.filter((end) => end.kind !== "error" || end.outcome !== "not_executed");
  assert.deepEqual(refused.slice(0, 5), [], "other than: not executed, try again");
  assert.ok(!load.trouble.some(({ era }) => era === "stateless"), "the other era was touched");
  let lost = load.lost.size;
  for (const id of idle) if ((await ping(fleet.url, id)) !== 200) lost++;
  const all = idle.length + clients.session;
  assert.ok(lost <= all / 1_000, `${lost} of ${all} sessions were lost`);
  for (const { address } of fleet.proxies)
    for (const id of [...ended, ...revoked]) assert.equal(await ping(`${address}/team/mcp`, id), 404, "it came back");
  checkAll(fleet, load);
  return `sessions paused for ${Math.round(pauseMs)} ms, ${lost} of ${all} lost, ${ended.length + revoked.length} that had ended stayed so`;
}

/** By the operator, who knows sessions by their keys. */
async function revoke({ mesh }: Fleet, ids: readonly string[]): Promise<void> {
  const { code, stdout, stderr } = await mesh.ctl("session", "revoke", ...ids.map(publicKeyOf));
  assert.equal(code, 0, stdout + stderr);
}

function headersOf(id: string): Record<string, string> {
  return { ...mcpHeaders, "mcp-session-id": id, "mcp-protocol-version": "2025-11-25" };
}

async function ping(url: string, id: string): Promise<number> {
  return (await send(url, { method: "POST", headers: headersOf(id), body: `{"jsonrpc":"2.0","id":1,"method":"ping"}` })).status;
}

function checkAll({ runs }: Fleet, { ledger }: Load): void {
  const violations = checkLedgers(ledger.entries(), runs.entries(), { endsWithinMs: callMs });
  assert.deepEqual(violations.slice(0, 5), [], `${violations.length} promises were broken`);
}
