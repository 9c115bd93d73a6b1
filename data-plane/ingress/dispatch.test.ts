import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { openLog } from "../../common/log.ts";
import { VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { believing, callerOf } from "../../test/support/authenticators.ts";
import { createLimit } from "../backends/limit.ts";
import { oneKey } from "../mcp/seal.ts";
import { createRelay } from "../relay/relay.ts";
import { createCallerTokens } from "../session/caller-tokens.ts";
import { createLocalSessions } from "../session/local-sessions.ts";
import { createVirtualServer } from "../virtual-server.ts";
import { takeMessage } from "./dispatch.ts";
import { readRequest } from "./read-request.ts";

const identity = { issuer: "test", subject: "ada", isAnonymous: false };
const server = createVirtualServer({
  name: "team",
  spec: create(VirtualServerSchema, { aggregation: { conflictResolution: "prefix" } }),
  auth: believing(() => identity),
  backends: [],
});

const cancellations: [id: string, requestId: string, isCancelled: boolean][] = [
  ["7", "7", true],
  ['"7"', '"7"', true],
  ['"\\u00e9"', '"\\u00e9"', true],
  ['"a\\/b"', '"a\\/b"', true],
  ["7", '"7"', false],
  ["7", "7.0", false],
  ["9007199254740991", "9007199254740991.2", false],
  ["7", "null", false],
  ["7", '{"a":7}', false],
];
for (const [id, requestId, isCancelled] of cancellations) {
  test(`cancelling ${requestId} ${isCancelled ? "ends" : "leaves"} the call ${id}`, async () => {
    await using sessions = createLocalSessions({ idleMs: 60_000, sessionsMax: 1 });
    const session = sessions.create({
      virtualServer: "team",
      identity,
      era: "session",
      protocolVersion: "2025-11-25",
      clientInfo: "{}",
      capabilities: "{}",
    });
    assert.ok(session);
    const limit = createLimit();
    session.calls.set(id, limit);
    const log = openLog("test");
    const keys = oneKey(randomBytes(32));
    const tokens = createCallerTokens(keys);
    const relay = createRelay({ keys, sessions: sessions.all, address: () => "", log });
    const tap = { isOn: false, note: () => undefined, identityOf: () => "" };
    const read = readRequest(
      Buffer.from(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{ "requestId" : ${requestId} }}`),
    );
    assert.ok("params" in read);
    assert.equal(
      takeMessage({ server, session, caller: callerOf(identity), headers: {}, relay, tokens, tap, log }, read),
      undefined,
    );
    assert.equal(limit.signal.aborted, isCancelled);
  });
}
