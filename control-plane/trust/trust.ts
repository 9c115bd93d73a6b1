// Who may take part, as all control planes of a store agree on it. What every call is judged by is held in memory, read again when
// something changes here and every few seconds, and stays what it was while the store is away.
import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../../common/log.ts";
import { type ChangeFeed, createChangeFeed } from "../change-feed.ts";
import { ControlPlaneError } from "../errors.ts";
import { type Attempt, type RecordChange, type Records, type Store, StoreError } from "../store/store.ts";
import type { Authority } from "./authority.ts";
import { type Binding, type Bindings, createBindings } from "./bindings.ts";
import { type Certificates, createCertificates } from "./certificates.ts";
import { createTokens, type Tokens } from "./tokens.ts";

// What another control plane revoked is refused here within this.
const refreshMs = 5_000;

const gapMs = 1_000;

export interface Trust extends Disposable {
  /** Undefined: this control plane makes no certificates, and serves only its own machine. */
  readonly authority: Authority | undefined;
  readonly tokens: Tokens;
  readonly certificates: Certificates;
  readonly bindings: Bindings;
  isRevoked(serial: string): boolean;
  /** Of everybody, sorted by name. */
  currentBindings(): readonly Binding[];
  /** Reads again what the store knows, unless that was done within the last second: for who may have got a right elsewhere just now. */
  lookAgain(): Promise<void>;
  /** Wakes when somebody may have lost a right. */
  readonly changes: Pick<ChangeFeed, "next">;
}

export interface TrustOptions {
  readonly store: Pick<Store, "records">;
  readonly authority: Authority | undefined;
  /** Default: 7 days. */
  readonly proxyCertificateTtlMs?: number | undefined;
  readonly log: Log;
  readonly nowMs: () => number;
}

/**
 * Resolves when it knows what the store knows. Throws StoreError when the store does not answer then, ControlPlaneError
 * `trust_unusable` when what the store has is of another authority.
 */
export async function startTrust({ store, authority, log, nowMs, ...options }: TrustOptions): Promise<Trust> {
  if (authority) await checkAuthority(store.records, authority);
  const feed = createChangeFeed();
  const stop = new AbortController();
  const records = {
    ...store.records,
    async change(changes: readonly RecordChange[], by: Attempt) {
      await store.records.change(changes, by);
      await refresh();
    },
  };
  const tokens = createTokens(records, authority, nowMs);
  const certificates = createCertificates({ records, authority, tokens, nowMs, proxyTtlMs: options.proxyCertificateTtlMs });
  const bindings = createBindings(records);
  let readMs = nowMs();
  let [denied, bound] = await Promise.all([certificates.denied(), bindings.list()]);

  async function refresh(): Promise<void> {
    readMs = nowMs();
    try {
      [denied, bound] = await Promise.all([certificates.denied(), bindings.list()]);
      feed.wake();
    } catch (error) {
      if (!stop.signal.aborted)
        log.warn({ reason: (error as Error).message }, "the store does not say who was revoked; what it said last counts");
    }
  }

  async function follow(): Promise<void> {
    while (!stop.signal.aborted) {
      await delay(refreshMs, undefined, { signal: stop.signal, ref: false }).catch(() => undefined);
      if (!stop.signal.aborted) await refresh();
    }
  }

  void follow();
  return {
    ...{ authority, tokens, certificates, bindings },
    changes: feed,
    isRevoked: (serial) => denied.has(serial),
    currentBindings: () => bound,
    async lookAgain() {
      if (nowMs() - readMs >= gapMs) await refresh();
    },
    // What is being read is not waited for: a store that hangs would take seconds.
    [Symbol.dispose]: () => stop.abort(),
  };
}

/** Proxies that enrolled here would be refused there. An authority takes over from one that it trusts: that is how they are changed. */
async function checkAuthority(records: Records, authority: Authority): Promise<void> {
  const { pin, pins, trustDomain } = authority;
  const known = await records.get("authorities", trustDomain);
  const present = pin.toString("hex");
  if (known?.body === present) return;
  if (known && !pins.some((one) => one.toString("hex") === known.body))
    throw new ControlPlaneError(
      "trust_unusable",
      `the certificates that this store knows are of another authority (public key ${known.body.slice(0, 16)}…, not ${present.slice(0, 16)}…): ` +
        `give all control planes of a store the same one, with --ca-cert and --ca-key`,
    );
  const by = { actor: "vmcp", method: "startControlPlane", reason: "another authority", requestId: "" };
  const change = { kind: "authorities", id: trustDomain, body: present, expectedVersion: known?.version ?? 0n };
  await records.change([change], by).catch((error: unknown) => {
    if (!(error instanceof StoreError) || error.code !== "conflict") throw error;
    return checkAuthority(records, authority); // another control plane has written it in this moment
  });
}
