// Reads Server-Sent Events from bytes as they come, keeping the data as bytes.
// Source: WHATWG HTML, 9.2 Server-sent events, "parsing an event stream".

/** One dispatched event. */
export interface ServerEvent {
  readonly type: string;
  readonly data: Buffer;
  readonly id: string | undefined;
}

/** The stream holds an event larger than allowed. */
export class EventTooLargeError extends Error {
  override name = "EventTooLargeError";
}

export interface EventParser {
  /** Takes the next bytes and gives the events they complete. Throws EventTooLargeError. */
  push(chunk: Buffer): ServerEvent[];
  /** Where a reader that was cut off goes on; undefined when the stream had no ids. */
  readonly lastEventId: string | undefined;
  /** How long it waits before that, milliseconds, when the server said. */
  readonly retryMs: number | undefined;
}

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const newline = Buffer.from("\n");
const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf]);

/** A parser for one stream; `eventBytesMax` bounds one event. */
export function createEventParser(eventBytesMax: number): EventParser {
  let rest: Buffer = Buffer.alloc(0);
  let isFirstLine = true;
  let type = "";
  let data: Buffer[] = [];
  let dataBytes = 0;
  let id: string | undefined;
  let retryMs: number | undefined;

  function push(chunk: Buffer): ServerEvent[] {
    const events: ServerEvent[] = [];
    const bytes = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    let start = 0;
    for (;;) {
      const end = endOfLine(bytes, start);
      if (end < 0) break;
      const event = takeLine(bytes.subarray(start, end));
      if (event) events.push(event);
      start = end + (bytes[end] === carriageReturn && bytes[end + 1] === lineFeed ? 2 : 1);
    }
    rest = bytes.subarray(start);
    if (rest.length + dataBytes > eventBytesMax) throw new EventTooLargeError(`an event is larger than ${eventBytesMax} bytes`);
    return events;
  }

  function takeLine(rawLine: Buffer): ServerEvent | undefined {
    const line = isFirstLine && rawLine.subarray(0, 3).equals(byteOrderMark) ? rawLine.subarray(3) : rawLine;
    isFirstLine = false;
    if (line.length === 0) return takeEvent();
    const colon = line.indexOf(0x3a);
    if (colon === 0) return undefined; // a comment
    const field = line.toString("latin1", 0, colon < 0 ? line.length : colon);
    const value = colon < 0 ? line.subarray(line.length) : line.subarray(line[colon + 1] === 0x20 ? colon + 2 : colon + 1);
    if (field === "data") {
      data.push(value);
      dataBytes += value.length + 1;
    } else if (field === "event") type = value.toString();
    else if (field === "id" && !value.includes(0)) id = value.toString();
    else if (field === "retry" && /^\d{1,9}$/.test(value.toString())) retryMs = Number(value);
    return undefined;
  }

  function takeEvent(): ServerEvent | undefined {
    const lines = data;
    const eventType = type || "message";
    data = [];
    dataBytes = 0;
    type = "";
    if (lines.length === 0) return undefined;
    return { type: eventType, data: lines.length === 1 ? Buffer.from(lines[0] as Buffer) : joinLines(lines), id };
  }

  return {
    push,
    get lastEventId() {
      return id;
    },
    get retryMs() {
      return retryMs;
    },
  };
}

// A CR at the very end may be the first half of CRLF, so it waits for the next byte.
function endOfLine(bytes: Buffer, start: number): number {
  const feed = bytes.indexOf(lineFeed, start);
  const bare = bytes.subarray(start, feed < 0 ? undefined : feed).indexOf(carriageReturn);
  if (bare < 0) return feed;
  return start + bare + 1 === bytes.length ? -1 : start + bare;
}

function joinLines(lines: readonly Buffer[]): Buffer {
  return Buffer.concat(lines.flatMap((line, i) => (i === 0 ? [line] : [newline, line])));
}
