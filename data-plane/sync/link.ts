// How this proxy reaches its control planes: in plain text on its own machine, else over TLS with a certificate, which is its own
// (enrolled, on disk) or in files that somebody else renews. Streams are opened with what is current, and moved when that changes.
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIPv4 } from "node:net";
import { type ChannelCredentials, credentials } from "@grpc/grpc-js";
import { type KeyPairFiles, watchKeyPair } from "../../common/key-pair.ts";
import type { Log } from "../../common/log.ts";
import { controlPlaneCheck, segmentPattern } from "../../common/spiffe.ts";
import type { Tls } from "../../proto/grpc.ts";
import { IdentityError, loadIdentity } from "./identity.ts";
import { keepEnrolled } from "./keep-enrolled.ts";
import { tlsOf } from "./secure.ts";

export interface Link extends AsyncDisposable {
  /** For the next stream; undefined: there is no certificate yet. */
  security(): ChannelCredentials | Tls | undefined;
  /** When the certificate ends; undefined: there is none. */
  endsMs(): number | undefined;
  /** Resolves when that is another, or when the signal aborts. */
  changed(signal: AbortSignal): Promise<void>;
  /** A control plane did not take what was shown. */
  refused(): void;
}

export interface LinkOptions {
  readonly controlPlanes: readonly string[];
  /** Of this proxy. */
  readonly id: string;
  readonly stateDirectory?: string | undefined;
  /** A file with an enrolment token. */
  readonly enrolTokenFile?: string | undefined;
  /** A certificate of an authority that others run, and that authority's. */
  readonly certificate?: (KeyPairFiles & { readonly authorityFile: string }) | undefined;
  readonly log: Log;
}

/** Throws IdentityError when there is no protection where it is needed, or what there is can't be used. */
export async function openLink(options: LinkOptions): Promise<Link> {
  const { certificate, enrolTokenFile, stateDirectory, id, controlPlanes } = options;
  if (certificate) return filesLink(certificate, options.log);
  const isEnrolled = stateDirectory !== undefined && (await loadIdentity(stateDirectory)) !== undefined;
  if (enrolTokenFile !== undefined || isEnrolled) return enrolledLink(options);
  const exposed = controlPlanes.filter((address) => !isOnThisMachine(address));
  if (exposed.length === 0) return plainLink;
  throw new IdentityError(
    `refusing to speak to ${exposed.join(", ")} in plain text: enrol ${id} with --enrol-token-file ` +
      `(vmcpctl proxy token create), or give it a certificate with --tls-cert, --tls-key and --tls-ca`,
  );
}

/** To control planes on this machine. */
export const plainLink: Link = {
  security: () => credentials.createInsecure(),
  endsMs: () => undefined,
  changed: (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true })),
  refused: () => undefined,
  [Symbol.asyncDispose]: async () => undefined,
};

async function enrolledLink({ controlPlanes, id, stateDirectory, enrolTokenFile, log }: LinkOptions): Promise<Link> {
  if (stateDirectory === undefined)
    throw new IdentityError("a proxy that enrols needs a directory for its key: give it --state-dir, or --id");
  if (!segmentPattern.test(id))
    throw new IdentityError(
      `"${id}" can't be the name in a certificate; choose another with --id: letters, digits, ".", "_", "-"`,
    );
  const enrolment = await keepEnrolled({ controlPlanes, name: id, directory: stateDirectory, tokenFile: enrolTokenFile, log });
  const name = enrolment.identity()?.id.name ?? id;
  if (name !== id) {
    await enrolment[Symbol.asyncDispose]();
    throw new IdentityError(
      `${stateDirectory} has the certificate of "${name}", and this proxy is "${id}"; see --id and --state-dir`,
    );
  }
  const feed = createFeed(enrolment.onChange);
  return {
    security() {
      const identity = enrolment.identity();
      return identity && tlsOf(identity);
    },
    endsMs: () => enrolment.identity()?.notAfterMs,
    changed: feed,
    refused: enrolment.refused,
    [Symbol.asyncDispose]: () => enrolment[Symbol.asyncDispose](),
  };
}

function filesLink({ authorityFile, ...files }: NonNullable<LinkOptions["certificate"]>, log: Log): Link {
  try {
    const source = watchKeyPair(files, log);
    const authority = () => readFileSync(authorityFile, "utf8");
    let last = authority();
    return {
      security() {
        try {
          last = authority();
        } catch {
          // What was read last counts, as with the pair.
        }
        return { ...source.current(), authority: last, checkServer: controlPlaneCheck(undefined) };
      },
      endsMs: () => new X509Certificate(source.current().certificate).validToDate.getTime(),
      changed: createFeed(source.onChange),
      refused: () => undefined,
      [Symbol.asyncDispose]: async () => source[Symbol.dispose](),
    };
  } catch (error) {
    throw new IdentityError((error as Error).message);
  }
}

/** Each wait ends with the next change, or when its signal aborts. */
function createFeed(onChange: (listener: () => void) => void): Link["changed"] {
  const waiting = new Set<() => void>();
  onChange(() => {
    for (const go of waiting) go();
  });
  return (signal) =>
    new Promise((resolve) => {
      const go = () => {
        waiting.delete(go);
        signal.removeEventListener("abort", go);
        resolve();
      };
      waiting.add(go);
      if (signal.aborted) go();
      else signal.addEventListener("abort", go);
    });
}

/** `host:port` of loopback, or a Unix socket. */
function isOnThisMachine(address: string): boolean {
  const host = address.replace(/:\d+$/, "");
  return address.startsWith("unix:") || host === "localhost" || host === "[::1]" || (isIPv4(host) && host.startsWith("127."));
}
