// The client that the suite starts, with the URL of its own server as last argument: it puts that server behind the
// gateway and uses it from the other side, so that the suite judges how the gateway talks to servers. Without
// GATEWAY_ADMIN and GATEWAY_PROXY in the environment it goes to the server directly.
import { once } from "node:events";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { openClient, type SdkClient } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { type Exposed, expose } from "./gateway.ts";

const actMs = 10_000;

type Act = (client: SdkClient) => Promise<unknown>;

/** What to do in each scenario. */
const acts: Readonly<Record<string, Act>> = {
  initialize: ({ client }) => client.listTools(),
  tools_call: async (client) => {
    await findTool(client, "add_numbers");
    await client.call("add_numbers", { a: 5, b: 3 });
  },
  "elicitation-sep1034-client-defaults": async (client) => {
    // Accepting without content makes the client fill in the defaults.
    client.client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: {} }));
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
};

// A tool appears once the gateway has listed its server.
const findTool = (client: SdkClient, name: string) =>
  eventually(`tool ${name}`, async () => (await client.client.listTools()).tools.find((tool) => tool.name === name));

async function findEcho(client: SdkClient, other: string): Promise<string> {
  const { tools } = await client.client.listTools();
  const echo = tools.find(({ name }) => name !== other);
  if (!echo) throw new Error(`no tool besides ${other}`);
  return echo.name;
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
await using client = await openClient(exposed.url, { elicitation: { form: { applyDefaults: true } }, sampling: {}, roots: {} });
// The suite gives up after a while without ending this process; whoever ends it here can still clean up.
const deadline = AbortSignal.timeout(actMs);
const expired = once(deadline, "abort").then(() => Promise.reject(new Error(`not done within ${actMs} ms`)));
await Promise.race([act(client), expired]);
