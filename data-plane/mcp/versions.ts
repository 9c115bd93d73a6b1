// Revisions of MCP, and the two eras they belong to: those that open with `initialize`, and those whose requests stand alone.

export type Era = "session" | "stateless";

/** Newest first. */
export const sessionVersions = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"] as const;

export type SessionVersion = (typeof sessionVersions)[number];

export const statelessVersion = "2026-07-28";

export type McpVersion = SessionVersion | typeof statelessVersion;

export function isSessionVersion(version: unknown): version is SessionVersion {
  return (sessionVersions as readonly unknown[]).includes(version);
}

/** What we answer to a client that asked for `requested`: the same when we speak it, else our newest. */
export function negotiate(requested: unknown): SessionVersion {
  return isSessionVersion(requested) ? requested : sessionVersions[0];
}
