// A certificate authority for one test, and what it vouches for: made by openssl, since Node.js can't make certificates.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { programPath } from "./debian.ts";
import { runProcess, temporaryDirectory } from "./processes.ts";

export interface Certificates extends AsyncDisposable {
  /** Holds `ca.pem`, `cert.pem` and `key.pem`, as Docker's client wants them: the certificate of a client. */
  readonly directory: string;
  readonly ca: string;
  /** For 127.0.0.1 and localhost. */
  readonly server: { readonly cert: string; readonly key: string };
  readonly client: { readonly cert: string; readonly key: string };
}

export async function makeCertificates(): Promise<Certificates> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const openssl = await programPath("openssl", "openssl");
  const file = (name: string): string => join(directory.path, name);
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];

  async function make(name: string, extension: readonly string[]): Promise<void> {
    const [key, cert] =
      name === "client" ? ["key.pem", "cert.pem"] : [`${name}-key.pem`, name === "ca" ? "ca.pem" : `${name}.pem`];
    const issuer = name === "ca" ? [] : ["-CA", file("ca.pem"), "-CAkey", file("ca-key.pem")];
    const into = ["-keyout", file(key), "-out", file(cert), "-subj", `/CN=test ${name}`];
    const { code, stderr } = await runProcess(openssl, ["req", "-x509", ...ec, ...issuer, ...into, ...extension]);
    if (code !== 0) throw new Error(`openssl made no certificate: ${stderr}`);
  }

  await make("ca", ["-addext", "keyUsage=critical,keyCertSign"]);
  const leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
  await make("server", [...leaf, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]);
  await make("client", leaf);
  const read = (name: string): Promise<string> => readFile(file(name), "utf8");
  const owned = stack.move();
  return {
    directory: directory.path,
    ca: await read("ca.pem"),
    server: { cert: await read("server.pem"), key: await read("server-key.pem") },
    client: { cert: await read("cert.pem"), key: await read("key.pem") },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
