// Which backends this proxy watches: those that the control plane gives it, and all of them while there is no control plane.
import type { WatchOrders } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Duty } from "../backends/catalogs.ts";
import type { HealthState } from "../backends/health.ts";

// A control plane that was started again, or another one, says within a moment who is to watch. Proxies don't all begin together.
const graceMs = { least: 3_000, most: 5_000 };

/** Plain data, that one process can hand to another. */
export interface Duties {
  /** Nobody says who else would watch: everything is ours. */
  readonly isAlone: boolean;
  /** Names of catalogs. */
  readonly ours: readonly string[];
  /** What others watch, as far as they said how it is. */
  readonly others: readonly { readonly catalog: string; readonly state: HealthState; readonly error: string | undefined }[];
}

/** Of a proxy that has just started: others are thought to watch what the fleet knows. */
export const noDuties: Duties = { isAlone: false, ours: [], others: [] };

export function dutyIn({ isAlone, ours, others }: Duties, catalog: string): Duty {
  if (isAlone || ours.includes(catalog)) return "ours";
  return others.find((one) => one.catalog === catalog) ?? "others";
}

export interface WatchDuty extends Disposable {
  obey(orders: WatchOrders): void;
  /** The stream to the control plane is gone. What was ordered holds for a while. */
  lost(): void;
}

const states: ReadonlySet<string> = new Set<HealthState>(["unknown", "healthy", "degraded", "unhealthy", "unauthenticated"]);

/** `onChange` hears the duties whenever they change; at first there are none. */
export function createWatchDuty({ onChange }: { readonly onChange: (duties: Duties) => void }): WatchDuty {
  let isAlone = false;
  let waiting: NodeJS.Timeout | undefined;

  function stopWaiting(): void {
    clearTimeout(waiting);
    waiting = undefined;
  }

  function lost(): void {
    if (isAlone) return;
    waiting ??= setTimeout(
      () => {
        isAlone = true;
        onChange({ ...noDuties, isAlone });
      },
      graceMs.least + Math.random() * (graceMs.most - graceMs.least),
    );
  }
  lost();

  return {
    lost,
    obey({ catalogs, others }) {
      stopWaiting();
      isAlone = false;
      const known = others.flatMap(({ catalog, state, error }) =>
        states.has(state) ? [{ catalog, state: state as HealthState, error: error || undefined }] : [],
      );
      onChange({ isAlone, ours: catalogs, others: known });
    },
    [Symbol.dispose]: stopWaiting,
  };
}
