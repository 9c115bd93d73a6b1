// One backend: an MCP server by URL, or, as our extension, one that the proxy starts and speaks to over stdio.
import { z } from "zod";
import {
  absolutePath,
  count,
  environmentName,
  labels,
  type Partly,
  plainName,
  type Say,
  sayRepeated,
  section,
  text,
  url,
  within,
  word,
} from "./fields.ts";

/** `streamable` is a spelling that the original's loader also takes. */
const transport = z.preprocess(
  (value) => (value === "streamable" ? "streamable-http" : value),
  word("streamable-http", "sse", "stdio"),
);

export const backend = section({
  name: plainName,
  url: url("the server's address").optional(),
  endpoints: z
    .array(section({ url: url("the server's address"), priority: count(0).optional() }), {
      error: "a list of maps, one per server that does the same",
    })
    .optional(),
  transport: transport.optional(),
  type: word("", "entry").optional(),
  caBundlePath: absolutePath.optional(),
  metadata: labels.optional(),
  command: text("the program to start").optional(),
  args: z.array(z.string({ error: "text" }), { error: "a list of arguments" }).optional(),
  env: z.record(environmentName, z.string({ error: "text" }), { error: "a map of environment variable to value" }).optional(),
  cwd: text("a directory").optional(),
});

export const backends = z.array(backend, { error: "a list of maps, one per backend" });

export type BackendPart = Partly<z.output<typeof backend>>;

export function backendRules(value: BackendPart, say: Say): void {
  const isStdio = value.transport === "stdio" || (value.transport === undefined && value.command !== undefined);
  if (isStdio) {
    if (value.command === undefined)
      say(["command"], "a stdio backend needs a command", { hint: "the program that the proxy starts" });
    if (value.url !== undefined)
      say(["url"], "a stdio backend has no url", { hint: "remove url, or remove command and transport: stdio" });
  } else {
    if (value.url === undefined && value.endpoints === undefined) {
      say(["url"], "the backend needs a url", {
        hint: "or a command, when the proxy shall start the server and speak stdio with it",
      });
    }
    for (const key of ["command", "args", "env", "cwd"] as const) {
      if (value[key] !== undefined)
        say([key], `${key} is only for stdio backends`, { hint: "remove it, or set transport: stdio" });
    }
  }
  if (value.endpoints !== undefined) endpointRules(value, isStdio, within(say, "endpoints"));
  if (value.caBundlePath !== undefined && value.type !== "entry") {
    say(["caBundlePath"], "caBundlePath is only for backends of type entry", { hint: "add type: entry" });
  }
}

function endpointRules({ url: single, transport: kind, endpoints = [] }: BackendPart, isStdio: boolean, say: Say): void {
  if (isStdio || kind === "sse")
    say([], "endpoints are for servers over streamable HTTP", { hint: "remove endpoints, or name one backend for each server" });
  if (single !== undefined) say([], "url and endpoints exclude each other", { hint: "add the url to endpoints" });
  if (endpoints.length === 0) say([], "endpoints is empty", { hint: "name at least one server, or set url" });
  if (endpoints.length > endpointsMax) say([], `${endpoints.length} endpoints; ${endpointsMax} are the most`);
  sayRepeated(
    say,
    endpoints.map((entry, index) => [[index, "url"], entry?.url] as const),
    (address) => `two endpoints are ${JSON.stringify(address)}`,
  );
}

const endpointsMax = 64;

export function backendListRules(list: readonly (BackendPart | undefined)[], say: Say): void {
  list.forEach((entry, index) => {
    if (entry !== undefined) backendRules(entry, (path, message, more) => say([index, ...path], message, more));
  });
  sayRepeated(
    say,
    list.map((entry, index) => [[index, "name"], entry?.name] as const),
    (name) => `two backends are named ${JSON.stringify(name)}`,
  );
}
