// Servers that are no npm packages: found where the machine has them, else installed from Debian, else missed aloud.
import { access, constants, glob } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { runProcess } from "./processes.ts";

// Debian keeps servers out of the PATH of ordinary users.
const systemDirectories = ["/usr/local/sbin", "/usr/sbin", "/usr/bin"];

// Debian keeps those of PostgreSQL out of everybody's, a directory for each version.
const versionedDirectories = "/usr/lib/postgresql/*/bin";
const installSeconds = 170;

/**
 * The full path of a program. One that is not there is installed from its Debian package, at most 3 minutes, when this process
 * may do that; nothing the package brings is started as a service. Throws an error that says what to install.
 */
export async function programPath(name: string, packageName: string): Promise<string> {
  const found = await findProgram(name);
  if (found !== undefined) return found;
  const failure = await install(name, packageName);
  const installed = failure === undefined ? await findProgram(name) : undefined;
  if (installed !== undefined) return installed;
  const why = failure ?? `the package ${packageName} brings no such program`;
  throw new Error(`no program "${name}": install it, on Debian with "apt-get install ${packageName}" (${why})`);
}

/**
 * For the `skip` of tests that need a program: false when it is there. On somebody's own machine, the reason why it is not;
 * where the environment says CI, a program that is missing is an error, because there nobody reads what was skipped.
 */
export async function whyMissing(name: string, packageName: string): Promise<string | false> {
  try {
    await programPath(name, packageName);
    return false;
  } catch (error) {
    if (process.env.CI) throw error;
    return (error as Error).message;
  }
}

async function findProgram(name: string): Promise<string | undefined> {
  const versioned = (await Array.fromAsync(glob(versionedDirectories))).sort().reverse();
  for (const directory of [...(process.env.PATH ?? "").split(delimiter), ...systemDirectories, ...versioned]) {
    const path = join(directory, name);
    const isProgram = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (directory !== "" && isProgram) return path;
  }
  return undefined;
}

/** Gives why it could not be installed; undefined when it is. */
async function install(name: string, packageName: string): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "only root may install it";
  if ((await findProgram("apt-get")) === undefined) return "this machine has no apt-get";
  // One at a time: test files run beside each other, and who waited finds the program there.
  const lock = ["flock", "/var/lock/vmcp-test-install"];
  const limit = ["--kill-after=10", String(installSeconds)];
  const { code, stderr } = await runProcess("timeout", [...limit, ...lock, "sh", "-c", installScript, "sh", name, packageName], {
    ms: (installSeconds + 15) * 1_000,
    env: { DEBIAN_FRONTEND: "noninteractive" },
  });
  return code === 0 ? undefined : `apt-get failed with ${code}: ${stderr.trim().slice(-500)}`;
}

// Exit code 101 of policy-rc.d means "this service is not to be started". A policy that the machine has of its own stays.
const installScript = `
command -v "$1" && exit 0
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  trap 'exit 1' TERM INT
  printf '#!/bin/sh\\nexit 101\\n' > $policy && chmod 755 $policy
fi
get() { apt-get -o DPkg::Lock::Timeout=120 "$@"; }
get install -y --no-install-recommends "$2" || { get update && get install -y --no-install-recommends "$2"; }
`;
