// Secrets that stand in the file of `vmcp serve`. They move into the environment of this process before anything is declared, so that
// the store, the admin API and snapshots know only the names of variables.
import { createHmac, randomBytes } from "node:crypto";
import { clone } from "@bufbuild/protobuf";
import type { OutgoingAuth, OutgoingAuthStrategy } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";

/** Block → its keys that may hold a secret; beside each is one with `Env` behind its name. */
const literals = {
  headerInjection: ["headerValue"],
  tokenExchange: ["clientSecret"],
  clientCredentials: ["clientSecret"],
  upstreamOauth: ["clientSecret"],
  xaa: ["idpClientSecret", "targetClientSecret"],
  obo: ["clientSecret"],
} as const satisfies Partial<Record<keyof OutgoingAuthStrategy, readonly string[]>>;

// Of this process only, so that a name confirms no guess of the secret, and nobody can name it who has not seen it.
const nameKey = randomBytes(32);

/**
 * Copies that hold no literal secret: each is in a variable of `environment` instead, and named. The same secret in the same place
 * keeps its name, so a file that is read again declares nothing new. One that was replaced stays until the process ends, since calls
 * that began before may still show it.
 */
export function moveLiteralSecrets(resources: readonly Resource[], environment: NodeJS.ProcessEnv = process.env): Resource[] {
  return resources.map((original) => {
    const resource = clone(ResourceSchema, original);
    const { spec } = resource;
    const auth = spec.case === "virtualServer" || spec.case === "authPolicy" ? spec.value.outgoingAuth : undefined;
    for (const [path, strategy] of auth === undefined ? [] : strategiesOf(auth))
      moveFrom(strategy, [resource.name, ...path], environment);
    return resource;
  });
}

function strategiesOf({ default: common, backends }: OutgoingAuth): [path: string[], strategy: OutgoingAuthStrategy][] {
  const named = Object.entries(backends).map(
    ([name, strategy]) => [["backends", name], strategy] as [string[], OutgoingAuthStrategy],
  );
  return common === undefined ? named : [[["default"], common], ...named];
}

function moveFrom(strategy: OutgoingAuthStrategy, path: readonly string[], environment: NodeJS.ProcessEnv): void {
  for (const [block, keys] of Object.entries(literals)) {
    const fields = strategy[block as keyof typeof literals] as Record<string, unknown> | undefined;
    for (const key of keys) {
      const secret = fields?.[key];
      if (fields === undefined || typeof secret !== "string" || secret === "") continue;
      const name = variableName([...path, block, key], secret);
      environment[name] = secret;
      fields[key] = "";
      fields[`${key}Env`] = name;
    }
  }
}

function variableName(path: readonly string[], secret: string): string {
  const digest = createHmac("sha256", nameKey)
    .update(JSON.stringify([path, secret]))
    .digest("hex");
  return `VMCP_LITERAL_${digest.slice(0, 32).toUpperCase()}`;
}
