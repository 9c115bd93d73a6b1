// Who calls the admin API, for the history and the audit trail.
import { randomUUID } from "node:crypto";
import type { Metadata } from "@grpc/grpc-js";
import type { Attempt } from "../store/store.ts";

export type Caller = Pick<Attempt, "actor" | "requestId">;

const charactersMax = 100;

/**
 * Nobody proves who he is yet: the admin API listens on this machine only, and everybody there may call it. So a name is only what the
 * caller says of himself, and is marked as that.
 */
export function callerOf(metadata: Metadata): Caller {
  const name = said(metadata, "vmcp-actor");
  return { actor: name === "" ? "unknown" : `claimed:${name}`, requestId: said(metadata, "x-request-id") || randomUUID() };
}

function said(metadata: Metadata, key: string): string {
  const [value] = metadata.get(key);
  return typeof value === "string" ? value.slice(0, charactersMax) : "";
}
