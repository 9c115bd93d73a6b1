// Clients and servers of both eras understand each other through the gateway: one story, told by a client of either era to a
// server of either era, directly and through the gateway, gives one transcript.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { CreateMessageRequest, ElicitRequest, RequestOptions } from "@modelcontextprotocol/client";
import type { FixtureEras } from "../conformance/fixture.ts";
import { httpBackend } from "../support/config.ts";
import { type DualBackend, noteUri, startDualBackend } from "../support/dual-backend.ts";
import { type DualClient, type DualClientOptions, type Era, openDualClient } from "../support/dual-client.ts";
import { eventually } from "../support/eventually.ts";
import { serve } from "../support/serve.ts";

/** What came of each part of the story, by its name; a part that failed has `{ failure }`. */
type Transcript = Readonly<Record<string, unknown>>;

type Part = (name: string, act: () => Promise<unknown>) => Promise<void>;

const eras = ["session", "stateless"] as const satisfies readonly Era[];
// Well below the client's own minute, so that a story with several deaf ears still ends in a readable difference.
const within: RequestOptions = { timeout: 10_000 };

for (const era of eras) {
  test(`a ${era} client hears the story from a ${era} server`, async () => {
    const transcript = await direct(era);
    const failed = Object.entries(transcript).filter(([, value]) => (value as { failure?: unknown }).failure !== undefined);
    assert.deepEqual(failed, []);
    assert.deepEqual(transcript, await reference());
  });
}

for (const client of eras) {
  for (const backend of eras) {
    test(`a ${client} client hears the same through the gateway from a ${backend} server`, async () => {
      assert.deepEqual(await throughGateway(client, backend), await reference());
    });
  }
}

test("a client that takes what it gets hears the same through the gateway from a server of both eras", async () => {
  assert.deepEqual(await throughGateway("auto", "both"), await reference());
});

/** A new server each time, because the story changes it. */
async function direct(era: Era): Promise<Transcript> {
  await using backend = await startDualBackend(era);
  return await story(backend.url, era, backend);
}

async function throughGateway(era: DualClientOptions["era"], backendEras: FixtureEras): Promise<Transcript> {
  await using backend = await startDualBackend(backendEras);
  const aggregation = { conflictResolution: "priority", conflictResolutionConfig: { priorityOrder: ["dual"] } };
  await using gateway = await serve({ backends: [httpBackend("dual", backend.url)], aggregation });
  return await story(gateway.url, era, backend);
}

let told: Promise<Transcript> | undefined;

/** Told directly on a session: the eldest of the ways, and the one that every other is measured by. */
function reference(): Promise<Transcript> {
  told ??= direct("session");
  return told;
}

async function story(url: string, era: DualClientOptions["era"], backend: DualBackend): Promise<Transcript> {
  const elicited: ElicitRequest["params"][] = [];
  const sampled: CreateMessageRequest["params"][] = [];
  await using dual = await openDualClient(url, {
    era,
    onElicit: (params) => {
      elicited.push(params);
      return elicited.length > 1 ? { action: "decline" } : { action: "accept", content: { name: "Ada" } };
    },
    onSample: (params) => {
      sampled.push(params);
      return { model: "m", role: "assistant", content: { type: "text", text: "sampled" } };
    },
  });
  assert.equal(dual.era, era === "auto" ? "stateless" : era);
  const transcript: Record<string, unknown> = {};
  const part: Part = async (name, act) => {
    const value = await act().catch(({ code, message, data }) => ({ failure: { code, message, data } }));
    transcript[name] = withoutEra(value, dual.era);
  };
  const { client } = dual;
  await part("tools", () => listTools(dual));
  await part("echo", () => client.callTool({ name: "echo", arguments: { message: "hello" } }, within));
  await part("progress", () => progress(dual));
  await part("elicitation", () => client.callTool({ name: "ask_form" }, within));
  await part("declined elicitation", () => client.callTool({ name: "ask_form" }, within));
  await part("sampling", () => client.callTool({ name: "sample", arguments: { prompt: "a word?" } }, within));
  await part("questions", async () => ({ elicited, sampled }));
  await part("cancelled", () => cancelled(dual, backend));
  await tellOfResources(part, dual);
  await tellOfChanges(part, dual);
  await tellOfPrompts(part, dual);
  await tellOfMistakes(part, dual);
  await part("heard", async () => [...new Set(dual.notifications.map(({ method }) => method))].sort());
  return transcript;
}

async function listTools({ client }: DualClient): Promise<unknown> {
  const { tools } = await client.listTools(undefined, { ...within, cacheMode: "refresh" });
  return byName(tools);
}

async function progress({ client }: DualClient): Promise<unknown> {
  const steps: unknown[] = [];
  const result = await client.callTool({ name: "steps" }, { ...within, onprogress: (step) => steps.push(step) });
  return { result, steps };
}

