// The certificate that a control plane shows: of its own authority, made anew long before it ends, or of files that somebody else renews.
import { setTimeout as delay } from "node:timers/promises";
import { requestCertificate } from "../../common/certificate-request.ts";
import type { KeyPair, KeyPairSource } from "../../common/key-pair.ts";
import type { Log } from "../../common/log.ts";
import type { Authority } from "./authority.ts";

// It lives in memory only, so it may be short.
const ttlMs = 24 * 60 * 60_000;

const retryMs = 60_000;

/** The first is there when this resolves. `name` is what it is called in its SPIFFE id. */
export async function issueServerCertificates(authority: Authority, name: string, log: Log): Promise<KeyPairSource> {
  const stop = new AbortController();
  const listeners = new Set<() => void>();
  const identity = { kind: "control-plane", trustDomain: authority.trustDomain, scope: "", name } as const;

  async function make(): Promise<KeyPair> {
    const { key, request } = await requestCertificate();
    const { certificate } = await authority.issue(request, { identity, usage: "server", ttlMs });
    return { key, certificate: certificate + authority.bundle };
  }

  let pair = await make();

  async function renew(): Promise<void> {
    let waitMs = ttlMs / 2;
    while (!stop.signal.aborted) {
      await delay(waitMs, undefined, { signal: stop.signal, ref: false }).catch(() => undefined);
      if (stop.signal.aborted) return;
      try {
        pair = await make();
        waitMs = ttlMs / 2;
        for (const listener of listeners) listener();
      } catch (error) {
        waitMs = retryMs;
        log.error({ reason: (error as Error).message }, "no new certificate for this server; the present one goes on");
      }
    }
  }

  void renew();
  return {
    current: () => pair,
    onChange: (listener) => void listeners.add(listener),
    [Symbol.dispose]: () => stop.abort(),
  };
}
