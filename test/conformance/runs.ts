// What is run: which scenarios, at which revision, with which server behind the gateway.
import type { FixtureEras } from "./fixture.ts";

/** Server scenarios judge how the gateway serves clients. */
export interface ServerRun {
  readonly leg: "server";
  readonly name: string;
  readonly revision: string;
  /** Every scenario that applies at the revision, or the required ones and those that the suite runs beside them. */
  readonly scenarios: "all" | "required";
  /** What the server behind the gateway speaks. */
  readonly eras: FixtureEras;
  /** Runs only when it is asked for by name, because the gateway does not serve this yet. */
  readonly isLater?: boolean;
}

/** Client scenarios judge how the gateway talks to servers. */
export interface ClientRun {
  readonly leg: "client";
  readonly name: string;
  readonly revision: string;
  readonly scenarios: readonly string[];
  readonly isLater?: boolean;
}

/**
 * All runs, by name. Scenarios about OAuth are left out of the client runs: there the URL that the client uses must be
 * the one that the server was told, which cannot hold with anything in between.
 */
export const runs: readonly (ServerRun | ClientRun)[] = [
  { leg: "server", name: "server 2025-11-25", revision: "2025-11-25", scenarios: "required", eras: "session" },
  { leg: "server", name: "server 2025-11-25, backend of both eras", revision: "2025-11-25", scenarios: "required", eras: "both" },
  { leg: "server", name: "server 2025-06-18", revision: "2025-06-18", scenarios: "all", eras: "session" },
  { leg: "server", name: "server 2025-03-26", revision: "2025-03-26", scenarios: "all", eras: "session" },
  ...later("2025-11-25", "stateless"),
  ...later("2026-07-28", "session"),
  ...later("2026-07-28", "both"),
  ...later("2026-07-28", "stateless"),
  {
    leg: "client",
    name: "client 2025-11-25",
    revision: "2025-11-25",
    scenarios: [
      "initialize",
      "tools_call",
      "elicitation-sep1034-client-defaults",
      "sse-retry",
      "json-schema-2020-12-preservation",
    ],
  },
  { leg: "client", name: "client 2025-06-18", revision: "2025-06-18", scenarios: ["initialize", "tools_call"] },
];

function later(revision: string, eras: FixtureEras): ServerRun[] {
  return [{ leg: "server", name: `server ${revision}, ${eras} backend`, revision, scenarios: "required", eras, isLater: true }];
}
