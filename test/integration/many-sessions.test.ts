// A thousand sessions at once on one `vmcp serve`: nobody gets what is somebody else's.
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, setGlobalDispatcher } from "undici";
import { type Call, plainTool, startBackend, textResult } from "../support/backend.ts";
import { openRawSession, type RawSession } from "../support/client.ts";
import { httpBackend } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { serve } from "../support/serve.ts";

const sessionsCount = 1_000;
setGlobalDispatcher(new Agent({ keepAliveTimeout: 60_000 })); // a connection per request in flight, all kept

test("a thousand sessions that all use the ids 0, 1 and 2 at once each get their own answers", async (t) => {
  await using backend = await startBackend({ tools: [plainTool("echo")], calls: { echo } });
  // A backend takes 256 calls at once; enough of them take all that are in flight here.
  const names = Array.from({ length: 16 }, (_, i) => `b${i}`);
  await using vmcp = await serve({ backends: names.map((name) => httpBackend(name, backend.url)) });
  const sessions = await openSessions(vmcp.url, (i) => `b${i % names.length}_echo`);
  const startedMs = performance.now();
  let inFlightMax = 0;
  let inFlight = 0;
  let notices = 0;
  for (let round = 0; round < 2; round++) {
    const asked = sessions.flatMap(({ session, tool }, i) =>
      [0, 1, 2].map(async (id) => {
        const nonce = `${i}/${id}/${round}`;
        inFlightMax = Math.max(inFlightMax, ++inFlight);
        const { messages, status, body } = await session.ask("tools/call", callParams(tool, i, nonce, id), String(id));
        inFlight--;
        assert.equal(status, 200, body);
        notices += messages.length - 1;
        assert.deepEqual(
          messages.map((message) => summary(message)),
          expected(nonce, i, id, messages.length - 1),
        );
      }),
    );
    await Promise.all(asked);
  }
  assert.equal(inFlightMax, 3 * sessionsCount);
  assert.ok(notices > sessionsCount, `${notices} notifications came between`);
  t.diagnostic(`${6 * sessionsCount} calls, ${notices} notifications in ${seconds(startedMs)} s`);
});

/** Says now and then how far it is, and answers with the caller's nonce and the one its session began with. */
async function echo({ params, session, notify }: Call): Promise<string> {
  const { nonce, owner } = params.arguments as { nonce: string; owner: number };
  const { progressToken } = params._meta as { progressToken: number };
  if (!session.has("owner")) session.set("owner", owner);
  const count = randomInt(4);
  for (let progress = 1; progress <= count; progress++) {
    await sleep(randomInt(20));
    notify(
      JSON.stringify({ jsonrpc: "2.0", method: "notifications/progress", params: { progressToken, progress, message: nonce } }),
    );
  }
  await sleep(randomInt(20));
  return textResult(`${nonce} of ${session.get("owner")}`);
}

const callParams = (name: string, owner: number, nonce: string, progressToken: number) =>
  JSON.stringify({ name, arguments: { nonce, owner }, _meta: { progressToken } });

/** What a message says, and to whom. */
function summary(message: string): unknown[] {
  const { id, params, result } = JSON.parse(message);
  return params ? [params.progressToken, params.progress, params.message] : [id, result?.content[0].text];
}

function expected(nonce: string, owner: number, id: number, notices: number): unknown[][] {
  return [...Array.from({ length: notices }, (_, i) => [id, i + 1, nonce]), [id, `${nonce} of ${owner}`]];
}

interface Opened {
  readonly session: RawSession;
  readonly tool: string;
}

/** Opens the sessions, not all at the same moment, once every tool is listed. */
async function openSessions(url: string, toolOf: (i: number) => string): Promise<Opened[]> {
  const first = await openRawSession(url);
  const tools = new Set(Array.from({ length: sessionsCount }, (_, i) => toolOf(i)));
  await eventually("the tools are listed", async () => {
    const listed = await first.result("tools/list");
    return [...tools].every((tool) => listed.includes(`"${tool}"`));
  });
  const opened: Opened[] = [];
  while (opened.length < sessionsCount) {
    const batch = Array.from({ length: 50 }, async (_, i) => ({
      session: await openRawSession(url),
      tool: toolOf(opened.length + i),
    }));
    opened.push(...(await Promise.all(batch)));
  }
  return opened;
}

const seconds = (sinceMs: number) => ((performance.now() - sinceMs) / 1_000).toFixed(1);
