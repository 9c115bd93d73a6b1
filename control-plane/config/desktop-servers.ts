// The `mcpServers` JSON of desktop MCP clients → backends as our file has them.

export interface DesktopServer {
  readonly name: string;
  /** Keys of a backend entry. */
  readonly entry: Readonly<Record<string, unknown>>;
  /** To stand above the entry. */
  readonly comments: readonly string[];
  /** Written as a comment only: it can't be used as it is. */
  readonly isDisabled: boolean;
}

export interface DesktopServers {
  readonly servers: readonly DesktopServer[];
  /** For the person who runs the command. */
  readonly notes: readonly string[];
}

/** Why the text can't be used, in one line, or what it holds. `.mcp.json` and `mcp.json` of editors are read too. */
export function readDesktopServers(text: string, path: string): DesktopServers | string {
  const json = parseJson(text);
  if (json === undefined) return `${path} is not JSON`;
  const map = [json.mcpServers, json.servers].find(isRecord);
  if (map === undefined) return `${path} has no "mcpServers" map`;
  const seen: Seen = { names: new Set(), variables: new Map(), notes: [] };
  const servers = Object.entries(map).flatMap(([original, value]) =>
    isRecord(value) ? [readServer(original, value, seen)] : [],
  );
  return servers.length === 0 ? `${path} lists no servers` : { servers, notes: seen.notes };
}

/** What one run knows across servers. */
interface Seen {
  readonly names: Set<string>;
  /** Environment variable → the secret that it stands for, so that two servers' secrets do not share one. */
  readonly variables: Map<string, string>;
  readonly notes: string[];
}

function readServer(original: string, value: Record<string, unknown>, seen: Seen): DesktopServer {
  const name = freeName(original, seen.names);
  seen.names.add(name);
  const comments: string[] = [];
  if (name !== original) comments.push(`named ${JSON.stringify(original)} in the client`);
  const isDisabled = value.disabled === true || value.enabled === false;
  if (isDisabled) comments.push("disabled in the client; remove the # to use it");
  if (typeof value.command === "string" && value.command !== "") {
    return { name, entry: { name, ...stdioEntry(value, name, comments, seen) }, comments, isDisabled };
  }
  const address = [value.url, value.serverUrl, value.httpUrl].find((url) => typeof url === "string");
  if (address === undefined || !isHttpUrl(address)) {
    const why =
      address === undefined ? "it has neither command nor url" : "its url is not an http or https URL without credentials in it";
    comments.push(`left out: ${why}`);
    seen.notes.push(`${name} is left out: ${why}`);
    return { name, entry: { name, url: "http://127.0.0.1:3000/mcp" }, comments, isDisabled: true };
  }
  const transport = value.type === "sse" ? "sse" : "streamable-http";
  remoteComments(address, value.headers, name, comments, seen.notes);
  return { name, entry: { name, url: address, transport }, comments, isDisabled };
}

function stdioEntry(value: Record<string, unknown>, name: string, comments: string[], seen: Seen): Record<string, unknown> {
  const env = environment(value.env, name, comments, seen);
  const args = texts(value.args);
  if (args.some((arg) => looksLikeToken(arg) || (arg.includes("=") && looksSecret(arg.split("=")[0] ?? "")))) {
    comments.push("an argument looks like a secret: better give it to the server through env");
    seen.notes.push(`an argument of ${name} looks like a secret; it stands in the file as it was`);
  }
  return {
    transport: "stdio",
    command: value.command,
    ...(args.length > 0 && { args }),
    ...(Object.keys(env).length > 0 && { env }),
    ...(typeof value.cwd === "string" && value.cwd !== "" && { cwd: value.cwd }),
  };
}

function remoteComments(address: string, headers: unknown, name: string, comments: string[], notes: string[]): void {
  if ([...new URL(address).searchParams.keys()].some(looksSecret)) {
    comments.push("the url carries what looks like a secret");
    notes.push(`the url of ${name} carries what looks like a secret; it stands in the file as it was`);
  }
  for (const header of Object.keys(isRecord(headers) ? headers : {}).map(oneLine)) {
    const variable = variableName(name, header);
    comments.push(
      `the client sends header ${header}: put its value into the environment variable ${variable}, and below outgoingAuth:`,
    );
    comments.push(
      `backends: { ${name}: { type: header_injection, headerInjection: { headerName: "${header}", headerValueEnv: ${variable} } } }`,
    );
    notes.push(`${name} got header ${header} from the client; its value is not copied, see the comment in the file`);
  }
}

/** Secrets stay out of the file: they become references to variables of the process that runs the proxy. */
function environment(value: unknown, name: string, comments: string[], seen: Seen): Record<string, string> {
  const env: Record<string, string> = {};
  for (const [key, entry] of Object.entries(isRecord(value) ? value : {})) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(key) || !["string", "number", "boolean"].includes(typeof entry)) continue;
    const text = String(entry);
    // ${NAME} and ${env:NAME} is how clients refer to a variable.
    const reference = /^\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)\}$/.exec(text)?.[1];
    if (reference !== undefined) env[key] = `env:${reference}`;
    else if (looksSecret(key) || looksLikeToken(text)) {
      const isFree = (seen.variables.get(key) ?? text) === text;
      const variable = isFree ? key : variableName(name, key);
      seen.variables.set(variable, text);
      env[key] = `env:${variable}`;
      const what = isFree ? variable : `${variable} (its ${key})`;
      comments.push(`export ${what} before starting vmcp: its value looked like a secret and is not copied`);
      seen.notes.push(`export ${what} before starting vmcp: ${name} needs it, and its value is not copied`);
    } else env[key] = text;
  }
  return env;
}

function looksSecret(name: string): boolean {
  return /secret|token|passw|passphrase|credential|auth|cookie|api_?-?key|access_?-?key|private_?-?key|(^|[_-])(key|pat|pwd|dsn)$/i.test(
    name,
  );
}

// Long and without spaces, of the alphabets that keys are written in; or an address with a password in it.
function looksLikeToken(value: string): boolean {
  return (
    /^(sk-|gh[a-z]_|github_pat_|xox[a-z]-|glpat-|AKIA|eyJ)/.test(value) ||
    /^[A-Za-z0-9_+=-]{32,}$/.test(value) ||
    /:\/\/[^\s/@]*:[^\s/@]+@/.test(value)
  );
}

function freeName(original: string, taken: ReadonlySet<string>): string {
  const clean =
    original
      .normalize("NFKD")
      .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
      .replace(/^[^A-Za-z0-9]+/, "")
      .slice(0, 56)
      .replace(/[-.]+$/, "") || "server";
  let name = clean;
  for (let count = 2; taken.has(name); count++) name = `${clean}-${count}`;
  return name;
}

function variableName(server: string, header: string): string {
  return `${server}_${header}`
    .toUpperCase()
    .replaceAll(/[^A-Z0-9]+/g, "_")
    .replace(/^(?=\d)/, "_");
}

function isHttpUrl(value: string): boolean {
  const url = /^https?:\/\//i.test(value) && !/[\s\\]/.test(value) ? URL.parse(value) : null;
  return url !== null && url.username === "" && url.password === "";
}

function parseJson(text: string): Record<string, unknown> | undefined {
  try {
    const json: unknown = JSON.parse(text.replace(/^\ufeff/, ""));
    return isRecord(json) ? json : undefined;
  } catch {
    return undefined;
  }
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === "string" || typeof entry === "number").map(String) : [];
}

function oneLine(value: string): string {
  return value.replaceAll(/[^\x21-\x7e]+/g, "?").slice(0, 100);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
