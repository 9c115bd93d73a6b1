// Who calls, and whether he may: decided from what was proven, the table in access.ts, and who has which role.
import type { Metadata, ServerInterceptor } from "@grpc/grpc-js";
import { identityOf } from "../../common/spiffe.ts";
import type { Changed } from "../store/store.ts";
import type { Bearer } from "../trust/bearer.ts";
import type { Binding, Role } from "../trust/bindings.ts";
import type { Trust } from "../trust/trust.ts";
import { changingRoles, gives, type Right, type Row, rightsFor } from "./access.ts";
import { type Caller, nameOf, type Peer } from "./caller.ts";
import { AdminError } from "./errors.ts";

export interface AuthorizerOptions {
  readonly trust: Pick<Trust, "isRevoked" | "currentBindings" | "lookAgain" | "authority">;
  /** Undefined: no bearer token is valid. */
  readonly bearer: Bearer | undefined;
  readonly nowMs: () => number;
}

export interface Authorizer {
  /** Undefined: nobody who is known. Throws AdminError or TrustError when something was shown that does not hold. */
  identify(metadata: Metadata, context: AuthContext, isLocal: boolean): Promise<Peer | undefined>;
  /** Why the proof does not hold any more; undefined while it does. */
  faultOf(peer: Peer): AdminError | undefined;
  /** Why not; undefined when it may. `request` undefined: it has not come yet, so what it is about is not looked at. */
  refusalOf(row: Row<unknown> | undefined, peer: Peer | undefined, request?: unknown): AdminError | undefined;
  /** The same, after another look at the store for somebody known: he may have got the role from another control plane just now. */
  finalRefusal(row: Row<unknown> | undefined, peer: Peer | undefined, request?: unknown): Promise<AdminError | undefined>;
  /** What handlers get to know. */
  rightsOf(row: Row<unknown> | undefined, peer: Peer | undefined): Pick<Caller, "bindings" | "isAdmin" | "permit">;
}

type AuthContext = ReturnType<Parameters<ServerInterceptor>[1]["getAuthContext"]>;

export function createAuthorizer({ trust, bearer, nowMs }: AuthorizerOptions): Authorizer {
  async function identify(metadata: Metadata, context: AuthContext, isLocal: boolean): Promise<Peer | undefined> {
    const shown = metadata.get("authorization");
    if (shown.length > 0) return bearerPeer(shown, bearer);
    const certificate = context.sslPeerCertificate;
    if (certificate === undefined) return isLocal ? { kind: "local" } : undefined;
    const identity = identityOf(certificate.subjectaltname);
    if (identity === undefined) throw unauthenticated("the certificate names nobody of this mesh");
    return {
      ...{ kind: "certificate", identity, serial: certificate.serialNumber },
      expiresMs: Date.parse(certificate.valid_to),
    };
  }

  function faultOf(peer: Peer): AdminError | undefined {
    if (peer.kind === "local") return undefined;
    // A date that can't be read has passed.
    if (!(peer.expiresMs > nowMs())) return unauthenticated(`the ${peer.kind} has ended`);
    if (peer.kind === "bearer") return undefined;
    if (peer.identity.trustDomain !== trust.authority?.trustDomain)
      return unauthenticated(`the certificate is of the trust domain ${peer.identity.trustDomain}`);
    return trust.isRevoked(peer.serial) ? unauthenticated("the certificate has been revoked") : undefined;
  }

  function bindingsOf(peer: Peer | undefined): readonly Binding[] {
    const subjects = new Set(peer === undefined ? [] : subjectsOf(peer));
    return trust.currentBindings().filter(({ subject }) => subjects.has(subject));
  }

  function refusalOf(row: Row<unknown> | undefined, peer: Peer | undefined, request?: unknown): AdminError | undefined {
    if (row === undefined) return denied("this method is for nobody");
    if (row.who === "anyone") return undefined;
    if (peer === undefined)
      return unauthenticated("show a client certificate of this mesh that has not ended, or a bearer token");
    const fault = faultOf(peer);
    if (fault) return fault;
    if (row.who === "proxy") return refusalOfProxy(row, peer, request);
    if (peer.kind === "local") return undefined;
    if (peer.kind === "certificate" && peer.identity.kind !== "operator") return denied(`${nameOf(peer)} is no operator`);
    if (row.who === "authenticated") return undefined;
    const bindings = bindingsOf(peer);
    if (row.who === "change")
      return changingRoles.some((role) => bindings.some(({ group }) => gives(bindings, { role, group })))
        ? undefined
        : denied(`${nameOf(peer)} may change nothing`);
    // Until the request is there, a right in any group will do.
    const { who: role, group } = row;
    const places = request !== undefined ? [group?.(request)] : group ? bindings.map((one) => one.group) : [undefined];
    return places.some((place) => gives(bindings, { role, group: place }))
      ? undefined
      : missing(peer, { role, group: places[0] });
  }

  async function finalRefusal(row: Row<unknown> | undefined, peer: Peer | undefined, request?: unknown) {
    const refusal = refusalOf(row, peer, request);
    if (refusal === undefined || peer === undefined || faultOf(peer)) return refusal;
    await trust.lookAgain();
    return refusalOf(row, peer, request);
  }

  return {
    ...{ identify, faultOf, refusalOf, finalRefusal },
    rightsOf: (row, peer) => ({
      bindings: bindingsOf(peer),
      isAdmin: peer?.kind === "local" || gives(bindingsOf(peer), { role: "admin", group: undefined }),
      permit: (changes) => checkChanges(changes, { peer, by: row?.by ?? "admin", held: bindingsOf(peer) }),
    }),
  };
}

