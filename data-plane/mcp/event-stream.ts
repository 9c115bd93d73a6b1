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
  return new OneStream(eventBytesMax);
}

// A class, as is what it keeps bytes in: a call may have a stream of its own, and a getter in an object literal would outlive it.
class OneStream implements EventParser {
  readonly #eventBytesMax: number;
  readonly #line = new ByteStore(); // the beginning of a line whose end has not come yet
  readonly #data = new ByteStore();
  #hasData = false;
  #eventBytes = 0;
  #wasReturn = false;
  #isFirstLine = true;
  #type = "";
  #id: string | undefined;
  lastEventId: string | undefined;
  retryMs: number | undefined;

  constructor(eventBytesMax: number) {
    this.#eventBytesMax = eventBytesMax;
  }

  push(chunk: Buffer): ServerEvent[] {
    const events: ServerEvent[] = [];
    if (chunk.length === 0) return events;
    let start = this.#wasReturn && chunk[0] === lineFeed ? 1 : 0; // CRLF, cut in two
    this.#wasReturn = false;
    let feed = placeOf(lineFeed, chunk, start);
    let bareReturn = placeOf(carriageReturn, chunk, start);
    for (;;) {
      const end = Math.min(feed, bareReturn);
      if (end === chunk.length) break;
      const event = this.#takeLine(this.#endLine(chunk.subarray(start, end)));
      if (event) events.push(event);
      start = end + 1;
      if (end === bareReturn) {
        this.#wasReturn = start === chunk.length;
        if (chunk[start] === lineFeed) start++;
        bareReturn = placeOf(carriageReturn, chunk, start);
      }
      if (feed < start) feed = placeOf(lineFeed, chunk, start);
    }
    this.#spend(this.#line.length + chunk.length - start);
    if (start < chunk.length) this.#line.append(chunk.subarray(start));
    return events;
  }

  #endLine(tail: Buffer): Buffer {
    if (this.#line.length === 0) return tail;
    this.#spend(this.#line.length + tail.length);
    this.#line.append(tail);
    return this.#line.take();
  }

  #spend(bytes: number): void {
    if (this.#eventBytes + bytes > this.#eventBytesMax)
      throw new EventTooLargeError(`an event is larger than ${this.#eventBytesMax} bytes`);
  }

  #takeLine(rawLine: Buffer): ServerEvent | undefined {
    const text = this.#isFirstLine && rawLine.subarray(0, 3).equals(byteOrderMark) ? rawLine.subarray(3) : rawLine;
    this.#isFirstLine = false;
    if (text.length === 0) return this.#takeEvent();
    const colon = text.indexOf(colonCode);
    if (colon === 0) return undefined; // a comment
    const nameEnd = colon < 0 ? text.length : colon;
    if (nameEnd > fieldNameMax) return undefined;
    this.#spend(text.length + 1);
    this.#eventBytes += text.length + 1;
    const valueStart = colon < 0 ? text.length : text[colon + 1] === space ? colon + 2 : colon + 1;
    this.#takeField(text.toString("latin1", 0, nameEnd), text.subarray(valueStart));
    return undefined;
  }

  #takeField(field: string, value: Buffer): void {
    if (field === "data") {
      if (this.#hasData) this.#data.append(newline);
      this.#data.append(value);
      this.#hasData = true;
    } else if (field === "event") this.#type = value.toString();
    else if (field === "id" && value.length <= idBytesMax && !value.includes(0)) this.#id = value.toString();
    else if (field === "retry" && value.length <= 9 && /^\d+$/.test(value.toString()))
      this.retryMs = Math.min(Math.max(Number(value.toString()), retryRangeMs.least), retryRangeMs.most);
  }

  #takeEvent(): ServerEvent | undefined {
    const event = this.#hasData ? { type: this.#type || "message", data: this.#data.take(), id: this.#id } : undefined;
    this.lastEventId = this.#id;
    this.#hasData = false;
    this.#eventBytes = 0;
    this.#type = "";
    return event;
  }
}

/** The next place of a byte; the chunk's length when there is none. */
function placeOf(byte: number, chunk: Buffer, start: number): number {
  const place = chunk.indexOf(byte, start);
  return place < 0 ? chunk.length : place;
}

/** Joins bytes, copying each a bounded number of times: the first come in as they are long, then room doubles. */
class ByteStore {
  #bytes: Buffer = nothing;
  length = 0;

  append(more: Buffer): void {
    if (this.length + more.length > this.#bytes.length) {
      // Small ones share a buffer of Node's: one of its own for each would cost more than all the rest.
      const roomier = Buffer.allocUnsafe(Math.max(this.length + more.length, 2 * this.length));
      this.#bytes.copy(roomier, 0, 0, this.length);
      this.#bytes = roomier;
    }
    more.copy(this.#bytes, this.length);
    this.length += more.length;
  }

  /** Everything appended; the store begins anew. */
  take(): Buffer {
    const taken = this.#bytes.subarray(0, this.length);
    this.#bytes = nothing;
    this.length = 0;
    return taken;
  }
}
