// THE REQUEST PATH, in order: parting → front door → MCP endpoint, or else a Koa app: probes → discovery → sign-in pages → the older SSE
// endpoint → not found. What calls are made of does not go through Koa: its context, its promise for each step and its watch over each
// response cost a tenth of a call.
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import Koa, { type Context, type Middleware } from "koa";
import type { Log } from "../../common/log.ts";
import { reasonOf } from "../backends/errors.ts";
import { errorCodes } from "../mcp/json-rpc.ts";
import type { SignInFlow } from "../outgoing-auth/sign-in-flow.ts";
import type { Runtime } from "../runtime.ts";
import { expositionType } from "../telemetry/exposition.ts";
import type { VirtualServer } from "../virtual-server.ts";
import { baseOf, metadataOf, pathOf, wellKnown } from "./discovery.ts";
import { createFrontDoor } from "./front-door.ts";
import { type McpOptions, serveMcp } from "./mcp.ts";
import type { OriginRules } from "./origin.ts";
import { type Leaving, type Pages, readiness } from "./probes.ts";
import { refuse } from "./refuse.ts";
import { pagesPath, signInPages } from "./sign-in-pages.ts";
import type { SseEndpoint } from "./sse-endpoint.ts";
import { cutWhenStalled } from "./stall-watch.ts";

export interface AppOptions extends McpOptions {
  /** The runtime of the moment; a request keeps the one it began with. */
  readonly runtime: () => Runtime;
  readonly origin: OriginRules;
  /** When it says why: unready, and every connection ends with its answer, so that whoever sends here sends elsewhere. */
  readonly leaving: () => Leaving;
  readonly pages: Pages;
  /** Undefined when it is switched off. */
  readonly sse: SseEndpoint | undefined;
  /** How users sign in at backends. */
  readonly flow: SignInFlow;
  readonly log: Log;
}

/** The HTTP application of one proxy. */
export function createApp(options: AppOptions): RequestListener {
  const isLetIn = createFrontDoor((request) => rulesOf(options, request));
  const others = otherPages(options);

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (options.leaving() || isLast(response)) response.setHeader("connection", "close");
    if (!isLetIn(request, response)) return;
    const at = endpointAt(pathOf(request), "/mcp", options.runtime());
    if (!at) others(request, response);
    else if (at.server) await serveMcp(at.server, request, response, options);
    else refuseNotReady(response);
  }

  return (request, response) => {
    serve(request, response).catch((error: Error) => {
      options.log.error({ err: error }, "a request failed");
      if (response.headersSent) response.destroy();
      else refuse(response, 500, "internal error", { code: errorCodes.internal });
    });
  };
}

/** All that is not the MCP endpoint. */
function otherPages(options: AppOptions): RequestListener {
  const app = new Koa();
  app.silent = true;
  app.on("error", (error: Error, ctx?: Context) => {
    // With its stack and the bytes it came from, what a client does to its own connection would fill the log.
    if (isClientGone(error, ctx)) options.log.debug({ reason: reasonOf(error) }, "a client went away");
    else options.log.error({ err: error }, "a request failed");
  });
  for (const step of [probes(options), discovery(options), signInPages(options), olderMcp(options), notFound]) app.use(step);
  return app.callback();
}

const departures = new Set(["ECONNRESET", "EPIPE", "ERR_STREAM_PREMATURE_CLOSE"]);

/** Whether the client's connection failed, rather than what we did with the request. */
function isClientGone(error: Error & { code?: string }, ctx: Context | undefined): boolean {
  const socket = ctx?.req.socket;
  return socket !== undefined && (socket.errored === error || (socket.destroyed && departures.has(error.code ?? "")));
}

// Node tells the client that this was the last request of its connection, but leaves it to the client to close.
function isLast(response: ServerResponse & { maxRequestsOnConnectionReached?: boolean }): boolean {
  return response.maxRequestsOnConnectionReached === true;
}

