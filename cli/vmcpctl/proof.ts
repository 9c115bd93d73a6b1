// What vmcpctl shows a control plane, and what it wants to see: nothing on its own machine, TLS everywhere else.
import { readFileSync } from "node:fs";
import { isIPv4 } from "node:net";
import { type ChannelCredentials, credentials } from "@grpc/grpc-js";
import { controlPlaneCheck } from "../../common/spiffe.ts";
import type { Tls } from "../../proto/grpc.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";

/** Paths; secrets come from files and never from flags, which other users of a machine can see. */
export interface ProofFiles {
  /** TLS with the public authorities. */
  readonly tls?: boolean | undefined;
  /** Certificate of the control plane's authority; TLS with that one alone. */
  readonly tlsCa?: string | undefined;
  /** Certificate and key of this operator. */
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  /** Bearer token of an OpenID provider. */
  readonly tokenFile?: string | undefined;
}

export interface Proof {
  readonly security: ChannelCredentials | Tls;
  /** A header; undefined: none. */
  readonly authorization: string | undefined;
}

/** Throws ExitError when a file can't be read, or when something would go over a network in plain text. */
export function proofOf({ server, ...files }: ProofFiles & { readonly server: string }): Proof {
  const { tls, tlsCa, tlsCert, tlsKey, tokenFile } = files;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) throw usage("--tls-cert and --tls-key go together");
  const token = tokenFile === undefined ? undefined : read(tokenFile).trim();
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) throw badInput(`${tokenFile} holds no bearer token`);
  const authorization = token === undefined ? undefined : `Bearer ${token}`;
  if (tls || tlsCa !== undefined || tlsCert !== undefined) {
    const [authority, certificate, key] = [tlsCa, tlsCert, tlsKey].map((file) => (file === undefined ? undefined : read(file)));
    return { security: { authority, certificate, key, checkServer: controlPlaneCheck(undefined) }, authorization };
  }
  if (!isOnThisMachine(server))
    throw usage(
      `refusing to speak to ${server} in plain text: give the authority of its certificate with --tls-ca ` +
        `(or --tls for a public one), and who you are with --tls-cert and --tls-key, or --token-file`,
    );
  return { security: credentials.createInsecure(), authorization };
}

function isOnThisMachine(address: string): boolean {
  const host = address.replace(/:\d+$/, "");
  return address.startsWith("unix:") || host === "localhost" || host === "[::1]" || (isIPv4(host) && host.startsWith("127."));
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw badInput(`can't read ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function usage(message: string): ExitError {
  return new ExitError(exitCodes.usage, message);
}

function badInput(message: string): ExitError {
  return new ExitError(exitCodes.badInput, message);
}
