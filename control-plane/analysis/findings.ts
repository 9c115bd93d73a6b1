// What an analysis may say. A code means the same for ever: scripts suppress by it.
import type { Problem } from "../resources/problems.ts";

export type FindingSeverity = "error" | "warning" | "info";

export const codes = {
  VMCP0001: ["error", "InvalidResource", "a declaration is not valid, so it can't be applied"],
  VMCP0002: ["error", "ServedLessProtected", "this version would serve it less protected than it is declared, so it refuses to"],
  VMCP0003: ["warning", "NoEffect", "a key is read and does nothing in this version"],
  VMCP0004: ["warning", "Misleading", "valid, but probably not what was meant"],
  VMCP0101: ["error", "ReferencedResourceNotFound", "something is named that nobody declares"],
  VMCP0102: ["warning", "UnusedGroup", "no virtual server aggregates the group"],
  VMCP0103: ["warning", "UnusedAuthPolicy", "no virtual server takes its auth from the policy"],
  VMCP0104: ["warning", "NoBackends", "a virtual server has nothing to offer"],
  VMCP0105: ["warning", "GroupIgnored", "a virtual server has backends of its own, so those of its group don't count"],
  VMCP0201: ["warning", "NameConflict", "two tools want one name, so they get names with a hash or a prefix"],
  VMCP0202: ["warning", "ToolShadowed", "another tool has taken its name, so nobody can call it"],
  VMCP0203: ["info", "NameShortened", "a name is too long or has characters that clients refuse, so it ends in a hash"],
  VMCP0301: ["warning", "HiddenToolNamed", "a rule is about a tool that other rules hide"],
  VMCP0302: ["warning", "ToolNotOffered", "a rule names a tool that its backend does not list"],
  VMCP0303: [
    "warning",
    "RuleForNoTool",
    "scopes or limits are for a name that no tool is exposed under, so they protect nothing",
  ],
  VMCP0304: ["warning", "ToolChanged", "a backend describes a tool otherwise than it was when it was approved"],
  VMCP0401: ["warning", "BackendUnavailable", "no connected proxy can use the backend"],
  VMCP0402: ["warning", "SameServerTwice", "two backends of a virtual server are one and the same server"],
  VMCP0501: ["warning", "PlainTextCredential", "a credential goes over the network in plain text"],
  VMCP0502: ["error", "AnonymousOnNetwork", "a proxy that other machines can reach lets everybody in"],
  VMCP0503: ["warning", "LiteralCredential", "a credential stands in the declaration, and is not sent to the proxies of a mesh"],
  VMCP0504: [
    "warning",
    "PlainTextIssuer",
    "keys or tokens of an issuer come over plain http, so anybody on the way can forge them",
  ],
  VMCP0505: [
    "warning",
    "CredentialForSeveralServers",
    "different servers get the same credential, and each can use it at the others",
  ],
  VMCP0506: ["info", "AnonymousWithCredentials", "whoever reaches the endpoint acts with the gateway's own credentials"],
  VMCP0507: ["warning", "LenientTokens", "tokens are accepted for longer than they need to be"],
  VMCP0601: ["warning", "BreakerOff", "calls go on waiting for a backend that is down"],
} as const satisfies Readonly<Record<string, readonly [FindingSeverity, name: string, meaning: string]>>;

export type FindingCode = keyof typeof codes;

export interface Finding extends Pick<Problem, "message" | "hint" | "path"> {
  readonly code: FindingCode;
  /** `UnusedGroup`. */
  readonly name: string;
  readonly severity: FindingSeverity;
  /** Its name; empty when it is about no single one. */
  readonly resource: string;
}

export interface FindingInit extends Pick<Problem, "message" | "path"> {
  readonly code: FindingCode;
  readonly resource: string;
  readonly hint?: string | undefined;
  /** Where it is milder than its code. */
  readonly severity?: FindingSeverity;
}

export function finding({ code, hint, severity, ...rest }: FindingInit): Finding {
  const [usual, name] = codes[code];
  return { code, name, severity: severity ?? usual, ...rest, ...(hint !== undefined && { hint }) };
}
