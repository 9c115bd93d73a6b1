// Builds the text of a vmcp-config.yaml; JSON is YAML.

/** A configuration without auth, with what a test adds or replaces. */
export function configText(parts: Readonly<Record<string, unknown>> & { readonly backends: readonly unknown[] }): string {
  return JSON.stringify(
    {
      name: "test",
      groupRef: "team",
      incomingAuth: { type: "anonymous" },
      outgoingAuth: { source: "inline", default: { type: "unauthenticated" } },
      aggregation: { conflictResolution: "prefix", conflictResolutionConfig: { prefixFormat: "{workload}_" } },
      ...parts,
    },
    undefined,
    2,
  );
}

/** A `VirtualServer` document with backends of its own. */
export const virtualServer = (
  name: string,
  parts: Readonly<Record<string, unknown>> & { readonly backends: readonly unknown[] },
) => ({
  kind: "VirtualServer",
  ...(JSON.parse(configText({ ...parts, name })) as Record<string, unknown>),
});

/** A backend entry for a server over streamable HTTP. */
export const httpBackend = (name: string, url: string) => ({ name, url, transport: "streamable-http" });

/** A backend entry for a program. */
export const stdioBackend = (name: string, program: { command: string; args: string[] }, env: Record<string, string> = {}) => ({
  name,
  transport: "stdio",
  ...program,
  env,
});
