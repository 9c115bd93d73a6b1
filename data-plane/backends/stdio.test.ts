import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openLog } from "../../common/log.ts";
import type { Pipe } from "./pipe.ts";
import { openStdio, type StdioOptions } from "./stdio.ts";

const log = openLog("test", "silent");

test("a message arrives with the bytes the server wrote, and back", async () => {
  await using server = await start(`process.stdin.on("data", (chunk) => process.stdout.write(chunk))`);
  const exact = `{"id":9007199254740993,"n":[1.0,1e400,-0],"é":"\\u00e9 ☃","a":1,"a":2}`;
  await server.pipe.send(Buffer.from(exact));
  assert.equal(await server.next(), exact);
});

test("a line end inside a message can't smuggle in a second one", async () => {
  await using server = await start(`process.stdin.on("data", (chunk) => process.stdout.write(chunk))`);
  await server.pipe.send(Buffer.from('{"a":\r\n1}'));
  assert.equal(await server.next(), '{"a":  1}');
});

test("a message split over many writes is one message, and several in one write are several", async () => {
  await using server = await start(`
    const parts = ['{"a"', ':"\\u2603', '"}\\n{"b":2}\\r\\n\\n{"c":3}\\n'];
    const write = () => parts.length > 0 && process.stdout.write(parts.shift(), () => setTimeout(write, 5));
    write(); process.stdin.resume();`);
  assert.deepEqual([await server.next(), await server.next(), await server.next()], ['{"a":"☃"}', '{"b":2}', '{"c":3}']);
});

test("banners on standard output are skipped", async () => {
  await using server = await start(
    `console.log("Server ready!"); console.log("[info] x"); console.log('{"ok":1}'); process.stdin.resume();`,
  );
  assert.equal(await server.next(), '{"ok":1}');
});

test("the server sees a minimal environment and what it was given, nothing of ours", async () => {
  process.env.VMCP_TEST_SECRET = "hush";
  await using server = await start(`console.log(JSON.stringify(process.env)); process.stdin.resume();`, { env: { GIVEN: "1" } });
  const seen = JSON.parse(await server.next()) as Record<string, string>;
  assert.equal(seen.GIVEN, "1");
  assert.equal(seen.PATH, process.env.PATH);
  assert.equal(seen.VMCP_TEST_SECRET, undefined);
});

for (const [what, options, wanted] of [
  ["an unknown program", { command: "no-such-program-here" }, /cannot start "s": "no-such-program-here" is not on the PATH/],
  ["a missing file", { command: "/no/such/file" }, /"\/no\/such\/file" does not exist/],
  ["a missing directory", { cwd: "/no/such/dir" }, /working directory "\/no\/such\/dir" does not exist/],
  ["a file that may not be run", { command: import.meta.filename }, /no permission to run/],
] as const) {
  test(`${what} is refused with a sentence`, async () => {
    await assert.rejects(start("", options), wanted);
  });
}

test("a server that ends by itself says how", async () => {
  await using server = await start(`process.exit(3)`);
  assert.match((await server.closed)?.message ?? "", /"s" ended with exit code 3/);
  await assert.rejects(server.pipe.send(Buffer.from("{}")), /no longer reads/);
});

test("the last message before the end is not lost", async () => {
  await using server = await start(`process.stdout.write('{"last":1}\\n', () => process.exit(0))`);
  assert.equal(await server.next(), '{"last":1}');
  await server.closed;
});

test("a line without end closes the connection with a reason", async () => {
  await using server = await start(
    `const block = "x".repeat(1 << 20); const write = () => process.stdout.write(block, write); write();`,
  );
  assert.match((await server.closed)?.message ?? "", /longer than 16777216 bytes/);
});

test("a server that does not read is not sent without bound", async () => {
  await using server = await start(`setInterval(() => {}, 1000)`, { graceMs: 100 });
  const sends = Array.from({ length: 20 }, () =>
    server.pipe.send(Buffer.alloc(1 << 20, 0x20)).catch((error: Error) => error.message),
  );
  assert.match((await Promise.race(sends)) ?? "", /does not read what it is sent/);
});

test("closing ends the server by closing its input, without a reason", async () => {
  await using server = await start(`process.stdin.resume(); process.stdin.on("end", () => process.exit(0)); console.log("{}")`);
  await server.next();
  await Promise.all([server.pipe.close(), server.pipe.close()]);
  assert.equal(await server.closed, undefined);
});

test("closing kills a server that won't end, and what it started", async () => {
  const stubborn = `process.on("SIGTERM", () => {}); setInterval(() => {}, 1000);`;
  await using server = await start(
    `const child = require("node:child_process").spawn(process.execPath, ["-e", ${JSON.stringify(`${stubborn} console.log("up")`)}]);
     child.stdout.once("data", () => console.log(JSON.stringify({ pid: child.pid })));
     ${stubborn}`,
    { graceMs: 100 },
  );
  const { pid } = JSON.parse(await server.next()) as { pid: number };
  assert.ok(isAlive(pid));
  await server.pipe.close();
  assert.equal(await server.closed, undefined);
  await eventually(() => !isAlive(pid));
});

test("a server's children die with it", async () => {
  await using server = await start(
    `const child = require("node:child_process").spawn(process.execPath, ["-e", 'console.log("up"); setInterval(() => {}, 1000)'], { stdio: ["ignore", "pipe", "inherit"] });
     child.stdout.once("data", () => { process.stdout.write(JSON.stringify({ pid: child.pid }) + "\\n", () => process.exit(0)); });`,
  );
  const { pid } = JSON.parse(await server.next()) as { pid: number };
  await server.closed;
  await eventually(() => !isAlive(pid));
});

interface Started extends AsyncDisposable {
  readonly pipe: Pipe;
  next(): Promise<string>;
  readonly closed: Promise<Error | undefined>;
}

async function start(script: string, options: Partial<StdioOptions> = {}): Promise<Started> {
  const received: string[] = [];
  const arrivals = new EventTarget();
  const { promise: closed, resolve } = Promise.withResolvers<Error | undefined>();
  const pipe = await openStdio(
    { name: "s", command: process.execPath, args: ["-e", script], env: {}, cwd: tmpdir(), log, ...options },
    {
      onMessage: (message) => {
        received.push(message.toString());
        arrivals.dispatchEvent(new Event("message"));
      },
      onClose: resolve,
    },
  );
  return {
    pipe,
    closed,
    next: async () => {
      while (received.length === 0) await once(arrivals, "message", { signal: AbortSignal.timeout(10_000) });
      return received.shift() as string;
    },
    [Symbol.asyncDispose]: () => pipe.close(),
  };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie waits only for the system's init process, which may be in no hurry.
    return !existsSync("/proc/self/stat") || !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

async function eventually(holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (!holds()) {
    assert.ok(Date.now() < deadline, "did not come true within 5 s");
    await sleep(10);
  }
}
