// Where a proxy goes when a control plane goes, sends it away, or says nothing. The control planes are scripted; the streams are real.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { Metadata, Server, ServerCredentials, type ServerDuplexStream, status } from "@grpc/grpc-js";
import { pino } from "pino";
import { snapshotDigest } from "../../common/snapshot-digest.ts";
import { RetryInfoSchema } from "../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../proto/gen/google/rpc/status_pb.ts";
import {
  ConfigSource,
  DiscoveryService,
  type Hello,
  type StreamSnapshotsRequest,
} from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { addService } from "../../proto/grpc.ts";
import { eventually } from "../../test/support/eventually.ts";
import { createAuthenticators } from "../incoming-auth/registry.ts";
import { oneKey } from "../mcp/seal.ts";
import { createCredentials } from "../outgoing-auth/registry.ts";
import { createLive } from "./apply.ts";
import { type Sync, startSync } from "./follow.ts";
import { plainLink } from "./link.ts";
import { stateOf } from "./report.ts";

const log = pino({ level: "silent" });

test("asked to go, a proxy follows the other control plane first, and then ends the old stream", async () => {
  const events: string[] = [];
  await using one = await startPlane("one", events);
  await using two = await startPlane("two", events);
  await using sync = follow([one.address, two.address]);
  await eventually("it follows one of them", () => sync.status().controlPlane !== undefined);
  const [first, second] = sync.status().controlPlane === one.address ? [one, two] : [two, one];
  events.length = 0;
  first.drain(2_000);
  await eventually("the old stream has ended", () => first.streams() === 0);
  assert.deepEqual(events, [`${second.name} hello`, `${first.name} end`]);
  assert.equal(sync.status().controlPlane, second.address);
});

test("asked to go with nowhere to go, it leaves, and comes back", async () => {
  const events: string[] = [];
  await using only = await startPlane("only", events);
  await using sync = follow([only.address]);
  await eventually("it follows it", () => sync.status().controlPlane);
  events.length = 0;
  only.drain(2_000);
  await eventually("it is back", () => events.includes("only hello"));
  assert.deepEqual(events.slice(0, 2), ["only end", "only hello"]);
});

test("sent away with a time to come again, it does not come before", async () => {
  const events: string[] = [];
  await using plane = await startPlane("plane", events);
  plane.sendAway(700);
  const startedMs = performance.now();
  await using sync = follow([plane.address]);
  await eventually("it came and was sent away", () => events.includes("plane hello"));
  plane.sendAway(undefined);
  await eventually("it is let in", () => sync.status().controlPlane);
  const tookMs = performance.now() - startedMs;
  assert.ok(tookMs >= 700, `${tookMs} ms`);
  assert.equal(events.filter((event) => event === "plane hello").length, 2);
});

test("one control plane of two is dead: the other is followed at once", async () => {
  await using plane = await startPlane("plane", []);
  for (let round = 0; round < 4; round++) {
    await using sync = follow(["127.0.0.1:9", plane.address]);
    await eventually("it follows the one that lives", () => sync.status().controlPlane === plane.address, 2_000);
  }
});

test("what went live is on disk, and with it the next start says so to the control plane", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "vmcp-moves-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  await using plane = await startPlane("plane", []);
  {
    await using sync = follow([plane.address], directory);
    await eventually("it runs something", () => sync.status().source === "control plane");
  }
  await using again = follow([plane.address], directory);
  await eventually("it follows again", () => again.status().controlPlane);
  assert.equal(again.status().source, "disk");
  const hello = plane.lastHello();
  assert.deepEqual([hello?.knownVersion, hello?.storeUid, hello?.configSource], ["r1", "store", ConfigSource.DISK]);
});

interface ScriptedPlane extends AsyncDisposable {
  readonly name: string;
  readonly address: string;
  drain(graceMs: number): void;
  /** Whoever comes, from now on; undefined: nobody. */
  sendAway(retryMs: number | undefined): void;
  streams(): number;
  lastHello(): Hello | undefined;
}

/** Answers a Hello with an empty snapshot r1, or that it is up to date. */
async function startPlane(name: string, events: string[]): Promise<ScriptedPlane> {
  type Call = ServerDuplexStream<StreamSnapshotsRequest, object>;
  const open = new Set<Call>();
  let retryMs: number | undefined;
  let lastHello: Hello | undefined;
  const header = { version: "r1", revision: 1n, digest: snapshotDigest([]), storeUid: "store" };
  const server = new Server();
  addService(server, DiscoveryService, {
    streamSnapshots(stream) {
      const call = stream as unknown as Call;
      open.add(call);
      const end = () => {
        if (open.delete(call)) events.push(`${name} end`);
      };
      call.on("error", end);
      call.on("cancelled", end);
      call.on("end", end);
      call.on("data", ({ message }: StreamSnapshotsRequest) => {
        if (message.case !== "hello") return;
        events.push(`${name} hello`);
        lastHello = message.value;
        if (retryMs !== undefined) call.emit("error", refusal(retryMs));
        else if (message.value.knownVersion === "r1")
          call.write({ nonce: 1n, ...header, payload: { case: "upToDate", value: {} } });
        else call.write({ nonce: 1n, ...header, payload: { case: "snapshot", value: { resources: [], part: 0, parts: 1 } } });
      });
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, at) => (error ? reject(error) : resolve(at))),
  );
  return {
    name,
    address: `127.0.0.1:${port}`,
    drain(graceMs) {
      for (const call of open) call.write({ payload: { case: "drain", value: { grace: durationFromMs(graceMs) } } });
    },
    sendAway(wanted) {
      retryMs = wanted;
    },
    streams: () => open.size,
    lastHello: () => lastHello,
    [Symbol.asyncDispose]: async () => server.forceShutdown(),
  };
}

function refusal(retryMs: number) {
  const [code, message] = [status.RESOURCE_EXHAUSTED, "too many"];
  const details = [anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: durationFromMs(retryMs) }))];
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, message, details }))));
  return { code, details: message, metadata };
}

function follow(controlPlanes: readonly string[], stateDirectory?: string): Sync {
  const nothing = () => undefined;
  const auth = { incoming: createAuthenticators({ log }), outgoing: createCredentials({ log, keys: oneKey(randomBytes(32)) }) };
  const sessions = { all: () => [], end: nothing, size: 0 };
  const live = createLive({ ...auth, sessions, log, allowStdio: false, onMessage: nothing, onChange: nothing });
  const node = { id: "p", instanceId: "1", address: "" };
  const state = () => stateOf(live.runtime, { size: 0 });
  return startSync({
    controlPlanes,
    link: plainLink,
    node,
    live,
    state,
    stateDirectory,
    log,
    onLive: nothing,
    onRefused: nothing,
  });
}
