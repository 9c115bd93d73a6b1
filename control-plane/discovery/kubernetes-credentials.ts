// How the Kubernetes API is reached: from within a pod, or by a kubeconfig. @kubernetes/client-node would read kubeconfigs too; it
// brings 68 packages (83 MB) and plug-ins that run programs, so the few fields that are needed are read here, and what asks for more
// is refused with a sentence.
import { readFileSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { ProviderError } from "./provider.ts";

export interface Access {
  /** http or https, with the path before `/api`, without a slash at its end. */
  readonly server: string;
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string; readonly servername?: string };
  /** Bearer token, read anew for each request: kubelet exchanges it before it expires. */
  token(): Promise<string | undefined>;
  /** Its own namespace. */
  readonly namespace: string;
}

export interface CredentialOptions {
  /** Path of a kubeconfig. Default: KUBECONFIG; else what a pod is given; else `~/.kube/config`. */
  readonly kubeconfig?: string;
  /** Default: the kubeconfig's current context. */
  readonly context?: string;
  /** Default: the process's. KUBECONFIG, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are read. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Where kubelet puts token, CA and namespace. Default `/var/run/secrets/kubernetes.io/serviceaccount`. */
  readonly serviceAccountDirectory?: string;
}

const fileBytesMax = 1024 * 1024;

/** Throws ProviderError when there are none, or none that can be used. */
export function findAccess(options: CredentialOptions = {}): Access {
  const environment = options.environment ?? process.env;
  if (options.kubeconfig) return fromKubeconfig([options.kubeconfig], options.context);
  if (environment.KUBECONFIG) return fromKubeconfig(environment.KUBECONFIG.split(delimiter).filter(Boolean), options.context);
  if (environment.KUBERNETES_SERVICE_HOST) return fromPod(environment, options.serviceAccountDirectory);
  return fromKubeconfig([join(environment.HOME || homedir(), ".kube", "config")], options.context);
}

function fromPod(
  environment: Readonly<Record<string, string | undefined>>,
  directory = "/var/run/secrets/kubernetes.io/serviceaccount",
): Access {
  const host = environment.KUBERNETES_SERVICE_HOST ?? "";
  const server = `https://${host.includes(":") ? `[${host}]` : host}:${environment.KUBERNETES_SERVICE_PORT || "443"}`;
  return {
    server,
    tls: { ca: read(join(directory, "ca.crt")) },
    token: () => readToken(join(directory, "token")),
    namespace: read(join(directory, "namespace")).trim(),
  };
}

const named = <T extends z.ZodType>(key: string, inner: T) =>
  z.array(z.object({ name: z.string(), [key]: inner }).transform((entry) => [entry.name, entry[key]] as [string, z.output<T>]));
const text = z.string().nullish();
const cluster = z.object({
  server: z.string(),
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": z.boolean().nullish(),
  "tls-server-name": text,
  "proxy-url": text,
});
const user = z
  .object({
    token: text,
    tokenFile: text,
    "client-certificate": text,
    "client-certificate-data": text,
    "client-key": text,
    "client-key-data": text,
  })
  .loose();
const context = z.object({ cluster: z.string(), user: z.string().nullish(), namespace: text });
const kubeconfig = z.object({
  "current-context": text,
  clusters: named("cluster", cluster).nullish(),
  users: named("user", user).nullish(),
  contexts: named("context", context).nullish(),
});

/** What a user entry may ask for that is not given, and why. */
const refused: Readonly<Record<string, string>> = {
  exec: "it gets credentials from a program (exec), which is not supported; use a token of a service account",
  "auth-provider": "it gets credentials from an auth-provider, which is not supported; use a token of a service account",
  username: "it signs in with a password, which Kubernetes has given up",
  as: "it acts as somebody else (impersonation), which is not supported",
};

