import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { request } from "undici";
import type { Answer } from "./answer.ts";
import { createBatchAnswers } from "./batch.ts";
import { createEventLog } from "./event-log.ts";

const [one, two] = [`{"id":1}`, `{"id":2}`].map((text) => Buffer.from(text)) as [Buffer, Buffer];

test("a batch that is answered soon is answered in one array", async () => {
  const body = await answered(10_000, (answer) => {
    answer.respond(one);
    answer.respond(two);
  });
  assert.equal(body, `[{"id":1},{"id":2}]`);
});

test("a batch that takes long becomes a stream, with what there is first", async () => {
  let finish: () => void = () => undefined;
  const body = await answered(
    20,
    (answer) => {
      answer.respond(one);
      finish = () => answer.respond(two);
    },
    () => finish(),
  );
  assert.deepEqual(
    [...body.matchAll(/^data: (.+)$/gm)].map(([, data]) => data),
    [`{"id":1}`, `{"id":2}`],
  );
});

/** The body of the answer to a batch of two. */
async function answered(silentMs: number, act: (answer: Answer) => void, onHeaders?: () => void): Promise<string> {
  const server = createServer((_request, response) => {
    const openLog = () => createEventLog({ name: "s0", hasPriming: true });
    act(createBatchAnswers(response, 2, openLog, silentMs));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const { body } = await request(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    onHeaders?.();
    return await body.text();
  } finally {
    server.closeAllConnections();
    server.close();
  }
}
