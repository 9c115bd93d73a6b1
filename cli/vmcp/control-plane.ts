// `vmcp control-plane`: one control plane of a mesh.
import { openLog } from "../../common/log.ts";
import { ControlPlaneError, startControlPlane } from "../../control-plane/index.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { untilStopped } from "../signals.ts";
import { type DiscoveryFlags, discoveryChoice } from "./discovery-flags.ts";

export interface ControlPlaneFlags extends DiscoveryFlags {
  readonly listen: string;
  readonly data: string;
}

export async function controlPlane(options: ControlPlaneFlags): Promise<void> {
  const discovery = discoveryChoice(options);
  const stopped = untilStopped();
  const log = openLog("control-plane");
  try {
    await using plane = await startControlPlane({ listen: options.listen, dataFile: options.data, discovery, log });
    log.info({ adminAddress: plane.address, store: options.data }, "listening");
    await stopped;
    log.info("stopping");
  } catch (error) {
    if (error instanceof ControlPlaneError) throw new ExitError(exitCodes.failure, error.message);
    throw error;
  }
}
