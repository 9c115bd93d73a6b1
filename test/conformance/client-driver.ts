// The client that the suite starts, with the URL of its own server as last argument: it puts that server behind the
// gateway and uses it from the other side, so that the suite judges how the gateway talks to servers. Without
// GATEWAY_ADMIN and GATEWAY_PROXY in the environment it goes to the server directly. CLIENT_ERA says what it speaks itself.
import { once } from "node:events";
import { type DualClient, type Era, openDualClient } from "../support/dual-client.ts";
import { eventually } from "../support/eventually.ts";
import { type Exposed, expose } from "./gateway.ts";

const actMs = 10_000;

type Act = (client: DualClient) => Promise<unknown>;

/** What to do in each scenario. */
const acts: Readonly<Record<string, Act>> = {
  initialize: ({ client }) => client.listTools(),
  tools_call: async (client) => {
    await findTool(client, "add_numbers");
    await client.call("add_numbers", { a: 5, b: 3 });
  },
  "elicitation-sep1034-client-defaults": async (client) => {
    await findTool(client, "test_client_elicitation_defaults");
    await client.call("test_client_elicitation_defaults");
  },
  "sse-retry": async (client) => {
    await findTool(client, "test_reconnection");
    await client.call("test_reconnection");
  },
  "json-schema-2020-12-preservation": async (client) => {
    const tool = await findTool(client, "json_schema_2020_12_tool");
    const echo = await findEcho(client, tool.name);
    await client.call(echo, { schema: tool.inputSchema });
  },
  // Nothing is there to find, and the envelope is on every request.
  "request-metadata": ({ client }) => client.listTools(),
  "http-standard-headers": async (client) => {
    const tool = await findTool(client);
    await client.call(tool.name);
    const { resources } = await client.client.listResources();
    for (const { uri } of resources) await client.client.readResource({ uri });
    const { prompts } = await client.client.listPrompts();
    for (const { name } of prompts) await client.client.getPrompt({ name });
  },
  "http-custom-headers": async (client) => {
    const { toolCalls } = context as { toolCalls: { name: string; arguments: Record<string, unknown> }[] };
    for (const { name } of toolCalls) await findTool(client, name);
    for (const { name, arguments: args } of toolCalls) await client.call(name, args);
  },
  "http-invalid-tool-headers": async (client) => {
    await findTool(client, "valid_tool");
    for (const name of await client.toolNames()) await client.call(name, { region: "us-west1" });
  },
  "sep-2322-client-request-state": async (client) => {
    await findTool(client, "test_mrtr_echo_state");
    await Promise.all([client.call("test_mrtr_echo_state"), client.call("test_mrtr_unrelated")]);
    await client.call("test_mrtr_no_state");
    // The SDK's client refuses a result without a type; what it says to the server all the same is what is judged.
    await client.call("test_mrtr_no_result_type").catch(() => undefined);
  },
  "json-schema-ref-no-deref": ({ client }) => client.listTools(),
};

const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}") as unknown;

// A tool appears once the gateway has listed its server.
const findTool = (client: DualClient, wanted?: string) =>
  eventually(`tool ${wanted}`, async () => {
    const { tools } = await client.client.listTools(undefined, { cacheMode: "refresh" });
    return tools.find(({ name }) => wanted === undefined || name === wanted);
  });

async function findEcho(client: DualClient, other: string): Promise<string> {
  const echo = (await client.toolNames()).find((name) => name !== other);
  if (!echo) throw new Error(`no tool besides ${other}`);
  return echo;
}

async function open(serverUrl: string): Promise<Exposed> {
  const { GATEWAY_ADMIN: admin, GATEWAY_PROXY: proxy } = process.env;
  if (admin === undefined || proxy === undefined) {
    return { url: serverUrl, [Symbol.asyncDispose]: async () => undefined };
  }
  return expose({ admin, proxy }, `client-${process.pid}`, serverUrl);
}

const name = process.env.MCP_CONFORMANCE_SCENARIO ?? "";
const act = acts[name];
if (!act) throw new Error(`no client for scenario "${name}"`);
await using exposed = await open(process.argv.at(-1) ?? "");
await using client = await openDualClient(exposed.url, {
  era: (process.env.CLIENT_ERA ?? "session") as Era,
  capabilities: { elicitation: { form: { applyDefaults: true } }, sampling: {}, roots: {} },
  // Accepting without content makes the client fill in the defaults.
  onElicit: () => ({ action: "accept", content: name.startsWith("sep-2322") ? { confirmed: true } : {} }),
  onSample: () => ({ model: "m", role: "assistant", content: { type: "text", text: "sampled" } }),
  onRoots: () => ({ roots: [] }),
});
// The suite gives up after a while without ending this process; whoever ends it here can still clean up.
const deadline = AbortSignal.timeout(actMs);
const expired = once(deadline, "abort").then(() => Promise.reject(new Error(`not done within ${actMs} ms`)));
await Promise.race([act(client), expired]);
