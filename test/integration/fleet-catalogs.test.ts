// What backends offer is known to the whole fleet: one proxy of all watches a backend, and every proxy lists the same, whatever it can
// reach itself.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Backend, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, type SdkClient } from "../support/client.ts";
import { virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Door, openDoor } from "../support/per-proxy-door.ts";
import { lastingPort, type RunningVmcp, runVmcpctl, startVmcp, temporaryDirectory } from "../support/processes.ts";

interface Fleet extends AsyncDisposable {
  readonly plane: RunningVmcp;
  readonly directory: string;
  ctl(...args: string[]): ReturnType<typeof runVmcpctl>;
  apply(document: object): Promise<void>;
  /** Shows backends its id in the header `x-proxy`. */
  proxy(id: string): Promise<RunningVmcp>;
}

test("a change that the watcher hears reaches the clients of all proxies, and another watches when it is killed", async () => {
  await using backend = await helloBackend();
  await using door = await openDoor(backend.url);
  await using fleet = await startFleet();
  await fleet.apply(team({ one: door }));
  const proxies = await Promise.all(["a", "b", "c"].map((id) => fleet.proxy(id)));
  const clients = await Promise.all(proxies.map(({ address }) => openClient(`${address}/team/mcp`)));
  for (const client of clients) await eventually("its tool", async () => (await client.toolNames()).includes("hello"));
  await eventually("one proxy watches", () => door.listening().length === 1);

  await changeIsHeard(backend, clients, "second");
  assert.equal(door.listening().length, 1);
  const watcher = door.listening()[0] as string;
  const rested = ["a", "b", "c"].filter((id) => id !== watcher);

  const at = ["a", "b", "c"].indexOf(watcher);
  proxies[at]?.kill("SIGKILL");
  const killedMs = performance.now();
  const next = await eventually("another watches", () => door.listening().find((id) => rested.includes(id)), 8_000);
  assert.ok(performance.now() - killedMs < 6_000, `after ${performance.now() - killedMs} ms`);
  await changeIsHeard(
    backend,
    clients.filter((_, i) => i !== at),
    "third",
  );
  assert.deepEqual(door.listening(), [next], "and only one");
  for (const client of clients) await client.client.close();
});

test("a proxy that does not reach a backend agrees with the others on every name, and another watches it", async () => {
  await using backend = await helloBackend();
  await using other = await helloBackend();
  await using first = await openDoor(backend.url);
  await using second = await openDoor(other.url);
  await using fleet = await startFleet();
  await fleet.apply(team({ one: first, two: second }));
  const a = await fleet.proxy("a");
  await using onA = await openClient(`${a.address}/team/mcp`);
  await eventually("it listens to both", () => [...first.listening(), ...second.listening()].join() === "a,a");
  first.shutOut("b");
  const b = await fleet.proxy("b");
  await using onB = await openClient(`${b.address}/team/mcp`);
  // `hello` is of backend one, which comes first; b would give the name to backend two if it went by what it reaches.
  assert.deepEqual(await onB.toolNames(), await onA.toolNames());
  assert.equal(await onA.call("hello"), "one");
  await assert.rejects(onB.call("hello"), /backend "one" is unavailable.*not executed/);
  assert.deepEqual(second.requests("b"), [], "nobody asked b to look at what a watches");

  // Now the watcher is the one that does not reach it.
  first.shutOut("a");
  first.shutOut("a2");
  const c = await fleet.proxy("c");
  await eventually("c watches it", () => first.listening().includes("c"), 20_000);
  backend.set({ tools: [plainTool("hello"), plainTool("fresh")] });
  backend.announce("tools");
  for (const client of [onA, onB]) await eventually("the new tool", async () => (await client.toolNames()).includes("fresh"));
  assert.deepEqual(await onB.toolNames(), await onA.toolNames());
  assert.equal(c.address.length > 0, true);
});

