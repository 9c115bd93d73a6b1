// Where sessions live, token buckets, few tools in front of many, scripts, and client headers that pass through.
import { z } from "zod";
import {
  count,
  decimal,
  duration,
  flag,
  headerName,
  matching,
  type Partly,
  type Say,
  sayRepeated,
  section,
  text,
  url,
  within,
  word,
} from "./fields.ts";
import { connectionReason, originReason } from "./header-names.ts";

export const sessionStorage = section({
  provider: word("memory", "redis"),
  address: text("the address of a Redis server").optional(),
  db: count(0).optional(),
  keyPrefix: matching(/:$/, "a prefix that ends with ':'").optional(),
});

const bucket = section({ maxTokens: count(1), refillPeriod: duration() });

export const rateLimiting = section({
  shared: bucket.optional(),
  perUser: bucket.optional(),
  tools: z
    .array(section({ name: text("a tool's name"), shared: bucket.optional(), perUser: bucket.optional() }), {
      error: "a list of maps, one per tool",
    })
    .optional(),
});

const embeddingHeader = z.string({ error: "text of 1 to 8192 characters" }).min(1).max(8192);

export const optimizer = section({
  embeddingService: url("the embedding service").optional(),
  embeddingServiceTimeout: duration().optional(),
  embeddingProvider: word("tei", "openai").optional(),
  embeddingModel: text("a model's name").optional(),
  embeddingHeaders: z.record(headerName, embeddingHeader, { error: "a map of header name to value" }).optional(),
  maxToolsToReturn: count(1, 50).optional(),
  hybridSearchSemanticRatio: decimal(0, 1).optional(),
  semanticDistanceThreshold: decimal(0, 2).optional(),
});

export const codeMode = section({
  enabled: flag.optional(),
  stepLimit: count(1).optional(),
  parallelMaxConcurrency: count(1).optional(),
  toolCallTimeout: duration().optional(),
});

export const passthroughHeaders = z.array(headerName, { error: "a list of header names" });

export function sessionStorageRules(value: Partly<z.output<typeof sessionStorage>>, say: Say): void {
  if (value.provider === "redis" && value.address === undefined) {
    say(["address"], "session storage in redis needs an address", { hint: "such as redis.example.com:6379" });
  }
}

export function rateLimitingRules(value: Partly<z.output<typeof rateLimiting>>, isAnonymous: boolean, say: Say): void {
  const tools = value.tools ?? [];
  if (value.shared === undefined && value.perUser === undefined && tools.length === 0)
    say([], "rateLimiting limits nothing", { hint: "set shared, perUser or tools" });
  if (isAnonymous && value.perUser !== undefined) sayAnonymous(within(say, "perUser"));
  sayRepeated(
    within(say, "tools"),
    tools.map((entry, index) => [[index, "name"], entry?.name] as const),
    (name) => `two limits are for tool ${JSON.stringify(name)}`,
  );
  tools.forEach((entry, index) => {
    if (entry === undefined) return;
    if (entry.shared === undefined && entry.perUser === undefined)
      say(["tools", index], "the entry limits nothing", { hint: "set shared or perUser" });
    if (isAnonymous && entry.perUser !== undefined) sayAnonymous(within(say, "tools", index, "perUser"));
  });
}

function sayAnonymous(say: Say): void {
  say([], "with anonymous incoming auth all callers are one user, so perUser limits them together", {
    severity: "warning",
    hint: "use shared, or let callers sign in",
  });
}

export function optimizerRules(value: Partly<z.output<typeof optimizer>>, say: Say): void {
  const isOpenai = value.embeddingProvider === "openai";
  if (isOpenai && value.embeddingModel === undefined) say(["embeddingModel"], "embeddingProvider openai needs an embeddingModel");
  const headers = Object.keys(value.embeddingHeaders ?? {});
  if (headers.length > 0 && !isOpenai) say(["embeddingHeaders"], "embeddingHeaders are only for embeddingProvider openai");
  if (headers.length > 32) say(["embeddingHeaders"], `${headers.length} embedding headers; at most 32 are sent`);
  for (const name of headers) {
    if (["authorization", "content-type"].includes(name.toLowerCase()))
      say(["embeddingHeaders", name], `${name} is set by the proxy itself`, { hint: "remove it", onKey: true });
  }
}

const credentials: ReadonlySet<string> = new Set(["authorization", "cookie", "proxy-authorization", "proxy-authenticate"]);

function passthroughReason(name: string): string | undefined {
  const credential = credentials.has(name)
    ? "it carries the caller's credential, which no backend may see; use outgoingAuth"
    : undefined;
  return connectionReason(name) ?? originReason(name) ?? credential;
}

/** `injected` are the headers that outgoing auth sets, in lower case. */
export function passthroughRules(value: readonly (string | undefined)[], injected: ReadonlySet<string>, say: Say): void {
  value.forEach((name, index) => {
    const lower = name?.toLowerCase() ?? "";
    const reason = passthroughReason(lower);
    if (reason !== undefined) say([index], `header ${name} can't pass through: ${reason}`);
    if (injected.has(lower))
      say([index], `outgoingAuth sets header ${name} already`, { hint: "a header has one source; remove it here or there" });
  });
  sayRepeated(
    say,
    value.map((name, index) => [[index], name?.toLowerCase()] as const),
    (name) => `header ${name} stands twice`,
  );
}
