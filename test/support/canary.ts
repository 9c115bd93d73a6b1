// Looks for secrets where they must not be, in whatever writing they might have got there.
import { readdir, readFile } from "node:fs/promises";
import type { IncomingHttpHeaders } from "node:http";
import { join } from "node:path";
import { askRedis, type RedisReply } from "./redis.ts";

/** Somewhere that things are written to. */
export interface Place {
  readonly name: string;
  /** All that is written there now. */
  spots(): AsyncIterable<Spot> | Iterable<Spot>;
}

export interface Spot {
  /** Within its place. */
  readonly where: string;
  readonly content: string | Buffer;
}

/** One secret in one spot, in one form. */
export interface Find {
  readonly secret: string;
  /** Such as `plain`, `base64`, `payload in hex`. */
  readonly form: string;
  readonly place: string;
  readonly where: string;
}

interface Needle {
  readonly secret: string;
  readonly form: string;
  readonly bytes: Buffer;
  /** Its letters may be of either case. */
  readonly isCaseless: boolean;
}

// A shorter one would be found by chance.
const secretCharactersMin = 8;
const segmentCharactersMin = 20;

/**
 * Every secret that is in one of the places: plain, in base64 or base64url (also as part of something longer), in hex,
 * percent-encoded or escaped in JSON; of a JWT also its payload or signature alone, in the same forms. Throws on a secret of less
 * than 8 characters.
 */
export async function searchFor(secrets: string | readonly string[], places: readonly Place[]): Promise<Find[]> {
  const needles = [secrets].flat().flatMap(needlesOf);
  const finds: Find[] = [];
  for (const place of places)
    for await (const { where, content } of place.spots()) {
      const bytes = Buffer.from(content as string);
      const lowerCase = Buffer.from(bytes.toString("latin1").toLowerCase(), "latin1");
      const found = needles.filter((needle) => (needle.isCaseless ? lowerCase : bytes).includes(needle.bytes));
      // A form with several writings is one find.
      const forms = new Map(found.map(({ secret, form }) => [`${form} ${secret}`, { secret, form, place: place.name, where }]));
      finds.push(...forms.values());
    }
  return finds;
}

function needlesOf(secret: string): Needle[] {
  if (secret.length < secretCharactersMin) throw new Error(`a secret of ${secret.length} characters would be found by chance`);
  const parts = secret.split(".");
  const names = parts.length === 3 ? ["header", "payload", "signature"] : parts.map((_, i) => `segment ${i + 1}`);
  // Headers are the same in many tokens.
  const segments = parts.map((part, i) => [names[i] as string, part] as const).slice(1);
  return [
    ...formsOf(secret).map((needle) => ({ secret, ...needle })),
    ...segments
      .filter(([, part]) => part.length >= segmentCharactersMin)
      .flatMap(([name, part]) =>
        formsOf(part).map(({ form, ...needle }) => ({
          secret,
          form: form === "plain" ? name : `${name} in ${form}`,
          ...needle,
        })),
      ),
  ];
}

type Form = Omit<Needle, "secret">;

function formsOf(secret: string): Form[] {
  const form = (name: string, text: string, isCaseless = false) => ({
    form: name,
    bytes: Buffer.from(isCaseless ? text.toLowerCase() : text),
    isCaseless,
  });
  const bytes = Buffer.from(secret);
  const escaped = [encodeURIComponent(secret), new URLSearchParams([["", secret]]).toString().slice(1)];
  const all = [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
  return [
    form("plain", secret),
    ...[0, 1, 2].flatMap((offset) => {
      const [usual, url] = (["base64", "base64url"] as const).map((name) => form(name, innerBase64(bytes, offset, name)));
      return usual?.bytes.equals(url?.bytes as Buffer) ? [usual] : [usual as Form, url as Form];
    }),
    form("hex", bytes.toString("hex"), true),
    ...[...escaped.filter((text) => text !== secret), all].map((text) => form("percent", text, true)),
    ...[JSON.stringify(secret).slice(1, -1)].filter((text) => text !== secret).map((text) => form("json", text)),
  ];
}

/** How the bytes look inside the base64 of something longer, `offset` bytes (modulo 3) behind its beginning. */
function innerBase64(bytes: Buffer, offset: number, encoding: "base64" | "base64url"): string {
  const text = Buffer.concat([Buffer.alloc(offset), bytes])
    .toString(encoding)
    .replaceAll("=", "");
  // Characters at the edges share bits with the neighbours.
  const isWhole = (offset + bytes.length) % 3 === 0;
  return text.slice([0, 2, 3][offset], isWhole ? undefined : -1);
}

/** Text that grows, such as what a process said. */
export const textPlace = (name: string, read: () => string): Place => ({
  name,
  spots: () => [{ where: "text", content: read() }],
});

/** Requests that a server received: each header, and the body. */
export function requestsPlace(name: string, read: () => readonly ReceivedLike[]): Place {
  const spots = () =>
    read().flatMap(({ headers, body }, i) => [
      ...Object.entries(headers).map(([header, value]) => ({
        where: `request ${i + 1}, header ${header}`,
        content: [value].flat().join("\n"),
      })),
      { where: `request ${i + 1}, body`, content: body },
    ]);
  return { name, spots };
}

export interface ReceivedLike {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Every file under a directory, with its name. Throws when there is no such directory. */
export const filesPlace = (name: string, directory: string): Place => ({
  name,
  async *spots() {
    const entries = await readdir(directory, { recursive: true, withFileTypes: true });
    for (const entry of entries) {
      const path = join(entry.parentPath, entry.name);
      yield { where: `name of ${path}`, content: entry.name };
      if (entry.isFile()) yield { where: path, content: await readFile(path) };
    }
  },
});

/** All keys and values of Redis servers, by port; of a cluster, give all nodes. */
export const redisPlace = (name: string, ports: readonly number[]): Place => ({
  name,
  async *spots() {
    for (const port of ports) {
      let cursor = "0";
      do {
        const [next, keys] = (await askRedis(port, ["SCAN", cursor, "COUNT", "1000"])) as [string, string[]];
        cursor = next;
        for (const key of keys) yield* spotsOfKey(port, key);
      } while (cursor !== "0");
    }
  },
});

/** By type, what reads all of a key. */
const readers: Readonly<Record<string, (key: string) => string[]>> = {
  string: (key) => ["GET", key],
  hash: (key) => ["HGETALL", key],
  list: (key) => ["LRANGE", key, "0", "-1"],
  set: (key) => ["SMEMBERS", key],
  zset: (key) => ["ZRANGE", key, "0", "-1", "WITHSCORES"],
  stream: (key) => ["XRANGE", key, "-", "+"],
};

async function* spotsOfKey(port: number, key: string): AsyncIterable<Spot> {
  yield { where: `name of key ${key}`, content: Buffer.from(key, "latin1") };
  const type = String(await askRedis(port, ["TYPE", key]));
  if (type === "none") return; // ended meanwhile
  const reader = readers[type];
  if (!reader) throw new Error(`key ${key} is a ${type}, which nothing here reads`);
  const value = await askRedis(port, reader(key));
  for (const text of textsOf(value)) yield { where: `${type} ${key}`, content: Buffer.from(text, "latin1") };
}

const textsOf = (reply: RedisReply): string[] =>
  typeof reply === "object" ? reply.flatMap(textsOf) : reply === undefined ? [] : [String(reply)];
