// What a token is for: the same in exchanges and for the gateway itself.

export interface Target {
  /** Of the request; what is unset is not there. */
  readonly parameters: readonly (readonly [string, string])[];
  /** Those that the token may name. */
  readonly audiences: readonly string[];
}

/** Empty texts are unset. */
export function targetOf(block: {
  readonly audience: string;
  readonly resource: string;
  readonly scopes: readonly string[];
}): Target {
  const { audience, resource, scopes } = block;
  const parameters = [
    ["audience", audience],
    ["resource", resource],
    ["scope", scopes.join(" ")],
  ] as const;
  return { parameters: parameters.filter(([, value]) => value !== ""), audiences: [audience, resource].filter(Boolean) };
}