test("a proxy lists every tool that starts while all backends are down, with and without a control plane", async () => {
  await using backend = await helloBackend();
  await using other = await startBackend({ tools: [plainTool("look")], calls: { look: () => textResult("seen") } });
  await using fleet = await startFleet();
  await fleet.apply(team({ one: backend, two: other }));
  const a = await fleet.proxy("a");
  const wanted = await eventually("all tools are kept", async () => {
    const { stdout } = await fleet.ctl("proxy", "status", "-o", "json");
    await using client = await openClient(`${a.address}/team/mcp`);
    const names = await client.toolNames();
    return names.length === 2 && stdout.includes("listingDigest") && names;
  });
  await eventually("the snapshot has both", () => snapshots(a) >= 2);
  for (const one of [backend, other]) await one.down();

  const late = await fleet.proxy("late");
  await listsAndFails(late, wanted);
  await eventually("it is kept on disk", async () => (await fleet.ctl("proxy", "status")).stdout.includes("late"));
  fleet.plane.kill("SIGKILL");
  await late.stop();
  const again = await fleet.proxy("late");
  await listsAndFails(again, wanted);

  for (const one of [backend, other]) await one.up();
  await using client = await openClient(`${again.address}/team/mcp`);
  await eventually("it serves", async () => (await client.call("look")) === "seen");
  // Nobody says who is to watch, so it does.
  backend.set({ tools: [plainTool("hello"), plainTool("fresh")] });
  await eventually("it watches by itself", () => backend.streams() > 0, 12_000);
  backend.announce("tools");
  await eventually("the new tool", async () => (await client.toolNames()).includes("fresh"));
});

async function listsAndFails(proxy: RunningVmcp, wanted: readonly string[]): Promise<void> {
  await using client = await openClient(`${proxy.address}/team/mcp`);
  assert.deepEqual(await client.toolNames(), wanted);
  await assert.rejects(client.call("hello"), /backend "one" is unavailable, the call was not executed/);
}

async function changeIsHeard(backend: Backend, clients: readonly SdkClient[], tool: string): Promise<void> {
  for (const client of clients) client.notifications.length = 0;
  backend.set({ tools: [plainTool("hello"), plainTool(tool)] });
  backend.announce("tools");
  for (const client of clients) {
    await eventually("list_changed", () => client.notifications.includes("notifications/tools/list_changed"));
    await eventually("the new tool", async () => (await client.toolNames()).includes(tool));
  }
}

function helloBackend(): Promise<Backend> {
  return startBackend({ tools: [plainTool("hello")], calls: { hello: () => textResult("one") } });
}

function team(backends: Readonly<Record<string, Pick<Door, "url">>>) {
  const headerInjection = { headerName: "x-proxy", headerValueEnv: "PROXY_NAME" };
  return virtualServer("team", {
    backends: Object.entries(backends).map(([name, { url }]) => ({ name, url, transport: "streamable-http" })),
    outgoingAuth: { source: "inline", default: { type: "header_injection", headerInjection } },
    aggregation: { conflictResolution: "priority", conflictResolutionConfig: { priorityOrder: Object.keys(backends) } },
  });
}

/** How many snapshots went live. */
function snapshots(proxy: RunningVmcp): number {
  return proxy.logs().filter(({ msg }) => msg === "snapshot is live").length;
}

async function startFleet(): Promise<Fleet> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const address = `127.0.0.1:${await lastingPort()}`;
  const plane = stack.use(await startVmcp(["control-plane", "--listen", address, "--store", ":memory:"]));
  const ctl = (...args: string[]) => runVmcpctl(plane.adminAddress, args);
  const owned = stack.move();
  return {
    plane,
    directory: directory.path,
    ctl,
    async apply(document) {
      const { code, stderr } = await ctl("apply", "-f", await directory.write("team.yaml", JSON.stringify(document)));
      assert.equal(code, 0, stderr);
    },
    async proxy(id) {
      const flags = ["--id", id, "--control-plane", plane.adminAddress, "--port", "0", "--state-dir", `${directory.path}/${id}`];
      return owned.use(await startVmcp(["proxy", ...flags, "--drain-delay", "0s"], { env: { PROXY_NAME: id } }));
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
