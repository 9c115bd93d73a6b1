import assert from "node:assert/strict";
import { mkdir, rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { type Certificates, makeCertificates } from "../test/support/certificates.ts";
import { eventually } from "../test/support/eventually.ts";
import { temporaryDirectory } from "../test/support/processes.ts";
import { watchKeyPair } from "./key-pair.ts";

const stack = new AsyncDisposableStack();
let first: Certificates;
let second: Certificates;

before(async () => {
  [first, second] = [stack.use(await makeCertificates()), stack.use(await makeCertificates())];
});
after(() => stack.disposeAsync());

test("a pair of which half has been replaced is not taken, the whole one is", async () => {
  await using folder = await temporaryDirectory();
  const lines: string[] = [];
  const log = pino({ level: "info" }, { write: (line) => void lines.push(line) });
  const files = await put(folder, first.server);
  using source = watchKeyPair(files, log);
  let heard = 0;
  source.onChange(() => {
    heard += 1;
  });
  await writeFile(files.certFile, second.server.cert);
  await sleep(2_500);
  assert.deepEqual([source.current().certificate, heard], [first.server.cert, 0]);
  assert.equal(lines.filter((line) => line.includes("is not the key of")).length, 1, "said once");
  await writeFile(files.keyFile, second.server.key);
  await eventually("the new pair", () => source.current().certificate === second.server.cert);
  assert.deepEqual([source.current().key, heard], [second.server.key, 1]);
});

test("files that go away leave what was there", async () => {
  await using folder = await temporaryDirectory();
  const files = await put(folder, first.server);
  using source = watchKeyPair(files, pino({ level: "silent" }));
  await rename(files.keyFile, `${files.keyFile}.gone`);
  await sleep(1_500);
  assert.equal(source.current().key, first.server.key);
});

test("a link to a directory that is swapped, as Kubernetes does it, is followed", async () => {
  await using folder = await temporaryDirectory();
  for (const [name, pair] of [
    ["one", first.server],
    ["two", second.server],
  ] as const) {
    await mkdir(join(folder.path, name));
    await put({ path: join(folder.path, name) }, pair);
  }
  await symlink("one", join(folder.path, "current"));
  const at = (name: string) => join(folder.path, "current", name);
  using source = watchKeyPair({ certFile: at("cert.pem"), keyFile: at("key.pem") }, pino({ level: "silent" }));
  await symlink("two", join(folder.path, "next"));
  await rename(join(folder.path, "next"), join(folder.path, "current"));
  await eventually("the other pair", () => source.current().certificate === second.server.cert);
});

for (const [what, cert, key, wanted] of [
  ["no files", undefined, undefined, /can't read .*cert\.pem: ENOENT/],
  ["no certificate", "x", "x", /cert\.pem has no certificate in PEM/],
  ["no key", "own", "x", /key\.pem has no private key in PEM/],
  ["files of two pairs", "own", "other", /key\.pem is not the key of the certificate in .*cert\.pem/],
] as const) {
  test(`${what} is an error at the start`, async () => {
    await using folder = await temporaryDirectory();
    const texts = { own: first.server.cert, other: second.server.key, x: "x" };
    const files = { certFile: join(folder.path, "cert.pem"), keyFile: join(folder.path, "key.pem") };
    if (cert) await writeFile(files.certFile, texts[cert]);
    if (key) await writeFile(files.keyFile, texts[key]);
    assert.throws(() => watchKeyPair(files, pino({ level: "silent" })), wanted);
  });
}

async function put(folder: { readonly path: string }, { cert, key }: Certificates["server"]) {
  const files = { certFile: join(folder.path, "cert.pem"), keyFile: join(folder.path, "key.pem") };
  await writeFile(files.certFile, cert);
  await writeFile(files.keyFile, key);
  return files;
}
