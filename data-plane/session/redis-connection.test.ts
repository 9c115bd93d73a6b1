// Every way to reach a Redis: as operators write it, with a user, over TLS, as a cluster. Sentinels are under load in test/chaos.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { pino } from "pino";
import { whyMissing } from "../../test/support/debian.ts";
import { eventually } from "../../test/support/eventually.ts";
import { runProcess, temporaryDirectory } from "../../test/support/processes.ts";
import { startRedis, startRedisCluster } from "../../test/support/redis.ts";
import { oneKey } from "../mcp/seal.ts";
import { RedisAddressError, readRedisAddress } from "../redis/address.ts";
import { emptyState, type SessionRecord } from "./record.ts";
import { type RecordStore, type StoreEvent, StoreUnavailableError } from "./record-store.ts";
import { createRedisStore } from "./redis-store.ts";

const stack = new AsyncDisposableStack();
after(() => stack.disposeAsync());
const skip = await whyMissing("redis-server", "redis-server");
const keys = oneKey(randomBytes(32));

const addresses: [text: string, wanted: object][] = [
  [
    "redis://h",
    { kind: "single", nodes: [{ host: "h", port: 6379 }], db: 0, isTls: false, username: undefined, password: undefined },
  ],
  [
    "rediss://ada:p%40ss:word@h:7000/3",
    { nodes: [{ host: "h", port: 7000 }], db: 3, isTls: true, username: "ada", password: "p@ss:word" },
  ],
  ["redis://:secret@[::1]:7000", { nodes: [{ host: "::1", port: 7000 }], username: undefined, password: "secret" }],
  [
    "redis+sentinel://a,b:7/main/2",
    {
      kind: "sentinel",
      nodes: [
        { host: "a", port: 26379 },
        { host: "b", port: 7 },
      ],
      primaryName: "main",
      db: 2,
    },
  ],
  [
    "redis+cluster://a:1,b:2",
    {
      kind: "cluster",
      nodes: [
        { host: "a", port: 1 },
        { host: "b", port: 2 },
      ],
    },
  ],
];
for (const [text, wanted] of addresses)
  test(`${text} is read`, () => {
    const address = readRedisAddress(text);
    assert.deepEqual({ ...address, ...wanted }, address);
  });

for (const text of [
  "h:6379",
  "http://h",
  "redis://",
  "redis://h:99999",
  "redis://a,b",
  "redis://h/x",
  "redis+sentinel://a",
  "redis+cluster://a/1",
  "redis://a:%zz@h",
])
  test(`${text} is refused, with what was wanted`, () => assert.throws(() => readRedisAddress(text), RedisAddressError));

test("a password is not shown in a refusal, and may come from elsewhere", async () => {
  assert.throws(
    () => readRedisAddress("redis://u:geheim@h/x"),
    (error: Error) => !error.message.includes("geheim"),
  );
  assert.equal(readRedisAddress("redis://h", { VMCP_REDIS_PASSWORD: "p" }).password, "p");
  assert.equal(readRedisAddress("redis://h", { THV_SESSION_REDIS_PASSWORD: "p" }).password, "p");
  await using directory = await temporaryDirectory();
  const VMCP_REDIS_PASSWORD_FILE = await directory.write("password", "from a file\n");
  assert.equal(readRedisAddress("redis://h", { VMCP_REDIS_PASSWORD_FILE }).password, "from a file");
  assert.throws(() => readRedisAddress("redis://h", { VMCP_REDIS_PASSWORD_FILE: "/nowhere" }), /can't be read: ENOENT/);
});

test("a user with a password is let in, and one with another is told nothing", { skip }, async () => {
  await using server = await startRedis({ args: ["--user", "ada", "on", ">geheim", "~*", "&*", "+@all"] });
  await works(open(`redis://ada:geheim@127.0.0.1:${server.port}`));
  await assert.rejects(open(`redis://ada:wrong@127.0.0.1:${server.port}`).store.read("k"), StoreUnavailableError);
});

test("TLS is spoken, and only to a server that the authority vouches for", { skip }, async () => {
  await using directory = await temporaryDirectory();
  const [key, certificate] = ["key.pem", "certificate.pem"].map((name) => `${directory.path}/${name}`) as [string, string];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const made = await runProcess("openssl", [
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-days",
    "1",
    "-keyout",
    key,
    "-out",
    certificate,
    ...subject,
  ]);
  assert.equal(made.code, 0, made.stderr);
  const plain = await startRedis();
  const tlsPort = plain.port + 1;
  await plain[Symbol.asyncDispose]();
  const tls = [
    "--tls-port",
    String(tlsPort),
    "--tls-cert-file",
    certificate,
    "--tls-key-file",
    key,
    "--tls-ca-cert-file",
    certificate,
    "--tls-auth-clients",
    "no",
  ];
  await using _server = await startRedis({ args: tls });
  await works(open(`rediss://127.0.0.1:${tlsPort}`, certificate));
  await assert.rejects(open(`rediss://127.0.0.1:${tlsPort}`).store.read("k"), StoreUnavailableError);
});

test("a cluster keeps records on all its servers, lists them, and passes on what replicas tell", { skip }, async () => {
  await using cluster = await startRedisCluster();
  const url = `redis+cluster://${cluster.urls.map((one) => new URL(one).host).join(",")}`;
  const other = open(url);
  const { store } = open(url);
  await works({ store, told: [] });
  const names = Array.from({ length: 30 }, () => randomBytes(16).toString("base64url").slice(0, 22));
  for (const name of names) await store.create(name, record, times);
  const listed = new Set(await other.store.keys(1_000));
  assert.ok(names.every((name) => listed.has(name)));
  assert.deepEqual(await store.enlist("owner", names[0] as string, 1), []);
  assert.deepEqual(await store.enlist("owner", names[1] as string, 1), [names[0]]);
  await eventually("the other is told", () => {
    store.publish({ type: "streaming", key: "k" });
    return other.told.some(({ type }) => type === "streaming");
  });
  await store.remove(names[2] as string);
  assert.equal(await other.store.read(names[2] as string), undefined);
});

const times = { pendingMs: 5_000, absoluteMs: 60_000 };
const record: SessionRecord = {
  virtualServer: "team",
  issuer: "i",
  subject: "s",
  binding: { mode: "identity", keyId: "k1", salt: "c2FsdA", tag: "dGFn" },
  epoch: { revision: 1, storeUid: "s" },
  protocolVersion: "2025-11-25",
  clientInfo: "{}",
  capabilities: "{}",
  state: emptyState,
};

let replicas = 0;

function open(url: string, caFile?: string): { store: RecordStore; told: StoreEvent[] } {
  const told: StoreEvent[] = [];
  const address = readRedisAddress(url);
  const log = pino({ level: "silent" });
  const replica = `replica${replicas++}`;
  const store = createRedisStore({ address, caFile, keys, replica, onEvent: (event) => told.push(event), log });
  return { store: stack.use(store), told };
}

async function works({ store }: { store: RecordStore; told: StoreEvent[] }): Promise<void> {
  await eventually("there is a connection", () => store.read("k").then(() => true));
  const created = await store.create("k", record, times);
  assert.equal(await store.write("k", created, { ...record, state: { ...emptyState, logLevel: '"info"' } }), "written");
  assert.equal((await store.read("k"))?.record.state.logLevel, '"info"');
  assert.equal(await store.touch("k", 1_000), true);
}
