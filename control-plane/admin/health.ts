// grpc.health.v1: the process (""), whether changes can be made, and whether proxies get something.
import { setTimeout as delay } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { type Health, HealthCheckResponse_ServingStatus as State } from "../../proto/gen/grpc/health/v1/health_pb.ts";
import type { Handlers } from "../../proto/grpc.ts";
import type { Fleet } from "../push/fleet.ts";
import type { Store } from "../store/store.ts";

const lookMs = 2_000;

// A store that does not answer for so long can't be written to.
const storeMs = 3_000;

const watchersMax = 64;

export interface HealthOptions {
  readonly store: Pick<Store, "leases">;
  readonly fleet: Pick<Fleet, "target">;
  readonly stopping: AbortSignal;
}

/** The handlers to register. */
export function healthHandlers({ store, fleet, stopping }: HealthOptions): Handlers<typeof Health> {
  let watchers = 0;

  const checks: Readonly<Record<string, () => Promise<boolean>>> = {
    "": async () => true,
    "vmcp.admin.v1": () => isWritable(store),
    "vmcp.discovery.v1": async () => fleet.target() !== undefined,
  };

  async function stateOf(service: string): Promise<State | undefined> {
    const check = Object.hasOwn(checks, service) ? checks[service] : undefined;
    if (check === undefined) return undefined;
    return !stopping.aborted && (await check()) ? State.SERVING : State.NOT_SERVING;
  }

  return {
    async check({ service }) {
      const state = await stateOf(service);
      if (state === undefined)
        throw {
          code: status.NOT_FOUND,
          details: `no such service; there are ${Object.keys(checks)
            .map((one) => `"${one}"`)
            .join(", ")}`,
        };
      return { status: state };
    },
    watch(call) {
      if (watchers >= watchersMax) {
        call.emit("error", { code: status.RESOURCE_EXHAUSTED, details: `${watchersMax} watch already` });
        return;
      }
      watchers += 1;
      const left = new AbortController();
      for (const event of ["cancelled", "error"]) call.on(event, () => left.abort());
      const signal = AbortSignal.any([left.signal, stopping]);
      void (async () => {
        for (let last: State | undefined; !signal.aborted; ) {
          const state = (await stateOf(call.request.service)) ?? State.SERVICE_UNKNOWN;
          if (state !== last && !signal.aborted) call.write({ status: state });
          last = state;
          await delay(lookMs, undefined, { signal }).catch(() => undefined);
        }
        watchers -= 1;
        if (!left.signal.aborted) call.emit("error", { code: status.UNAVAILABLE, details: "the control plane is going away" });
      })();
    },
  };
}

/** Takes a lease that nobody else wants: it writes, and leaves no trace in history. */
async function isWritable({ leases }: Pick<Store, "leases">): Promise<boolean> {
  const late = new AbortController();
  try {
    const written = leases.acquire("health", { holder: "health", ttlMs: 0 }).then(() => true);
    return await Promise.race([written, delay(storeMs, false, { signal: late.signal })]);
  } catch {
    return false;
  } finally {
    late.abort();
  }
}
