// What every call goes through before any handler hears of it, and streams again and again while they are open. What is decided stands
// in authorize.ts; here it is carried out.
import { type Metadata, ServerInterceptingCall, type ServerInterceptor, status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { TrustError } from "../trust/errors.ts";
import type { Trust } from "../trust/trust.ts";
import { rowOf } from "./access.ts";
import { type AuthorizerOptions, createAuthorizer } from "./authorize.ts";
import { namesOf, type Peer, rememberCaller } from "./caller.ts";
import type { Denials } from "./denials.ts";
import { AdminError, toServiceError } from "./errors.ts";

// Certificates and tokens end, and what other control planes revoke is read every few seconds.
const recheckMs = 10_000;

export interface GuardOptions extends AuthorizerOptions {
  readonly trust: AuthorizerOptions["trust"] & Pick<Trust, "changes">;
  readonly denials: Denials;
  readonly log: Log;
}

export interface Guard extends Disposable {
  /** For one listener. `isLocal`: only this machine can reach it, and whoever does is admin. */
  interceptor(isLocal: boolean): ServerInterceptor;
}

export function createGuard({ denials, log, ...options }: GuardOptions): Guard {
  const { identify, faultOf, refusalOf, finalRefusal, rightsOf } = createAuthorizer(options);
  const stop = new AbortController();
  /** One for each open stream. */
  const rechecks = new Set<() => void>();

  const interceptor =
    (isLocal: boolean): ServerInterceptor =>
    ({ path, responseStream }, call) => {
      const row = rowOf(path);
      let peer: Peer | undefined;
      let names = { actor: "unknown", requestId: "" };
      let request: unknown;
      let isRefused = false;
      let isGone = false;

      function recheck(): void {
        const refusal = refusalOf(row, peer, request);
        if (refusal) refuse(refusal);
      }

      /** Ends the call, and lets nothing more through in either direction. */
      function refuse(error: unknown): void {
        if (isRefused) return;
        isRefused = true;
        rechecks.delete(recheck);
        const known = error instanceof TrustError ? new AdminError("UNAUTHENTICATED", error.message) : error;
        const answer = toServiceError(known, log);
        void note(answer.code, answer.details).then(() => call.sendStatus({ metadata: null, ...answer }));
      }

      async function note(code: status, reason: string): Promise<void> {
        const isProven = peer !== undefined && peer.kind !== "local";
        const attempt = { ...names, method: path.slice(path.lastIndexOf("/") + 1), reason, targets: targetsOf(request) };
        await denials.note({ ...attempt, code: status[code] }, isProven);
      }

      async function admit(metadata: Metadata): Promise<void> {
        names = namesOf(metadata, undefined);
        try {
          peer = await identify(metadata, call.getAuthContext(), isLocal);
        } catch (error) {
          // Where anyone may call, who shows something that does not hold may still prove himself in the request.
          if (row?.who !== "anyone") throw error;
        }
        if (row?.who === "anyone" && peer && faultOf(peer)) peer = undefined;
        names = namesOf(metadata, peer);
        const refusal = await finalRefusal(row, peer);
        if (refusal) throw refusal;
        rememberCaller(metadata, { ...names, peer, ...rightsOf(row, peer) });
        if (responseStream && !isGone) rechecks.add(recheck);
      }

      async function look(message: unknown): Promise<void> {
        // What a stream is about, its first message says.
        request ??= message;
        const refusal = await finalRefusal(row, peer, message);
        if (refusal) throw refusal;
      }

      return new ServerInterceptingCall(call, {
        start: (next) =>
          next({
            onReceiveMetadata: (metadata, pass) => void admit(metadata).then(() => pass(metadata), refuse),
            onReceiveMessage: (message, pass) => void look(message).then(() => isRefused || pass(message), refuse),
            onCancel() {
              isGone = true;
              rechecks.delete(recheck);
            },
          }),
        sendMetadata: (metadata, pass) => void (isRefused || pass(metadata)),
        sendMessage: (message, pass) => void (isRefused || pass(message)),
        sendStatus({ code = status.OK, details = "", metadata = null }, pass) {
          if (isRefused) return;
          rechecks.delete(recheck);
          const answer = { code, details, metadata };
          const isDenial = code === status.PERMISSION_DENIED || code === status.UNAUTHENTICATED;
          if (isDenial) void note(code, details).then(() => pass(answer));
          else pass(answer);
        },
      });
    };

  async function follow(): Promise<void> {
    while (!stop.signal.aborted) {
      await options.trust.changes.next(AbortSignal.any([stop.signal, AbortSignal.timeout(recheckMs)]));
      for (const recheck of [...rechecks]) recheck();
    }
  }

  void follow();
  return { interceptor, [Symbol.dispose]: () => stop.abort() };
}

/** Names that a request is about, for the audit trail. */
function targetsOf(request: unknown): string[] {
  const { name, resources } = (request ?? {}) as { readonly name?: unknown; readonly resources?: unknown };
  const several = Array.isArray(resources) ? resources.map((one: { readonly name?: unknown }) => one.name) : [];
  return [name, ...several].filter((one) => typeof one === "string" && one !== "") as string[];
}
