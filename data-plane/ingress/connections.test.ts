import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { test } from "node:test";
import type { Log } from "../../common/log.ts";
import { eventually } from "../../test/support/eventually.ts";
import { limitConnections, networkOf } from "./connections.ts";

async function listening(limits: { max: number; perAddressMax: number | undefined }) {
  const warnings: string[] = [];
  const log = { warn: ({ reason }: { reason: string }) => void warnings.push(reason) } as unknown as Log;
  const server = createServer((_request, response) => void response.end());
  limitConnections(server, { ...limits, log });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, warnings, [Symbol.asyncDispose]: () => closed(server) };
}

async function closed(server: Server): Promise<void> {
  server.close();
  server.closeAllConnections();
  await once(server, "close");
}

/** A connection, once the server has let it in; undefined when it hung up. */
async function open(server: Server, localAddress: string): Promise<Socket | undefined> {
  const socket = connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1", localAddress });
  socket.on("error", () => undefined);
  socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const isIn = await Promise.race([once(socket, "data").then(() => true), once(socket, "close").then(() => false)]);
  return isIn ? socket : undefined;
}

test("one address has so many connections, others have theirs, and one that ended makes room", async () => {
  await using served = await listening({ max: 100, perAddressMax: 2 });
  const first = await open(served.server, "127.0.0.1");
  assert.ok(first);
  assert.ok(await open(served.server, "127.0.0.1"));
  for (let i = 0; i < 5; i++) assert.equal(await open(served.server, "127.0.0.1"), undefined);
  assert.ok(await open(served.server, "127.0.0.2"));
  first.destroy();
  await eventually("there is room again", () => open(served.server, "127.0.0.1"));
  assert.equal(await open(served.server, "127.0.0.1"), undefined);
  assert.deepEqual(served.warnings, ["one address has as many connections open as it may"], "said once");
});

test("there are so many connections in all, and those that are open stay", async () => {
  await using served = await listening({ max: 3, perAddressMax: undefined });
  const sockets = [];
  for (let i = 0; i < 3; i++) sockets.push(await open(served.server, "127.0.0.1"));
  assert.equal(await open(served.server, "127.0.0.1"), undefined);
  assert.ok(sockets.every((socket) => socket && !socket.destroyed));
  assert.deepEqual(served.warnings, ["as many connections as there may be are open"]);
});

test("files are left for others, however many connections may be open", async () => {
  await using served = await listening({ max: Number.MAX_SAFE_INTEGER, perAddressMax: undefined });
  const { userLimits } = process.report.getReport() as { userLimits: { open_files: { soft: number | string } } };
  const soft = Number(userLimits.open_files.soft);
  if (Number.isFinite(soft)) assert.equal(served.server.maxConnections, Math.floor(soft * 0.8));
});

for (const [address, network] of [
  ["192.0.2.7", "192.0.2.7"],
  ["::ffff:192.0.2.7", "192.0.2.7"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:db8:1:2::9", "2001:db8:1:2::/64"],
  ["2001:db8::9", "2001:db8:0:0::/64"],
  ["::1", "0:0:0:0::/64"],
  ["fe80::1", "fe80:0:0:0::/64"],
  ["1:2:3:4:5:6:7::", "1:2:3:4::/64"],
] as const)
  test(`${address} counts for ${network}`, () => assert.equal(networkOf(address), network));
