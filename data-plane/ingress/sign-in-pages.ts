// Where people sign in at backends, with a browser: `/oauth/…`, on any replica. These are the only pages we have, and the only routes
// that anybody may ask for who is no client: nothing happens before a button is pressed, and nothing that came is shown again.
import { randomBytes } from "node:crypto";
import type { Context, Middleware } from "koa";
import type { Log } from "../../common/log.ts";
import { SignInError } from "../outgoing-auth/sign-in-error.ts";
import { hashOf, markOf, type SignInFlow, signedInPath, type Visit } from "../outgoing-auth/sign-in-flow.ts";
import type { Ticket } from "../outgoing-auth/sign-in-seals.ts";
import { callbackPath, clientDocument, documentPath } from "../outgoing-auth/upstream-client.ts";
import type { Runtime } from "../runtime.ts";
import { baseOf, urlOf } from "./discovery.ts";
import { beginPage, donePage, problemPage } from "./sign-in-html.ts";

export interface SignInPagesOptions {
  readonly flow: SignInFlow;
  readonly runtime: () => Runtime;
  readonly publicUrl: string | undefined;
  readonly log: Log;
}

/** Before the paths of all pages. */
export const pagesPath = "/oauth/";

const connectPath = `${pagesPath}connect/`;
const urlLengthMax = 8 * 1024;
const bodyBytesMax = 8 * 1024;
/** Each may wait for two authorization servers. */
const inFlightMax = 64;
/** A sign-in has two steps of at most 10 minutes. */
const cookieSeconds = 20 * 60;
const internalWords = "Something went wrong here. Try again, or tell whoever runs the gateway.";

type Page = { readonly html: string; readonly status?: number; readonly formAction?: string } | { readonly location: string };

