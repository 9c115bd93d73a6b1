// Who may call, and what they may do.
import type { z } from "zod";
import {
  absolutePath,
  environmentName,
  flag,
  matching,
  type Partly,
  type Say,
  section,
  text,
  texts,
  url,
  word,
} from "./fields.ts";

const oidc = section({
  issuer: url("the exact issuer"),
  audience: text("the audience that tokens must name"),
  clientId: text("a client id").optional(),
  clientSecretEnv: environmentName.optional(),
  resource: text("a resource identifier (RFC 9728)").optional(),
  jwksUrl: url("where the keys are").optional(),
  introspectionUrl: url("where tokens are looked up").optional(),
  scopes: texts("scopes").optional(),
  protectedResourceAllowPrivateIp: flag.optional(),
  jwksAllowPrivateIp: flag.optional(),
  insecureAllowHttp: flag.optional(),
  caBundlePath: absolutePath.optional(),
});

const authz = section({
  type: word("cedar", "none"),
  policies: texts("Cedar policies").optional(),
  entitiesJson: text("Cedar entities as JSON text").optional(),
  primaryUpstreamProvider: text("a provider's name").optional(),
  groupClaimName: text("a claim's name").optional(),
  roleClaimName: text("a claim's name").optional(),
  groupEntityType: matching(/^(?!.*::)\S+$/, "a Cedar entity type without ::").optional(),
});

export const incomingAuth = section({
  type: word("oidc", "local", "anonymous"),
  oidc: oidc.optional(),
  authz: authz.optional(),
});

export function incomingAuthRules(value: Partly<z.output<typeof incomingAuth>>, say: Say): void {
  if (value.type === "oidc" && value.oidc === undefined) {
    say(["oidc"], "incoming auth of type oidc needs an oidc block", { hint: "with at least issuer and audience" });
  }
  if (value.type !== undefined && value.type !== "oidc" && value.oidc !== undefined) {
    say(["oidc"], `the oidc block has no effect with type ${value.type}`, { severity: "warning", hint: "set type: oidc" });
  }
  const issuer = value.oidc?.issuer;
  if (issuer !== undefined && isPlainRemote(issuer) && value.oidc?.insecureAllowHttp !== true) {
    say(["oidc", "issuer"], "the issuer is plain http, so anybody on the way can forge tokens", {
      hint: "use https, or set insecureAllowHttp: true for a test",
    });
  }
  if (value.authz !== undefined) authzRules(value.authz, (path, message, more) => say(["authz", ...path], message, more));
}

function authzRules(value: Partly<z.output<typeof authz>>, say: Say): void {
  if (value.type === "cedar" && (value.policies ?? []).length === 0) {
    say(["policies"], "cedar needs at least one policy", { hint: "without a policy that permits it, every call is denied" });
  }
  if (value.entitiesJson !== undefined && !isJsonList(value.entitiesJson)) {
    say(["entitiesJson"], "entitiesJson must be a JSON list", { hint: "write [] when there are none" });
  }
}

/** Plain http to another machine. */
export function isPlainRemote(address: string): boolean {
  const parsed = URL.parse(address);
  return parsed?.protocol === "http:" && !/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(parsed.hostname);
}

function isJsonList(value: string): boolean {
  try {
    return Array.isArray(JSON.parse(value));
  } catch {
    return false;
  }
}
