// Where PostgreSQL is, as operators write it.
import { readFileSync } from "node:fs";
import type { ConnectionOptions } from "node:tls";
import { StoreError } from "./store.ts";

export interface PostgresAddress {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  /** Where the tables are, so that several stores can share a database. */
  readonly schema: string;
  readonly tls: ConnectionOptions | undefined;
  /** Asked for each connection, so that a file may change. Undefined: the driver looks at PGPASSWORD and ~/.pgpass. */
  readonly password: (() => string) | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

const wanted = "wanted: postgres://user@host:port/database[?schema=…&sslmode=disable|require|verify-full&sslrootcert=FILE]";
const parameters = ["schema", "sslmode", "sslrootcert"];

/** Whether this means PostgreSQL at all. */
export function isPostgresAddress(text: string): boolean {
  return /^postgres(ql)?:/i.test(text);
}

/**
 * Reads an address. The password comes from VMCP_STORE_PASSWORD_FILE, VMCP_STORE_PASSWORD, or the address. Other machines are
 * spoken to with TLS unless `sslmode` says otherwise. Throws StoreError `unusable`, which shows nothing of a password.
 */
export function readPostgresAddress(text: string, env: Environment = {}): PostgresAddress {
  const url = isPostgresAddress(text) ? URL.parse(text) : null;
  const database = decoded(url?.pathname.slice(1) ?? "");
  if (!url?.hostname || database === "" || database.includes("/") || url.hash !== "")
    throw unusable(`the address of PostgreSQL can't be read; ${wanted}`);
  for (const name of url.searchParams.keys())
    if (!parameters.includes(name)) throw unusable(`the address of PostgreSQL has a parameter that is not known; ${wanted}`);
  const schema = url.searchParams.get("schema") ?? "vmcp";
  if (!/^[a-z_][a-z0-9_]{0,62}$/.test(schema))
    throw unusable("the schema of PostgreSQL must be up to 63 characters of a-z, 0-9 and _, and begin with no digit");
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return {
    host,
    port: url.port === "" ? 5432 : Number(url.port),
    user: decoded(url.username) || env.PGUSER || "vmcp",
    database,
    schema,
    tls: tlsOf(host, url.searchParams),
    password: passwordOf(decoded(url.password), env),
  };
}

/** For logs: who would be asked, and for what. */
export function postgresName({ host, port, database, schema }: PostgresAddress): string {
  return `postgres://${host.includes(":") ? `[${host}]` : host}:${port}/${database}?schema=${schema}`;
}

function tlsOf(host: string, search: URLSearchParams): ConnectionOptions | undefined {
  const isLoopback = host === "localhost" || host === "::1" || host.startsWith("127.");
  const mode = search.get("sslmode") ?? (isLoopback ? "disable" : "verify-full");
  const root = search.get("sslrootcert");
  switch (mode) {
    case "disable":
      return undefined;
    case "require":
      return { rejectUnauthorized: false };
    case "verify-full":
      return { rejectUnauthorized: true, ...(root !== null && { ca: readText(root, "sslrootcert") }) };
    default:
      throw unusable(`sslmode=${mode} is not known; ${wanted}`);
  }
}

function passwordOf(inAddress: string, env: Environment): (() => string) | undefined {
  const file = env.VMCP_STORE_PASSWORD_FILE;
  if (file) {
    readText(file, "VMCP_STORE_PASSWORD_FILE"); // said at the start when it is not there
    return () => readText(file, "VMCP_STORE_PASSWORD_FILE").trim();
  }
  const password = env.VMCP_STORE_PASSWORD || inAddress;
  return password === "" ? undefined : () => password;
}

function readText(path: string, what: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw unusable(`${what} can't be read: ${(error as NodeJS.ErrnoException).code ?? "failed"}`);
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw unusable(`the address of PostgreSQL is not percent-encoded; ${wanted}`);
  }
}

function unusable(message: string): StoreError {
  return new StoreError("unusable", message);
}
