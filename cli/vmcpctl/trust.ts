// `vmcpctl whoami`, `proxy token`, `proxy certificates`, `proxy revoke`, `operator`, `role`.
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DescMessage, type MessageShape, toJson } from "@bufbuild/protobuf";
import { durationFromMs, type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { segmentPattern } from "../../common/spiffe.ts";
import {
  CreateEnrolmentTokenResponseSchema,
  ListCertificatesResponseSchema,
  ListEnrolmentTokensResponseSchema,
  ListRoleBindingsResponseSchema,
  Role,
  type RoleBinding,
  WhoAmIResponseSchema,
} from "../../proto/gen/vmcp/admin/v1/trust_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { connect, type GlobalOptions } from "./connection.ts";
import type { Format, Output } from "./output.ts";
import { structured } from "./structured.ts";
import { age, plain, table } from "./table.ts";

interface Shown {
  readonly output: Format;
}

export async function whoAmI({ output: format }: Shown, options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  const me = await connection.trust.whoAmI({}, connection.deadline());
  show(output, format, WhoAmIResponseSchema, me, {
    names: [me.identity],
    table: () => {
      const until = me.expireTime ? `, until ${time(me.expireTime)}` : "";
      const may = me.identity === "local" ? "may do everything: it is on the control plane's machine" : rolesOf(me.bindings);
      return `${plain(me.identity)} (${me.provenBy}${until})\n${may}\n`;
    },
  });
  return exitCodes.ok;
}

export interface CreateTokenOptions extends Shown {
  readonly scope: string;
  readonly namePrefix: string;
  /** Milliseconds. */
  readonly ttl: number;
  readonly uses: number;
}

/** The token alone on standard output, so that it can go to a file. */
export async function createToken(terms: CreateTokenOptions, options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  const { scope, namePrefix, uses, ttl } = terms;
  const request = { scope, namePrefix, uses, ttl: durationFromMs(ttl) };
  const made = await connection.trust.createEnrolmentToken(request, connection.deadline());
  show(output, terms.output, CreateEnrolmentTokenResponseSchema, made, { names: [made.token], table: () => `${made.token}\n` });
  const names = namePrefix === "" ? "any name" : `names that begin with ${namePrefix}`;
  output.note(
    `for ${uses === 1 ? "one proxy" : `${uses} proxies`}, ${names}, until ${time(made.details?.expireTime)}; not shown again\n`,
  );
  return exitCodes.ok;
}

export async function listTokens({ output: format }: Shown, options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  const listed = await connection.trust.listEnrolmentTokens({}, connection.deadline());
  const rows = listed.tokens.map(({ id, scope, namePrefix, uses, usesLeft, expireTime, creator }) => [
    ...[id, scope, namePrefix || "(any)", `${usesLeft} of ${uses}`, time(expireTime), creator],
  ]);
  show(output, format, ListEnrolmentTokensResponseSchema, listed, {
    names: listed.tokens.map(({ id }) => id),
    table: () => table(["ID", "SCOPE", "NAMES", "LEFT", "UNTIL (UTC)", "CREATOR"], rows),
  });
  return exitCodes.ok;
}

export async function deleteToken(id: string, options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  await connection.trust.deleteEnrolmentToken({ id }, connection.deadline());
  output.data(`token ${plain(id)} deleted\n`);
  return exitCodes.ok;
}

export async function listCertificates({ output: format }: Shown, options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  const listed = await connection.trust.listCertificates({}, connection.deadline());
  const nowMs = Date.now();
  const rows = listed.certificates.map(({ identity, serial, issueTime, expireTime, revokeTime }) => [
    ...[identity, serial, issueTime ? age(timestampMs(issueTime), nowMs) : "", time(expireTime)],
    revokeTime ? `revoked ${time(revokeTime)}` : expireTime && timestampMs(expireTime) < nowMs ? "ended" : "valid",
  ]);
  show(output, format, ListCertificatesResponseSchema, listed, {
    names: listed.certificates.map(({ serial }) => serial),
    table: () => table(["IDENTITY", "SERIAL", "AGE", "UNTIL (UTC)", "STATE"], rows),
  });
  return exitCodes.ok;
}

export async function revoke(name: string, reason: string, options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  const { certificates } = await connection.trust.revokeCertificates({ name, reason }, connection.deadline());
  for (const { identity, serial } of certificates) output.data(`${plain(identity)} ${serial} revoked\n`);
  return exitCodes.ok;
}

export interface OperatorOptions {
  readonly out: string;
  /** Milliseconds. */
  readonly ttl: number;
}

/** The key is made here, and only its request travels. */
export async function operatorCertificate(
  name: string,
  { out, ttl }: OperatorOptions,
  options: GlobalOptions,
  output: Output,
): Promise<number> {
  if (!segmentPattern.test(name))
    throw new ExitError(exitCodes.usage, `"${name}" is no name; wanted letters, digits, ".", "_", "-"`);
  const files = { certificate: join(out, `${name}.pem`), key: join(out, `${name}-key.pem`), authority: join(out, "ca.pem") };
  if (existsSync(files.key)) throw new ExitError(exitCodes.badInput, `${files.key} is there already; move it away first`);
  using connection = connect(options);
  const { requestCertificate } = await import("../../common/certificate-request.ts");
  const { key, request } = await requestCertificate();
  const wanted = { name, certificateRequest: request, ttl: durationFromMs(ttl) };
  const issued = await connection.trust.issueOperatorCertificate(wanted, connection.deadline());
  try {
    mkdirSync(out, { recursive: true, mode: 0o700 });
    writeFileSync(files.key, key, { mode: 0o600, flag: "wx" });
    writeFileSync(files.certificate, issued.certificate);
    writeFileSync(files.authority, issued.authority);
  } catch (error) {
    throw new ExitError(exitCodes.failure, `can't write to ${out}: ${(error as NodeJS.ErrnoException).code}`);
  }
  output.data(`${issued.identity}\n`);
  output.note(`vmcpctl --tls-ca ${files.authority} --tls-cert ${files.certificate} --tls-key ${files.key} whoami\n`);
  return exitCodes.ok;
}

export interface BindOptions {
  readonly name: string;
  readonly subject: string;
  readonly role: string;
  readonly group: string;
}

export async function bindRole(binding: BindOptions, options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  const role = Role[binding.role.replace("-", "_").toUpperCase() as keyof typeof Role];
  await connection.trust.createRoleBinding({ binding: { ...binding, role } }, connection.deadline());
  output.data(`${plain(binding.subject)} is ${binding.role}${binding.group === "" ? "" : ` in ${plain(binding.group)}`}\n`);
  return exitCodes.ok;
}

export async function listRoles({ output: format }: Shown, options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  const listed = await connection.trust.listRoleBindings({}, connection.deadline());
  const rows = listed.bindings.map(({ name, subject, role, group }) => [name, subject, roleName(role), group || "(everywhere)"]);
  show(output, format, ListRoleBindingsResponseSchema, listed, {
    names: listed.bindings.map(({ name }) => name),
    table: () => table(["NAME", "SUBJECT", "ROLE", "GROUP"], rows),
  });
  return exitCodes.ok;
}

export async function unbindRole(name: string, options: GlobalOptions, output: Output): Promise<number> {
  using connection = connect(options);
  await connection.trust.deleteRoleBinding({ name }, connection.deadline());
  output.data(`role binding ${plain(name)} deleted\n`);
  return exitCodes.ok;
}

interface Shapes {
  readonly names: readonly string[];
  table(): string;
}

function show<D extends DescMessage>(output: Output, format: Format, schema: D, message: MessageShape<D>, shapes: Shapes): void {
  if (format === "name") output.data(shapes.names.map((name) => `${name}\n`).join(""));
  else if (format === "table") output.data(shapes.table());
  else output.data(structured(format, toJson(schema, message)));
}

function rolesOf(bindings: readonly RoleBinding[]): string {
  if (bindings.length === 0) return "no role: may do nothing else";
  return bindings.map(({ role, group }) => `${roleName(role)}${group === "" ? "" : ` in ${plain(group)}`}`).join("\n");
}

/** `security-admin`. */
function roleName(role: Role): string {
  const [name = String(role)] = Object.entries(Role).find(([, value]) => value === role) ?? [];
  return name.toLowerCase().replace("_", "-");
}

/** UTC, to the second. */
function time(timestamp: Timestamp | undefined): string {
  return timestamp ? new Date(timestampMs(timestamp)).toISOString().slice(0, 19) : "";
}
