import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { gzipSync } from "node:zlib";
import { isPublicAddress } from "./addresses.ts";
import { createGuardedFetch, FetchRefusedError } from "./guarded-fetch.ts";

const notPublic = [
  ...["0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254"],
  ...["169.254.169.254", "169.254.0.1", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.1"],
  ...["198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1"],
  ...["255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1"],
  // NAT64, its local form, 6to4 and Teredo, each with a private address and the metadata service inside.
  ...["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1"],
  ...["2002:808:808::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1", "2001:10::1", "2001:20::1", "3fff::1"],
  ...["fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1", "100::1", "5f00::1", "4000::1"],
  ...["", "localhost", "example.com", "127.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.1.", "1.2.3", "1.2.3.4.5"],
];
const isPublic = [
  "1.1.1.1",
  "8.8.8.8",
  "93.184.216.34",
  "172.15.0.1",
  "172.32.0.1",
  "100.63.255.255",
  "100.128.0.1",
  "192.0.1.1",
];
const isPublic6 = ["2606:4700:4700::1111", "2a00:1450:4001::1", "2003::1", "2001:200::1", "2620:0:1::1"];

test("addresses that are not of the public Internet are known, however they are written", () => {
  for (const address of notPublic) assert.equal(isPublicAddress(address), false, address);
  for (const address of [...isPublic, ...isPublic6]) assert.equal(isPublicAddress(address), true, address);
});

// As somebody else may write them into a document. WHATWG URLs turn many spellings into one address.
const bomb = gzipSync(Buffer.alloc(1_000_000));

const hostile = [
  ...["127.0.0.1", "127.1", "127.0.1", "0x7f000001", "0x7f.0.0.1", "2130706433", "017700000001", "0177.0.0.1", "１２７.0.0.1"],
  ...["①②⑦.0.0.1", "127。0。0。1", "%31%32%37.0.0.1", "0", "0.0.0.0", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]"],
  ...["[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[fe80::1]", "[fc00::1]", "[fec0::1]"],
  ...["169.254.169.254", "0xa9fea9fe", "2852039166", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "localhost"],
  ...[
    "LOCALHOST",
    "localhost.",
    "ｌｏｃａｌｈｏｓｔ",
    "ip6-localhost",
    "[2001:0:7f00:1::]",
    "[64:ff9b:1::a00:1]",
    "0300.0xa8.1.1",
  ],
];
const urls = hostile.flatMap((host) => [`https://${host}/keys`, `http://${host}/keys`]);

test("an address that the operator did not write is not asked when it is not public", async () => {
  assert.ok(urls.length >= 80, `${urls.length} spellings`);
  const fetch = createGuardedFetch({ named: ["https://login.example.com"], allowHttp: true });
  for (const url of [...urls, ...notPublic.filter((one) => one.includes(":")).map((one) => `https://[${one}]/`)])
    await assert.rejects(fetch(url), (error: Error & { code?: string }) => {
      // A name that does not exist is as good as refused; what counts is that nobody was connected to.
      const isRefused = error instanceof FetchRefusedError || ["ENOTFOUND", "EAI_AGAIN"].includes(error.code ?? "");
      assert.ok(isRefused, `${url}: ${error.name} ${error.code} ${error.message}`);
      return true;
    });
});

async function serve(t: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("what the operator wrote may be private and plain; the same server at another port may not", async (t) => {
  const [own, other] = [
    await serve(t, (_, response) => void response.end("own")),
    await serve(t, (_, response) => void response.end()),
  ];
  const fetch = createGuardedFetch({ named: [`${own}/realms/team`] });
  assert.equal(await (await fetch(`${own}/keys`)).text(), "own");
  await assert.rejects(fetch(`${other}/keys`), FetchRefusedError);
  await assert.rejects(createGuardedFetch({ named: [own], allowHttp: true })(other), /not public/);
  await assert.rejects(createGuardedFetch({ named: [own], allowPrivate: true })(other), /plain http/);
  await createGuardedFetch({ named: [own], allowPrivate: true, allowHttp: true })(other);
});

test("a name is looked up when it is connected to, and refused when it leads home", async (t) => {
  const address = await serve(t, (_, response) => void response.end("reached"));
  const port = new URL(address).port;
  const fetch = createGuardedFetch({ named: ["https://login.example.com"], allowHttp: true });
  await assert.rejects(fetch(`http://localhost:${port}/`), FetchRefusedError);
});

for (const [what, listener, message] of [
  ["leads elsewhere", (_, response) => void response.writeHead(302, { location: "http://127.0.0.1:1/" }).end(), /HTTP 302/],
  ["never ends", (_, response) => void response.write("x"), /no answer in time/],
  ["says nothing", () => undefined, /no answer in time/],
  ["is too large", (_, response) => void response.end(Buffer.alloc(5_000)), /larger than 4096/],
  [
    "is too large once it is unpacked",
    (_, response) => void response.writeHead(200, { "content-encoding": "gzip" }).end(bomb),
    /larger than 4096/,
  ],
] satisfies [string, RequestListener, RegExp][])
  test(`an answer that ${what} is given up`, async (t) => {
    const address = await serve(t, listener);
    const fetch = createGuardedFetch({ named: [address], timeoutMs: 200, bytesMax: 4_096 });
    await assert.rejects(fetch(address), message);
  });

for (const url of ["", "file:///etc/passwd", "ftp://example.com", "data:,x", "https://user:secret@example.com/", "javascript:1"])
  test(`${JSON.stringify(url)} is no address to ask, and not told`, async () => {
    await assert.rejects(createGuardedFetch({ named: [] })(url), (error: Error) => {
      assert.ok(error instanceof FetchRefusedError);
      assert.doesNotMatch(error.message, /secret|passwd/);
      return true;
    });
  });
