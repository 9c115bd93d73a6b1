// `vmcp proxy`: one proxy of a mesh.
import { openLog } from "../../common/log.ts";
import { untilStopped } from "../signals.ts";
import { type ListenOptions, startProxy } from "./serving.ts";

export async function proxy(
  options: ListenOptions & { controlPlane: string[]; id?: string; advertise?: string; allowStdio?: boolean },
): Promise<void> {
  const stopped = untilStopped();
  const log = openLog("proxy");
  await using _proxy = await startProxy(options, {
    controlPlanes: options.controlPlane,
    ...(options.advertise === undefined ? {} : { advertise: options.advertise }),
    ...(options.id === undefined ? {} : { id: options.id }),
    log,
    allowStdio: options.allowStdio ?? false,
  });
  await stopped;
  log.info("stopping");
}
