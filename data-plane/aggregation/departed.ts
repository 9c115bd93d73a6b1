// Backends that have just left a virtual server: for a while, what was theirs is told from what never was, and those that still have
// calls hear what those calls wait for.
import type { Backend } from "../backends/backend.ts";
import type { ListKind } from "../backends/catalog.ts";
import type { Route, View } from "./view.ts";

export interface Departed {
  /** Notes that backends leave, and what clients knew of them. */
  note(leaving: readonly Backend[], views: Iterable<View>): void;
  /** Where calls under a name went that is nobody's now; undefined when nobody remembers. */
  routeOf(kind: ListKind, name: string): Route | undefined;
  /** A backend that left, while it has calls. */
  draining(name: string): Backend | undefined;
}

// As long as a client may hold a list that it got before, within reason; the names of fifty large servers.
const rememberMs = 5 * 60_000;
const namesMax = 5_000;
const drainingMax = 256;

/** Nothing is remembered at first. */
export function createDeparted({ nowMs = () => performance.now() }: { nowMs?: () => number } = {}): Departed {
  const names = new Map<string, { readonly route: Route; readonly untilMs: number }>(); // oldest first
  let leaving: readonly Backend[] = [];

  function forgetOld(): void {
    for (const [key, { untilMs }] of names) {
      if (names.size <= namesMax && untilMs > nowMs()) return;
      names.delete(key);
    }
  }

  return {
    note(left, views) {
      const gone = new Set(left.map(({ name }) => name));
      const untilMs = nowMs() + rememberMs;
      for (const view of views) {
        for (const kind of ["tools", "prompts", "resources", "templates"] as const) {
          for (const [name, route] of view[kind]) {
            if (!gone.has(route.backend)) continue;
            names.delete(keyOf(kind, name));
            names.set(keyOf(kind, name), { route, untilMs });
          }
        }
      }
      forgetOld();
      leaving = [...left, ...leaving].filter(({ inFlight }) => inFlight > 0).slice(0, drainingMax);
    },
    routeOf(kind, name) {
      const known = names.get(keyOf(kind, name));
      return known && known.untilMs > nowMs() ? known.route : undefined;
    },
    draining: (name) => leaving.find((backend) => backend.name === name && backend.inFlight > 0),
  };
}

function keyOf(kind: ListKind, name: string): string {
  return `${kind} ${name}`;
}
