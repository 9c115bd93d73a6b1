// `npm run cluster`: a mesh as plain processes. Two control planes on PostgreSQL, three proxies on Redis, nginx in front of them and a real
// server behind; then a control plane is killed and a proxy restarted while a client calls. `--once` ends after the tour.
import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";
import { openClient, type SdkClient } from "../../test/support/client.ts";
import { httpBackend, virtualServer } from "../../test/support/config.ts";
import { eventually } from "../../test/support/eventually.ts";
import { startNginx } from "../../test/support/nginx.ts";
import { startPostgres } from "../../test/support/postgres.ts";
import { type RunningVmcp, runVmcpctl, startEverything, startVmcp, temporaryDirectory } from "../../test/support/processes.ts";
import { startRedis } from "../../test/support/redis.ts";
import { bold, dim, step } from "./terminal.ts";

const { values } = parseArgs({ options: { once: { type: "boolean", default: false } } });

await using stack = new AsyncDisposableStack();
const [postgres, redis] = await step("start PostgreSQL and Redis", async () => [
  stack.use(await startPostgres()),
  stack.use(await startRedis()),
]);
const directory = stack.use(await temporaryDirectory());
const everything = stack.use(await step("start server-everything", () => startEverything()));

const store = postgres.freshUrl();
const startPlane = async (id: string) =>
  stack.use(await startVmcp(["control-plane", "--id", id, "--listen", "127.0.0.1:0", "--store", store]));
const [one, other] = await step("start two control planes", async () => [await startPlane("cp-1"), await startPlane("cp-2")]);
const addresses = [one.adminAddress, other.adminAddress];

// One secret for all, so that any of them goes on with any session.
const env = { VMCP_SESSION_HMAC_SECRET: randomBytes(32).toString("hex") };
const flags = ["--control-plane", ...addresses, "--redis", redis.url, "--port", "0"];
const startProxy = (id: string) =>
  startVmcp(["proxy", "--id", id, "--state-dir", `${directory.path}/${id}`, ...flags], { env, isReady: false });
const proxies = await step("start three proxies", () => Promise.all(["edge-1", "edge-2", "edge-3"].map(startProxy)));
for (const proxy of proxies) stack.use(proxy);

const document = (tools: readonly string[]) =>
  virtualServer("team", {
    backends: [httpBackend("everything", everything.url)],
    aggregation: { conflictResolution: "prefix", tools: [{ workload: "everything", filter: tools }] },
  });
await step("declare a virtual server and wait until all proxies serve it", () => apply(one, document(["echo", "get-sum"])));
const nginx = stack.use(await step("start nginx", () => startNginx(proxies.map(({ address }) => address))));
await eventually("nginx has all proxies", () => nginx.ready().length === proxies.length);
await show(one, "proxy", "status");

const url = `${nginx.address}/team/mcp`;
await using client = await step(`connect a client to ${url}`, () => openClient(url));
await eventually("it sees the tools", async () => (await client.toolNames()).includes("everything_echo"));
const calling = keepCalling(client);
await show(other, "tap", "--limit", "5");

await step("kill a control plane", async () => {
  one.kill("SIGKILL");
  await one.ended;
});
await step("its proxies go to the other", () =>
  eventually("they do", async () => (await status(other)).match(/ SYNCED /g)?.length === proxies.length, 20_000),
);
const changed = await directory.write("team.yaml", JSON.stringify(document(["echo"])));
await show(other, "apply", "--wait", "-f", changed);
await show(other, "proxy", "status");
await step("restart a proxy, which tells nginx first", async () => {
  await proxies[0]?.stop();
  proxies[0] = stack.use(await startProxy("edge-1"));
  await nginx.setUpstreams(proxies.map(({ address }) => address));
});

const { calls, failed } = await calling.stop();
console.log(`\n  ${calls} calls of one session meanwhile, ${failed.length} failed\n`);
if (failed.length > 0 || calls < 20) throw new Error(failed.slice(0, 5).join("\n") || "hardly a call was made");
console.log(await ctl(other, "rollout", "history"));
console.log(await ctl(other, "audit", "verify"));
if (!values.once) {
  console.log(`${bold("It keeps running. Try, in another terminal:")}\n`);
  for (const line of ["proxy status", "tap", "top tools", "doctor", "rollout history", "get tools"])
    console.log(`  npx vmcpctl ${line} --server ${addresses[1]}`);
  console.log(dim("\n  Ctrl-C stops everything."));
  await new Promise((resolve) => process.once("SIGINT", resolve).once("SIGTERM", resolve));
}

/** What it says to the one who typed it. */
async function ctl({ adminAddress }: RunningVmcp, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runVmcpctl(adminAddress, args);
  if (code !== 0) throw new Error(`vmcpctl ${args.join(" ")} ended with ${code}: ${stderr}`);
  return stdout + stderr;
}

function status(plane: RunningVmcp): Promise<string> {
  return ctl(plane, "proxy", "status");
}

async function apply(plane: RunningVmcp, declared: object): Promise<void> {
  await ctl(plane, "apply", "--wait", "-f", await directory.write("team.yaml", JSON.stringify(declared)));
}

async function show(plane: RunningVmcp, ...args: string[]): Promise<void> {
  console.log(`\n  ${bold(`vmcpctl ${args.join(" ").replaceAll(`${directory.path}/`, "")}`)}\n`);
  console.log((await ctl(plane, ...args)).replace(/^(?=.)/gm, "  "));
}

/** One call after the other, until told otherwise. */
function keepCalling(caller: SdkClient) {
  const failed: string[] = [];
  let calls = 0;
  let isOver = false;
  const working = (async () => {
    while (!isOver) {
      const answer = await caller.call("everything_echo", { message: "hello" }).catch((error: Error) => error.message);
      calls++;
      if (!answer.includes("hello")) failed.push(answer);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  return {
    async stop() {
      isOver = true;
      await working;
      return { calls, failed };
    },
  };
}
