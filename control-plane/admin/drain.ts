// Proxies that are to take no new work.
import type { DrainProxyRequest } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { drainKind, type WholeFleet } from "../push/whole-fleet.ts";
import type { Store } from "../store/store.ts";
import type { Caller } from "./caller.ts";
import { AdminError } from "./errors.ts";
import { invalid } from "./requests.ts";

const reasonCharactersMax = 1_000;

/** Throws AdminError; StoreError when the store is away. The control plane that has the proxy hears of it through the store. */
export async function drainProxy(
  { store, wholeFleet }: { readonly store: Pick<Store, "records">; readonly wholeFleet: WholeFleet },
  { proxy, undo, reason }: DrainProxyRequest,
  caller: Caller,
) {
  if (proxy === "") throw invalid([{ field: "proxy", description: "say which one" }]);
  if (reason.length > reasonCharactersMax)
    throw invalid([{ field: "reason", description: `at most ${reasonCharactersMax} characters` }]);
  const present = await store.records.get(drainKind, proxy);
  const isKnown = wholeFleet.proxies().some(({ node }) => node?.id === proxy);
  // What was drained and is forgotten by now can still be undone.
  if (!isKnown && !(undo && present))
    throw new AdminError("NOT_FOUND", `no proxy "${proxy}" has connected within the last 24 hours`, { metadata: { proxy } });
  if ((present === undefined) === undo) return { changed: false };
  const words = undo ? `take work at ${proxy} again` : `drain ${proxy}`;
  const attempt = { ...caller, method: "DrainProxy", reason: reason === "" ? words : `${words}: ${reason}` };
  const body = undo ? undefined : JSON.stringify({ actor: caller.actor, reason });
  await store.records.change([{ kind: drainKind, id: proxy, body }], attempt);
  await wholeFleet.readDrains();
  return { changed: true };
}
