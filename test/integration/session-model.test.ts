// Random histories of sessions over three proxies and one Redis, against a model that fits on a page: a call succeeds exactly when
// the model says so, and a backend's own session counts on through all of it.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { Redis } from "ioredis";
import type { SessionTerms } from "../../data-plane/runtime.ts";
import { publicKeyOf } from "../../data-plane/session/session-ids.ts";
import { type Backend, counter, startBackend } from "../support/backend.ts";
import { mcpHeaders, send } from "../support/client.ts";
import { whyMissing } from "../support/debian.ts";
import { eventually } from "../support/eventually.ts";
import { type RunningProcess, startProcess, temporaryDirectory } from "../support/processes.ts";
import { type RedisServer, startRedis } from "../support/redis.ts";

const skip = await whyMissing("redis-server", "redis-server");
const runs = 500;
const killsMax = 12; // each takes seconds
const stack = new AsyncDisposableStack();
const program = join(import.meta.dirname, "../support/two-user-proxy.ts");

interface Proxy {
  readonly process: RunningProcess;
  readonly url: string;
  readonly control: string;
}

let backend: Backend;
let redis: RedisServer;
let intruder: Redis;
let keyFile: string;
let proxies: Proxy[] = [];
/** Ids and secrets, the one that seals last. */
let ring: (readonly [id: string, secret: string])[] = [];
let keysMade = 0;
/** What is revoked, as every proxy is told. */
let terms: SessionTerms = { revision: 1, storeUid: "test", revocations: [] };
let usersMade = 0;
let kills = 0;

before(async () => {
  if (skip) return;
  const directory = stack.use(await temporaryDirectory());
  keyFile = join(directory.path, "keys");
  await turnRing(1);
  redis = stack.use(await startRedis());
  intruder = new Redis(redis.url);
  stack.defer(() => intruder.disconnect());
  backend = stack.use(await startBackend({ tools: [counter.tool], calls: { counter: counter.call } }));
  proxies = await Promise.all([0, 1, 2].map(startProxy));
  stack.defer(async () => void (await Promise.all(proxies.map(({ process }) => process[Symbol.asyncDispose]()))));
});
after(() => stack.disposeAsync());

async function startProxy(): Promise<Proxy> {
  const settings = JSON.stringify({ backends: { b: backend.url }, redis: redis.url });
  const env = { VMCP_SESSION_HMAC_SECRET: "", VMCP_SESSION_HMAC_SECRET_FILE: keyFile };
  const child = startProcess(process.execPath, [program, settings], { env });
  const said = await eventually(
    "the proxy says where it is",
    () => child.stdout().includes("\n") && child.stdout(),
    20_000,
  ).catch((error: Error) => {
    throw new Error(`${error.message}\n${child.stderr()}`);
  });
  const proxy = { process: child, ...(JSON.parse(said) as { url: string; control: string }) };
  await tell(proxy);
  await eventually("it has Redis", async () => (await open(proxy, "nobody").catch(() => undefined)) !== undefined);
  return proxy;
}

async function tell({ control }: Proxy): Promise<void> {
  const { status } = await send(`${control}/terms`, { method: "POST", body: JSON.stringify(terms) });
  assert.equal(status, 200);
}

/** A new key seals, `kept` older ones still verify. */
async function turnRing(kept: number): Promise<void> {
  const id = (keysMade++).toString(36).padStart(2, "0");
  ring = [...ring.slice(-kept), [id, randomBytes(32).toString("hex")]];
  if (kept === 0) ring = ring.slice(-1);
  const lines = ring.map(([one, secret], i) => `${one} ${i === ring.length - 1 ? "active" : "verify-only"} ${secret}`);
  await writeFile(keyFile, `${lines.join("\n")}\n`);
  for (const { control } of proxies) await eventually("the new key seals", async () => (await send(control)).body === id);
}

function post({ url }: Proxy, user: string, method: string, params: object, more: Record<string, string> = {}) {
  const headers = { ...mcpHeaders, "x-user": user, "x-token": "first", ...more };
  return send(url, { method: "POST", headers, body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }) });
}

