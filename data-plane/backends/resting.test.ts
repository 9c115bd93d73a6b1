// A backend that another proxy watches: what it lists is given, nobody connects to it, and calls go to it all the same.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { BackendSchema } from "../../proto/gen/vmcp/resource/v1/backend_pb.ts";
import { plainTool, startBackend } from "../../test/support/backend.ts";
import { eventually } from "../../test/support/eventually.ts";
import { type Credential, sameForAll, unavailable } from "../outgoing-auth/credential.ts";
import { createBackend } from "./backend.ts";
import { catalogOf } from "./catalog.ts";
import { breakerOf } from "./failure-handling.ts";
import type { SharedCatalog } from "./shared-catalog.ts";

const facts = { era: "session", protocolVersion: "2025-11-25", capabilities: { tools: {} }, instructions: undefined } as const;

function shared(...names: string[]): SharedCatalog {
  const items = names.map((name) => Buffer.from(plainTool(name)));
  return { catalog: catalogOf(facts, { tools: { items, ttlMs: 0, isPublic: false } }), pins: new Map() };
}

async function setUp(t: TestContext, credential: Credential = sameForAll([])) {
  const server = await startBackend({ tools: [plainTool("own")] });
  let changes = 0;
  const backend = createBackend({
    spec: create(BackendSchema, { name: "b", url: server.url, transport: "streamable-http" }),
    credential,
    breaker: breakerOf(undefined),
    shared: shared("given"),
    duty: "others",
    log: pino({ level: "silent" }),
    onMessage: () => undefined,
    onChange: () => changes++,
  });
  t.after(async () => {
    await backend.retire(0);
    await server[Symbol.asyncDispose]();
  });
  const names = () => backend.catalog?.tools.map(({ key }) => key).join();
  return { server, backend, names, changes: () => changes };
}

test("it has what it is given at once, is as others say, and hears nothing of us", async (t) => {
  const { server, backend, names, changes } = await setUp(t);
  await backend.firstAttempt;
  assert.equal(names(), "given");
  assert.deepEqual([backend.isWatched, backend.listed, backend.state.state], [false, undefined, "unknown"]);
  backend.rest({ state: "unhealthy", error: "refused there" });
  assert.deepEqual([backend.state.state, backend.state.error], ["unhealthy", "refused there"]);
  const before = changes();
  backend.share(shared("given"));
  assert.equal(changes(), before, "the same bytes are no news");
  backend.share(shared("given", "more"));
  assert.deepEqual([names(), changes()], ["given,more", before + 1]);
  await sleep(100);
  assert.equal(server.requests.length, 0);
});

test("when it is ours it is listed and watched, and when it is not any more, it is left alone", async (t) => {
  const { server, backend, names } = await setUp(t);
  backend.rest("ours");
  await eventually("it is watched", () => server.streams() === 1 && names() === "own");
  assert.deepEqual([backend.isWatched, backend.listed?.tools.length], [true, 1]);
  backend.share(shared("given", "more"));
  assert.equal(names(), "given,more", "what the fleet says last counts");
  backend.rest("others");
  await eventually("the stream is closed", () => server.streams() === 0);
  assert.deepEqual([names(), backend.isWatched, backend.listed], ["given,more", false, undefined]);
});

test("without a catalog there is nothing to rest on", async (t) => {
  const { server, backend, names } = await setUp(t);
  backend.share(undefined);
  await eventually("it is watched", () => server.streams() === 1 && names() === "own");
  backend.share(shared("given"));
  await eventually("and left alone again", () => server.streams() === 0 && names() === "given");
});

test("who can't wait for the watcher lists once", async (t) => {
  const { server, backend, names } = await setUp(t);
  await backend.relist();
  assert.equal(names(), "own");
  assert.equal(backend.isWatched, false);
  await eventually("the session is ended", () => server.sessions().length === 0);
});

test("where only callers get in, what others listed is not taken, and nothing is told", async (t) => {
  const { server, backend } = await setUp(t, unavailable("only callers"));
  backend.rest("ours");
  await backend.firstAttempt;
  assert.deepEqual([backend.catalog, backend.listed], [undefined, undefined]);
  assert.equal(server.requests.length, 0);
});
