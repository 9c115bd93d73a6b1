// `vmcpctl watch`: changes as they happen, until interrupted.
import { toJson } from "@bufbuild/protobuf";
import { type ClientReadableStream, status } from "@grpc/grpc-js";
import {
  type WatchProxiesResponse,
  WatchProxiesResponseSchema,
  type WatchResourcesResponse,
  WatchResourcesResponseSchema,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { toYaml } from "./documents.ts";
import { isResourceKind, parseKind } from "./kinds.ts";
import { refusalTypes } from "./nack.ts";
import type { Format, Output } from "./output.ts";
import { proxyTable } from "./proxies.ts";
import { painted } from "./proxy-states.ts";

export interface WatchOptions extends GlobalOptions {
  readonly output: Format;
  /** Changes after this one only. Undefined: what is there first. */
  readonly revision?: bigint | undefined;
}

// A control plane that is restarted is back within seconds.
const awayMaxMs = 5 * 60_000;
const retryMs = { first: 250, most: 5_000 };

/** Runs until SIGINT or SIGTERM, which is exit code 130, or until the control plane goes away. */
export async function watch(what: { kind: string | undefined }, options: WatchOptions, output: Output): Promise<number> {
  const kind = what.kind === undefined ? undefined : parseKind(what.kind);
  using connection = connect(options);
  if (kind === "proxies") return await followProxies(connection, options, output);
  if (kind !== undefined && !isResourceKind(kind))
    throw new ExitError(exitCodes.usage, `${kind} can't be watched; watch proxies or what is declared`);
  return await followResources(connection, { kind: kind ?? "", ...options }, output);
}

/** Goes on after the last event when the control plane was away: the store knows what happened since. */
async function followResources(
  { admin }: Connection,
  { kind, revision = 0n, output: format }: WatchOptions & { readonly kind: string },
  output: Output,
): Promise<number> {
  let seen = revision;
  // Of the newest commit, which may be cut off in the middle.
  const shown = new Set<string>();
  let awaySinceMs: number | undefined;
  for (let waitMs = retryMs.first; ; waitMs = Math.min(waitMs * 2, retryMs.most)) {
    try {
      return await follow<WatchResourcesResponse>(admin.watchResources({ kind, revision: from(seen, shown) }), (event) => {
        [awaySinceMs, waitMs] = [undefined, retryMs.first];
        const { type, resource, revision: at } = event;
        const name = resource?.name ?? "";
        if (at === seen && shown.has(name)) return;
        // What is there comes before the bookmark, and to be cut off in it is to begin anew.
        const isList = seen === 0n && type !== "BOOKMARK";
        if (!isList && at > seen) shown.clear();
        if (!isList && at > seen) seen = at;
        if (!isList && name !== "") shown.add(name);
        writeEvent(event, format, output);
      });
    } catch (error) {
      awaySinceMs ??= Date.now();
      if (seen === 0n || !isAway(error) || Date.now() - awaySinceMs > awayMaxMs) throw error;
      if (waitMs === retryMs.first) output.note(`the control plane is away; going on after r${seen} when it is back\n`);
      if (await interrupted(waitMs)) return exitCodes.interrupted;
    }
  }
}

/** A commit of which something was shown is asked for again. */
function from(seen: bigint, shown: ReadonlySet<string>): bigint {
  return shown.size > 0 && seen > 1n ? seen - 1n : seen;
}

function isAway(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === status.UNAVAILABLE;
}

/** Whether somebody ended it meanwhile. */
async function interrupted(afterMs: number): Promise<boolean> {
  const ended = Promise.withResolvers<boolean>();
  const interrupt = () => ended.resolve(true);
  const timer = setTimeout(() => ended.resolve(false), afterMs);
  process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
  return ended.promise.finally(() => {
    clearTimeout(timer);
    process.off("SIGINT", interrupt).off("SIGTERM", interrupt);
  });
}

function writeEvent(event: WatchResourcesResponse, format: Format, output: Output): void {
  const { type, resource, revision } = event;
  if (format === "json") output.data(`${JSON.stringify(toJson(WatchResourcesResponseSchema, event))}\n`);
  else if (resource === undefined) return;
  else if (format === "yaml") output.data(`# ${type} at r${revision}\n${toYaml([resource])}---\n`);
  else if (format === "name") output.data(`${resource.name}\n`);
  else output.data(`${type.padEnd(8)}  r${String(revision).padEnd(6)}  ${resource.name}\n`);
}

function followProxies(connection: Connection, { output: format }: WatchOptions, output: Output): Promise<number> {
  let shown = "";
  return follow<WatchProxiesResponse>(connection.admin.watchProxies({}), (response) => {
    const text =
      format === "json"
        ? JSON.stringify(toJson(WatchProxiesResponseSchema, response, { registry: refusalTypes }))
        : painted(proxyTable(response.proxies, Date.now()), output);
    if (text !== shown) output.data(`${text}\n`);
    shown = text;
  });
}

async function follow<Event>(stream: ClientReadableStream<Event>, onEvent: (event: Event) => void): Promise<number> {
  const ended = Promise.withResolvers<number>();
  const interrupt = () => ended.resolve(exitCodes.interrupted);
  process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
  stream.on("data", onEvent);
  stream.on("error", ended.reject);
  stream.on("end", () => ended.resolve(exitCodes.ok));
  try {
    return await ended.promise;
  } finally {
    stream.cancel();
    process.off("SIGINT", interrupt).off("SIGTERM", interrupt);
  }
}