/** Our own pages have forms, whose origin is ours; nowhere else does a page of ours call. */
function rulesOf(options: AppOptions, request: IncomingMessage): OriginRules {
  const { origin } = options;
  if (!request.url?.startsWith(pagesPath)) return origin;
  return { ...origin, allowedOrigins: [...origin.allowedOrigins, baseOf(options, { request })] };
}

function probes({ runtime, leaving, pages }: AppOptions): Middleware {
  const isUp = (): Probe => ({ status: 200, body: { status: "ok" } });
  const routes: Readonly<Record<string, () => Probe | Promise<Probe>>> = {
    "/health": isUp,
    "/ping": isUp,
    "/readyz": () => readiness(runtime(), leaving()),
    "/status": async () => ({ status: 200, body: await pages.status() }),
    "/metrics": async () => ({ status: 200, body: await pages.metrics(), type: expositionType }),
  };
  return async (ctx, next) => {
    const route = Object.hasOwn(routes, ctx.path) ? routes[ctx.path] : undefined;
    if (!route) return next();
    if (ctx.method !== "GET" && ctx.method !== "HEAD") {
      ctx.set("allow", "GET, HEAD");
      return answer(ctx, 405, { error: "only GET and HEAD" });
    }
    const { status, body, type } = await route();
    if (type !== undefined) ctx.type = type;
    return answer(ctx, status, body);
  };
}

interface Probe {
  readonly status: number;
  readonly body: object | string;
  /** Default: as Koa takes the body for. */
  readonly type?: string;
}

/** How clients get a token for an endpoint; without its path, for the only one there is. */
function discovery(options: AppOptions): Middleware {
  return (ctx, next) => {
    if (ctx.path !== wellKnown && !ctx.path.startsWith(`${wellKnown}/`)) return next();
    const path = ctx.path.slice(wellKnown.length) || "/mcp";
    const suffix = ["/mcp", "/sse"].find((one) => path.endsWith(one));
    const server = suffix && serverOf(options.runtime(), path.slice(0, -suffix.length));
    const document = server && metadataOf(server, path, { ...options, request: ctx.req });
    if (!document) return next();
    ctx.set("cache-control", "no-cache");
    return answer(ctx, 200, document);
  };
}

function olderMcp({ sse, runtime }: AppOptions): Middleware {
  return (ctx, next) => {
    const stream = sse && endpointAt(ctx.path, "/sse", runtime());
    const messages = sse && endpointAt(ctx.path, "/messages", runtime());
    const at = stream ?? messages;
    if (!at || !sse) return next();
    ctx.respond = false;
    const { req, res } = ctx;
    if (!at.server) return refuseNotReady(res);
    return at === stream ? sse.open(at.server, req, res, at.prefix) : sse.take(at.server, req, res);
  };
}

interface EndpointAt {
  readonly prefix: string;
  /** Undefined before the first snapshot, when nobody can say that an endpoint or a session does not exist. */
  readonly server: VirtualServer | undefined;
}

/** `/<name><suffix>`, and for a single virtual server `<suffix>` alone too; undefined when a path is neither. */
function endpointAt(path: string, suffix: string, runtime: Runtime): EndpointAt | undefined {
  if (!path.endsWith(suffix)) return undefined;
  const prefix = path.slice(0, -suffix.length);
  const server = serverOf(runtime, prefix);
  return server || runtime.version === "" ? { prefix, server } : undefined;
}

function refuseNotReady(response: ServerResponse): void {
  refuse(response, 503, "not ready: no snapshot yet", { headers: { "retry-after": "1" } });
}

function serverOf({ virtualServers }: Runtime, prefix: string): VirtualServer | undefined {
  if (prefix === "") return virtualServers.size === 1 ? virtualServers.values().next().value : undefined;
  return virtualServers.get(prefix.slice(1));
}

const notFound: Middleware = (ctx) =>
  answer(ctx, 404, { error: "not found; MCP is at /<virtual server>/mcp, and at /mcp when there is just one" });

/** Many small answers that nobody reads hold a connection as well as a large one does. */
function answer(ctx: Context, status: number, body: object | string): void {
  ctx.status = status;
  ctx.body = body;
  cutWhenStalled(ctx.res);
}
