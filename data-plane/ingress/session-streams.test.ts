import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { request } from "undici";
import { eventually } from "../../test/support/eventually.ts";
import { createLocalSessions, type LocalSessions } from "../session/local-sessions.ts";
import type { Session } from "../session/session.ts";
import type { EventLog } from "./event-log.ts";
import { openCallLog, serveStream } from "./session-streams.ts";

const kilobyte = 1024;
const megabyte = 1024 * kilobyte;
const stack = new AsyncDisposableStack();
let sessions: LocalSessions;
let address: string;
let next: (response: ServerResponse) => void;

before(async () => {
  sessions = stack.use(createLocalSessions({ idleMs: 60_000, sessionsMax: 200 }));
  const server = createServer((incoming, response) => {
    const session = sessions.find(String(incoming.headers["mcp-session-id"]), "v");
    if (session) serveStream(session, "replica0", incoming, response);
    else next(response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  stack.defer(() => {
    server.closeAllConnections();
    server.close();
  });
});
after(() => stack.disposeAsync());

test("a large answer that was sent to its end is not kept, a small one is", async () => {
  const session = open();
  for (const [bytes, isKept] of [
    [200 * kilobyte, true],
    [300 * kilobyte, false],
  ] as const) {
    const log = openCallLog(session, "replica0");
    const body = read((response) => {
      log.attach(response);
      void log.write(message(bytes));
      log.end();
    });
    assert.ok((await body).length > bytes);
    if (isKept) assert.ok(log.keptBytes > bytes);
    else await eventually("the server knows that all was sent", () => log.keptBytes === 0);
    assert.match(await resume(session, `${log.name}-0`), isKept ? /"x+"/ : /^$/);
  }
});

test("a large answer that nobody got is there for the client that comes back", async () => {
  const session = open();
  const log = openCallLog(session, "replica0");
  void log.write(message(9 * megabyte));
  log.end();
  assert.ok((await resume(session, `${log.name}-0`)).length > 9 * megabyte);
  await eventually("it was sent now", () => log.keptBytes === 0);
});

test("the streams of a session keep a megabyte together; the newest keep theirs", async () => {
  const session = open();
  const logs = Array.from({ length: 12 }, () => finished(session, 120 * kilobyte));
  assert.ok(sum(logs) <= megabyte, `${sum(logs)}`);
  assert.deepEqual(
    logs.map(({ keptBytes }) => keptBytes > 0),
    logs.map((_, i) => i >= 4),
  );
  finished(session, 2 * megabyte);
  assert.equal(sum(logs), 0);
});

test("all sessions together keep 64 MB; the newest keep theirs", async () => {
  const logs = Array.from({ length: 100 }, () => finished(open(), 900 * kilobyte));
  assert.ok(sum(logs) <= 64 * megabyte && sum(logs) > 60 * megabyte, `${sum(logs)}`);
  assert.equal(logs[0]?.keptBytes, 0);
  assert.ok(logs.at(-1)?.keptBytes);
  for (const session of [...sessions.all()]) sessions.end(session);
  assert.equal(sum(logs), 0);
});

test("a stream can be resumed for a while after its end", async () => {
  const session = open();
  const log = openCallLog(session, "replica0", 1_000);
  void log.write(message(10));
  log.end();
  assert.match(await resume(session, `${log.name}-0`), /"x+"/);
  await eventually("it is forgotten", () => log.keptBytes === 0);
});

test("a stream that goes on stays for as long as its session", async () => {
  const session = open();
  const running = openCallLog(session, "replica0", 20);
  void running.write(message(10));
  const ended = openCallLog(session, "replica0", 20);
  void ended.write(message(10));
  ended.end();
  await eventually("the other is forgotten", () => ended.keptBytes === 0);
  assert.ok(running.keptBytes > 0);
  sessions.end(session);
  assert.equal(running.keptBytes, 0);
});

test("nothing is kept of a stream that nobody can resume", async () => {
  const session = open();
  const first = openCallLog(session, "replica0");
  for (let i = 0; i < 16; i++) openCallLog(session, "replica0");
  void first.write(message(10));
  assert.equal(first.keptBytes, 0);
  sessions.end(session);
  const late = openCallLog(session, "replica0");
  void late.write(message(10));
  assert.equal(late.keptBytes, 0);
});

function open(): Session {
  const session = sessions.create({
    virtualServer: "v",
    identity: { issuer: "i", subject: "s", isAnonymous: false },
    era: "session",
    protocolVersion: "2025-11-25",
    clientInfo: "{}",
    capabilities: "{}",
  });
  assert.ok(session);
  return session;
}

function finished(session: Session, bytes: number): EventLog {
  const log = openCallLog(session, "replica0");
  void log.write(message(bytes));
  log.end();
  return log;
}

const message = (bytes: number) => Buffer.from(`"${"x".repeat(bytes)}"`);

const sum = (logs: readonly EventLog[]) => logs.reduce((bytes, { keptBytes }) => bytes + keptBytes, 0);

async function read(answer: typeof next): Promise<string> {
  next = answer;
  return (await request(address)).body.text();
}

async function resume({ id }: Session, lastEventId: string): Promise<string> {
  const headers = { "mcp-session-id": id, "last-event-id": lastEventId };
  return (await request(address, { headers })).body.text();
}
