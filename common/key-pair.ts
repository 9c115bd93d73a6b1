// A certificate and its key in files that somebody else renews, while we use them. Read again every second, which also sees links that
// are swapped; what does not fit together, such as a pair of which half has been replaced, is not taken.
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Log } from "./log.ts";

const lookMs = 1_000;

/** PEM. */
export interface KeyPair {
  /** The certificate, and those above it. */
  readonly certificate: string;
  readonly key: string;
}

export interface KeyPairSource extends Disposable {
  current(): KeyPair;
  /** Hears of every new pair. */
  onChange(listener: () => void): void;
}

export interface KeyPairFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

/** Throws an Error that says what is wrong when the files are no pair to begin with. */
export function watchKeyPair(files: KeyPairFiles, log: Log): KeyPairSource {
  const listeners = new Set<() => void>();
  let pair = readKeyPair(files);
  let complaint = "";

  function look(): void {
    try {
      const found = readKeyPair(files);
      if (complaint !== "") log.info({ file: files.certFile }, "certificate and key fit again");
      complaint = "";
      if (found.certificate === pair.certificate && found.key === pair.key) return;
      pair = found;
      log.info({ file: files.certFile, until: new X509Certificate(pair.certificate).validTo }, "another certificate is in use");
      for (const listener of listeners) listener();
    } catch (error) {
      const reason = (error as Error).message;
      if (reason !== complaint) log.warn({ reason }, "the certificate is not replaced; the one before stays in use");
      complaint = reason;
    }
  }

  const timer = setInterval(look, lookMs).unref();
  return {
    current: () => pair,
    onChange: (listener) => void listeners.add(listener),
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

function readKeyPair({ certFile, keyFile }: KeyPairFiles): KeyPair {
  const [certificate, key] = [read(certFile), read(keyFile)];
  const [parsed, privateKey] = [attempt(() => new X509Certificate(certificate)), attempt(() => createPrivateKey(key))];
  if (!parsed) throw new Error(`${certFile} has no certificate in PEM`);
  if (!privateKey) throw new Error(`${keyFile} has no private key in PEM that can be read without a passphrase`);
  if (!parsed.checkPrivateKey(privateKey)) throw new Error(`${keyFile} is not the key of the certificate in ${certFile}`);
  if (parsed.validToDate.getTime() <= Date.now()) throw new Error(`the certificate in ${certFile} ended at ${parsed.validTo}`);
  return { certificate, key };
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new Error(`can't read ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
