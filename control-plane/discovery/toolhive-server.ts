// Where `thv serve` listens, from the file it leaves, and whether it is that server which answers there. Whoever can write the file,
// or stand in for the server, chooses what we connect to, so it must be our own user's.
import { constants } from "node:fs";
import { lstat, open } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { dirname, isAbsolute, normalize } from "node:path";
import { ProviderError } from "./provider.ts";

export interface ToolhiveServer {
  /** `http://127.0.0.1:PORT`; with a socket a name that leads nowhere. */
  readonly origin: string;
  readonly socketPath: string | undefined;
  readonly nonce: string;
  readonly pid: number | undefined;
}

const fileBytesMax = 64 * 1024;

/** Throws ProviderError when there is no server, or its file is not to be trusted. */
export async function readServerFile(path: string): Promise<ToolhiveServer> {
  await checkDirectory(dirname(path));
  const text = await readOwn(path);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new ProviderError(`${path} is no JSON`);
  }
  const { url, nonce, pid } = (typeof json === "object" && json !== null ? json : {}) as Record<string, unknown>;
  if (typeof url !== "string" || typeof nonce !== "string" || nonce === "" || nonce.length > 256)
    throw new ProviderError(`${path} names no url and nonce`);
  const place = await placeOf(url, path);
  return { ...place, nonce, pid: Number.isSafeInteger(pid) && (pid as number) > 0 ? (pid as number) : undefined };
}

/** Whether a process of this id runs. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // somebody else's, so it runs
  }
}

async function checkDirectory(path: string): Promise<void> {
  const stat = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    throw missing(error, path);
  });
  if (!stat.isDirectory()) throw new ProviderError(`${path} is not a directory of its own`);
  checkOwner(stat, path, 0o022);
}

async function readOwn(path: string): Promise<string> {
  // The flag and a look at what was opened, so that nothing can be exchanged in between. A FIFO must not hold us up.
  const flags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
  const file = await open(path, flags).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "ELOOP" ? new ProviderError(`${path} is a symbolic link`) : missing(error, path);
  });
  try {
    const stat = await file.stat();
    if (!stat.isFile() || stat.size > fileBytesMax)
      throw new ProviderError(`${path} is no file of at most ${fileBytesMax} bytes`);
    checkOwner(stat, path, 0o077);
    return await file.readFile("utf8");
  } finally {
    await file.close();
  }
}

function checkOwner({ uid, mode }: { uid: number; mode: number }, path: string, forbidden: number): void {
  const own = process.getuid?.();
  if (own === undefined) return; // Windows: the directory is the user's profile
  if (uid !== own) throw new ProviderError(`${path} belongs to another user`);
  if ((mode & forbidden) !== 0)
    throw new ProviderError(`${path} is open to other users (mode ${(mode & 0o777).toString(8).padStart(4, "0")})`);
}

function missing({ code }: NodeJS.ErrnoException, path: string): ProviderError {
  if (code === "ENOENT" || code === "ENOTDIR") return new ProviderError(`no ToolHive server runs: there is no ${path}`);
  return new ProviderError(`${path} can't be read: ${code}`);
}

async function placeOf(url: string, path: string): Promise<Pick<ToolhiveServer, "origin" | "socketPath">> {
  if (url.startsWith("unix://")) {
    const socketPath = url.slice("unix://".length);
    if (!isAbsolute(socketPath) || normalize(socketPath) !== socketPath || socketPath.includes("\0"))
      throw new ProviderError(`${path} names a socket without an absolute path`);
    const stat = await lstat(socketPath).catch((error: NodeJS.ErrnoException) => {
      throw missing(error, socketPath);
    });
    if (!stat.isSocket()) throw new ProviderError(`${socketPath} is no socket`);
    if (process.getuid && stat.uid !== process.getuid()) throw new ProviderError(`${socketPath} belongs to another user`);
    return { origin: "http://toolhive.invalid", socketPath };
  }
  if (url.startsWith("npipe://")) throw new ProviderError("the ToolHive server listens on a named pipe, which is not supported");
  const parsed = URL.parse(url);
  if (parsed?.protocol !== "http:" || parsed.username !== "" || !["/", ""].includes(parsed.pathname))
    throw new ProviderError(`${path} names a url that is not http://127.0.0.1:PORT`);
  if (!isLoopback(parsed.hostname)) throw new ProviderError(`${path} names a server that is not on this machine`);
  return { origin: parsed.origin, socketPath: undefined };
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || (isIPv4(host) && host.startsWith("127."));
}
