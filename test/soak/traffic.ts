// Mixed traffic of real clients against one proxy, at a pace that keeps it at a given part of a processor: calls, calls with progress,
// lists, sessions that come and go with and without a goodbye, streams, and callers of the era without sessions.
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, setGlobalDispatcher } from "undici";
import { cpuOf } from "../bench/measure.ts";
import { type Backend, type Call, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openClient, openRawSession } from "../support/client.ts";
import { ask } from "../support/stateless-client.ts";

// Who has left is gone a second later, whatever the proxy would allow.
setGlobalDispatcher(new Agent({ keepAliveTimeout: 1_000, keepAliveMaxTimeout: 1_000 }));

const tools = [plainTool("echo"), plainTool("steps")];

/** A server for it. */
export function startServer(): Promise<Backend> {
  return startBackend({ tools, calls: { echo: () => textResult("hello"), steps }, isForgetful: true });
}

function steps({ params, notify }: Call): string {
  const { progressToken } = params._meta as { progressToken: unknown };
  for (let progress = 1; progress <= 10; progress++)
    notify(JSON.stringify({ jsonrpc: "2.0", method: "notifications/progress", params: { progressToken, progress } }));
  return textResult("done");
}

export interface Traffic extends AsyncDisposable {
  /** What was done so far, and what of it failed. */
  readonly seen: { operations: number; readonly failures: string[] };
}

export interface TrafficOptions {
  readonly url: string;
  /** Of the proxy. */
  readonly pid: number;
  /** The proxy is kept this busy: 0.5 is half a processor. */
  readonly busy: number;
  readonly backend: Backend;
}

const paceMs = 1_000;
const pauseMs = { first: 20, least: 1, most: 500 };

/** Runs until it is disposed; then everybody leaves. */
export function startTraffic({ url, pid, busy, backend }: TrafficOptions): Traffic {
  const seen = { operations: 0, failures: [] as string[] };
  const stop = new AbortController();
  let thinkMs = pauseMs.first;

  /** Does something again and again, a little later each time. */
  async function repeat(work: () => Promise<unknown>): Promise<void> {
    while (!stop.signal.aborted) {
      await work().then(
        () => seen.operations++,
        (error: Error) => seen.failures.push(error.message),
      );
      await sleep(thinkMs * (0.5 + Math.random()), undefined, { signal: stop.signal }).catch(() => undefined);
    }
  }

  async function pace(): Promise<void> {
    let before = await cpuOf(pid);
    while (!stop.signal.aborted) {
      await sleep(paceMs, undefined, { signal: stop.signal }).catch(() => undefined);
      const now = await cpuOf(pid);
      const isBusier = (now - before) / (paceMs * 1_000) > busy;
      thinkMs = Math.min(pauseMs.most, Math.max(pauseMs.least, thinkMs * (isBusier ? 1.15 : 0.9)));
      before = now;
    }
  }

  /** A person's client: it lists now and then, and calls. */
  async function caller(): Promise<void> {
    await using sdk = await openClient(url);
    let count = 0;
    await repeat(async () => {
      if (++count % 20 === 0) return expect((await sdk.toolNames()).length >= tools.length, "the tools");
      expect((await sdk.call("b_echo")) === "hello", "hello");
    });
  }

  /** One that waits for what the server says, and follows the progress of its calls. */
  async function streamer(): Promise<void> {
    const session = await openRawSession(url);
    {
      await using stream = await session.stream();
      await repeat(async () => {
        stream.messages.length = 0;
        const { messages } = await session.ask("tools/call", `{"name":"b_steps","_meta":{"progressToken":"p"}}`);
        expect(messages.filter((text) => text.includes("progress")).length === 10, "ten steps");
      });
    }
    await session.delete();
  }

  /** One that stays for ten calls; a third leaves without a goodbye. */
  async function passerBy(): Promise<void> {
    await repeat(async () => {
      const session = await openRawSession(url);
      for (let i = 0; i < 10; i++) expect((await session.result("tools/call", `{"name":"b_echo"}`)).includes("hello"), "hello");
      if (Math.random() > 1 / 3) await session.delete();
    });
  }

  async function stateless(): Promise<void> {
    await repeat(async () => {
      expect((await ask(url, "tools/call", { name: "b_echo" })).text === "hello", "hello");
    });
  }

  /** The server has other tools now and then. */
  async function changing(): Promise<void> {
    while (!stop.signal.aborted) {
      await sleep(3_000, undefined, { signal: stop.signal }).catch(() => undefined);
      backend.set({ tools: [...tools, plainTool(`at_${Date.now() % 10}`)] });
      backend.announce("tools");
    }
    backend.set({ tools });
    backend.announce("tools");
  }

  const all = [...many(6, caller), ...many(4, streamer), ...many(3, passerBy), ...many(3, stateless), pace(), changing()];
  return {
    seen,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.all(all);
    },
  };
}

function many(count: number, work: () => Promise<void>): Promise<void>[] {
  return Array.from({ length: count }, work);
}

function expect(isSo: boolean, what: string): void {
  if (!isSo) throw new Error(`not ${what}`);
}
