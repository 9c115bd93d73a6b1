// A real PostgreSQL on loopback, a process of its own. It keeps its data over restarts, and asks for a password.
import { chown, mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { programPath } from "./debian.ts";
import { eventually } from "./eventually.ts";
import { lastingPort, type RunningProcess, runProcess, startProcess, temporaryDirectory } from "./processes.ts";

/** A PostgreSQL server, which may be down meanwhile. */
export interface PostgresServer extends AsyncDisposable {
  /** `postgres://vmcp:PASSWORD@127.0.0.1:PORT/postgres`, with a schema that nobody had before. */
  freshUrl(): string;
  readonly port: number;
  readonly password: string;
  /** Runs SQL in the schema of an address, and gives what psql prints: a line for each row, `|` between columns. */
  sql(url: string, text: string): Promise<string>;
  /** Stops all its processes where they are, so that it hangs. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  /** Ends it at once; connections break. */
  stop(): Promise<void>;
  /** Starts it again where it was. */
  start(): Promise<void>;
}

const startMs = 30_000;
const password = "canary-of-postgres";

// Tests need no protection from a power cut, and every commit would wait for the disk.
const settings = ["fsync=off", "full_page_writes=off", "max_connections=100", "unix_socket_directories="];

/** Starts a server and waits until it answers. */
export async function startPostgres(): Promise<PostgresServer> {
  const program = await programPath("postgres", "postgresql");
  const port = await lastingPort();
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const account = await ordinaryUser(path);
  const passwordFile = join(path, "password");
  const folder = join(path, "files");
  await mkdir(folder);
  await runAs(account, ["sh", "-c", `printf %s ${password} > ${passwordFile}`]);
  if (account) await chown(folder, account.uid, account.gid);
  const initialise = ["-D", folder, "-U", "vmcp", "-A", "scram-sha-256", `--pwfile=${passwordFile}`, "--no-sync", "-E", "UTF8"];
  await runAs(account, [join(dirname(program), "initdb"), ...initialise]);
  let child: RunningProcess | undefined;

  async function start(): Promise<void> {
    const options = [...settings, "listen_addresses=127.0.0.1", `port=${port}`].flatMap((setting) => ["-c", setting]);
    const [command, ...args] = asUser(account, [program, "-D", folder, ...options]);
    const started = startProcess(command as string, args, { cwd: path });
    child = started;
    await eventually(`postgres ${port} answers`, async () => (await ask("SELECT 1")) === "1", startMs).catch((error) => {
      throw new Error(`${(error as Error).message}\n${started.stderr().slice(-2_000)}`, { cause: error });
    });
  }

  async function stop(): Promise<void> {
    child?.kill("SIGQUIT");
    await child?.ended;
    child = undefined;
  }

  const address = (schema: string) => `postgres://vmcp:${password}@127.0.0.1:${port}/postgres?schema=${schema}`;

  async function ask(text: string, url = address("public")): Promise<string> {
    const psql = await programPath("psql", "postgresql-client");
    const schema = new URL(url).searchParams.get("schema");
    const env = { PGPASSWORD: password, PGCONNECT_TIMEOUT: "5", PGOPTIONS: `-c search_path=${schema}` };
    const where = ["-h", "127.0.0.1", "-p", String(port), "-U", "vmcp", "-d", "postgres"];
    const { code, stdout, stderr } = await runProcess(psql, [...where, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text], { env });
    if (code !== 0) throw new Error(`psql failed: ${stderr}`);
    return stdout.trim();
  }

  async function signalAll(signal: NodeJS.Signals): Promise<void> {
    const parent = child?.pid ?? -1;
    // The parent first: one that is stopped starts no more children.
    process.kill(parent, signal);
    const children = (await readFile(`/proc/${parent}/task/${parent}/children`, "utf8")).trim().split(" ").filter(Boolean);
    for (const pid of children) process.kill(Number(pid), signal);
  }

  stack.defer(stop);
  await start();
  let schemas = 0;
  const owned = stack.move();
  return {
    freshUrl: () => address(`vmcp_${++schemas}`),
    port,
    password,
    sql: (url, text) => ask(text, url),
    freeze: () => signalAll("SIGSTOP"),
    thaw: () => signalAll("SIGCONT"),
    stop,
    start,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** PostgreSQL refuses to run as root. Gives its own account or nobody's the folder; undefined when this process is not root. */
async function ordinaryUser(folder: string): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const lines = (await readFile("/etc/passwd", "utf8")).split("\n").map((line) => line.split(":"));
  const found = lines.find(([name]) => name === "postgres") ?? lines.find(([name]) => name === "nobody");
  if (!found) throw new Error("no account to run PostgreSQL with: neither postgres nor nobody");
  const account = { uid: Number(found[2]), gid: Number(found[3]) };
  await chown(folder, account.uid, account.gid);
  return account;
}

function asUser(account: Account | undefined, command: readonly string[]): readonly string[] {
  if (!account) return command;
  return ["setpriv", `--reuid=${account.uid}`, `--regid=${account.gid}`, "--clear-groups", "--", ...command];
}

async function runAs(account: Account | undefined, command: readonly string[]): Promise<void> {
  const [program = "", ...args] = asUser(account, command);
  const { code, stdout, stderr } = await runProcess(program, args, { cwd: "/" });
  if (code !== 0) throw new Error(`${command[0]} failed with ${code}: ${stdout}${stderr}`);
}
