// `vmcp serve` over a configuration that a test writes, and may edit.
import { writeFile } from "node:fs/promises";
import { configText } from "./config.ts";
import { type RunningVmcp, startVmcp, temporaryDirectory } from "./processes.ts";

export interface Served extends RunningVmcp {
  /** Of the single virtual server. */
  readonly url: string;
  readonly configPath: string;
  /** Replaces the configuration file. */
  edit(text: string): Promise<void>;
}

/** Starts it on free ports and waits until it is ready; its files and processes go with it. */
export async function serve(parts: Parameters<typeof configText>[0], flags: readonly string[] = []): Promise<Served> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const configPath = await directory.write("vmcp-config.yaml", configText(parts));
  const vmcp = stack.use(
    await startVmcp(["serve", "--config", configPath, "--port", "0", "--admin-listen", "127.0.0.1:0", ...flags], {
      cwd: directory.path,
    }),
  );
  const owned = stack.move();
  return {
    ...vmcp,
    url: `${vmcp.address}/mcp`,
    configPath,
    edit: (text) => writeFile(configPath, text),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
