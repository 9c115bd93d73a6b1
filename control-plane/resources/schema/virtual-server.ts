// A whole virtual server, which is also a whole configuration file; and the smaller kinds of resource.
import { z } from "zod";
import { aggregation, aggregationRules } from "./aggregation.ts";
import { backend, backendListRules, backends } from "./backends.ts";
import { compositeListRules } from "./composite-rules.ts";
import { compositeTools } from "./composite-tools.ts";
import { groupName, labels, namedRef, type Partly, plainName, type Say, sayRepeated, section, within } from "./fields.ts";
import { incomingAuth, incomingAuthRules } from "./incoming-auth.ts";
import {
  codeMode,
  optimizer,
  optimizerRules,
  passthroughHeaders,
  passthroughRules,
  rateLimiting,
  rateLimitingRules,
  sessionStorage,
  sessionStorageRules,
} from "./limits.ts";
import { operational, operationalRules } from "./operational.ts";
import { outgoingAuth, strategiesOf } from "./outgoing-auth.ts";
import { outgoingAuthRules } from "./outgoing-rules.ts";
import { audit, telemetry } from "./telemetry.ts";

export const virtualServer = section({
  name: plainName,
  groupRef: groupName.optional(),
  backends: backends.optional(),
  incomingAuth: incomingAuth.optional(),
  outgoingAuth: outgoingAuth.optional(),
  aggregation,
  compositeTools: compositeTools.optional(),
  compositeToolRefs: z.array(namedRef, { error: "a list of maps, each with a name" }).optional(),
  operational: operational.optional(),
  metadata: labels.optional(),
  telemetry: telemetry.optional(),
  audit: audit.optional(),
  optimizer: optimizer.optional(),
  codeMode: codeMode.optional(),
  sessionStorage: sessionStorage.optional(),
  rateLimiting: rateLimiting.optional(),
  passthroughHeaders: passthroughHeaders.optional(),
  authPolicyRef: plainName.optional(),
});

export const group = section({ description: z.string({ error: "text" }).optional() });

export const authPolicy = section({ incomingAuth, outgoingAuth });

export { backend };

export type VirtualServerPart = Partly<z.output<typeof virtualServer>>;

/** A virtual server is served at `/<name>/mcp`, so its name must not hide another path. */
const reservedNames: readonly string[] = [
  "health",
  "ping",
  "readyz",
  "status",
  "mcp",
  "metrics",
  "sse",
  "messages",
  "oauth",
  ".well-known",
];

export function virtualServerRules(value: VirtualServerPart, say: Say): void {
  if (value.name !== undefined && reservedNames.includes(value.name.toLowerCase())) {
    say(["name"], `${JSON.stringify(value.name)} is a path of the proxy's own`, {
      hint: `choose a name other than ${reservedNames.join(", ")}`,
    });
  }
  if (value.groupRef === undefined && (value.backends ?? []).length === 0) {
    say(["groupRef"], "neither groupRef nor backends: there is nothing to aggregate", {
      hint: "set groupRef to the name of a group",
    });
  }
  const isShared = value.authPolicyRef !== undefined;
  for (const key of ["incomingAuth", "outgoingAuth"] as const) {
    if (isShared && value[key] !== undefined) {
      say([key], `${key} and authPolicyRef exclude each other`, {
        hint: "the policy holds both auth blocks; keep one or the other",
      });
    }
    if (!isShared && value[key] === undefined) say([key], `key ${JSON.stringify(key)} is missing`, { hint: startHints[key] });
  }
  authRules(value, say);
  if (value.backends !== undefined) backendListRules(value.backends, within(say, "backends"));
  if (value.aggregation !== undefined) aggregationRules(value.aggregation, within(say, "aggregation"));
  if (value.compositeTools !== undefined) compositeListRules(value.compositeTools, within(say, "compositeTools"));
  if (value.operational !== undefined) operationalRules(value.operational, within(say, "operational"));
  if (value.optimizer !== undefined) optimizerRules(value.optimizer, within(say, "optimizer"));
  if (value.sessionStorage !== undefined) sessionStorageRules(value.sessionStorage, within(say, "sessionStorage"));
  if (value.rateLimiting !== undefined)
    rateLimitingRules(value.rateLimiting, value.incomingAuth?.type === "anonymous", within(say, "rateLimiting"));
  if (value.passthroughHeaders !== undefined)
    passthroughRules(value.passthroughHeaders, injectedHeaders(value), within(say, "passthroughHeaders"));
  sayRepeated(
    within(say, "compositeToolRefs"),
    (value.compositeToolRefs ?? []).map((ref, index) => [[index, "name"], ref?.name] as const),
    (name) => `two references are to ${JSON.stringify(name)}`,
  );
}

const startHints = {
  incomingAuth: "to let everybody in who reaches the port: incomingAuth: { type: anonymous }",
  outgoingAuth: "to show backends nothing: outgoingAuth: { source: inline, default: { type: unauthenticated } }",
};

/** Of a virtual server or an auth policy. */
export function authRules(value: Pick<VirtualServerPart, "incomingAuth" | "outgoingAuth">, say: Say): void {
  if (value.incomingAuth !== undefined) incomingAuthRules(value.incomingAuth, within(say, "incomingAuth"));
  const { type, oidc } = value.incomingAuth ?? {};
  const callers = { type, issuer: oidc?.issuer, clientId: oidc?.clientId };
  if (value.outgoingAuth !== undefined) outgoingAuthRules(value.outgoingAuth, callers, within(say, "outgoingAuth"));
}

function injectedHeaders(value: VirtualServerPart): Set<string> {
  const names = strategiesOf(value.outgoingAuth ?? {}).map(([, strategy]) => strategy.headerInjection?.headerName?.toLowerCase());
  return new Set(names.filter((name) => name !== undefined));
}
