// The commands about who takes part: enrolment tokens, certificates, roles. What they do is loaded when they run.
import { type Command, InvalidArgumentError, Option } from "commander";
import { parseDurationMs } from "../duration.ts";
import type { GlobalOptions } from "./connection.ts";
import type { Output } from "./output.ts";

export interface TrustCommandsOptions {
  readonly program: Command;
  /** `vmcpctl proxy`. */
  readonly proxy: Command;
  readonly format: () => Option;
  readonly run: (command: Command, work: (options: GlobalOptions, output: Output) => Promise<number>) => Promise<void>;
}

const roles = ["viewer", "operator", "editor", "security-admin", "admin"];

export function addTrustCommands({ program, proxy, format, run }: TrustCommandsOptions): void {
  const load = () => import("./trust.ts");

  program
    .command("whoami")
    .description("who the control plane takes you for, and what you may do")
    .addOption(format())
    .action((options, command) => run(command, async (...io) => (await load()).whoAmI(options, ...io)));

  const token = proxy.command("token").description("what proxies enrol with");
  token
    .command("create")
    .description("make a token, and show it this once")
    .option("--scope <name>", "scope of the proxies", "default")
    .option("--name-prefix <text>", "what their names begin with (default: any name)", "")
    .addOption(new Option("--ttl <duration>", "how long it can be used").argParser(parseTtl).default(3_600_000, "1h"))
    .addOption(new Option("--uses <number>", "how many proxies can use it").argParser(parseUses).default(1))
    .addOption(format())
    .addHelpText(
      "after",
      "\nExample:\n  vmcpctl proxy token create --name-prefix edge- > token\n  vmcp proxy --id edge-1 --enrol-token-file token …",
    )
    .action((options, command) => run(command, async (...io) => (await load()).createToken(options, ...io)));
  token
    .command("list")
    .description("tokens, without their secrets")
    .addOption(format())
    .action((options, command) => run(command, async (...io) => (await load()).listTokens(options, ...io)));
  token
    .command("delete <id>")
    .description("end a token; who enrolled with it stays enrolled")
    .action((id, _, command) => run(command, async (...io) => (await load()).deleteToken(id, ...io)));

  proxy
    .command("certificates")
    .description("certificates of proxies and operators")
    .addOption(format())
    .action((options, command) => run(command, async (...io) => (await load()).listCertificates(options, ...io)));
  proxy
    .command("revoke <name>")
    .description("revoke the certificates of a proxy: its streams end, and it needs a new token to come back")
    .option("--reason <text>", "why, for the audit trail", "")
    .action((name, { reason }, command) => run(command, async (...io) => (await load()).revoke(name, reason, ...io)));

  const operator = program.command("operator").description("people and programs that use vmcpctl");
  operator
    .command("certificate <name>")
    .description("make the client certificate of an operator, and its key")
    .requiredOption("--out <dir>", "where NAME.pem, NAME-key.pem and ca.pem are written")
    .addOption(new Option("--ttl <duration>", "how long it lasts").argParser(parseTtl).default(30 * 24 * 3_600_000, "720h"))
    .action((name, options, command) => run(command, async (...io) => (await load()).operatorCertificate(name, options, ...io)));
  operator
    .command("revoke <id>")
    .description("revoke the certificates of an operator, by SPIFFE id")
    .option("--reason <text>", "why, for the audit trail", "")
    .action((id, { reason }, command) => run(command, async (...io) => (await load()).revoke(id, reason, ...io)));

  const role = program.command("role").description("who may do what");
  role
    .command("bind <name>")
    .description("give somebody a role, under a name for this binding")
    .requiredOption("--subject <who>", "spiffe://DOMAIN/operator/NAME, oidc:SUBJECT or oidc-group:GROUP")
    .addOption(new Option("--role <role>", "what it may do").choices(roles).makeOptionMandatory())
    .option("-g, --group <name>", "only in this group (default: everywhere)", "")
    .action((name, options, command) => run(command, async (...io) => (await load()).bindRole({ name, ...options }, ...io)));
  role
    .command("list")
    .description("who has which role")
    .addOption(format())
    .action((options, command) => run(command, async (...io) => (await load()).listRoles(options, ...io)));
  role
    .command("unbind <name>")
    .description("take a role away")
    .action((name, _, command) => run(command, async (...io) => (await load()).unbindRole(name, ...io)));
}

/** Longer than other durations may be. */
function parseTtl(text: string): number {
  const ms = parseDurationMs(text);
  if (ms === undefined || ms < 1_000 || ms > 366 * 24 * 3_600_000)
    throw new InvalidArgumentError("expected 1s to 8784h, such as 720h.");
  return ms;
}

function parseUses(text: string): number {
  const uses = Number(text);
  if (!/^\d+$/.test(text) || uses < 1 || uses > 1000) throw new InvalidArgumentError("expected a whole number from 1 to 1000.");
  return uses;
}
