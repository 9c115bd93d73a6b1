// A client can't tell that it talks to a gateway: the same script against a real server and against the gateway in front
// of it gives the same transcript.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  ResourceUpdatedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { eventually } from "../support/eventually.ts";
import { startEverything } from "../support/processes.ts";
import { serve } from "../support/serve.ts";

/** Does everything there is to do, and writes down what came of it. Times and generated ids are left out. */
async function transcript(url: string): Promise<{ lines: string[]; belowLevel: string[] }> {
  const lines: string[] = [];
  const note = (what: string, value: unknown) =>
    lines.push(`${what} ${JSON.stringify(value).replace(/\d{1,2}:\d{2}:\d{2}( [AP]M)?|[0-9a-f]{8}-[0-9a-f-]{27}/g, "…")}`);
  const transport = new StreamableHTTPClientTransport(new URL(url));
  const capabilities = { sampling: {}, elicitation: { form: {}, url: {} }, roots: { listChanged: true } };
  const client = new Client({ name: "everything-client", version: "1.0.0" }, { capabilities });
  const updates: string[] = [];
  const simulated: string[] = [];
  const logged: unknown[] = [];
  let rootsAsked = 0;
  client.setRequestHandler(CreateMessageRequestSchema, async ({ params }) => {
    note("sampling", params);
    return { model: "m", role: "assistant", content: { type: "text", text: "sampled" } };
  });
  client.setRequestHandler(ElicitRequestSchema, async ({ params }) => {
    note("elicitation", params);
    return params.mode === "url" ? { action: "accept" } : { action: "accept", content: { name: "Ada", integer: 7 } };
  });
  client.setRequestHandler(ListRootsRequestSchema, async () => {
    rootsAsked++;
    return { roots: [{ uri: "file:///work", name: "work" }] };
  });
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, async ({ params }) => void updates.push(params.uri));
  client.setNotificationHandler(LoggingMessageNotificationSchema, async ({ params: { level, data } }) => {
    if (/level.message/.test(String(data))) simulated.push(level);
    else logged.push(data);
  });
  await client.connect(transport as Transport);

  const call = async (name: string, args: Record<string, unknown> = {}) => {
    const progress: unknown[] = [];
    const result = await client
      .callTool({ name, arguments: args }, undefined, { onprogress: (step) => progress.push(step) })
      .catch(({ code, message, data }: { code?: number; message?: string; data?: unknown }) => ({ code, message, data }));
    note(name, progress.length > 0 ? { result, progress } : result);
  };
  await call("echo", { message: "hello" });
  await eventually("the server asks for roots", () => rootsAsked > 0 || undefined);
  await call("get-annotated-message", { messageType: "error", includeImage: true });
  await call("get-structured-content", { location: "New York" });
  await call("get-resource-links", { count: 2 });
  await call("get-resource-reference", { resourceType: "Text", resourceId: 1 });
  await call("get-tiny-image");
  await call("trigger-long-running-operation", { duration: 0.3, steps: 3 });

  await call("trigger-sampling-request", { prompt: "say something", maxTokens: 10 });
  await call("trigger-elicitation-request");
  const consent = { url: "https://example.com/consent", message: "please agree", elicitationId: "consent-1" };
  await call("trigger-url-elicitation", consent);
  await call("trigger-url-elicitation", { ...consent, errorPath: true });
  await call("get-roots-list");
  // The gateway does tasks itself, for clients that can't; so it does not say that a tool needs one.
  note(
    "tools",
    (await client.listTools()).tools.map(({ execution: _, ...tool }) => tool),
  );
  note("prompts", (await client.listPrompts()).prompts);
  note("prompt", await client.getPrompt({ name: "args-prompt", arguments: { city: "Paris", state: "F" } }));
  const ref = { type: "ref/prompt", name: "completable-prompt" } as const;
  note("completion", await client.complete({ ref, argument: { name: "department", value: "E" } }));
  note("templates", (await client.listResourceTemplates()).resourceTemplates);
  const { resources } = await client.listResources();
  note("resources", resources);
  const uri = resources[0]?.uri ?? "";
  note("resource", await client.readResource({ uri }));
  note("made resource", await client.readResource({ uri: "demo://resource/dynamic/text/7" }));

  await client.subscribeResource({ uri });
  await call("toggle-subscriber-updates");
  await eventually("an update of the resource", () => updates.includes(uri) || undefined, 15_000);
  await client.unsubscribeResource({ uri });
  await client.setLoggingLevel("debug");
  await call("toggle-simulated-logging");
  await eventually("a log message", () => simulated.length > 0 || undefined, 15_000);
  // Simulated messages come every five seconds, at levels by chance; none may be below the level asked for.
  await client.setLoggingLevel("emergency");
  simulated.length = 0;
  await sleep(5_500);
  const belowLevel = simulated.filter((level) => level !== "emergency");
  // This server replays what it has said to clients that resume a stream of theirs, so some of it comes twice without us.
  note("said besides", [...new Set(logged)]);
  const cancel = new AbortController();
  const cancelled = client.callTool(
    { name: "trigger-long-running-operation", arguments: { duration: 5, steps: 50 } },
    undefined,
    {
      signal: cancel.signal,
      onprogress: () => cancel.abort("enough"),
    },
  );
  note("cancelled", await cancelled.catch((error: Error) => error.message));
  await transport.terminateSession();
  await client.close();
  return { lines, belowLevel };
}

test("a real server and the gateway in front of it give the same transcript", async () => {
  await using everything = await startEverything();
  const backends = [{ name: "everything", url: everything.url }];
  const aggregation = { conflictResolution: "priority", conflictResolutionConfig: { priorityOrder: ["everything"] } };
  await using gateway = await serve({ backends, aggregation });
  const direct = await transcript(everything.url);
  const through = await transcript(gateway.url);
  assert.deepEqual(through.lines, direct.lines);
  assert.deepEqual(through.belowLevel, []);
});
