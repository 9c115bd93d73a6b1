// AdminService: what operators may ask and change.

import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Metadata, type ServerWritableStream, status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { softwareVersion } from "../../common/version.ts";
import { AdminService } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { Handlers } from "../../proto/grpc.ts";
import type { CatalogKeeper } from "../catalogs/keeper.ts";
import type { Discovery } from "../discovery/discovery.ts";
import type { Fleet } from "../push/fleet.ts";
import type { WholeFleet } from "../push/whole-fleet.ts";
import type { Reconciler } from "../reconcile.ts";
import type { Store } from "../store/store.ts";
import { analyzeConfig } from "./analyze.ts";
import { auditPage, auditVerdict } from "./audit.ts";
import { type Caller, callerOf } from "./caller.ts";
import { apply, createOne, notFound, remove, toResourceChange, update } from "./declare.ts";
import { diffResources } from "./diff.ts";
import { drainProxy } from "./drain.ts";
import type { Editor } from "./edit.ts";
import { AdminError, toServiceError } from "./errors.ts";
import { revisionOf, revisionsPage, rollBack } from "./history.ts";
import { pageOf } from "./pages.ts";
import { providersResponse } from "./providers.ts";
import { checkName } from "./requests.ts";
import { routeOf } from "./route.ts";
import { listSessions, revoke } from "./sessions.ts";
import { snapshotOf } from "./snapshot.ts";
import { streamCalls, streamSums } from "./taps.ts";
import { approveTools, listTools } from "./tools.ts";
import { proxiesOf, streamProxies, streamResources } from "./watch.ts";
import { createWriting } from "./write.ts";

// Each holds a stream open; a person has one or two, a script that leaks them would have thousands.
const watchersMax = 256;

export interface AdminOptions {
  readonly store: Store;
  readonly fleet: Fleet;
  readonly wholeFleet: WholeFleet;
  readonly editor: Editor;
  readonly reconciler: Pick<Reconciler, "compile" | "current">;
  readonly discovery: Pick<Discovery, "isOn" | "status" | "current">;
  readonly catalogs: Pick<CatalogKeeper, "tools" | "approve">;
  readonly log: Log;
  /** Why writes are refused; undefined when they are not. Dry runs always work, and so does what concerns sessions. */
  readonly readOnlyReason: string | undefined;
  readonly nowMs: () => number;
  /** Ends the watches. */
  readonly stopping: AbortSignal;
}

/** The handlers to register. */
export function adminHandlers(options: AdminOptions): Handlers<typeof AdminService> {
  const {
    store,
    fleet,
    wholeFleet,
    editor,
    reconciler,
    discovery,
    catalogs,
    log,
    readOnlyReason = "",
    nowMs,
    stopping,
  } = options;
  const writing = createWriting({ store, editor, readOnlyReason });
  let watchers = 0;

  async function view(virtualServer: string) {
    if (virtualServer !== "" && (await store.get(`virtualServers/${virtualServer}`)) === undefined) {
      throw notFound(`virtualServers/${virtualServer}`);
    }
    const { proxy, views } = fleet.views();
    return { proxy, views: views.filter((one) => virtualServer === "" || one.virtualServer === virtualServer) };
  }

  /** Unary: errors become gRPC status. */
  function answering<Request, Response>(work: (request: Request, caller: Caller) => Promise<Response>) {
    return async (request: Request, { metadata }: { readonly metadata: Metadata }): Promise<Response> => {
      try {
        return await work(request, callerOf(metadata));
      } catch (error) {
        throw toServiceError(error, log);
      }
    };
  }

  /** Streaming: runs until the caller leaves or the control plane stops. */
  function watching<Request, Response>(
    work: (call: ServerWritableStream<Request, Response>, signal: AbortSignal) => Promise<void>,
  ) {
    return (call: ServerWritableStream<Request, Response>) => {
      if (watchers >= watchersMax) {
        call.emit("error", toServiceError(new AdminError("BUSY", `${watchersMax} watches are open already`), log));
        return;
      }
      watchers += 1;
      const left = new AbortController();
      call.on("cancelled", () => left.abort());
      call.on("error", () => left.abort());
      const signal = AbortSignal.any([left.signal, stopping]);
      work(call, signal)
        .then(
          () => call.emit("error", { code: status.UNAVAILABLE, details: "the control plane is going away" }),
          (error) => !left.signal.aborted && call.emit("error", toServiceError(error, log)),
        )
        .finally(() => {
          watchers -= 1;
        });
    };
  }

  return {
    applyResources: answering(writing(AdminService.method.applyResources, apply)),
    createResource: answering(writing(AdminService.method.createResource, createOne)),
    updateResource: answering(writing(AdminService.method.updateResource, update)),
    deleteResource: answering(writing(AdminService.method.deleteResource, remove)),
    analyzeConfig: answering((request) => analyzeConfig({ store, fleet, wholeFleet, discovery, catalogs }, request)),
    fetchSnapshot: answering((request) => snapshotOf({ store, fleet, wholeFleet, reconciler }, request)),
    explainRoute: answering((request) => routeOf({ store, fleet, wholeFleet, discovery }, request)),
    diffResources: answering((request, caller) => diffResources({ editor, fleet, wholeFleet }, request, caller)),
    listResources: answering((request) => pageOf(store, request)),
    getResource: answering(async ({ name }) => {
      checkName(name);
      const resource = await store.get(name);
      if (resource === undefined) throw notFound(name);
      return { resource };
    }),
    watchResources: watching((call, signal) => streamResources(store, call, signal)),
    listProxies: answering(async () => proxiesOf(wholeFleet)),
    watchProxies: watching((call, signal) => streamProxies(wholeFleet, call, signal)),
    tapCalls: watching((call, signal) => streamCalls(fleet, call, signal)),
    sumCalls: watching((call, signal) => streamSums(fleet, call, signal)),
    drainProxy: answering((request, caller) => drainProxy({ store, wholeFleet }, request, caller)),
    getRollout: answering(async () => wholeFleet.rollout()),
    listTools: answering(async (request) => ({ tools: listTools(catalogs, request) })),
    approveTools: answering(async (request, caller) => {
      await approveTools(catalogs, request, caller);
      return {};
    }),
    listProviders: answering(async ({ includeResources }) => providersResponse(discovery, includeResources)),
    revokeSessions: answering(writing(AdminService.method.revokeSessions, (request) => revoke(request, nowMs))),
    listSessions: answering(async (request) => {
      const { sessions, missing, unable, hasMore } = await listSessions(fleet, request);
      return { sessions: [...sessions], missing: [...missing], unable: [...unable], hasMore };
    }),
    listView: answering(({ virtualServer }) => view(virtualServer)),
    listRevisions: answering((request) => revisionsPage(store, request)),
    getRevision: answering(async (request) => {
      const { revision, changes } = await revisionOf(store, request);
      return { revision, changes: changes.map(toResourceChange) };
    }),
    rollbackResources: answering(writing(AdminService.method.rollbackResources, (request) => rollBack(store, request))),
    listAuditEvents: answering((request) => auditPage(store, request)),
    verifyAudit: answering(() => auditVerdict(store)),
    getServerInfo: answering(async () => ({
      softwareVersion,
      storeUid: store.uid,
      revision: (await store.list()).revision,
      targetVersion: fleet.target()?.version ?? "",
      readOnlyReason,
      builtRevision: reconciler.current()?.revision ?? 0n,
      time: timestampFromMs(nowMs()),
    })),
  };
}
