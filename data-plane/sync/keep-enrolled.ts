// Sees to it that this proxy has a certificate that is valid, for as long as it runs.
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { type ServiceError, status } from "@grpc/grpc-js";
import type { Log } from "../../common/log.ts";
import { reasonOf } from "../backends/errors.ts";
import { enrol, renew } from "./enrol.ts";
import { type Identity, loadIdentity, saveIdentity } from "./identity.ts";

// So that half of its life is left for control planes that are away; and not all of a fleet in one moment.
const renewAt = { share: 0.5, jitter: 0.1 };

// How soon a token is noticed that was put there.
const lookMs = 1_000;

const retryMs = { first: 1_000, most: 5 * 60_000 };

export interface EnrolmentOptions {
  readonly controlPlanes: readonly string[];
  /** What the certificate is for. */
  readonly name: string;
  readonly directory: string;
  /** Where an enrolment token is, or will be. Read whenever one is needed. */
  readonly tokenFile: string | undefined;
  readonly log: Log;
}

export interface Enrolment extends AsyncDisposable {
  /** Undefined until it has enrolled. */
  identity(): Identity | undefined;
  onChange(listener: () => void): void;
  /** A control plane did not take the certificate: look for another now. */
  refused(): void;
}

/** Throws IdentityError when what is on disk can't be used. Resolves before it has enrolled. */
export async function keepEnrolled(options: EnrolmentOptions): Promise<Enrolment> {
  const { name, directory, log } = options;
  const stop = new AbortController();
  const listeners = new Set<() => void>();
  let identity = await loadIdentity(directory);
  let waiting = new AbortController();
  let isRefused = false;

  async function keep(): Promise<void> {
    for (let failures = 0; !stop.signal.aborted; ) {
      const dueMs = isRefused || !identity ? 0 : renewInMs(identity, Date.now());
      const backoffMs = Math.min(retryMs.most, retryMs.first * 2 ** failures) * (0.5 + Math.random() / 2);
      await pause(failures === 0 ? dueMs : backoffMs, failures > 0);
      if (stop.signal.aborted) return;
      try {
        const next = await obtain(options, identity, isRefused);
        await saveIdentity(directory, next);
        identity = next;
        isRefused = false;
        failures = 0;
        log.info({ proxy: name, until: new Date(next.notAfterMs).toISOString() }, "enrolled");
        for (const listener of listeners) listener();
      } catch (error) {
        failures += 1;
        const state = identity === undefined ? "not enrolled" : "the certificate is not renewed";
        const until = identity && new Date(identity.notAfterMs).toISOString();
        log[identity ? "warn" : "error"]({ proxy: name, reason: reasonOf(error), until }, state);
      }
    }
  }

  /** After a failure another token ends the wait too: it is what an operator brings. */
  async function pause(ms: number, hasFailed: boolean): Promise<void> {
    waiting = new AbortController();
    const signal = AbortSignal.any([stop.signal, waiting.signal]);
    const token = hasFailed ? await readToken(options) : undefined;
    for (const endMs = Date.now() + ms; !signal.aborted && Date.now() < endMs; ) {
      const stepMs = hasFailed ? Math.min(lookMs, endMs - Date.now()) : endMs - Date.now();
      await sleep(stepMs, undefined, { signal }).catch(() => undefined);
      if (hasFailed && (await readToken(options)) !== token) return;
    }
  }

  const keeping = keep();
  return {
    identity: () => identity,
    onChange: (listener) => void listeners.add(listener),
    refused() {
      if (isRefused) return;
      isRefused = true;
      waiting.abort();
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await keeping;
    },
  };
}

/** Undefined when there is none to read. */
async function readToken({ tokenFile }: EnrolmentOptions): Promise<string | undefined> {
  return tokenFile === undefined ? undefined : await readFile(tokenFile, "utf8").catch(() => undefined);
}

function renewInMs({ notBeforeMs, notAfterMs }: Identity, nowMs: number): number {
  const share = renewAt.share + (Math.random() * 2 - 1) * renewAt.jitter;
  return Math.max(0, notBeforeMs + (notAfterMs - notBeforeMs) * share - nowMs);
}

/** Asks one control plane after the other. Throws what the last one said. */
async function obtain(options: EnrolmentOptions, identity: Identity | undefined, isRefused: boolean): Promise<Identity> {
  const isValid = identity !== undefined && identity.notAfterMs > Date.now();
  if (!isValid) return withToken(options, identity);
  try {
    return await first(options.controlPlanes, (address) => renew(address, identity));
  } catch (error) {
    // Revoked, perhaps; then a fresh token is what helps, if there is one.
    if (!isRefused || (error as ServiceError).code !== status.UNAUTHENTICATED || options.tokenFile === undefined) throw error;
    return withToken(options, identity);
  }
}

async function withToken(options: EnrolmentOptions, before: Identity | undefined): Promise<Identity> {
  const { controlPlanes, name, tokenFile } = options;
  if (tokenFile === undefined) throw new Error("the certificate has ended; give it a fresh token with --enrol-token-file");
  const token = await readToken(options);
  if (token === undefined) throw new Error(`there is no token to read in ${tokenFile}`);
  return first(controlPlanes, (address) => enrol(address, { name, token, before }));
}

async function first<T>(addresses: readonly string[], work: (address: string) => Promise<T>): Promise<T> {
  let last: unknown;
  for (const address of addresses) {
    try {
      return await work(address);
    } catch (error) {
      last = error;
    }
  }
  throw last;
}
