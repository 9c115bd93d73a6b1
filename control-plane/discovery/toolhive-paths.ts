// Where ToolHive keeps what it knows (the XDG directories of each system).
import { homedir } from "node:os";
import { join } from "node:path";

export interface ToolhivePaths {
  /** Says where `thv serve` listens. */
  readonly serverFile: string;
  readonly groups: string;
  readonly runConfigs: string;
  readonly statuses: string;
}

export function toolhivePaths(
  env: Readonly<Record<string, string | undefined>> = process.env,
  platform: NodeJS.Platform = process.platform,
  home: string = homedir(),
): ToolhivePaths {
  const own = { darwin: join(home, "Library", "Application Support"), win32: env.LOCALAPPDATA || join(home, "AppData", "Local") };
  const standard = platform === "darwin" || platform === "win32" ? own[platform] : undefined;
  const state = join(env.XDG_STATE_HOME || standard || join(home, ".local", "state"), "toolhive");
  const share = join(env.XDG_DATA_HOME || standard || join(home, ".local", "share"), "toolhive");
  return {
    serverFile: join(state, "server", "server.json"),
    groups: join(state, "groups"),
    runConfigs: join(state, "runconfigs"),
    statuses: join(share, "statuses"),
  };
}
