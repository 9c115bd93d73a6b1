// What every call goes through: who is it, and may it? Decides from the table in access.ts, before any handler hears of the call, and
// for streams again and again while they are open.
import { type Metadata, ServerInterceptingCall, type ServerInterceptor, status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { identityOf } from "../../common/spiffe.ts";
import type { Changed } from "../store/store.ts";
import type { Bearer } from "../trust/bearer.ts";
import type { Binding, Role } from "../trust/bindings.ts";
import { TrustError } from "../trust/errors.ts";
import type { Trust } from "../trust/trust.ts";
import { changingRoles, gives, type Right, type Row, rightsFor, rowOf } from "./access.ts";
import { nameOf, namesOf, type Peer, rememberCaller } from "./caller.ts";
import type { Denials } from "./denials.ts";
import { AdminError, toServiceError } from "./errors.ts";

// Certificates and tokens end, and what other control planes revoke is read every few seconds.
const recheckMs = 10_000;

export interface GuardOptions {
  readonly trust: Pick<Trust, "isRevoked" | "currentBindings" | "lookAgain" | "changes" | "authority">;
  /** Undefined: no bearer token is valid. */
  readonly bearer: Bearer | undefined;
  readonly denials: Denials;
  readonly log: Log;
  readonly nowMs: () => number;
}

export interface Guard extends Disposable {
  /** For one listener. `isLocal`: only this machine can reach it, and whoever does is admin. */
  interceptor(isLocal: boolean): ServerInterceptor;
}

export function createGuard({ trust, bearer, denials, log, nowMs }: GuardOptions): Guard {
  const stop = new AbortController();
  const open = new Set<() => void>();

  /** Undefined: nobody who is known. Throws AdminError when something was shown that does not hold. */
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

  /** Why the proof does not hold any more; undefined while it does. */
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

  /** Why not; undefined when it may. `request` undefined: it has not come yet, so what it is about is not looked at. */
  function refusalOf(row: Row<unknown> | undefined, peer: Peer | undefined, request?: unknown): AdminError | undefined {
    if (row === undefined) return denied("this method is for nobody");
    if (row.who === "anyone") return undefined;
    if (peer === undefined) return unauthenticated("show a client certificate, or a bearer token");
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

  /** The same, after another look at the store for somebody known: he may have got the role from another control plane just now. */
  async function finalRefusal(row: Row<unknown> | undefined, peer: Peer | undefined, request?: unknown) {
    const refusal = refusalOf(row, peer, request);
    if (refusal === undefined || peer === undefined || faultOf(peer)) return refusal;
    await trust.lookAgain();
    return refusalOf(row, peer, request);
  }

  const interceptor =
    (isLocal: boolean): ServerInterceptor =>
    ({ path, responseStream }, call) => {
      const row = rowOf(path);
      const method = path.slice(path.lastIndexOf("/") + 1);
      let peer: Peer | undefined;
      let names = { actor: "unknown", requestId: "" };
      let targets: readonly string[] = [];
      let isOver = false;
      let recheck: (() => void) | undefined;

      async function note(code: string, reason: string): Promise<void> {
        const isProven = peer !== undefined && peer.kind !== "local";
        await denials.note({ ...names, method, code, reason, targets }, isProven);
      }

      /** Ends the call, and lets nothing more through in either direction. */
      function refuse(error: unknown): void {
        if (isOver) return;
        isOver = true;
        forget();
        const known = error instanceof TrustError ? unauthenticated(error.message) : error;
        const answer = toServiceError(known, log);
        void note(status[answer.code], answer.details).then(() => call.sendStatus({ metadata: null, ...answer }));
      }

      function forget(): void {
        if (recheck) open.delete(recheck);
      }

      function watch(request: unknown): void {
        forget();
        recheck = () => {
          const refusal = refusalOf(row, peer, request);
          if (refusal) refuse(refusal);
        };
        open.add(recheck);
      }

      async function admit(metadata: Metadata): Promise<void> {
        names = namesOf(metadata, undefined);
        peer = await identify(metadata, call.getAuthContext(), isLocal).catch((error) => {
          // Who shows something that does not hold may still prove himself in the request, where that is enough.
          if (row?.who === "anyone") return undefined;
          throw error;
        });
        // Where anyone may call, one whose certificate does not count is like one who has none.
        if (row?.who === "anyone" && peer && faultOf(peer)) peer = undefined;
        names = namesOf(metadata, peer);
        const refusal = await finalRefusal(row, peer);
        if (refusal) throw refusal;
        const bindings = bindingsOf(peer);
        const isAdmin = peer?.kind === "local" || gives(bindings, { role: "admin", group: undefined });
        const by = row?.by ?? "admin";
        const permit = (changes: readonly Changed[]) => checkChanges(changes, { peer, by, bindings: () => bindingsOf(peer) });
        rememberCaller(metadata, { ...names, peer, bindings, isAdmin, permit });
        if (responseStream && !isOver) watch(undefined);
      }

      return new ServerInterceptingCall(call, {
        start: (next) =>
          next({
            onReceiveMetadata: (metadata, pass) => void admit(metadata).then(() => !isOver && pass(metadata), refuse),
            onReceiveMessage(message, pass) {
              targets = namesIn(message);
              void finalRefusal(row, peer, message).then((refusal) => {
                if (refusal) return refuse(refusal);
                if (isOver) return;
                if (responseStream && row?.who !== "proxy") watch(message);
                pass(message);
              });
            },
            onCancel: () => {
              isOver = true;
              forget();
            },
          }),
        sendMetadata: (metadata, pass) => void (isOver || pass(metadata)),
        sendMessage: (message, pass) => void (isOver || pass(message)),
        sendStatus(answer, pass) {
          if (isOver) return;
          forget();
          const code = answer.code ?? status.OK;
          if (code !== status.PERMISSION_DENIED && code !== status.UNAUTHENTICATED) return pass(answer);
          void note(status[code], answer.details ?? "").then(() => pass(answer));
        },
      });
    };

  async function follow(): Promise<void> {
    while (!stop.signal.aborted) {
      await trust.changes.next(AbortSignal.any([stop.signal, AbortSignal.timeout(recheckMs)]));
      for (const recheck of [...open]) recheck();
    }
  }

  void follow();
  return { interceptor, [Symbol.dispose]: () => stop.abort() };
}

type AuthContext = ReturnType<Parameters<ServerInterceptor>[1]["getAuthContext"]>;

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
  readonly bindings: () => readonly Binding[];
}

/** Throws for the first right that is missing. */
function checkChanges(changes: readonly Changed[], { peer, by, bindings }: Changing): void {
  if (peer?.kind === "local") return;
  const held = bindings();
  for (const change of changes)
    for (const right of rightsFor(change, by))
      if (peer === undefined || !gives(held, right)) throw missing(peer, right, ` to change "${change.name}" like this`);
}

function missing(peer: Peer | undefined, { role, group }: Right, what = ""): AdminError {
  const where = group ? `in the group "${group}"` : "everywhere";
  return denied(`${peer ? nameOf(peer) : "nobody"} needs the role ${role} ${where}${what}`);
}

/** Names that a request is about, for the audit trail. */
function namesIn(message: unknown): string[] {
  const { name, resources } = message as { readonly name?: unknown; readonly resources?: unknown };
  const several = Array.isArray(resources) ? resources.map((one: { readonly name?: unknown }) => one.name) : [];
  return [name, ...several].filter((one) => typeof one === "string" && one !== "") as string[];
}

function unauthenticated(message: string): AdminError {
  return new AdminError("UNAUTHENTICATED", message);
}

function denied(message: string): AdminError {
  return new AdminError("PERMISSION_DENIED", message);
}
