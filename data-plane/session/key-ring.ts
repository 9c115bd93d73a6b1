// The secrets of the operator, as keys: one that seals, others that only open what they once sealed. The ring can be changed while
// it is in use, by changing the file that it was read from.
import { createHash, randomBytes } from "node:crypto";
import { readFileSync, unwatchFile, watchFile } from "node:fs";
import type { Log } from "../../common/log.ts";
import { createKey, type Key, type Keys } from "../mcp/seal.ts";

export interface KeyRing extends Keys, Disposable {
  /** No secret was given: the keys end with this process, and no other replica has them. */
  readonly isRandom: boolean;
}

/** Thrown with everything that is wrong with the secrets, and nothing of what is in them. */
export class KeyRingError extends Error {
  override name = "KeyRingError";
}

export interface KeyRingOptions {
  /** Where the secrets are named: VMCP_SESSION_HMAC_SECRET, VMCP_SESSION_HMAC_SECRET_FILE, KUBERNETES_SERVICE_HOST. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Sessions are shared with other replicas, so a random key would be of no use. */
  readonly isShared: boolean;
  readonly log: Log;
  /** How often the file is looked at, milliseconds. Default 1,000. */
  readonly pollMs?: number;
}

const variable = "VMCP_SESSION_HMAC_SECRET";
const fileVariable = `${variable}_FILE`;
const bytesMin = 32;
const keysMax = 16;
const charactersMin = 10;

/** Reads the ring; throws KeyRingError. */
export function openKeyRing({ env, isShared, log, pollMs = 1_000 }: KeyRingOptions): KeyRing {
  const file = env[fileVariable];
  const text = env[variable];
  if (file && text) throw new KeyRingError(`${variable} and ${fileVariable} are both set; set one of them`);
  if (!file && !text) return randomRing({ env, isShared, log });
  let ring = file ? readFile(file) : parseKeys(text as string, variable);

  const reload = (): void => {
    try {
      ring = readFile(file as string);
      log.info({ active: ring.active.id, keys: ring.all.size }, "session keys reloaded");
    } catch (error) {
      log.error({ reason: (error as Error).message }, "session keys not reloaded; the old ones stay in use");
    }
  };
  if (file) watchFile(file, { interval: pollMs, persistent: false }, reload);
  return {
    isRandom: false,
    get active() {
      return ring.active;
    },
    find: (id) => ring.all.get(id),
    [Symbol.dispose]() {
      if (file) unwatchFile(file, reload);
    },
  };
}

function randomRing({ env, isShared, log }: Pick<KeyRingOptions, "env" | "isShared" | "log">): KeyRing {
  const where = env.KUBERNETES_SERVICE_HOST ? "in Kubernetes" : isShared ? "when sessions are kept in Redis" : undefined;
  if (where) throw new KeyRingError(`${variable} (or ${fileVariable}) has to be set ${where}: ${bytesMin} random bytes or more`);
  log.warn(`${variable} is not set: sessions end with this process, and no other proxy can serve them`);
  const key = createKey("r0", randomBytes(bytesMin));
  return { isRandom: true, active: key, find: (id) => (id === key.id ? key : undefined), [Symbol.dispose]: () => undefined };
}

interface Ring {
  readonly active: Key;
  readonly all: ReadonlyMap<string, Key>;
}

function readFile(path: string): Ring {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new KeyRingError(`${fileVariable} can't be read: ${(error as NodeJS.ErrnoException).code ?? "failed"}`);
  }
  return parseKeys(text, fileVariable);
}

/**
 * One secret, or a line for each: `<id> active|verify-only|retired <secret>`, the id two letters or digits. Lines that are empty or
 * begin with `#` mean nothing. Exactly one is active. Throws KeyRingError with every problem.
 */
function parseKeys(text: string, source: string): Ring {
  const lines = text.split("\n").map((line) => line.trim());
  const written = lines.filter((line) => line !== "" && !line.startsWith("#"));
  const [only] = written;
  if (written.length === 1 && only !== undefined && !/\s/.test(only)) {
    const problem = problemOf(only);
    if (problem) throw new KeyRingError(`${source} ${problem}`);
    const key = createKey(idOf(only), Buffer.from(only));
    return { active: key, all: new Map([[key.id, key]]) };
  }
  const problems: string[] = [];
  const all = new Map<string, Key>();
  let active: Key | undefined;
  const seen = new Set<string>();
  for (const [index, line] of lines.entries()) {
    if (line === "" || line.startsWith("#")) continue;
    const say = (problem: string) => problems.push(`${source} line ${index + 1}: ${problem}`);
    const [id = "", state = "", secret = "", ...rest] = line.split(/\s+/);
    const before = problems.length;
    if (!/^[A-Za-z0-9]{2}$/.test(id)) say("the id of a key is two letters or digits");
    if (seen.has(id)) say("the id is there twice");
    seen.add(id);
    if (!states.has(state)) say(`the state of a key is ${[...states].join(", ")}`);
    if (secret === "" || rest.length > 0) say("wanted: <id> <state> <secret>");
    else if (state !== "retired") {
      const problem = problemOf(secret);
      if (problem) say(`the secret ${problem}`);
    }
    if (state === "active" && active) say("another key is active already");
    if (problems.length > before || state === "retired") continue;
    const key = createKey(id, Buffer.from(secret));
    all.set(id, key);
    if (state === "active") active = key;
  }
  if (all.size > keysMax) problems.push(`${source}: at most ${keysMax} keys`);
  if (problems.length === 0 && !active) problems.push(`${source}: no key is active`);
  if (problems.length > 0 || !active) throw new KeyRingError(problems.join("\n"));
  return { active, all };
}

const states = new Set(["active", "verify-only", "retired"]);

/** What a lone secret is known by: every replica comes to the same. */
function idOf(secret: string): string {
  return createHash("sha256").update(`key id ${secret}`).digest("hex").slice(0, 2);
}

// Words that stand in examples and first attempts. A secret that holds one was not made at random.
const knownWeak =
  /change-?me|your-|example|password|passwort|secret-?here|insecure|default|placeholder|testing|1234567890|qwerty/i;

/** What is wrong with a secret, in words that do not show it. */
function problemOf(secret: string): string | undefined {
  const bytes = Buffer.byteLength(secret);
  if (bytes < bytesMin) return `has ${bytes} bytes; it needs ${bytesMin}`;
  if (knownWeak.test(secret)) return "is a known example; make one with: openssl rand -hex 32";
  if (new Set(secret).size < charactersMin || /^(.{1,16})\1+$/.test(secret))
    return "repeats itself; make one with: openssl rand -hex 32";
  return undefined;
}
