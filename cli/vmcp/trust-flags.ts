// Who proves what to whom: the flags of both planes, and what they come to.
import { type Command, InvalidArgumentError, Option } from "commander";
import type { SecurityChoice } from "../../control-plane/index.ts";
import type { DataPlaneOptions } from "../../data-plane/index.ts";
import { parseDurationMs } from "../duration.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";

export interface ControlPlaneTrustFlags {
  readonly trustDir?: string;
  readonly caCert?: string;
  readonly caKey?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly trustDomain: string;
  /** Milliseconds. */
  readonly certificateTtl: number;
  readonly oidcIssuer?: string;
  readonly oidcAudience?: string;
}

export function controlPlaneTrust(command: Command): Command {
  return command
    .addOption(
      new Option("--trust-dir <dir>", "serve over TLS with an own certificate authority, kept there").env("VMCP_TRUST_DIR"),
    )
    .option("--ca-cert <file>", "serve over TLS with this certificate authority (PEM), with --ca-key")
    .option("--ca-key <file>", "its key")
    .option("--tls-cert <file>", "certificate to show, of that authority, with --tls-key; followed (default: one that it issues)")
    .option("--tls-key <file>", "its key")
    .option("--trust-domain <name>", "of the SPIFFE ids in certificates", "vmcp.local")
    .option("--certificate-ttl <duration>", "how long certificates of proxies last", parseTtl, 7 * 24 * 3_600_000)
    .option("--oidc-issuer <url>", "take bearer tokens of this OpenID provider, with --oidc-audience")
    .option("--oidc-audience <name>", "whom they must be made out to");
}

/** Throws ExitError for flags that do not go together. */
export function securityChoice(flags: ControlPlaneTrustFlags): SecurityChoice {
  const { trustDir, caCert, caKey, tlsCert, tlsKey, trustDomain, certificateTtl, oidcIssuer, oidcAudience } = flags;
  const given = together({ "--ca-cert": caCert, "--ca-key": caKey });
  if (trustDir !== undefined && given) throw usage("--trust-dir makes an authority, --ca-cert brings one: give one of them");
  const own = together({ "--tls-cert": tlsCert, "--tls-key": tlsKey });
  const oidc = together({ "--oidc-issuer": oidcIssuer, "--oidc-audience": oidcAudience });
  const brought = given && { certFile: given[0], keyFile: given[1] };
  return {
    ...{ trustDomain, proxyCertificateTtlMs: certificateTtl },
    authority: trustDir === undefined ? brought : { directory: trustDir },
    serverCertificate: own && { certFile: own[0], keyFile: own[1] },
    oidc: oidc && { issuer: oidc[0], audience: oidc[1] },
  };
}

export interface ProxyTrustFlags {
  readonly enrolTokenFile?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
}

export function proxyTrust(command: Command): Command {
  return command
    .addOption(
      new Option("--enrol-token-file <file>", "enrol with the token in this file (vmcpctl proxy token create)").env(
        "VMCP_ENROL_TOKEN_FILE",
      ),
    )
    .option("--tls-cert <file>", "certificate of this proxy, in place of enrolling; followed")
    .option("--tls-key <file>", "its key")
    .option("--tls-ca <file>", "certificate of the authority that control planes are of");
}

/** Throws ExitError for flags that do not go together. */
export function proxyLink({ enrolTokenFile, tlsCert, tlsKey, tlsCa }: ProxyTrustFlags): DataPlaneOptions["link"] {
  const files = together({ "--tls-cert": tlsCert, "--tls-key": tlsKey, "--tls-ca": tlsCa });
  if (files && enrolTokenFile !== undefined)
    throw usage("--tls-cert brings a certificate, --enrol-token-file gets one: give one of them");
  const [certFile, keyFile, authorityFile] = files ?? [];
  if (certFile === undefined || keyFile === undefined || authorityFile === undefined) return { enrolTokenFile };
  return { certificate: { certFile, keyFile, authorityFile } };
}

/** The values when all are given; undefined when none is. */
function together(flags: Readonly<Record<string, string | undefined>>): [string, string, ...string[]] | undefined {
  const values = Object.values(flags).filter((value) => value !== undefined);
  if (values.length === 0) return undefined;
  const missing = Object.entries(flags).filter(([, value]) => value === undefined);
  if (missing.length > 0) throw usage(`${Object.keys(flags).join(" and ")} go together; ${missing[0]?.[0]} is missing`);
  return values as [string, string, ...string[]];
}

function usage(message: string): ExitError {
  return new ExitError(exitCodes.usage, message);
}

function parseTtl(text: string): number {
  const ms = parseDurationMs(text);
  if (ms === undefined || ms < 10_000 || ms > 90 * 24 * 3_600_000)
    throw new InvalidArgumentError("expected 10s to 2160h, such as 168h.");
  return ms;
}
