// A fleet that comes back at once, and a control plane that goes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import { type ServiceError, status } from "@grpc/grpc-js";
import { RetryInfoSchema } from "../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../proto/gen/google/rpc/status_pb.ts";
import { ProxyState } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { manualClock, startTestPlane as start, summary } from "./test-plane.ts";

test("full snapshots go out in turns; who would wait for too long is told when to come again", async () => {
  await using plane = await start({ placesMax: 1 });
  plane.fleet.retarget(plane.target(1));
  const proxies = Array.from({ length: 6 }, (_, i) => plane.connect(`p${i}`));
  using _all = new DisposableStack();
  for (const [at, proxy] of proxies.entries()) {
    _all.use(proxy);
    proxy.hello();
    // One has the place, four wait; the sixth is too many.
    if (at < 5) await plane.until(() => plane.fleet.proxies().length === at + 1);
  }
  const refused = await (proxies[5] as (typeof proxies)[number]).ended;
  assert.equal(refused.code, status.RESOURCE_EXHAUSTED);
  assert.equal(retryMs(refused), 1_000);
  for (const proxy of proxies.slice(0, 5)) {
    const response = await proxy.next();
    assert.equal(summary(response), "r1 snapshot");
    proxy.ack(response);
  }
  await plane.until(() => plane.fleet.proxies().every(({ state }) => state === ProxyState.SYNCED));
});

test("a proxy that is slow to answer keeps its turn for 2 s, not for longer", async () => {
  const clock = manualClock();
  await using plane = await start({ placesMax: 1, clock });
  plane.fleet.retarget(plane.target(1));
  using slow = plane.connect("slow");
  slow.hello();
  await slow.next();
  using next = plane.connect("next");
  next.hello();
  await plane.state("next", ProxyState.PENDING);
  clock.advance(2_000);
  assert.equal(summary(await next.next()), "r1 snapshot");
});

test("one that waits for its turn and leaves is not waited for", async () => {
  await using plane = await start({ placesMax: 1 });
  plane.fleet.retarget(plane.target(1));
  using first = plane.connect("first");
  first.hello();
  const response = await first.next();
  {
    using gone = plane.connect("gone");
    gone.hello();
    await plane.state("gone", ProxyState.PENDING);
  }
  await plane.state("gone", ProxyState.DISCONNECTED);
  using last = plane.connect("last");
  last.hello();
  first.ack(response);
  assert.equal(summary(await last.next()), "r1 snapshot");
});

test("before it goes, a control plane says so on every stream, and takes nobody any more", async () => {
  await using plane = await start();
  plane.fleet.retarget(plane.target(1));
  using stays = plane.connect("stays");
  stays.hello();
  stays.ack(await stays.next());
  using leaves = plane.connect("leaves");
  leaves.hello();
  leaves.ack(await leaves.next());
  await plane.state("leaves", ProxyState.SYNCED);
  const drained = plane.fleet.drain(300);
  assert.equal((await leaves.next()).payload.case, "drain");
  assert.equal((await stays.next()).payload.case, "drain");
  leaves.leave();
  using late = plane.connect("late");
  late.hello();
  assert.equal((await late.ended).code, status.UNAVAILABLE);
  const startedMs = performance.now();
  await drained;
  assert.ok(performance.now() - startedMs < 1_000);
  plane.fleet.close();
  assert.equal((await stays.ended).code, status.UNAVAILABLE);
});

function retryMs({ metadata }: ServiceError): number | undefined {
  const [bytes] = metadata.get("grpc-status-details-bin");
  const details = fromBinary(StatusSchema, bytes as Buffer).details.flatMap((any) => anyUnpack(any, RetryInfoSchema) ?? []);
  return details[0]?.retryDelay && durationMs(details[0].retryDelay);
}
