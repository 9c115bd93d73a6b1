// Who may call, and what they may do.
import { isIP } from "node:net";
import { z } from "zod";
import {
  absolutePath,
  durationUpTo,
  environmentName,
  flag,
  headerName,
  isPlainRemote,
  issuerUrl,
  matching,
  type Partly,
  type Say,
  sayExclusive,
  sayRepeated,
  scopes,
  section,
  text,
  texts,
  url,
  within,
  word,
} from "./fields.ts";

// Symmetric ones would let whoever verifies tokens make them as well.
const algorithm = word(
  ...(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] as const),
  ...(["ES256", "ES384", "ES512", "EdDSA", "Ed25519"] as const),
);

/** What is said of each issuer. */
const issuerShape = {
  issuer: issuerUrl("the exact issuer"),
  audience: text("the audience that tokens must name"),
  clientId: text("a client id").optional(),
  clientSecretEnv: environmentName.optional(),
  clientSecretFile: absolutePath.optional(),
  jwksUrl: url("where the keys are").optional(),
  introspectionUrl: url("where tokens are looked up").optional(),
  algorithms: z.array(algorithm, { error: "a list of signature algorithms" }).optional(),
  requiredClaims: texts("claims").optional(),
  maxTokenAge: durationUpTo("720h", "positive").optional(),
  clockSkew: durationUpTo("5m", "any").optional(),
  tokenType: word("at+jwt").optional(),
  jwksAllowPrivateIp: flag.optional(),
  insecureAllowHttp: flag.optional(),
  caBundlePath: absolutePath.optional(),
};

const issuer = section(issuerShape);

const rangeWanted = "a range of addresses, such as 10.0.0.0/8 or fd00::/8";
const addressRange = z.string({ error: rangeWanted }).refine(isAddressRange, { error: rangeWanted });

const oidc = section({
  ...issuerShape,
  resource: text("a resource identifier (RFC 9728)").optional(),
  scopes: scopes.optional(),
  protectedResourceAllowPrivateIp: flag.optional(),
  requiredScopes: scopes.optional(),
  toolScopes: z
    .array(section({ tool: text("a tool's name"), scopes: scopes.min(1, { error: "at least one scope" }) }), {
      error: "a list of maps, one per tool",
    })
    .optional(),
  additionalIssuers: z.array(issuer, { error: "a list of maps, one per issuer" }).optional(),
  clientCertificateHeader: headerName.optional(),
  clientCertificateFrom: z.array(addressRange, { error: "a list of address ranges" }).optional(),
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
  if (value.oidc !== undefined) oidcRules(value.oidc, within(say, "oidc"));
  if (value.authz !== undefined) authzRules(value.authz, within(say, "authz"));
}

function oidcRules(value: Partly<z.output<typeof oidc>>, say: Say): void {
  issuerRules(value, say);
  const others = value.additionalIssuers ?? [];
  others.forEach((entry, index) => {
    if (entry !== undefined) issuerRules(entry, within(say, "additionalIssuers", index));
  });
  sayRepeated(
    say,
    [
      [["issuer"], value.issuer],
      ...others.map((entry, index) => [["additionalIssuers", index, "issuer"], entry?.issuer] as const),
    ],
    (name) => `issuer ${JSON.stringify(name)} stands twice`,
  );
  sayRepeated(
    within(say, "toolScopes"),
    (value.toolScopes ?? []).map((entry, index) => [[index, "tool"], entry?.tool] as const),
    (name) => `two entries are for tool ${JSON.stringify(name)}`,
  );
  certificateRules(value, say);
}

function issuerRules(value: Partly<z.output<typeof issuer>>, say: Say): void {
  sayExclusive(say, value, ["clientSecretEnv", "clientSecretFile"]);
  if (value.clientId === undefined && (value.clientSecretEnv ?? value.clientSecretFile) !== undefined)
    say(["clientId"], "a client secret without clientId", { hint: "set clientId" });
  for (const [key, what] of plainDangers) {
    const address = value[key];
    if (address !== undefined && isPlainRemote(address) && value.insecureAllowHttp !== true)
      say([key], what, { hint: "use https, or set insecureAllowHttp: true for a test" });
  }
}

const plainDangers = [
  ["issuer", "the issuer is plain http, so anybody on the way can forge tokens"],
  ["jwksUrl", "the keys come over plain http, so anybody on the way can forge tokens"],
  ["introspectionUrl", "tokens are looked up over plain http, so anybody on the way can read and approve them"],
] as const;

/** Whoever may set the header can use a stolen token with a copied certificate. */
function certificateRules(value: Partly<z.output<typeof oidc>>, say: Say): void {
  const { clientCertificateHeader: header, clientCertificateFrom: ranges = [] } = value;
  if (header !== undefined && ranges.length === 0) {
    say(["clientCertificateFrom"], "clientCertificateHeader needs clientCertificateFrom", {
      hint: "list the addresses of the proxies in front; from others the header is not believed",
    });
  }
  if (header === undefined && ranges.length > 0) {
    say(["clientCertificateHeader"], "clientCertificateFrom needs clientCertificateHeader", {
      hint: "such as Client-Cert (RFC 9440)",
    });
  }
  ranges.forEach((range, index) => {
    if (range?.endsWith("/0")) {
      say(["clientCertificateFrom", index], `${range} is every address, so every caller may claim any certificate`, {
        severity: "warning",
        hint: "list the addresses of the proxies in front",
      });
    }
  });
}

function authzRules(value: Partly<z.output<typeof authz>>, say: Say): void {
  if (value.type === "cedar" && (value.policies ?? []).length === 0) {
    say(["policies"], "cedar needs at least one policy", { hint: "without a policy that permits it, every call is denied" });
  }
  if (value.entitiesJson !== undefined && !isJsonList(value.entitiesJson)) {
    say(["entitiesJson"], "entitiesJson must be a JSON list", { hint: "write [] when there are none" });
  }
}

function isJsonList(value: string): boolean {
  try {
    return Array.isArray(JSON.parse(value));
  } catch {
    return false;
  }
}

function isAddressRange(value: string): boolean {
  const [, address = "", bits = ""] = /^([^/%]+)\/(\d{1,3})$/.exec(value) ?? [];
  const family = isIP(address);
  return family !== 0 && Number(bits) <= (family === 4 ? 32 : 128);
}
