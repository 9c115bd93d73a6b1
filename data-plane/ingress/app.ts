// THE REQUEST PATH, in order: guard → probes → MCP endpoint → not found.
import Koa, { type Middleware } from "koa";
import type { Log } from "../../common/log.ts";
import type { Runtime } from "../runtime.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { type McpOptions, serveMcp } from "./mcp.ts";
import { type OriginRules, refusalOf } from "./origin.ts";
import { readiness, status } from "./probes.ts";
import { refuse } from "./refuse.ts";

export interface AppOptions extends McpOptions {
  /** The runtime of the moment; a request keeps the one it began with. */
  readonly runtime: () => Runtime;
  readonly origin: OriginRules;
  readonly log: Log;
}

/** The HTTP application of one proxy. */
export function createApp(options: AppOptions): Koa {
  const app = new Koa();
  app.silent = true;
  app.on("error", (error) => options.log.error({ err: error }, "a request failed"));
  for (const step of [guard(options.origin), probes(options.runtime), mcp(options), notFound]) app.use(step);
  return app;
}

function guard(rules: OriginRules): Middleware {
  return (ctx, next) => {
    // An absolute request target would name another host than Host does.
    const reason = ctx.req.url?.startsWith("/") ? refusalOf(ctx.req, rules) : "the request target must be a path";
    if (reason === undefined) return next();
    ctx.respond = false;
    refuse(ctx.res, 403, reason);
    return undefined;
  };
}

function probes(runtime: () => Runtime): Middleware {
  const routes: Readonly<Record<string, () => { status: number; body: object }>> = {
    "/health": () => ({ status: 200, body: { status: "ok" } }),
    "/ping": () => ({ status: 200, body: { status: "ok" } }),
    "/readyz": () => readiness(runtime()),
    "/status": () => ({ status: 200, body: status(runtime()) }),
  };
  return (ctx, next) => {
    const route = Object.hasOwn(routes, ctx.path) ? routes[ctx.path] : undefined;
    if (!route) return next();
    if (ctx.method !== "GET" && ctx.method !== "HEAD") {
      ctx.set("allow", "GET, HEAD");
      ctx.status = 405;
      ctx.body = { error: "only GET and HEAD" };
      return undefined;
    }
    const answer = route();
    ctx.status = answer.status;
    ctx.body = answer.body;
    return undefined;
  };
}

function mcp(options: AppOptions): Middleware {
  return (ctx, next) => {
    if (!ctx.path.endsWith("/mcp")) return next();
    const runtime = options.runtime();
    const server = serverOf(runtime, ctx.path);
    if (!server && runtime.version !== "") return next();
    ctx.respond = false;
    // Before the first snapshot nobody can say that an endpoint or a session does not exist.
    if (!server) return refuse(ctx.res, 503, "not ready: no snapshot yet", { headers: { "retry-after": "1" } });
    return serveMcp(server, ctx.req, ctx.res, options);
  };
}

/** `/<name>/mcp`; a single virtual server is at `/mcp` too. */
function serverOf({ virtualServers }: Runtime, path: string): VirtualServer | undefined {
  if (path === "/mcp") return virtualServers.size === 1 ? virtualServers.values().next().value : undefined;
  return virtualServers.get(path.slice(1, -"/mcp".length));
}

const notFound: Middleware = (ctx) => {
  ctx.status = 404;
  ctx.body = { error: "not found; MCP is at /<virtual server>/mcp, and at /mcp when there is just one" };
};
