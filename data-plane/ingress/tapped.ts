// A call while somebody taps: made as ever, and told of when it has ended.
import { createHmac } from "node:crypto";
import type { Identity } from "../incoming-auth/identity.ts";
import { lengthOf, readMessage, type Written, whole } from "../mcp/json-rpc.ts";
import { member } from "../mcp/scan.ts";
import type { Keys } from "../mcp/seal.ts";
import { errorOf } from "../mcp/translate.ts";
import { statelessVersion } from "../mcp/versions.ts";
import type { Call, Method } from "../methods/call.ts";
import type { Tap } from "../telemetry/tap.ts";

export interface Tapping extends Pick<Tap, "isOn" | "note"> {
  /** Stands for a caller, the same on every proxy that has the same secret; nobody without it can tell who it is. */
  readonly identityOf: (identity: Identity) => string;
}

/** 16 characters. */
export function callerHash(keys: Keys): Tapping["identityOf"] {
  return ({ isAnonymous, issuer, subject }) => {
    if (isAnonymous) return "anonymous";
    const hash = createHmac("sha256", keys.active.derive("tap"))
      .update(JSON.stringify([issuer, subject]))
      .digest("base64url");
    return hash.slice(0, 16);
  };
}

/** What the method gives, or throws. */
export async function tapped({ note, identityOf }: Tapping, call: Call, method: Method): Promise<Written> {
  const startMs = performance.now();
  const tell = (outcome: string, response?: Written): void => {
    const { message, server, session, caller, stateless } = call;
    note({
      ...targetOf(call),
      group: server.spec.groupRef,
      virtualServer: server.name,
      method: message.method ?? "",
      outcome,
      tookMs: performance.now() - startMs,
      requestBytes: message.json.length,
      responseBytes: response ? lengthOf(response) : 0,
      identity: identityOf(caller.identity),
      protocolVersion: stateless ? statelessVersion : session.protocolVersion,
    });
  };
  try {
    const response = await method(call);
    tell(outcomeOf(whole(response)), response);
    return response;
  } catch (error) {
    tell(call.limit.signal.aborted ? "cancelled" : "internal");
    throw error;
  }
}

/** Only names that clients are shown: what else they write in its place is theirs. */
function targetOf({ message, params, view }: Call): { name: string; workload: string } {
  const key = params.name ?? params.uri;
  if (typeof key !== "string") return { name: "", workload: "" };
  if (message.method === "resources/read") return { name: "", workload: view.resources.get(key)?.backend ?? "" };
  const routes = message.method === "tools/call" ? view.tools : message.method === "prompts/get" ? view.prompts : undefined;
  const route = routes?.get(key);
  return route ? { name: key, workload: route.backend } : { name: "", workload: "" };
}

/** See CallEvent. */
function outcomeOf(response: Buffer): string {
  try {
    const answer = readMessage(response);
    if (answer.error) {
      const { code, data } = errorOf(answer);
      const { reason } = Object(data) as { reason?: unknown };
      return typeof reason === "string" && /^backend_[a-z_]{1,40}$/.test(reason) ? reason : `error ${code}`;
    }
    const isObject = answer.result && response[answer.result.start] === 0x7b;
    const isError = isObject && member(response, answer.result.start, "isError");
    return isError && response.toString("latin1", isError.start, isError.end) === "true" ? "tool_error" : "ok";
  } catch {
    return "internal"; // nobody can read it
  }
}