async function open(proxy: Proxy, user: string): Promise<string> {
  const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "model", version: "1" } };
  const { status, headers } = await post(proxy, user, "initialize", params);
  assert.equal(status, 200);
  return String(headers["mcp-session-id"]);
}

interface ModelSession {
  readonly user: 0 | 1;
  readonly keyId: string;
  isAlive: boolean;
  calls: number;
}

interface Model {
  readonly sessions: ModelSession[];
}

/** What the model's sessions are really called. */
interface Real {
  readonly users: readonly [string, string];
  readonly ids: string[];
}

type Command = fc.AsyncCommand<Model, Real>;

const proxyAt = (index: number): Proxy => proxies[index % 3] as Proxy;

async function callAs(proxy: Proxy, real: Real, session: number, user: 0 | 1, token = "first") {
  const more = { "mcp-session-id": real.ids[session] as string, "mcp-protocol-version": "2025-11-25", "x-token": token };
  return post(proxy, real.users[user], "tools/call", { name: "b_counter" }, more);
}

/** Every proxy refuses it soon: what was ended on one is told to the others. */
async function isGoneEverywhere(model: Model, real: Real, session: number): Promise<void> {
  const { user } = model.sessions[session] as ModelSession;
  const more = { "mcp-session-id": real.ids[session] as string };
  const isGone = async (proxy: Proxy) => (await post(proxy, real.users[user], "ping", {}, more)).status === 404;
  await Promise.all(proxies.map((proxy) => eventually("it is gone", () => isGone(proxy), 2_500)));
}

class Open implements Command {
  readonly user: 0 | 1;
  readonly at: number;
  constructor(user: 0 | 1, at: number) {
    this.user = user;
    this.at = at;
  }
  check = (model: Model) => model.sessions.length < 6;
  async run(model: Model, real: Real): Promise<void> {
    real.ids.push(await open(proxyAt(this.at), real.users[this.user]));
    model.sessions.push({ user: this.user, keyId: ring.at(-1)?.[0] ?? "", isAlive: true, calls: 0 });
  }
  toString = () => `open(${this.user}, proxy ${this.at % 3})`;
}

/** What concerns a session that was once opened. */
abstract class OnSession implements Command {
  readonly which: number;
  readonly at: number;
  constructor(which: number, at: number) {
    this.which = which;
    this.at = at;
  }
  check = (model: Readonly<Model>) => model.sessions.length > 0;
  async run(model: Model, real: Real): Promise<void> {
    const index = this.which % model.sessions.length;
    await this.act(model.sessions[index] as ModelSession, { model, real, index });
  }
  abstract act(session: ModelSession, place: { model: Model; real: Real; index: number }): Promise<void>;
  toString = () => `${this.constructor.name}(session ${this.which}, proxy ${this.at % 3})`;
}

class Call extends OnSession {
  token = "first";
  async act(session: ModelSession, { real, index }: { real: Real; index: number }): Promise<void> {
    const { status, body } = await callAs(proxyAt(this.at), real, index, session.user, this.token);
    assert.equal(status, session.isAlive ? 200 : 404, body);
    if (session.isAlive) assert.match(body, new RegExp(`"text":"${++session.calls}"`));
  }
}

class Refresh extends Call {
  override token = "refreshed";
}

class Steal extends OnSession {
  async act(session: ModelSession, { model, real, index }: { model: Model; real: Real; index: number }): Promise<void> {
    assert.equal((await callAs(proxyAt(this.at), real, index, session.user === 0 ? 1 : 0)).status, 404);
    session.isAlive = false;
    await isGoneEverywhere(model, real, index);
  }
}

class Delete extends OnSession {
  async act(session: ModelSession, { model, real, index }: { model: Model; real: Real; index: number }): Promise<void> {
    const { url } = proxyAt(this.at);
    const headers = { ...mcpHeaders, "x-user": real.users[session.user], "mcp-session-id": real.ids[index] as string };
    const { status } = await send(url, { method: "DELETE", headers });
    assert.equal(status, session.isAlive ? 204 : 404);
    session.isAlive = false;
    await isGoneEverywhere(model, real, index);
  }
}

