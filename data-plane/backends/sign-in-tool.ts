// The one tool that we add to what a backend lists: where every caller has to sign in, it is how they do, also before anybody
// knows what the backend has. A backend that has a tool of this name keeps it, and ours is left out.
import { type Catalog, type CatalogItem, uncached } from "./catalog.ts";
import { gateway } from "./leg.ts";

const name = "sign_in";

const tool: CatalogItem = {
  key: name,
  json: Buffer.from(
    JSON.stringify({
      name,
      title: "Sign in",
      description:
        "Signs you in at this server, with a browser; its tools are listed afterwards. Says so when you are signed in.",
      inputSchema: { type: "object", additionalProperties: false },
      annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: true },
    }),
  ),
  isSignIn: true,
};

/** What is known of a backend that nobody has listed. */
const unlisted: Catalog = {
  facts: { era: "session", protocolVersion: gateway.protocolVersion, capabilities: { tools: {} }, instructions: undefined },
  ...{ tools: [], prompts: [], resources: [], templates: [] },
  caching: { tools: uncached, prompts: uncached, resources: uncached, templates: uncached },
};

const known = new WeakMap<Catalog, Catalog>();

/** The catalog with our tool in it; the same object for the same catalog. */
export function withSignIn(catalog: Catalog = unlisted): Catalog {
  const existing = known.get(catalog);
  if (existing) return existing;
  const isTaken = catalog.tools.some(({ key }) => key === name);
  const extended = isTaken ? catalog : { ...catalog, tools: [tool, ...catalog.tools] };
  known.set(catalog, extended);
  return extended;
}
