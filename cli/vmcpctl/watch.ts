// `vmcpctl watch`: changes as they happen, until interrupted.
import { toJson } from "@bufbuild/protobuf";
import type { ClientReadableStream } from "@grpc/grpc-js";
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
}

/** Runs until SIGINT or SIGTERM, which is exit code 130, or until the control plane goes away. */
export async function watch(what: { kind: string | undefined }, options: WatchOptions, output: Output): Promise<number> {
  const kind = what.kind === undefined ? undefined : parseKind(what.kind);
  using connection = connect(options);
  if (kind === "proxies") return await followProxies(connection, options, output);
  if (kind !== undefined && !isResourceKind(kind))
    throw new ExitError(exitCodes.usage, `${kind} can't be watched; watch proxies or what is declared`);
  const stream = connection.admin.watchResources({ kind: kind ?? "" });
  return await follow<WatchResourcesResponse>(stream, (event) => writeEvent(event, options.output, output));
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
  }
}
