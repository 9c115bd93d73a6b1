import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { believing, callerOf } from "../../test/support/authenticators.ts";
import { createLocalSessions, type LocalSessions, type SessionFacts } from "../session/local-sessions.ts";
import { createVirtualServer } from "../virtual-server.ts";
import { createSession } from "./open-session.ts";
import { readRequest } from "./read-request.ts";

const identity = { issuer: "test", subject: "ada", isAnonymous: false };
const server = createVirtualServer({
  name: "team",
  spec: create(VirtualServerSchema, { aggregation: { conflictResolution: "prefix" } }),
  auth: believing(() => identity),
  backends: [],
});
const openSessions = (sessionsMax = 10) => createLocalSessions({ idleMs: 60_000, sessionsMax });

const opening = (sessions: LocalSessions) => async (facts: Omit<SessionFacts, "era">) =>
  sessions.create({ ...facts, era: "session" });

const info = '{"name":"t","version":"1"}';
/** An object of exactly so many bytes. */
const sized = (bytes: number) => `{"name":"${"x".repeat(bytes - 11)}"}`;

const cases: [what: string, clientInfo: string, capabilities: string, isOpened: boolean][] = [
  ["plain facts", info, "{}", true],
  ["a clientInfo of 4 KB", sized(4_096), "{}", true],
  ["a clientInfo of more", sized(4_097), "{}", false],
  ["white space for a clientInfo", `{${" ".repeat(4_096)}}`, "{}", false],
  ["capabilities of 8 KB", info, sized(8_192), true],
  ["capabilities of more", info, sized(8_193), false],
  ["capabilities that are a list", info, "[]", false],
];
for (const [what, clientInfo, capabilities, isOpened] of cases) {
  test(`initialize with ${what} ${isOpened ? "opens a session" : "is answered with invalid params"}`, async () => {
    await using sessions = openSessions();
    const opened = await createSession(
      { server, caller: callerOf(identity), open: opening(sessions) },
      initialize(clientInfo, capabilities),
    );
    assert.equal(sessions.size, isOpened ? 1 : 0);
    assert.equal(opened?.session !== undefined, isOpened);
    const { error } = JSON.parse(String(opened?.answer)) as { error?: { code: number } };
    assert.equal(error?.code, isOpened ? undefined : -32602);
  });
}

test("initialize opens nothing while all places are taken by sessions in use", async () => {
  await using sessions = openSessions(1);
  assert.ok(await createSession({ server, caller: callerOf(identity), open: opening(sessions) }, initialize(info, "{}")));
  assert.equal(
    await createSession({ server, caller: callerOf(identity), open: opening(sessions) }, initialize(info, "{}")),
    undefined,
  );
});

function initialize(clientInfo: string, capabilities: string) {
  const params = `{"protocolVersion":"2025-11-25","clientInfo":${clientInfo},"capabilities":${capabilities}}`;
  const read = readRequest(Buffer.from(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":${params}}`));
  assert.ok("params" in read);
  return read;
}
