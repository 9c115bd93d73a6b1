// Reads Server-Sent Events from bytes as they come, keeping the data as bytes.
// Source: WHATWG HTML, 9.2 Server-sent events, "parsing an event stream".
//
// Streams come from servers that may be hostile: every byte is looked at a fixed number of times, what is kept is copied out
// of its chunk (a chunk of 64 KB would live as long as one byte of it), and a line of data costs bytes, not objects.

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
  /** Where a reader that was cut off goes on: the id of the last whole event; undefined when the stream had no ids. */
  readonly lastEventId: string | undefined;
  /** How long it waits before that, 250 ms to 5 min, when the server said. */
  readonly retryMs: number | undefined;
}

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const colonCode = 0x3a;
const space = 0x20;
const newline = Buffer.from("\n");
const nothing = Buffer.alloc(0);
const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf]);
const fieldNameMax = "event".length; // the longest we know
const idBytesMax = 4_096; // it goes back in a header
// A server that says 0 would be asked without pause, one that says a year never again.
const retryRangeMs = { least: 250, most: 300_000 };

/** A parser for one stream; `eventBytesMax` bounds the lines of one event, comments left out. */
export function createEventParser(eventBytesMax: number): EventParser {
  const line = createByteStore(); // the beginning of a line whose end has not come yet
  const data = createByteStore();
  let hasData = false;
  let eventBytes = 0;
  let wasReturn = false;
  let isFirstLine = true;
  let type = "";
  let id: string | undefined;
  let lastEventId: string | undefined;
  let retryMs: number | undefined;

  function push(chunk: Buffer): ServerEvent[] {
    const events: ServerEvent[] = [];
    if (chunk.length === 0) return events;
    let start = wasReturn && chunk[0] === lineFeed ? 1 : 0; // CRLF, cut in two
    wasReturn = false;
    let feed = placeOf(lineFeed, chunk, start);
    let bareReturn = placeOf(carriageReturn, chunk, start);
    for (;;) {
      const end = Math.min(feed, bareReturn);
      if (end === chunk.length) break;
      const event = takeLine(endLine(chunk.subarray(start, end)));
      if (event) events.push(event);
      start = end + 1;
      if (end === bareReturn) {
        wasReturn = start === chunk.length;
        if (chunk[start] === lineFeed) start++;
        bareReturn = placeOf(carriageReturn, chunk, start);
      }
      if (feed < start) feed = placeOf(lineFeed, chunk, start);
    }
    spend(line.length + chunk.length - start);
    line.append(chunk.subarray(start));
    return events;
  }

  function endLine(tail: Buffer): Buffer {
    if (line.length === 0) return tail;
    spend(line.length + tail.length);
    line.append(tail);
    return line.take();
  }

  function spend(bytes: number): void {
    if (eventBytes + bytes > eventBytesMax) throw new EventTooLargeError(`an event is larger than ${eventBytesMax} bytes`);
  }

  function takeLine(rawLine: Buffer): ServerEvent | undefined {
    const text = isFirstLine && rawLine.subarray(0, 3).equals(byteOrderMark) ? rawLine.subarray(3) : rawLine;
    isFirstLine = false;
    if (text.length === 0) return takeEvent();
    const colon = text.indexOf(colonCode);
    if (colon === 0) return undefined; // a comment
    const nameEnd = colon < 0 ? text.length : colon;
    if (nameEnd > fieldNameMax) return undefined;
    spend(text.length + 1);
    eventBytes += text.length + 1;
    const valueStart = colon < 0 ? text.length : text[colon + 1] === space ? colon + 2 : colon + 1;
    takeField(text.toString("latin1", 0, nameEnd), text.subarray(valueStart));
    return undefined;
  }

  function takeField(field: string, value: Buffer): void {
    if (field === "data") {
      if (hasData) data.append(newline);
      data.append(value);
      hasData = true;
    } else if (field === "event") type = value.toString();
    else if (field === "id" && value.length <= idBytesMax && !value.includes(0)) id = value.toString();
    else if (field === "retry" && value.length <= 9 && /^\d+$/.test(value.toString()))
      retryMs = Math.min(Math.max(Number(value.toString()), retryRangeMs.least), retryRangeMs.most);
  }

  function takeEvent(): ServerEvent | undefined {
    const event = hasData ? { type: type || "message", data: data.take(), id } : undefined;
    lastEventId = id;
    hasData = false;
    eventBytes = 0;
    type = "";
    return event;
  }

  return {
    push,
    get lastEventId() {
      return lastEventId;
    },
    get retryMs() {
      return retryMs;
    },
  };
}

/** The next place of a byte; the chunk's length when there is none. */
function placeOf(byte: number, chunk: Buffer, start: number): number {
  const place = chunk.indexOf(byte, start);
  return place < 0 ? chunk.length : place;
}

interface ByteStore {
  readonly length: number;
  append(bytes: Buffer): void;
  /** Everything appended; the store begins anew. */
  take(): Buffer;
}

/** Joins bytes, copying each a bounded number of times: the first come in as they are long, then room doubles. */
function createByteStore(): ByteStore {
  let bytes: Buffer = nothing;
  let length = 0;
  return {
    get length() {
      return length;
    },
    append(more) {
      if (length + more.length > bytes.length) {
        const roomier = Buffer.allocUnsafeSlow(Math.max(length + more.length, 2 * length));
        bytes.copy(roomier, 0, 0, length);
        bytes = roomier;
      }
      more.copy(bytes, length);
      length += more.length;
    },
    take() {
      const taken = bytes.subarray(0, length);
      bytes = nothing;
      length = 0;
      return taken;
    },
  };
}
