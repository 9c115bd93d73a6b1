// `vmcpctl route`: where a call of a tool goes, and what decides it.
import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { type ExplainRouteResponse, ExplainRouteResponseSchema, RouteOutcome } from "../../proto/gen/vmcp/admin/v1/route_pb.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { connect, type GlobalOptions } from "./connection.ts";
import type { Format, Output } from "./output.ts";
import { structured } from "./structured.ts";
import { plain, table } from "./table.ts";

export interface RouteOptions extends GlobalOptions {
  /** Subject of the caller. */
  readonly as?: string | undefined;
  readonly scope: readonly string[];
  /** JSON: other claims of the caller's token. */
  readonly claims?: string | undefined;
  readonly output: Format;
}

/** Returns the exit code: 1 when the call would not get there. */
export async function route(virtualServer: string, tool: string, options: RouteOptions, output: Output): Promise<number> {
  const claims = claimsOf(options);
  using connection = connect(options);
  const found = await connection.admin.explainRoute({ virtualServer, tool, ...(claims && { claims }) }, connection.deadline());
  if (options.output === "name") output.data(found.backend === "" ? "" : `${found.backend}\n`);
  else if (options.output !== "table") output.data(structured(options.output, toJson(ExplainRouteResponseSchema, found)));
  else writeRoute(found, { virtualServer, tool, output });
  return found.outcome === RouteOutcome.ROUTED ? exitCodes.ok : exitCodes.failure;
}

interface Shown {
  readonly virtualServer: string;
  readonly tool: string;
  readonly output: Output;
}

function writeRoute(found: ExplainRouteResponse, { virtualServer, tool, output }: Shown): void {
  const { outcome, reason, backend, original, steps, health, proxy, suggestions } = found;
  const word = Object.entries(RouteOutcome).find(([, value]) => value === outcome)?.[0] ?? String(outcome);
  const isThere = outcome === RouteOutcome.ROUTED;
  output.data(`${plain(tool)} on ${plain(virtualServer)}: ${output.paint(isThere ? "green" : "red", word)}, ${plain(reason)}\n`);
  if (backend !== "") output.data(`backend ${plain(backend)}, tool ${plain(original)}\n`);
  if (suggestions.length > 0) output.data(`did you mean ${suggestions.map(plain).join(" or ")}?\n`);
  output.data(
    `\n${table(
      ["RULE", "SAYS", "WHERE"],
      steps.map(({ rule, said, where }) => [rule, said, where]),
    )}`,
  );
  if (health.length > 0)
    output.data(
      `\n${table(
        ["PROXY", "BACKEND IS", "ERROR"],
        health.map((one) => [one.proxy, one.state, one.error]),
      )}`,
    );
  if (proxy === "") output.note("no connected proxy has reported yet what clients see\n");
}

/** Undefined: nobody signed in. */
function claimsOf({ as: subject, scope, claims: text }: RouteOptions): JsonObject | undefined {
  if (subject === undefined && scope.length === 0 && text === undefined) return undefined;
  return {
    ...parsed(text ?? "{}"),
    ...(subject !== undefined && { sub: subject }),
    ...(scope.length > 0 && { scope: scope.join(" ") }),
  };
}

function parsed(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch {
    // said below
  }
  throw new ExitError(exitCodes.usage, `--claims: wanted a JSON object such as '{"iss":"https://idp.example.com"}'`);
}
