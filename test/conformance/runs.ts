// What is run: which scenarios, at which revision, with which server behind the gateway.
import type { Era } from "../support/dual-client.ts";
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
}

/** Client scenarios judge how the gateway talks to servers. */
export interface ClientRun {
  readonly leg: "client";
  readonly name: string;
  readonly revision: string;
  readonly scenarios: readonly string[];
  /** What the client behind the gateway speaks; the server speaks the revision. */
  readonly client: Era;
}

const statelessScenarios = [
  "tools_call",
  "request-metadata",
  "http-standard-headers",
  "http-custom-headers",
  "http-invalid-tool-headers",
  "sep-2322-client-request-state",
  "json-schema-ref-no-deref",
  "json-schema-2020-12-preservation",
];

export type Run = ServerRun | ClientRun;

/**
 * All runs, by name. Scenarios about OAuth are left out of the client runs: there the URL that the client uses must be
 * the one that the server was told, which cannot hold with anything in between.
 */
export const runs: readonly Run[] = [
  ...matrix("2025-11-25"),
  ...matrix("2026-07-28"),
  { leg: "server", name: "server 2025-06-18", revision: "2025-06-18", scenarios: "all", eras: "session" },
  { leg: "server", name: "server 2025-03-26", revision: "2025-03-26", scenarios: "all", eras: "session" },
  {
    leg: "client",
    name: "client 2025-11-25",
    revision: "2025-11-25",
    client: "session",
    scenarios: [
      "initialize",
      "tools_call",
      "elicitation-sep1034-client-defaults",
      "sse-retry",
      "json-schema-2020-12-preservation",
    ],
  },
  {
    leg: "client",
    name: "client 2025-06-18",
    revision: "2025-06-18",
    client: "session",
    scenarios: ["initialize", "tools_call"],
  },
  {
    leg: "client",
    name: "client 2026-07-28, for a stateless client",
    revision: "2026-07-28",
    client: "stateless",
    scenarios: statelessScenarios,
  },
  {
    leg: "client",
    name: "client 2026-07-28, for a session client",
    revision: "2026-07-28",
    client: "session",
    scenarios: statelessScenarios,
  },
];

function matrix(revision: string): ServerRun[] {
  return (["session", "stateless", "both"] as const).map((eras) => ({
    leg: "server",
    name: `server ${revision}, ${eras} backend`,
    revision,
    scenarios: "required",
    eras,
  }));
}