/** Of several files the first that says something is believed, as kubectl does; those that do not exist are skipped. */
function fromKubeconfig(paths: readonly string[], wantedContext: string | undefined): Access {
  const files = paths.flatMap((path) => {
    const content = readIfThere(path);
    return content === undefined ? [] : [{ path, ...parseKubeconfig(path, content) }];
  });
  if (files.length === 0) {
    throw new ProviderError(`no way into Kubernetes: this is no pod, and there is no kubeconfig at ${paths.join(", ")}`);
  }
  function find<T>(pick: (file: (typeof files)[number]) => readonly [string, T][] | null | undefined, name: string) {
    for (const file of files) {
      const entry = pick(file)?.find(([own]) => own === name);
      if (entry) return { value: entry[1], directory: dirname(file.path), path: file.path };
    }
    return undefined;
  }

  const current = wantedContext ?? files.map((file) => file["current-context"]).find(Boolean);
  if (!current) throw new ProviderError(`the kubeconfig ${paths.join(", ")} has no current-context`);
  const chosen = find((file) => file.contexts, current)?.value;
  if (!chosen) throw new ProviderError(`the kubeconfig ${paths.join(", ")} has no context ${JSON.stringify(current)}`);
  const target = find((file) => file.clusters, chosen.cluster);
  if (!target) throw new ProviderError(`the kubeconfig ${paths.join(", ")} has no cluster ${JSON.stringify(chosen.cluster)}`);
  const who = find((file) => file.users, chosen.user ?? "");
  if (chosen.user && !who)
    throw new ProviderError(`the kubeconfig ${paths.join(", ")} has no user ${JSON.stringify(chosen.user)}`);

  const about = `context ${JSON.stringify(current)} of kubeconfig ${target.path}`;
  if (target.value["insecure-skip-tls-verify"]) {
    throw new ProviderError(
      `${about}: it does not check the server (insecure-skip-tls-verify), which is not supported; give its CA`,
    );
  }
  if (target.value["proxy-url"]) throw new ProviderError(`${about}: it goes through a proxy (proxy-url), which is not supported`);
  for (const [key, why] of Object.entries(refused)) {
    if (who?.value[key] !== undefined && who.value[key] !== null) throw new ProviderError(`${about}: ${why}`);
  }

  const pem = (from: typeof target | typeof who, key: string): string | undefined => {
    const entry = from?.value as Readonly<Record<string, unknown>> | undefined;
    const inline = entry?.[`${key}-data`];
    if (typeof inline === "string" && inline !== "") return Buffer.from(inline, "base64").toString("utf8");
    const path = entry?.[key];
    return typeof path === "string" && path !== "" ? read(resolve(from?.directory ?? "", path)) : undefined;
  };
  const [ca, cert, key] = [pem(target, "certificate-authority"), pem(who, "client-certificate"), pem(who, "client-key")];
  const servername = target.value["tls-server-name"];
  const { token, tokenFile } = who?.value ?? {};
  const hasCredential = Boolean(token || tokenFile);
  return {
    server: serverOf(target.value.server, { about, hasCredential }),
    tls: { ...(ca ? { ca } : {}), ...(cert && key ? { cert, key } : {}), ...(servername ? { servername } : {}) },
    async token() {
      if (tokenFile) return readToken(resolve(who?.directory ?? "", tokenFile));
      return token ? checkedToken(token, about) : undefined;
    },
    namespace: chosen.namespace || "default",
  };
}

function serverOf(address: string, { about, hasCredential }: { about: string; hasCredential: boolean }): string {
  const url = /^https?:\/\//.test(address) ? URL.parse(address) : null;
  if (!url?.hostname || url.username !== "" || url.search !== "") throw new ProviderError(`${about}: its server is no URL`);
  // kubectl proxy listens in plain text, on this machine, and wants no credentials.
  if (url.protocol === "http:" && hasCredential) throw new ProviderError(`${about}: its token would be sent in plain text`);
  return url.origin + url.pathname.replace(/\/+$/, "");
}

function parseKubeconfig(path: string, content: string): z.infer<typeof kubeconfig> {
  let document: unknown;
  try {
    document = parse(content);
  } catch (error) {
    throw new ProviderError(`the kubeconfig ${path} is no YAML`, { cause: error });
  }
  const parsed = kubeconfig.safeParse(document);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new ProviderError(`the kubeconfig ${path} is in an unknown shape at ${issue?.path.join(".") || "its root"}`);
}

function read(path: string): string {
  const content = readIfThere(path);
  if (content === undefined) throw new ProviderError(`can't read ${path}, needed for Kubernetes: there is no such file`);
  return content;
}

function readIfThere(path: string): string | undefined {
  try {
    const { size } = statSync(path);
    if (size > fileBytesMax) throw new ProviderError(`${path} is larger than ${fileBytesMax} bytes, so it is not read`);
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof ProviderError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new ProviderError(`can't read ${path}, needed for Kubernetes: ${code}`, { cause: error });
  }
}

async function readToken(path: string): Promise<string> {
  const token = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw new ProviderError(`can't read the token ${path}, needed for Kubernetes: ${error.code}`, { cause: error });
  });
  return checkedToken(token.trim(), `the file ${path}`);
}

/** What is no header value would become an error that shows it. */
function checkedToken(token: string, where: string): string {
  if (!/^[\x21-\x7e]+$/.test(token)) throw new ProviderError(`${where} holds no token`);
  return token;
}
