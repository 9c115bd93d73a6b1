// A control plane and a proxy, with servers exposed one by one under the names they have.
import { openClient } from "../support/client.ts";
import { httpBackend, virtualServer } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { type Finished, runVmcpctl, temporaryDirectory } from "../support/processes.ts";

/** Where a running mesh is: `HOST:PORT` of its control plane, URL of its proxy. */
export interface GatewayAddress {
  readonly admin: string;
  readonly proxy: string;
}

/** An MCP endpoint of the gateway with one server behind it; disposing removes it. */
export interface Exposed extends AsyncDisposable {
  readonly url: string;
}

/** Declares a virtual server called `name` over `backendUrl` and waits until the proxy has it. */
export async function expose(gateway: GatewayAddress, name: string, backendUrl: string): Promise<Exposed> {
  await using directory = await temporaryDirectory();
  const document = virtualServer(name, {
    groupRef: name,
    backends: [httpBackend("backend", backendUrl)],
    // With one backend there are no conflicts, so this leaves names alone.
    aggregation: { conflictResolution: "priority", conflictResolutionConfig: { priorityOrder: ["backend"] } },
  });
  const file = await directory.write("virtual-server.yaml", JSON.stringify(document));
  mustSucceed(await runVmcpctl(gateway.admin, ["apply", "-f", file]));
  return {
    url: `${gateway.proxy}/${name}/mcp`,
    [Symbol.asyncDispose]: async () => mustSucceed(await runVmcpctl(gateway.admin, ["delete", "virtualserver", name])),
  };
}

/**
 * Waits until the endpoint lists tools, because a server is listed only after the change to it was acknowledged. After
 * 5 s it goes on without: the suite says better what is missing.
 */
export async function waitForTools(url: string): Promise<void> {
  await using client = await openClient(url);
  await eventually("tools", async () => (await client.toolNames()).length > 0, 5_000).catch(() => undefined);
}

function mustSucceed({ code, stdout, stderr }: Finished): void {
  if (code !== 0) throw new Error(`vmcpctl ended with ${code}: ${stdout}${stderr}`);
}
