// `vmcpctl wait`: until something is so, for scripts.
import { setTimeout as delay } from "node:timers/promises";
import type { ClientReadableStream } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import {
  type Proxy as ProxyRow,
  ProxyState,
  type WatchProxiesResponse,
  type WatchResourcesResponse,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { type Connection, connect, type GlobalOptions } from "./connection.ts";
import { type AnyKind, conditionsHelp, isResourceKind, parseTarget, type ResourceKind } from "./kinds.ts";
import { fullName } from "./lookup.ts";
import type { Output } from "./output.ts";
import { isHeard } from "./proxy-states.ts";
import { waitForProxies } from "./rollout.ts";

export interface WaitOptions extends GlobalOptions {
  readonly group?: string | undefined;
  /** See `conditionsHelp`. */
  readonly for: string;
  /** Milliseconds. */
  readonly timeout: number;
}

interface Waiting {
  readonly connection: Connection;
  readonly kind: AnyKind;
  /** Full name of a resource, id of a proxy; undefined: all proxies. */
  readonly name: string | undefined;
  /** When it is over. */
  readonly untilMs: number;
  readonly output: Output;
}

/** Returns the exit code. Throws ExitError 75 when the time is over. */
export async function wait(
  what: { kind: string; name: string | undefined },
  options: WaitOptions,
  output: Output,
): Promise<number> {
  const { kind, name } = parseTarget(what.kind, what.name);
  const { condition, revision } = parseCondition(options.for);
  using connection = connect(options);
  const untilMs = Date.now() + options.timeout;
  const waiting = { connection, kind, untilMs, output };
  if (kind === "proxies") await waitForRows({ ...waiting, name }, proxyCondition(condition, revision));
  else if (!isResourceKind(kind)) throw new ExitError(exitCodes.usage, `${kind} can't be waited for`);
  else if (name === undefined)
    throw new ExitError(exitCodes.usage, `say which: vmcpctl wait ${what.kind} NAME --for=${options.for}`);
  else {
    const full = await fullName(connection, { kind, name, group: options.group });
    await waitForResource({ ...waiting, kind, name: full }, { condition, revision });
  }
  output.data(`${name === undefined ? kind : name} ${options.for}\n`);
  return exitCodes.ok;
}

interface Condition {
  readonly condition: "programmed" | "healthy" | "synced" | "revision" | "create" | "delete";
  /** 0 unless it is that. */
  readonly revision: bigint;
}

function parseCondition(text: string): Condition {
  const [, number] = /^revision=r?([1-9]\d{0,17})$/i.exec(text) ?? [];
  if (number !== undefined) return { condition: "revision", revision: BigInt(number) };
  const word = text.replace(/^condition=/i, "").toLowerCase();
  const known = (["programmed", "healthy", "synced", "create", "delete"] as const).find((one) => one === word);
  if (known === undefined) throw new ExitError(exitCodes.usage, `--for=${text} is no condition\n${conditionsHelp}`);
  return { condition: known, revision: 0n };
}

function proxyCondition(condition: Condition["condition"], revision: bigint): (row: ProxyRow) => boolean {
  if (condition === "synced") return ({ state }) => state === ProxyState.SYNCED;
  if (condition === "revision") return ({ liveVersion }) => revisionOf(liveVersion) >= revision;
  throw new ExitError(exitCodes.usage, `proxies are not waited for with ${condition}\n${conditionsHelp}`);
}

async function waitForResource(
  waiting: Waiting & { readonly kind: ResourceKind; readonly name: string },
  { condition, revision }: Condition,
): Promise<void> {
  const { connection, kind, name, untilMs, output } = waiting;
  if (condition === "synced" || (condition === "healthy" && kind !== "backends"))
    throw new ExitError(exitCodes.usage, `${kind} are not waited for with ${condition}\n${conditionsHelp}`);
  if (condition === "healthy") {
    const isHealthy = ({ backends }: ProxyRow) =>
      backends.some((one) => one.name === name && (one.state === "healthy" || one.state === "degraded"));
    return waitForRows({ ...waiting, name: undefined }, isHealthy);
  }
  let seen: bigint | undefined;
  let isListed = false;
  await follow<WatchResourcesResponse>(
    waiting,
    connection.admin.watchResources({ kind }, { deadline: untilMs }),
    ({ type, resource }) => {
      if (type === "BOOKMARK") isListed = true;
      if (resource?.name === name) seen = type === "DELETED" ? undefined : resource.revision;
      if (condition === "delete") return isListed && seen === undefined;
      return seen !== undefined && seen >= revision;
    },
  );
  if (condition !== "programmed") return;
  const version = await versionWith(waiting, seen ?? 0n);
  await waitForProxies({ connection, version, timeoutMs: Math.max(1, untilMs - Date.now()), sinceMs: Date.now(), output });
}

/** The version that holds what was committed; built within a second or so. */
async function versionWith(waiting: Waiting, revision: bigint): Promise<string> {
  const { connection, untilMs } = waiting;
  for (;;) {
    const { builtRevision, targetVersion } = await connection.admin.getServerInfo({}, connection.deadline());
    if (builtRevision >= revision) return targetVersion;
    if (Date.now() >= untilMs) throw late(waiting);
    await delay(100);
  }
}

/** All that are connected, and one at least. */
function waitForRows(waiting: Waiting, holds: (row: ProxyRow) => boolean): Promise<void> {
  const { connection, name, untilMs } = waiting;
  return follow<WatchProxiesResponse>(waiting, connection.admin.watchProxies({}, { deadline: untilMs }), ({ proxies }) => {
    const meant = proxies.filter((row) => isHeard(row) && (name === undefined || row.node?.id === name));
    return meant.length > 0 && meant.every(holds);
  });
}

/** Resolves when an event says so. */
async function follow<Event>(
  waiting: Waiting,
  stream: ClientReadableStream<Event>,
  isThere: (event: Event) => boolean,
): Promise<void> {
  const over = Promise.withResolvers<void>();
  stream.on("data", (event: Event) => isThere(event) && over.resolve());
  stream.on("error", (error) => over.reject("code" in error && error.code === status.DEADLINE_EXCEEDED ? late(waiting) : error));
  stream.on("end", () => over.reject(late(waiting)));
  await over.promise.finally(() => stream.cancel());
}

function late({ kind, name }: Waiting): ExitError {
  return new ExitError(exitCodes.temporary, `${name ?? kind}: it did not come to that in time`);
}

/** -1 for a proxy that runs nothing. */
function revisionOf(version: string): bigint {
  const digits = /^r(\d+)-/.exec(version)?.[1];
  return digits === undefined ? -1n : BigInt(digits);
}
