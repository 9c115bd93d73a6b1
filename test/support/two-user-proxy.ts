// Runs a gateway that knows its callers by a header as a program of its own, so that it can be killed. Says where it is on
// standard output, as one line of JSON; `POST /terms` on its control address says what is revoked, as a snapshot would, and every
// answer there names the key that seals.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import { pino } from "pino";
import type { SessionTerms } from "../../data-plane/runtime.ts";
import { openKeyRing } from "../../data-plane/session/key-ring.ts";
import { startTwoUserGateway } from "./two-user-gateway.ts";

const { backends, redis } = JSON.parse(process.argv[2] ?? "{}") as { backends: Record<string, string>; redis: string };
const log = pino({ level: "warn" });
const keys = openKeyRing({ env: process.env, isShared: true, log, pollMs: 20 });
const gateway = await startTwoUserGateway(backends, { keys, log, session: { redis } });

const control = createServer(async (request, response) => {
  if (request.url === "/terms") {
    gateway.setRuntime((await json(request)) as SessionTerms);
    gateway.serving.endRevoked();
  }
  response.end(keys.active.id);
});
control.listen(0, "127.0.0.1");
await once(control, "listening");
const { port } = control.address() as AddressInfo;
process.stdout.write(`${JSON.stringify({ url: gateway.url, control: `http://127.0.0.1:${port}` })}\n`);
process.once("SIGTERM", async () => {
  control.close();
  await gateway[Symbol.asyncDispose]();
  process.exit(0);
});
