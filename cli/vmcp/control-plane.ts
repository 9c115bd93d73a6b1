// `vmcp control-plane`: one control plane of a mesh.
import { openLog } from "../../common/log.ts";
import { ControlPlaneError, startControlPlane } from "../../control-plane/index.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { untilStopped } from "../signals.ts";

export async function controlPlane(options: { listen: string; data: string }): Promise<void> {
  const stopped = untilStopped();
  const log = openLog("control-plane");
  try {
    await using plane = await startControlPlane({ listen: options.listen, dataFile: options.data, log });
    log.info({ adminAddress: plane.address, store: options.data }, "listening");
    await stopped;
    log.info("stopping");
  } catch (error) {
    if (error instanceof ControlPlaneError) throw new ExitError(exitCodes.failure, error.message);
    throw error;
  }
}
