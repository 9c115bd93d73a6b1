// Puts snapshots into force: built aside, warmed, swapped by one assignment, and only then is the old one let go.
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import type { View } from "../aggregation/view.ts";
import { reasonOf } from "../backends/errors.ts";
import { request } from "../mcp/json-rpc.ts";
import {
  buildRuntime,
  emptyRuntime,
  type Runtime,
  type RuntimeOptions,
  type SessionTerms,
  type SnapshotContent,
  withTerms,
} from "../runtime.ts";
import { notifySession, type Session } from "../session/session.ts";
import { changedKinds, type Kind, type VirtualServer } from "../virtual-server.ts";

// How long new backends may hold up a swap: at the first start nothing is served meanwhile, later an edit shall show within a
// second, and one that starts again shall serve within a second.
const warmMs = { start: 3_000, later: 600 };
const refreshMs = 20;

export interface Live extends AsyncDisposable {
  /** What is served right now. */
  readonly runtime: Runtime;
  /** Swaps to a snapshot; throws SnapshotRefusedError, with the old one still live. */
  apply(content: SnapshotContent, options?: ApplyOptions): Promise<void>;
  /** The first half of that: builds it aside. One at a time, and each is put into force or dropped. */
  prepare(content: SnapshotContent, options?: ApplyOptions): Promise<Prepared>;
  /** Puts just this of a snapshot into force, at once. Does nothing before the first swap: nothing is served then. */
  obey(terms: SessionTerms): void;
  /** Looks again at `dutyOf`. */
  keepWatch(): void;
}

export interface ApplyOptions {
  /** It was served before. Default false. */
  readonly isRestart?: boolean;
}

/** A snapshot that could be put into force. */
export interface Prepared {
  enter(): void;
  drop(): void;
}

export interface LiveOptions
  extends Pick<RuntimeOptions, "log" | "allowStdio" | "onMessage" | "mayRefresh" | "incoming" | "outgoing" | "dutyOf"> {
  readonly sessions: { all(): Iterable<Session>; end(session: Session): void };
  /** Called after what is live, or a backend's state, changed. */
  readonly onChange: () => void;
  /** Called after `runtime` has other revocations, or may have. */
  readonly onRevocations?: () => void;
  readonly log: Log;
}

/** Starts with nothing to serve. */
export function createLive({ sessions, onChange, onRevocations, ...options }: LiveOptions): Live {
  const { log } = options;
  let runtime: Runtime = emptyRuntime;
  let refreshing: NodeJS.Timeout | undefined;

  // Backends often change together (all come up at start): one refresh, and one notification a session, for all of them.
  function refreshSoon(): void {
    refreshing ??= setTimeout(() => {
      refreshing = undefined;
      for (const server of runtime.virtualServers.values()) tellChanges(server, server.refresh());
      onChange();
    }, refreshMs);
  }

  /** Tells each session which of the lists that it may have seen are others now. */
  function tellChanges(server: VirtualServer, before: (client: Kind) => View | undefined): void {
    for (const session of sessions.all()) {
      const seen = session.virtualServer === server.name ? before(session) : undefined;
      if (!seen) continue;
      const kinds = changedKinds(seen, server.viewOf(session));
      const methods = new Set(kinds.map((kind) => `notifications/${kind === "templates" ? "resources" : kind}/list_changed`));
      for (const method of methods) notifySession(session, method, request(method, undefined));
    }
  }

  /** After a swap: ends sessions of servers that are gone, tells the others what changed for them. */
  function follow(previous: Runtime): void {
    for (const session of [...sessions.all()]) if (!runtime.virtualServers.has(session.virtualServer)) sessions.end(session);
    for (const server of runtime.virtualServers.values()) {
      const before = previous.virtualServers.get(server.name);
      if (before) server.follow(before);
      server.refresh(); // catalogs may have come while the runtime was built
      for (const session of sessions.all()) {
        if (session.virtualServer !== server.name) continue;
        // A stream that promised what it can't keep ends; its client opens another and is told what that can.
        if (session.era === "stateless" && hasMoved(session, server)) session.stream?.end();
        for (const backend of server.backends.values()) {
          void backend.join(session);
          if (session.stream) void backend.follow(session); // one that took another's place knows no subscriptions yet
        }
      }
      tellChanges(server, before?.refresh() ?? (() => undefined));
    }
  }

  /** Whether somebody else owns a resource now that a caller without a session listens to. */
  function hasMoved({ state: { subscriptions }, ...client }: Session, server: VirtualServer): boolean {
    return subscriptions.entries().some(([uri, { backend, original }]) => {
      const now = server.viewOf(client).resources.get(uri);
      return !server.backends.has(backend) || (now !== undefined && (now.backend !== backend || now.original !== original));
    });
  }

  function keepWatch(): void {
    for (const { catalog, backend } of runtime.backends) backend.rest(options.dutyOf?.(catalog) ?? "ours");
    onChange();
  }

  async function prepare(content: SnapshotContent, { isRestart = false }: ApplyOptions = {}): Promise<Prepared> {
    const next = buildRuntime(content, runtime, { ...options, onBackendChange: refreshSoon });
    // Give new backends a moment to be listed, so that clients do not see their tools come in one by one.
    await Promise.race([
      next.firstAttempts,
      sleep(runtime === emptyRuntime && !isRestart ? warmMs.start : warmMs.later, undefined, { ref: false }),
    ]);
    const release = (one: Runtime, kept: Runtime): void => {
      one.release(kept).catch((error) => log.warn({ reason: reasonOf(error) }, "an old backend did not end cleanly"));
    };
    return {
      enter() {
        const previous = runtime;
        runtime = next;
        next.enter();
        keepWatch();
        onRevocations?.();
        follow(previous);
        release(previous, next);
      },
      drop: () => release(next, runtime),
    };
  }

  return {
    get runtime() {
      return runtime;
    },
    apply: async (content, how) => (await prepare(content, how)).enter(),
    prepare,
    keepWatch,
    obey(terms) {
      if (runtime === emptyRuntime) return;
      runtime = withTerms(runtime, terms);
      onRevocations?.();
    },
    async [Symbol.asyncDispose]() {
      clearTimeout(refreshing);
      const last = runtime;
      runtime = emptyRuntime;
      await last.release(undefined);
    },
  };
}