class Revoke extends OnSession {
  async act(session: ModelSession, { model, real, index }: { model: Model; real: Real; index: number }): Promise<void> {
    const isByUser = this.at % 2 === 0;
    const revoked = isByUser ? { subject: real.users[session.user] } : { session: publicKeyOf(real.ids[index] as string) };
    const revision = terms.revision + 1;
    terms = { ...terms, revision, revocations: [...terms.revocations, { ...revoked, epoch: revision, all: false }] };
    await Promise.all(proxies.map(tell));
    for (const [i, one] of model.sessions.entries()) if (isByUser ? one.user === session.user : i === index) one.isAlive = false;
    // At once, on every proxy: nothing has to be told.
    for (const proxy of proxies) assert.equal((await callAs(proxy, real, index, session.user)).status, 404);
  }
}

class Expire extends OnSession {
  async act(session: ModelSession, { model, real, index }: { model: Model; real: Real; index: number }): Promise<void> {
    const key = publicKeyOf(real.ids[index] as string);
    await intruder.unlink(`vmcp:s:${key}`); // as Redis does with what has not been used for long
    await intruder.publish("vmcp:events", JSON.stringify({ type: "ended", key, from: "time" }));
    session.isAlive = false;
    await isGoneEverywhere(model, real, index);
  }
}

class Rotate implements Command {
  readonly kept: number;
  constructor(kept: number) {
    this.kept = kept;
  }
  check = () => true;
  async run(model: Model): Promise<void> {
    await turnRing(this.kept);
    const good = new Set(ring.map(([id]) => id));
    for (const session of model.sessions) if (!good.has(session.keyId)) session.isAlive = false;
  }
  toString = () => `rotate(${this.kept} kept)`;
}

class Kill implements Command {
  readonly at: number;
  constructor(at: number) {
    this.at = at;
  }
  check = () => kills < killsMax;
  async run(): Promise<void> {
    kills++;
    const { process } = proxyAt(this.at);
    process.kill("SIGKILL");
    await process.ended;
    proxies[this.at % 3] = await startProxy();
  }
  toString = () => `kill(proxy ${this.at % 3})`;
}

const number = fc.nat(1_000);
const opening = fc.tuple(fc.constantFrom(0 as const, 1 as const), number).map(([user, at]): Command => new Open(user, at));
const often = [
  opening,
  ...[Call, Call, Call, Refresh, Steal, Delete, Revoke, Expire].map((Kind) =>
    fc.tuple(number, number).map(([which, at]): Command => new Kind(which, at)),
  ),
];
const seldom: fc.Arbitrary<Command>[] = [fc.constantFrom(0, 1, 2).map((kept) => new Rotate(kept))];
const rarely: fc.Arbitrary<Command>[] = [number.map((at) => new Kill(at))];
const commands = fc.oneof(
  { weight: 100, arbitrary: fc.oneof(...often) as fc.Arbitrary<Command> },
  { weight: 4, arbitrary: fc.oneof(...seldom) },
  { weight: 1, arbitrary: fc.oneof(...rarely) },
);

test(`${runs} histories of opening, calling, refreshing, stealing, revoking, expiring, rotating and killing`, {
  skip,
}, async (t) => {
  let steps = 0;
  await fc.assert(
    fc.asyncProperty(fc.tuple(opening, fc.array(commands, { minLength: 3, maxLength: 11 })), async ([first, rest]) => {
      const model: Model = { sessions: [] };
      const real: Real = { users: [`ada-${usersMade++}`, `bob-${usersMade}`], ids: [] };
      for (const command of [first, ...rest]) {
        if (!command.check(model)) continue;
        await command.run(model, real);
        steps++;
      }
      // In the end every session is what the model says, on every proxy.
      for (const index of model.sessions.keys()) for (const at of [0, 1, 2]) await new Call(index, at).run(model, real);
    }),
    { numRuns: runs, endOnFailure: true },
  );
  t.diagnostic(`${steps} steps, ${kills} kills`);
});