async function bearerPeer(shown: readonly (string | Buffer)[], bearer: Bearer | undefined): Promise<Peer> {
  const [header, ...more] = shown;
  const token = typeof header === "string" ? /^Bearer +([\w.~+/-]+=*)$/i.exec(header)?.[1] : undefined;
  if (token === undefined || more.length > 0) throw unauthenticated(`"authorization" wants one "Bearer TOKEN"`);
  if (bearer === undefined)
    throw unauthenticated("this control plane takes no bearer tokens: it was started without --oidc-issuer");
  return { kind: "bearer", ...(await bearer.verify(token)) };
}

function subjectsOf(peer: Peer): string[] {
  if (peer.kind === "bearer") return [nameOf(peer), ...peer.groups.map((group) => `oidc-group:${group}`)];
  return peer.kind === "certificate" && peer.identity.kind === "operator" ? [nameOf(peer)] : [];
}

function refusalOfProxy({ name }: Row<unknown>, peer: Peer, request: unknown): AdminError | undefined {
  if (peer.kind === "local") return undefined;
  if (peer.kind !== "certificate" || peer.identity.kind !== "proxy") return denied(`${nameOf(peer)} is no proxy`);
  const claimed = request === undefined ? undefined : name?.(request);
  if (claimed === undefined || claimed === peer.identity.name) return undefined;
  return denied(`the certificate is of the proxy "${peer.identity.name}", and not of "${claimed.slice(0, 100)}"`);
}

interface Changing {
  readonly peer: Peer | undefined;
  readonly by: Role;
  readonly held: readonly Binding[];
}

/** Throws for the first right that is missing. */
function checkChanges(changes: readonly Changed[], { peer, by, held }: Changing): void {
  if (peer?.kind === "local") return;
  for (const change of changes)
    for (const right of rightsFor(change, by))
      if (peer === undefined || !gives(held, right)) throw missing(peer, right, ` to change "${change.name}" like this`);
}

function missing(peer: Peer | undefined, { role, group }: Right, what = ""): AdminError {
  const where = group ? `in the group "${group}"` : "everywhere";
  return denied(`${peer ? nameOf(peer) : "nobody"} needs the role ${role} ${where}${what}`);
}

function unauthenticated(message: string): AdminError {
  return new AdminError("UNAUTHENTICATED", message);
}

function denied(message: string): AdminError {
  return new AdminError("PERMISSION_DENIED", message);
}