export function signInPages({ flow, runtime, publicUrl, log }: SignInPagesOptions): Middleware {
  let inFlight = 0;

  async function serve(ctx: Context): Promise<Page | undefined> {
    const { path, method } = ctx;
    if (path.startsWith(connectPath)) {
      const visit = visitOf(ctx);
      const ticket = flow.open(path.slice(connectPath.length));
      if (method === "POST") return begin(ctx, ticket, visit);
      const description = await flow.describe(ticket, visit);
      return { html: beginPage(description), formAction: formActionOf(description.endpoints) };
    }
    if (path === signedInPath) return { location: await flow.proven(parametersOf(ctx), visitOf(ctx)) };
    if (path === callbackPath) {
      const visit = visitOf(ctx);
      let held = "";
      const secretOf: Visit["secretOf"] = (mark) => {
        held = mark;
        return visit.secretOf(mark);
      };
      const backend = await flow.finish(parametersOf(ctx), { ...visit, secretOf });
      setCookie(ctx, held, "", 0);
      return { html: donePage(backend) };
    }
    return undefined;
  }

  async function begin(ctx: Context, ticket: Ticket, visit: Visit): Promise<Page> {
    if (Number(ctx.get("content-length") || Number.NaN) > bodyBytesMax || ctx.get("transfer-encoding") !== "")
      return { html: problemPage("The request is too large."), status: 413 };
    ctx.req.resume();
    if (!isOurs(ctx, visit.base)) throw new SignInError("link", "the form is not one of our pages");
    const secret = randomBytes(32).toString("base64url");
    const location = await flow.begin(ticket, visit, secret);
    setCookie(ctx, markOf(hashOf(secret)), secret, cookieSeconds);
    return { location };
  }

  function visitOf(ctx: Context): Visit {
    const { req } = ctx;
    return {
      base: baseOf({ publicUrl }, { request: req }),
      secretOf: (mark) => ctx.cookies.get(cookieName(ctx, mark)),
      async isOf({ issuer, subject, virtualServer }) {
        const url = urlOf({ publicUrl }, { request: req });
        const presented = { headers: req.headers, method: ctx.method, url, remoteAddress: req.socket.remoteAddress };
        const verdict = await runtime().virtualServers.get(virtualServer)?.auth.authenticate(presented);
        if (!verdict || verdict.refusal) return false;
        const { identity } = verdict.caller;
        return identity.issuer === issuer && identity.subject === subject;
      },
    };
  }

  const isHttps = (ctx: Context): boolean => baseOf({ publicUrl }, { request: ctx.req }).startsWith("https:");

  // With the prefix no neighbouring host can plant one (RFC 6265bis 4.1.3.2), which asks for the path `/`; it can't be had on http.
  function cookieName(ctx: Context, mark: string): string {
    return `${isHttps(ctx) ? "__Host-" : ""}vmcp-sign-in-${mark}`;
  }

  function setCookie(ctx: Context, mark: string, value: string, seconds: number): void {
    const place = isHttps(ctx) ? "Path=/; Secure" : "Path=/oauth";
    ctx.append("set-cookie", `${cookieName(ctx, mark)}=${value}; ${place}; HttpOnly; SameSite=Lax; Max-Age=${seconds}`);
  }

  async function answer(ctx: Context): Promise<Page | undefined> {
    if (inFlight >= inFlightMax) return problem(new SignInError("busy", "too many at a time"));
    inFlight++;
    try {
      return await serve(ctx);
    } catch (error) {
      if (error instanceof SignInError) return problem(error);
      log.error({ err: error }, "a sign-in page failed");
      return { html: problemPage(internalWords), status: 500 };
    } finally {
      inFlight--;
    }
  }

  return async (ctx, next) => {
    const { path, method } = ctx;
    if (!path.startsWith(pagesPath)) return next();
    if ((ctx.req.url?.length ?? 0) > urlLengthMax) return send(ctx, { html: problemPage("The link is too long."), status: 414 });
    if (path === documentPath && (method === "GET" || method === "HEAD")) {
      ctx.set("cache-control", "max-age=300");
      ctx.body = clientDocument(baseOf({ publicUrl }, { request: ctx.req }));
      return undefined;
    }
    const isTaken = method === "GET" || (method === "POST" && path.startsWith(connectPath));
    const page = isTaken
      ? await answer(ctx)
      : { html: problemPage("There is nothing to be done here in this way."), status: 405 };
    return page ? send(ctx, page) : next();
  };
}

function problem({ words, status }: SignInError): Page {
  return { html: problemPage(words), status };
}

function send(ctx: Context, page: Page): void {
  const isForm = "formAction" in page;
  ctx.set({
    "content-security-policy": `default-src 'none'; style-src 'unsafe-inline'; form-action ${isForm ? page.formAction : "'none'"}; frame-ancestors 'none'; base-uri 'none'`,
    // A form on a page without referrer has the Origin `null`, by which nobody could tell that it is ours.
    "referrer-policy": isForm ? "same-origin" : "no-referrer",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  if ("location" in page) {
    ctx.set("location", page.location);
    ctx.status = 303; // whatever led here, what comes is a GET
    ctx.body = "";
    return;
  }
  ctx.status = page.status ?? 200;
  ctx.type = "html";
  ctx.body = page.html;
}

/** Chromium holds a form to its policy on every redirect that follows; authorization servers send on to others, over https. */
function formActionOf(endpoints: readonly string[]): string {
  const plain = endpoints.map((endpoint) => new URL(endpoint).origin).filter((origin) => origin.startsWith("http:"));
  return ["'self'", "https:", ...new Set(plain)].join(" ");
}

/** Whether a page of ours made the request, rather than anybody's who knows the link. */
function isOurs(ctx: Context, base: string): boolean {
  const [origin, site] = [ctx.get("origin"), ctx.get("sec-fetch-site")];
  if (site !== "" && site !== "same-origin") return false;
  return origin === base || (origin === "" && site === "same-origin");
}

function parametersOf(ctx: Context): URLSearchParams {
  return new URLSearchParams(ctx.querystring);
}
