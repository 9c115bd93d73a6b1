// A batch of messages in one POST, which MCP 2025-03-26 alone has: requests run side by side, their answers come as one
// array, or one by one as events when something must be said before the last.
import type { ServerResponse } from "node:http";
import { type Written, whole } from "../mcp/json-rpc.ts";
import { type Answer, respondJson } from "./answer.ts";
import type { EventLog } from "./event-log.ts";

// As for a single request: who waits for the headers must not take us for dead.
const silentMsDefault = 10_000;

/** An Answer for each of `count` requests. After `silentMs` (default 10,000) it is a stream in any case. */
export function createBatchAnswers(
  response: ServerResponse,
  count: number,
  openLog: () => EventLog,
  silentMs = silentMsDefault,
): Answer {
  const answers: Buffer[] = [];
  let log: EventLog | undefined;
  let open = count;
  const silence = setTimeout(startStream, silentMs);

  function startStream(): EventLog {
    clearTimeout(silence);
    if (!log) {
      log = openLog();
      if (!response.destroyed) log.attach(response);
      for (const answer of answers.splice(0)) void log.write(answer);
    }
    return log;
  }

  function finish(written?: Written): void {
    const message = written && whole(written);
    if (message && log) void log.write(message);
    else if (message) answers.push(message);
    open--;
    if (open > 0) return;
    clearTimeout(silence);
    if (log) log.end();
    else
      respondJson(
        response,
        Buffer.concat([Buffer.from("["), ...answers.flatMap((one, i) => (i > 0 ? [comma, one] : [one])), Buffer.from("]")]),
      );
  }

  return {
    notify: (message) => startStream().write(message),
    respond: finish,
    close: () => finish(),
  };
}

const comma = Buffer.from(",");
