// `vmcp proxy`: one proxy of a mesh.
import { homedir } from "node:os";
import { join } from "node:path";
import { openLog } from "../../common/log.ts";
import { untilStopped } from "../signals.ts";
import { type ListenOptions, startProxy } from "./serving.ts";
import { type ProxyTrustFlags, proxyLink } from "./trust-flags.ts";

export interface ProxyFlags extends ListenOptions, ProxyTrustFlags {
  readonly controlPlane: string[];
  readonly workers: number;
  readonly id?: string;
  readonly advertise?: string;
  readonly stateDir?: string;
  readonly bootstrapSnapshot?: string;
  readonly allowStdio?: boolean;
}

export async function proxy(options: ProxyFlags): Promise<void> {
  const { advertise, id, bootstrapSnapshot } = options;
  const modulesMilliseconds = Math.round(performance.now()); // since the process began; what is loaded later, is loaded when it is needed
  const stopped = untilStopped();
  const log = openLog("proxy");
  await using _proxy = await startProxy(options, {
    controlPlanes: options.controlPlane,
    link: proxyLink(options),
    workers: options.workers,
    ...(advertise === undefined ? {} : { advertise }),
    ...(id === undefined ? {} : { id }),
    stateDirectory: stateDirectoryOf(options),
    bootstrapSnapshot,
    log,
    allowStdio: options.allowStdio ?? false,
  });
  log.info({ modulesMilliseconds, milliseconds: Math.round(performance.now()) }, "started");
  await stopped;
  log.info("stopping");
}

/** Undefined: nowhere. Two proxies on one machine have names of their own, and so directories. */
export function stateDirectoryOf({ stateDir, id, port }: Pick<ProxyFlags, "stateDir" | "id" | "port">): string | undefined {
  if (stateDir !== undefined && stateDir !== "") return stateDir === "none" ? undefined : stateDir;
  if (id === undefined && port === 0) return undefined; // another name with each start, that nobody would ever look for
  const base = process.env.XDG_STATE_HOME || join(homedir(), ".local", "state");
  return join(base, "vmcp", encodeURIComponent(id ?? `port-${port}`));
}
