// Where contexts are kept.
import { homedir } from "node:os";
import { join } from "node:path";

export function contextPath(env: NodeJS.ProcessEnv = process.env): string {
  return join(env.XDG_CONFIG_HOME || join(homedir(), ".config"), "vmcp", "config.yaml");
}
