// Whether a caller with these claims may call a tool, as the proxies decide it: data-plane/incoming-auth.
import type { JsonObject } from "@bufbuild/protobuf";
import type { OidcConfig } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import { formatPath } from "../resources/problems.ts";
import type { Server } from "./servers.ts";

export interface Verdict {
  readonly isAllowed: boolean;
  readonly said: string;
  /** `authPolicies/staff: incomingAuth.oidc.requiredScopes`. */
  readonly where: string;
}

/** `claims` undefined: nobody signed in. What only a real token shows, its signature and its times, is taken for good. */
export function authorize({ incomingAuth }: Server, tool: string, claims: JsonObject | undefined): Verdict {
  if (incomingAuth === undefined) return { isAllowed: false, said: "it says nowhere who may call", where: "" };
  const { resource, value } = incomingAuth;
  const at = (...path: (string | number)[]) => `${resource}: ${formatPath(["incomingAuth", ...path])}`;
  if (value.type === "anonymous") return { isAllowed: true, said: "everybody may call", where: at("type") };
  if (value.type === "local")
    return { isAllowed: true, said: "every caller on the proxy's own machine may call", where: at("type") };
  if (value.oidc === undefined) return { isAllowed: false, said: "there is no issuer whose tokens count", where: at("oidc") };
  if (claims === undefined) return { isAllowed: false, said: "callers must sign in", where: at("type") };
  return ofToken(value.oidc, { tool, claims, at });
}

interface Token {
  readonly tool: string;
  readonly claims: JsonObject;
  readonly at: (...path: (string | number)[]) => string;
}

function ofToken(oidc: OidcConfig, { tool, claims, at }: Token): Verdict {
  const issuers = [oidc, ...oidc.additionalIssuers];
  const issuer = claims.iss === undefined ? oidc : issuers.find((one) => one.issuer === claims.iss);
  if (issuer === undefined)
    return { isAllowed: false, said: `tokens of ${JSON.stringify(claims.iss)} don't count here`, where: at("oidc", "issuer") };
  const path = issuer === oidc ? ["oidc"] : ["oidc", "additionalIssuers", issuers.indexOf(issuer) - 1];
  const audiences = claims.aud === undefined ? undefined : [claims.aud].flat();
  if (audiences !== undefined && !audiences.includes(issuer.audience))
    return { isAllowed: false, said: `the token is not for ${JSON.stringify(issuer.audience)}`, where: at(...path, "audience") };
  const lacking = issuer.requiredClaims.filter((claim) => claims[claim] === undefined);
  if (lacking.length > 0)
    return { isAllowed: false, said: `the token lacks ${lacking.join(", ")}`, where: at(...path, "requiredClaims") };
  const index = oidc.toolScopes.findIndex((one) => one.tool === tool);
  const wanted = new Set([...oidc.requiredScopes, ...(oidc.toolScopes[index]?.scopes ?? [])]);
  const granted = new Set(scopesOf(claims));
  const missing = [...wanted].filter((scope) => !granted.has(scope));
  const where = index >= 0 ? at("oidc", "toolScopes", index) : at("oidc", wanted.size > 0 ? "requiredScopes" : "issuer");
  const who = claims.sub === undefined ? "the caller" : JSON.stringify(claims.sub);
  if (missing.length > 0)
    return {
      isAllowed: false,
      said: `${who} lacks ${missing.length === 1 ? "the scope" : "the scopes"} ${missing.join(", ")}`,
      where,
    };
  const why = wanted.size > 0 ? `has ${[...wanted].join(", ")}` : "has signed in, and no scope is asked for";
  return { isAllowed: true, said: `${who} ${why}`, where };
}

/** RFC 9068 has a text; some issuers have a list, or call it `scp`. */
function scopesOf({ scope, scp }: JsonObject): string[] {
  return [scope, scp].flatMap((value) =>
    typeof value === "string" ? value.split(" ") : Array.isArray(value) ? value.map(String) : [],
  );
}
