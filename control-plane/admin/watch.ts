// The two streams of the admin API: resources as they change, proxies as they move.
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServerWritableStream } from "@grpc/grpc-js";
import type {
  WatchProxiesRequest,
  WatchProxiesResponseSchema,
  WatchResourcesRequest,
  WatchResourcesResponseSchema,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { EncodedMessage } from "../../proto/grpc.ts";
import type { WholeFleet } from "../push/whole-fleet.ts";
import { parseName } from "../resource-names.ts";
import type { Store } from "../store/store.ts";
import { checkKind } from "./requests.ts";

// A reader that takes nothing for so long is gone or broken; it may come back and resume.
const stalledMs = 60_000;

// Acknowledgements of a fleet come in a burst; one message shows them all.
const proxyUpdatesGapMs = 50;

// Commits without anything that was asked for, of the 1,000 that a watch can be resumed over.
const bookmarkGap = 100n;

type Out<D extends typeof WatchProxiesResponseSchema | typeof WatchResourcesResponseSchema> =
  | MessageInitShape<D>
  | EncodedMessage;
type ResourceStream = ServerWritableStream<WatchResourcesRequest, Out<typeof WatchResourcesResponseSchema>>;
type ProxyStream = ServerWritableStream<WatchProxiesRequest, Out<typeof WatchProxiesResponseSchema>>;

/** Ends when the signal aborts; throws StoreError `compacted` when the asked revision is no longer kept. */
export async function streamResources(store: Store, call: ResourceStream, signal: AbortSignal): Promise<void> {
  const kind = checkKind(call.request.kind);
  const wanted = (name: string) => kind === undefined || parseName(name)?.kind === kind;
  let from = call.request.revision;
  if (from === 0n) {
    const { revision, resources } = await store.list();
    for (const resource of resources) {
      if (wanted(resource.name)) await send(call, { type: "ADDED", resource, revision }, signal);
    }
    from = revision;
  } else {
    await store.changesSince(from, 1);
  }
  await send(call, { type: "BOOKMARK", revision: from }, signal);
  let told = from;
  for await (const { revision, changes } of store.watch(from, signal)) {
    for (const { name, before, after } of changes) {
      if (!wanted(name)) continue;
      const type = before === undefined ? "ADDED" : after === undefined ? "DELETED" : "MODIFIED";
      const resource = after ?? before;
      if (resource !== undefined) await send(call, { type, resource, revision }, signal);
      told = revision;
    }
    if (revision - told < bookmarkGap) continue;
    await send(call, { type: "BOOKMARK", revision }, signal);
    told = revision;
  }
}

export function proxiesOf(fleet: WholeFleet) {
  return { proxies: fleet.proxies(), targetVersion: fleet.targetVersion(), controlPlanes: fleet.controlPlanes() };
}

/** All proxies now, and again after changes, at most 20 times a second. */
export async function streamProxies(fleet: WholeFleet, call: ProxyStream, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const changed = fleet.changes.next(signal);
    await send(call, proxiesOf(fleet), signal);
    await changed;
    await delay(proxyUpdatesGapMs, undefined, { signal }).catch(() => undefined);
  }
}

async function send<Request, Response>(
  call: ServerWritableStream<Request, Response>,
  message: Response,
  signal: AbortSignal,
): Promise<void> {
  if (signal.aborted || call.write(message)) return;
  await once(call, "drain", { signal: AbortSignal.any([signal, AbortSignal.timeout(stalledMs)]) });
}
