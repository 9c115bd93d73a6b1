// Puts snapshots into force: built aside, warmed, swapped by one assignment, and only then is the old one let go.
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import type { View } from "../aggregation/view.ts";
import type { ListKind } from "../backends/catalog.ts";
import { reasonOf } from "../backends/errors.ts";
import { request } from "../mcp/json-rpc.ts";
import { buildRuntime, emptyRuntime, type Runtime, type RuntimeOptions, type SnapshotContent } from "../runtime.ts";
import { notifySession } from "../session/session.ts";
import type { SessionStore } from "../session/store.ts";

const warmMs = 3_000;
const refreshMs = 20;

export interface Live extends AsyncDisposable {
  /** What is served right now. */
  readonly runtime: Runtime;
  /** Swaps to a snapshot; throws SnapshotRefusedError, with the old one still live. */
  apply(content: SnapshotContent): Promise<void>;
}

export interface LiveOptions extends Pick<RuntimeOptions, "log" | "allowStdio"> {
  readonly sessions: SessionStore;
  /** Called after what is live, or a backend's state, changed. */
  readonly onChange: () => void;
  readonly log: Log;
}

/** Starts with nothing to serve. */
export function createLive({ sessions, onChange, log, allowStdio }: LiveOptions): Live {
  let runtime: Runtime = emptyRuntime;
  let refreshing: NodeJS.Timeout | undefined;

  // Backends often change together (all come up at start): one refresh, and one notification a session, for all of them.
  function refreshSoon(): void {
    refreshing ??= setTimeout(() => {
      refreshing = undefined;
      for (const server of runtime.virtualServers.values()) notifyChanged(server.name, server.refresh());
      onChange();
    }, refreshMs);
  }

  function notifyChanged(virtualServer: string, kinds: readonly ListKind[]): void {
    const methods = new Set(kinds.map((kind) => `notifications/${kind === "templates" ? "resources" : kind}/list_changed`));
    for (const session of sessions.all()) {
      if (session.virtualServer !== virtualServer) continue;
      for (const method of methods) notifySession(session, method, request(method, undefined));
    }
  }

  /** Ends sessions of servers that are gone, tells the others what changed for them. */
  function follow(viewsBefore: ReadonlyMap<string, View>): void {
    for (const session of [...sessions.all()]) if (!runtime.virtualServers.has(session.virtualServer)) sessions.end(session);
    for (const server of runtime.virtualServers.values()) {
      const before = viewsBefore.get(server.name);
      const changed = server.refresh(before);
      if (before) notifyChanged(server.name, changed);
    }
  }

  return {
    get runtime() {
      return runtime;
    },
    async apply(content) {
      const next = buildRuntime(content, runtime, { log, allowStdio, onBackendChange: refreshSoon });
      // Give new backends a moment to be listed, so that clients do not see their tools come in one by one.
      await Promise.race([
        Promise.all(next.backends.map(({ backend }) => backend.firstAttempt)),
        sleep(warmMs, undefined, { ref: false }),
      ]);
      const previous = runtime;
      const viewsBefore = new Map([...previous.virtualServers.values()].map(({ name, view }) => [name, view]));
      runtime = next;
      follow(viewsBefore);
      onChange();
      previous.release(next).catch((error) => log.warn({ reason: reasonOf(error) }, "an old backend did not end cleanly"));
    },
    async [Symbol.asyncDispose]() {
      clearTimeout(refreshing);
      const last = runtime;
      runtime = emptyRuntime;
      await last.release(undefined);
    },
  };
}
