// AdminService: what operators may ask and change.

import { create } from "@bufbuild/protobuf";
import { type Metadata, type ServerWritableStream, status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { softwareVersion } from "../../common/version.ts";
import {
  type AdminService,
  type ApplyResourcesRequest,
  type DeleteResourceRequest,
  type ResourceChange,
  ResourceChangeSchema,
  type RollbackResourcesRequest,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { Handlers } from "../../proto/grpc.ts";
import type { Discovery } from "../discovery/discovery.ts";
import type { Fleet } from "../push/fleet.ts";
import { isRevocationName, parseName } from "../resource-names.ts";
import type { Attempt, Change, Changed, Listing, Store } from "../store/store.ts";
import { auditPage, auditVerdict } from "./audit.ts";
import { type Caller, callerOf } from "./caller.ts";
import type { Edited, Editor } from "./edit.ts";
import { AdminError, toServiceError } from "./errors.ts";
import { revisionOf, revisionsPage, rollBack } from "./history.ts";
import { pageOf } from "./pages.ts";
import { providersResponse } from "./providers.ts";
import { checkName, checkResources } from "./requests.ts";
import { createRevoker, listSessions } from "./sessions.ts";
import { streamProxies, streamResources } from "./watch.ts";

// Each holds a stream open; a person has one or two, a script that leaks them would have thousands.
const watchersMax = 256;

export interface AdminOptions {
  readonly store: Store;
  readonly fleet: Fleet;
  readonly editor: Editor;
  readonly discovery: Pick<Discovery, "status" | "current">;
  readonly log: Log;
  /** Why writes are refused; undefined when they are not. Dry runs always work, and so does what concerns sessions. */
  readonly readOnlyReason: string | undefined;
  readonly nowMs: () => number;
  /** Ends the watches. */
  readonly stopping: AbortSignal;
}

/** The handlers to register. */
export function adminHandlers(options: AdminOptions): Handlers<typeof AdminService> {
  const { store, fleet, editor, discovery, log, readOnlyReason = "", nowMs, stopping } = options;
  let watchers = 0;

  async function checkWritable(attempt: Attempt, targets: readonly string[]): Promise<void> {
    if (readOnlyReason === "") return;
    await store.audit({ ...attempt, code: "READ_ONLY", targets });
    throw new AdminError("READ_ONLY", readOnlyReason);
  }

  async function apply({ resources, validateOnly, reason }: ApplyResourcesRequest, caller: Caller) {
    checkResources(resources);
    const attempt = { ...caller, method: "ApplyResources", reason: reason || "apply" };
    if (!validateOnly)
      await checkWritable(
        attempt,
        resources.map(({ name }) => name),
      );
    const edited = await editor.edit(() => resources.map(toChange), { ...attempt, validateOnly });
    const present = validateOnly ? undefined : await store.list();
    return { ...answer(edited, resources, present), warnings: [...edited.warnings] };
  }

  async function remove({ name, etag, force, validateOnly }: DeleteResourceRequest, caller: Caller) {
    checkName(name);
    const attempt = { ...caller, method: "DeleteResource", reason: `delete ${name}` };
    if (!validateOnly && !isRevocationName(name)) await checkWritable(attempt, [name]);
    const plan = (present: Listing) => deletions(present, { name, etag, force });
    const edited = await editor.edit(plan, { ...attempt, validateOnly, onProblems: "IN_USE" });
    return answer(edited, [], undefined);
  }

  async function undo(request: RollbackResourcesRequest, caller: Caller) {
    const by = { ...caller, method: "RollbackResources" };
    if (!request.validateOnly) await checkWritable({ ...by, reason: request.reason }, []);
    const { warnings, ...edited } = await rollBack({ store, editor }, request, by);
    const changes = edited.changes.map(toResourceChange).sort((a, b) => (a.name < b.name ? -1 : 1));
    return { ...edited, warnings: [...warnings], changes };
  }

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
    applyResources: answering(apply),
    deleteResource: answering(remove),
    listResources: answering((request) => pageOf(store, request)),
    getResource: answering(async ({ name }) => {
      checkName(name);
      const resource = await store.get(name);
      if (resource === undefined) throw notFound(name);
      return { resource };
    }),
    watchResources: watching((call, signal) => streamResources(store, call, signal)),
    listProxies: answering(async () => ({ proxies: fleet.proxies(), targetVersion: fleet.target()?.version ?? "" })),
    watchProxies: watching((call, signal) => streamProxies(fleet, call, signal)),
    getRollout: answering(async () => fleet.rollout()),
    listProviders: answering(async ({ includeResources }) => providersResponse(discovery, includeResources)),
    revokeSessions: answering(createRevoker({ editor, nowMs })),
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
    rollbackResources: answering(undo),
    listAuditEvents: answering((request) => auditPage(store, request)),
    verifyAudit: answering(() => auditVerdict(store)),
    getServerInfo: answering(async () => ({
      softwareVersion,
      storeUid: store.uid,
      revision: (await store.list()).revision,
      targetVersion: fleet.target()?.version ?? "",
      readOnlyReason,
    })),
  };
}

/** What a change did, in the words of the API. */
export function toResourceChange({ name, before, after }: Changed): ResourceChange {
  const action = before === undefined ? "create" : after === undefined ? "delete" : "update";
  return create(ResourceChangeSchema, { name, action, ...(before && { before }), ...(after && { after }) });
}

function answer(edited: Edited, asked: readonly Resource[], present: Listing | undefined) {
  const changed = new Set(edited.changes.map(({ name }) => name));
  const stored = new Map(present?.resources.map((resource) => [resource.name, resource]));
  const unchanged = asked
    .filter(({ name }) => !changed.has(name))
    .map((resource) => {
      const same = stored.get(resource.name) ?? resource;
      return create(ResourceChangeSchema, { name: resource.name, action: "unchanged", before: same, after: same });
    });
  const changes = [...edited.changes.map(toResourceChange), ...unchanged].sort((a, b) => (a.name < b.name ? -1 : 1));
  return { changes, revision: edited.revision, version: edited.version };
}

function toChange(resource: Resource): Change {
  return { name: resource.name, resource, expectedEtag: resource.etag === "" ? undefined : resource.etag };
}

function deletions(present: Listing, { name, etag, force }: { name: string; etag: string; force: boolean }): Change[] {
  if (!present.resources.some((resource) => resource.name === name)) throw notFound(name);
  const children = present.resources.map((resource) => resource.name).filter((one) => one.startsWith(`${name}/`));
  if (children.length > 0 && !force && parseName(name)?.kind === "groups") throw hasChildren(name, children);
  return [
    { name, resource: undefined, expectedEtag: etag || undefined },
    ...children.map((child) => ({ name: child, resource: undefined })),
  ];
}

function hasChildren(name: string, children: readonly string[]): AdminError {
  const shown = children.slice(0, 5).join(", ");
  const more = children.length > 5 ? ` and ${children.length - 5} more` : "";
  return new AdminError("IN_USE", `"${name}" has backends: ${shown}${more}; force deletes them too`, {
    metadata: { resource: name },
  });
}

function notFound(name: string): AdminError {
  return new AdminError("NOT_FOUND", `there is no "${name}"`, { metadata: { resource: name } });
}
