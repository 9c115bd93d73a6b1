// Who calls, as the guard found out, for handlers and for the history.
import { randomUUID } from "node:crypto";
import type { Metadata } from "@grpc/grpc-js";
import { type SpiffeIdentity, spiffeId } from "../../common/spiffe.ts";
import type { Attempt, Changed } from "../store/store.ts";
import type { Binding } from "../trust/bindings.ts";
import { AdminError } from "./errors.ts";

/** Whoever is on the other end, once that is proven. */
export type Peer =
  /** On this machine; it may do everything. */
  | { readonly kind: "local" }
  | { readonly kind: "certificate"; readonly identity: SpiffeIdentity; readonly serial: string; readonly expiresMs: number }
  | { readonly kind: "bearer"; readonly subject: string; readonly groups: readonly string[]; readonly expiresMs: number };

export interface Caller extends Pick<Attempt, "actor" | "requestId"> {
  /** Undefined only where methods are for anyone. */
  readonly peer: Peer | undefined;
  /** What it may do; of a local one nothing that is written down. */
  readonly bindings: readonly Binding[];
  readonly isAdmin: boolean;
  /** Throws AdminError `PERMISSION_DENIED` unless the caller may make all of these changes. */
  readonly permit: (changes: readonly Changed[]) => void;
}

const charactersMax = 100;

// The guard passes on the very metadata that handlers get.
const callers = new WeakMap<Metadata, Caller>();

export function rememberCaller(metadata: Metadata, caller: Caller): void {
  callers.set(metadata, caller);
}

/** Throws where no guard stands in front: nobody is let in by that. */
export function callerOf(metadata: Metadata): Caller {
  const caller = callers.get(metadata);
  if (caller === undefined) throw new AdminError("UNAUTHENTICATED", "nobody has looked at who calls");
  return caller;
}

/** For the history. What somebody on this machine says of himself is marked as that. */
export function namesOf(metadata: Metadata, peer: Peer | undefined): Pick<Attempt, "actor" | "requestId"> {
  return { actor: actorOf(metadata, peer), requestId: said(metadata, "x-request-id") || randomUUID() };
}

/** `spiffe://…`, `oidc:SUBJECT`, or `local`. */
export function nameOf(peer: Peer): string {
  if (peer.kind === "certificate") return spiffeId(peer.identity);
  return peer.kind === "bearer" ? `oidc:${peer.subject}` : "local";
}

function actorOf(metadata: Metadata, peer: Peer | undefined): string {
  if (peer !== undefined && peer.kind !== "local") return nameOf(peer);
  const name = said(metadata, "vmcp-actor");
  return name === "" ? "unknown" : `claimed:${name}`;
}

function said(metadata: Metadata, key: string): string {
  const [value] = metadata.get(key);
  return typeof value === "string" ? value.slice(0, charactersMax) : "";
}
