// `vmcp serve`: both planes in one process, joined over the same gRPC contract on a loopback socket, fed by one file.
import { type Log, openLog } from "../../common/log.ts";
import { type ControlPlane, ControlPlaneError, type DiscoveryChoice, startControlPlane } from "../../control-plane/index.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { untilStopped } from "../signals.ts";
import { type ConfigFile, readConfigFile, watchConfigFile } from "./config-file.ts";
import { type DiscoveryFlags, discoveryChoice, openGroups, toolhiveChoice } from "./discovery-flags.ts";
import { moveLiteralSecrets } from "./literal-secrets.ts";
import { type ListenOptions, startProxy } from "./serving.ts";

const defaultAdmin = "127.0.0.1:7400";

export interface ServeOptions extends ListenOptions, DiscoveryFlags {
  readonly config: string;
  readonly enableAudit?: boolean;
  readonly adminListen?: string;
}

export async function serve(options: ServeOptions): Promise<void> {
  const log = openLog("vmcp");
  const choice = discoveryChoice(options);
  const reading = { discovery: choice === undefined ? "as needed" : choice.providers.length > 0 ? "asked" : "off" } as const;
  const stopped = untilStopped();
  // Watched from before it is read, so that no edit is missed; edits during the start are taken after it.
  const started = Promise.withResolvers<ControlPlane>();
  started.promise.catch(() => undefined);
  using _watch = watchConfigFile(
    options.config,
    reading,
    (changed) => void started.promise.then((plane) => reload(plane, { file: changed, choice, log })),
  );
  const file = readConfigFile(options.config, reading);
  if (file.refusal) throw new ExitError(exitCodes.badInput, file.refusal);
  warn(file, log);
  if (options.enableAudit) log.warn("--enable-audit has no effect yet: the audit log is not part of this version");

  await using controlPlane = await startAdmin(options, log);
  log.info({ adminAddress: controlPlane.address }, "admin API listens");
  await discover(controlPlane, { file, choice });
  await declare(controlPlane, file);
  const first = Promise.withResolvers<void>();
  await using proxy = await startProxy(
    { ...sessionStorageOf(file), ...options },
    {
      controlPlanes: [controlPlane.address],
      id: "local",
      log,
      allowStdio: true, // the file is the operator's own, and the admin API can't change it
      onLive: () => first.resolve(),
      onRefused: (error) =>
        first.reject(new ExitError(exitCodes.badInput, `the configuration can't be served here: ${error.message}`)),
    },
  );
  await Promise.race([first.promise, stopped]);

  for (const name of file.virtualServers)
    process.stdout.write(`${name}: ${proxy.address}${file.virtualServers.length === 1 ? "" : `/${name}`}/mcp\n`);
  for (const line of foundLines(controlPlane, file)) {
    process.stdout.write(`${line}\n`);
    log.info(line);
  }
  started.resolve(controlPlane);
  await stopped;
  log.info("stopping");
}

/** Where the file says that sessions are kept; the flags of the command win. */
function sessionStorageOf({ resources }: ConfigFile): Pick<ListenOptions, "redis" | "redisPrefix"> {
  for (const { spec } of resources) {
    const storage = spec.case === "virtualServer" ? spec.value.sessionStorage : undefined;
    if (storage?.provider === "redis")
      return { redis: `redis://${storage.address}/${storage.db}`, redisPrefix: storage.keyPrefix || "vmcp:" };
  }
  return {};
}

/** The well-known port, so that vmcpctl finds us; another one when it is taken and nobody asked for it. */
async function startAdmin({ adminListen, config }: ServeOptions, log: Log): Promise<ControlPlane> {
  const settings = { store: ":memory:", log, readOnlyReason: `this server runs from ${config}; edit that file` };
  try {
    return await startControlPlane({ ...settings, listen: adminListen ?? defaultAdmin });
  } catch (error) {
    if (!(error instanceof ControlPlaneError)) throw error;
    if (error.code === "address_not_loopback")
      throw new ExitError(
        exitCodes.usage,
        `--admin-listen ${adminListen}: vmcp serve is administered from its own machine (127.0.0.1, [::1], unix:/path); see vmcp control-plane`,
      );
    if (adminListen !== undefined || error.code !== "address_in_use") throw new ExitError(exitCodes.failure, error.message);
    log.warn({ taken: defaultAdmin }, "the admin API takes a free port");
    return startControlPlane({ ...settings, listen: "127.0.0.1:0" });
  }
}

interface Declaring {
  readonly file: ConfigFile;
  /** Undefined: what the file needs. */
  readonly choice: DiscoveryChoice | undefined;
}

/** Before the file is declared, so that its groups have their backends from the first snapshot on. */
async function discover(controlPlane: ControlPlane, { file, choice }: Declaring): Promise<void> {
  if (choice) await controlPlane.discover(choice);
  else if (openGroups(file.resources).length > 0) await controlPlane.discover(toolhiveChoice);
}

/** For the person who started it: who found what. */
function foundLines(controlPlane: ControlPlane, { resources }: ConfigFile): string[] {
  const groups = resources.flatMap(({ spec }) =>
    spec.case === "virtualServer" && spec.value.backends.length === 0 ? [spec.value.groupRef] : [],
  );
  const isDeclared = (group: string) => resources.some(({ name }) => name.startsWith(`groups/${group}/backends/`));
  const shown = [...new Set(groups)].filter((group) => !isDeclared(group) || controlPlane.discovered(group).backends > 0);
  return shown.map((group) => {
    const { backends, providers } = controlPlane.discovered(group);
    const found = backends > 0 ? `${backends} backends found by ${providers.join(" and ")}` : "no backends found yet";
    return `group ${group}: ${isDeclared(group) ? "backends of its own, and " : ""}${found}`;
  });
}

async function declare(controlPlane: ControlPlane, file: ConfigFile): Promise<void> {
  try {
    await controlPlane.replaceAll(moveLiteralSecrets(file.resources), file.path);
  } catch (error) {
    if (!(error instanceof ControlPlaneError)) throw error;
    throw new ExitError(exitCodes.badInput, [error.message, ...error.details].join("\n"));
  }
}

async function reload(controlPlane: ControlPlane, { file, choice, log }: Declaring & { readonly log: Log }): Promise<void> {
  try {
    if (file.refusal) throw new ExitError(exitCodes.badInput, file.refusal);
    warn(file, log);
    await discover(controlPlane, { file, choice });
    await declare(controlPlane, file);
    log.info({ file: file.path }, "configuration reloaded");
    for (const line of foundLines(controlPlane, file)) log.info(line);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    log.error({ file: file.path }, "configuration not reloaded; the old one stays live");
  }
}

function warn(file: ConfigFile, log: Log): void {
  for (const warning of file.warnings) log.warn({ file: file.path }, warning);
}
