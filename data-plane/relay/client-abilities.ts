// What a client declared it can do, and so what a backend may ask it.
import { errorCodes, type RpcError } from "../mcp/json-rpc.ts";
import type { Session } from "../session/session.ts";

interface Abilities {
  readonly sampling?: { readonly tools?: unknown };
  readonly elicitation?: { readonly form?: unknown; readonly url?: unknown };
  readonly roots?: unknown;
}

/** Why a client can't be asked; undefined when it can. Source: MCP 2025-11-25, client features, capabilities. */
export function refusalOf(session: Session, method: string, params: unknown): RpcError | undefined {
  const { sampling, elicitation, roots } = JSON.parse(session.capabilities) as Abilities;
  const asked = (params ?? {}) as { mode?: unknown; tools?: unknown };
  switch (method) {
    case "sampling/createMessage":
      if (!sampling) return notOffered("sampling");
      return asked.tools !== undefined && !sampling.tools
        ? badParams("the client does not offer sampling with tools")
        : undefined;
    case "elicitation/create":
      if (!elicitation) return notOffered("elicitation");
      if (asked.mode === "url") return elicitation.url ? undefined : badParams("the client does not offer elicitation by URL");
      // `elicitation: {}` means forms, as it did before there were modes.
      return elicitation.form || !elicitation.url ? undefined : badParams("the client does not offer elicitation by form");
    case "roots/list":
      return roots ? undefined : notOffered("roots");
    default:
      return notOffered(method);
  }
}

function notOffered(what: string): RpcError {
  return { code: errorCodes.methodNotFound, message: `the client does not offer ${what}` };
}

function badParams(message: string): RpcError {
  return { code: errorCodes.invalidParams, message };
}
