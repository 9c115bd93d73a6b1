// Who gets in, and what backends are shown: what is not safe about either.
import { isPlainRemote } from "../resources/schema/fields.ts";
import { type Finding, finding } from "./findings.ts";
import { addressesOf, placeOf, type Server, shownAddress, strategyOf } from "./servers.ts";

export function credentialFindings(server: Server): Finding[] {
  const { resource: serverName, backends } = server;
  const findings: Finding[] = [];
  const byDefault = new Set<string>();
  for (const { name, fullName, spec } of backends) {
    const shownTo = strategyOf(server, name);
    if (shownTo === undefined) continue;
    const plain = addressesOf(spec).find(isPlainRemote);
    if (plain !== undefined)
      findings.push(
        finding({
          code: "VMCP0501",
          ...placeOf(serverName, fullName),
          message: `${JSON.stringify(name)} is shown credentials (${shownTo.strategy.type}) over plain http at ${shownAddress(plain)}`,
          hint: "use https: anybody on the way can read and use them",
        }),
      );
    const isFixed = shownTo.strategy.type === "header_injection" || shownTo.strategy.type === "client_credentials";
    const isShared = isFixed && shownTo.path.at(-1) === "default";
    const [address] = addressesOf(spec);
    const host = address === undefined ? undefined : URL.parse(address)?.host;
    if (isShared && host !== undefined) byDefault.add(host);
  }
  const { outgoingAuth } = server;
  if (outgoingAuth && byDefault.size > 1)
    findings.push(
      finding({
        code: "VMCP0505",
        resource: outgoingAuth.resource,
        path: ["outgoingAuth", "default"],
        message: `the same credential goes to ${byDefault.size} servers: ${[...byDefault].sort().slice(0, 5).join(", ")}`,
        hint: "name the backend that it is for below outgoingAuth.backends",
      }),
    );
  return findings;
}

const daySeconds = 24 * 60 * 60;

export function callerFindings(server: Server): Finding[] {
  const { incomingAuth, backends } = server;
  if (incomingAuth === undefined) return [];
  const { resource, value } = incomingAuth;
  const findings: Finding[] = [];
  const { oidc } = value;
  for (const [path, issuer] of oidc
    ? [
        [["incomingAuth", "oidc"], oidc] as const,
        ...oidc.additionalIssuers.map((one, at) => [["incomingAuth", "oidc", "additionalIssuers", at], one] as const),
      ]
    : []) {
    const plain = [issuer.issuer, issuer.jwksUrl, issuer.introspectionUrl].find(
      (address) => address !== "" && isPlainRemote(address),
    );
    if (plain !== undefined)
      findings.push(
        finding({
          code: "VMCP0504",
          resource,
          path: [...path, "insecureAllowHttp"],
          message: `${shownAddress(plain)} is plain http, so anybody on the way can forge tokens`,
          hint: "use https; insecureAllowHttp is for tests",
        }),
      );
    const [age, skew] = [issuer.maxTokenAge, issuer.clockSkew].map((duration) => Number(duration?.seconds ?? 0n));
    if ((age ?? 0) > daySeconds)
      findings.push(
        finding({
          code: "VMCP0507",
          resource,
          path: [...path, "maxTokenAge"],
          message: `tokens are accepted for ${Math.round((age ?? 0) / 3600)} hours after they were issued`,
          hint: "24h, the default, is more than access tokens need",
        }),
      );
    if ((skew ?? 0) > 60)
      findings.push(
        finding({
          code: "VMCP0507",
          resource,
          path: [...path, "clockSkew"],
          message: `tokens are accepted for ${skew} s after they ended`,
          hint: "set the clocks right, and leave clockSkew at 30s",
        }),
      );
  }
  const acting = backends.filter(({ name }) =>
    ["header_injection", "client_credentials"].includes(strategyOf(server, name)?.strategy.type ?? ""),
  );
  if (value.type === "anonymous" && acting.length > 0)
    findings.push(
      finding({
        code: "VMCP0506",
        resource,
        path: ["incomingAuth", "type"],
        message: `nobody signs in, and ${acting
          .map(({ name }) => JSON.stringify(name))
          .slice(0, 5)
          .join(", ")} ${acting.length === 1 ? "is" : "are"} shown the gateway's own credentials`,
        hint: "let callers sign in with incomingAuth type oidc, or keep the endpoint on this machine",
      }),
    );
  return findings;
}