async function cancelled({ client }: DualClient, { slow }: DualBackend): Promise<unknown> {
  const cancel = new AbortController();
  const call = client.callTool({ name: "slow" }, { signal: cancel.signal });
  const outcome = call.then(
    () => "an answer",
    (error: Error) => error.message,
  );
  await eventually("the call reaches the server", () => slow.started === 1);
  cancel.abort("enough");
  await eventually("the cancellation reaches the server", () => slow.cancelled === 1);
  const next = await client.callTool({ name: "echo", arguments: { message: "and on" } }, within);
  return { outcome: await outcome, next };
}

async function tellOfResources(part: Part, { client }: DualClient): Promise<void> {
  await part("resources", async () => byName((await client.listResources(undefined, within)).resources));
  await part("templates", async () => (await client.listResourceTemplates(undefined, within)).resourceTemplates);
  await part("resource", () => client.readResource({ uri: noteUri }, { ...within, cacheMode: "refresh" }));
}

async function tellOfChanges(part: Part, dual: DualClient): Promise<void> {
  const { client, notifications } = dual;
  const updates = () => notifications.filter(({ method }) => method === "notifications/resources/updated");
  const filter = { toolsListChanged: true, resourceSubscriptions: [noteUri] };
  const write = async (text: string) => {
    const heard = updates().length;
    await client.callTool({ name: "write_note", arguments: { text } }, within);
    return eventually("an update of the note", () => updates().slice(heard)[0]?.params);
  };
  await part("changes", async () => {
    await using watch = await dual.watch(filter);
    const update = await write("second");
    const note = await client.readResource({ uri: noteUri }, { ...within, cacheMode: "refresh" });
    await client.callTool({ name: "add_tool" }, within);
    await eventually("the list of tools changes", () =>
      notifications.some(({ method }) => method === "notifications/tools/list_changed"),
    );
    const tools = await listTools(dual);
    const extra = await client.callTool({ name: "extra" }, within);
    return { honored: watch.honored, update, note, tools, extra };
  });
  await part("changes nobody watches", async () => {
    const before = updates().length;
    await client.callTool({ name: "write_note", arguments: { text: "third" } }, within);
    // A second watch and its update come after anything that the first should not have heard.
    await using _watch = await dual.watch(filter);
    await write("fourth");
    return { updatesOfTwo: updates().length - before };
  });
}

async function tellOfPrompts(part: Part, { client }: DualClient): Promise<void> {
  await part("prompts", async () => byName((await client.listPrompts(undefined, within)).prompts));
  await part("prompt", () => client.getPrompt({ name: "greet", arguments: { name: "Ada" } }, within));
  const ref = { type: "ref/prompt", name: "greet" } as const;
  await part("completion", () => client.complete({ ref, argument: { name: "name", value: "Ad" } }, within));
}

async function tellOfMistakes(part: Part, { client, era }: DualClient): Promise<void> {
  const refused = (name: string, act: Promise<unknown>) => part(name, () => act.catch((error) => refusal(error, era)));
  await part("wrong arguments", () => client.callTool({ name: "echo", arguments: { message: 1 } }, within));
  await refused("unknown tool", client.callTool({ name: "nobody" }, within));
  await refused("unknown prompt", client.getPrompt({ name: "nobody" }, within));
  await refused("unknown resource", client.readResource({ uri: "note://nowhere" }, within));
}

/** The words are left out: whoever finds that nobody has such a name says so, the gateway or the server. */
function refusal({ code, data }: { readonly code?: unknown; readonly data?: unknown }, era: Era): unknown {
  // Up to 2025-11-25 a missing resource is -32002, and servers of both eras say -32602; later only that is allowed.
  return { refused: era === "session" && code === -32002 ? -32602 : code, data };
}

/** The order of a list means nothing. */
const byName = <T extends { readonly name: string }>(items: readonly T[]) => items.toSorted((a, b) => (a.name < b.name ? -1 : 1));

/** Members that one era has and the other lacks; what comes in the wrong era stays, and is a difference. */
const membersOf: Record<Era, readonly string[]> = {
  // The SDK's server asks for progress of what it asks; a token is a matter between neighbours.
  session: ["progressToken"],
  // Results say how long they hold and who gave them, and notifications for which listen they are.
  stateless: ["ttlMs", "cacheScope", "io.modelcontextprotocol/serverInfo", "io.modelcontextprotocol/subscriptionId"],
};

function withoutEra(value: unknown, era: Era): unknown {
  return JSON.parse(JSON.stringify(value), (key, member) => {
    const isEmptied = key === "_meta" && Object.keys(member).length === 0;
    return isEmptied || membersOf[era].includes(key) ? undefined : member;
  });
}
