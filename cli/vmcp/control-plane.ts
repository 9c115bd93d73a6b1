// `vmcp control-plane`: one control plane of a mesh.
import { openLog } from "../../common/log.ts";
import { ControlPlaneError, startControlPlane } from "../../control-plane/index.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { untilStopped } from "../signals.ts";
import { type DiscoveryFlags, discoveryChoice } from "./discovery-flags.ts";
import { type ControlPlaneTrustFlags, securityChoice } from "./trust-flags.ts";

export interface ControlPlaneFlags extends DiscoveryFlags, ControlPlaneTrustFlags {
  readonly listen: readonly string[];
  readonly store: string;
  readonly id?: string;
  readonly advertise?: string;
  /** What `--store` was called before. */
  readonly data?: string;
}

export async function controlPlane(options: ControlPlaneFlags): Promise<void> {
  const discovery = discoveryChoice(options);
  const stopped = untilStopped();
  const stopping = new AbortController();
  void stopped.then(() => stopping.abort());
  const log = openLog("control-plane");
  try {
    const store = options.data ?? options.store;
    const { listen, id, advertise } = options;
    await using plane = await startControlPlane({
      ...{ listen, id, advertise, store, discovery, log },
      security: securityChoice(options),
      signal: stopping.signal,
    });
    log.info({ adminAddress: plane.address }, "listening");
    await stopped;
    log.info("stopping");
  } catch (error) {
    if (stopping.signal.aborted) return;
    if (error instanceof ControlPlaneError) throw new ExitError(exitCodes.failure, error.message);
    throw error;
  }
}
