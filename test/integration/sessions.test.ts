// A client's session reaches the backend's own session, and nobody else's.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { type Backend, counter, startBackend } from "../support/backend.ts";
import { openClient, openRawSession } from "../support/client.ts";
import { httpBackend, stdioBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { startEverything, stdioServer, temporaryDirectory } from "../support/processes.ts";
import { startSdkBackend } from "../support/sdk-backend.ts";
import { serve } from "../support/serve.ts";

test("what one call stores in the memory server, the next one reads", async () => {
  await using directory = await temporaryDirectory();
  const memory = stdioBackend("memory", stdioServer("memory"), { MEMORY_FILE_PATH: join(directory.path, "memory.jsonl") });
  await using vmcp = await serve({ backends: [memory] });
  await using client = await openClient(vmcp.url);
  await eventually("the tools are listed", async () => (await client.toolNames()).includes("memory_create_entities"));
  const entity = { name: "Ada", entityType: "person", observations: ["wrote the first program"] };
  await client.call("memory_create_entities", { entities: [entity] });
  assert.match(await client.call("memory_read_graph"), /wrote the first program/);
  assert.match(await client.call("memory_search_nodes", { query: "Ada" }), /person/);
});

test("two sessions of a stateful server don't see each other's state", async () => {
  await using server = await startSdkBackend("notes");
  await using vmcp = await serve({ backends: [httpBackend("s", server.url)] });
  await using one = await openClient(vmcp.url);
  await using two = await openClient(vmcp.url);
  await one.call("s_note", { text: "of one" });
  await two.call("s_note", { text: "of two" });
  await one.call("s_note", { text: "again" });
  assert.equal(await one.call("s_notes"), "of one,again");
  assert.equal(await two.call("s_notes"), "of two");
});

test("a session opens one backend session, at its first call, and keeps it", async () => {
  await using backend = await startCounter();
  await using vmcp = await serve({ backends: [httpBackend("c", backend.url)] });
  await using client = await openClient(vmcp.url);
  await eventually("the tools are listed", async () => (await client.toolNames()).includes("c_counter"));
  const before = backend.sessions().length;
  for (const wanted of ["1", "2", "3"]) assert.equal(await client.call("c_counter"), wanted);
  assert.equal(backend.sessions().length, before + 1);
  const concurrent = await Promise.all(Array.from({ length: 5 }, () => client.call("c_counter")));
  assert.deepEqual(concurrent.sort(), ["4", "5", "6", "7", "8"]);
  assert.equal(backend.sessions().length, before + 1);
});

test("calls that come together at the start share one backend session", async () => {
  await using backend = await startCounter();
  await using vmcp = await serve({ backends: [httpBackend("c", backend.url)] });
  await using client = await openClient(vmcp.url);
  await eventually("the tools are listed", async () => (await client.toolNames()).includes("c_counter"));
  const counts = await Promise.all(Array.from({ length: 8 }, () => client.call("c_counter")));
  assert.deepEqual(counts.map(Number).sort(), [1, 2, 3, 4, 5, 6, 7, 8]);
});

test("a client that ends its session ends its backend sessions", async () => {
  await using backend = await startCounter();
  await using vmcp = await serve({ backends: [httpBackend("c", backend.url)] });
  const session = await openRawSession(vmcp.url);
  await eventually("the tools are listed", async () => (await session.result("tools/list")).includes("c_counter"));
  const before = backend.sessions().length;
  await session.result("tools/call", `{"name":"c_counter"}`);
  assert.equal(backend.sessions().length, before + 1);
  assert.ok((await session.delete()).status < 300);
  await eventually("the backend session is gone", () => backend.sessions().length === before);
  assert.equal((await session.ask("ping")).status, 404);
});

test("a backend that forgot the session gets a new one, and the call runs once", async () => {
  await using backend = await startCounter();
  await using vmcp = await serve({ backends: [httpBackend("c", backend.url)] });
  await using client = await openClient(vmcp.url);
  await eventually("the tools are listed", async () => (await client.toolNames()).includes("c_counter"));
  assert.equal(await client.call("c_counter"), "1");
  backend.dropSessions();
  assert.equal(await client.call("c_counter"), "1");
  assert.equal(await client.call("c_counter"), "2");
});

test("a long call reports its progress, from a real server", async () => {
  await using everything = await startEverything();
  await using vmcp = await serve({ backends: [httpBackend("e", everything.url)] });
  await using client = await openClient(vmcp.url);
  await eventually("the tools are listed", async () => (await client.toolNames()).includes("e_trigger-long-running-operation"));
  const seen: number[] = [];
  const call = { name: "e_trigger-long-running-operation", arguments: { duration: 0.4, steps: 4 } };
  await client.client.callTool(call, undefined, { onprogress: ({ progress }) => seen.push(progress) });
  assert.deepEqual(seen, [1, 2, 3, 4]);
});

const startCounter = (): Promise<Backend> => startBackend({ tools: [counter.tool], calls: { counter: counter.call } });
