// Cuts a byte stream into lines, for servers that speak over their standard streams.

/** A line is longer than allowed. */
class LineTooLongError extends Error {
  override name = "LineTooLongError";
}

/**
 * Gives a function that takes chunks and calls `onLine` for each whole line, without its line end; empty lines are left out.
 * Throws LineTooLongError once a line passes `lineBytesMax`; nothing can be read after that.
 */
export function createLineReader(lineBytesMax: number, onLine: (line: Buffer) => void): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  let partBytes = 0;

  function endLine(tail: Buffer): void {
    const whole = parts.length === 0 ? tail : Buffer.concat([...parts, tail]);
    parts = [];
    partBytes = 0;
    const line = whole.at(-1) === carriageReturn ? whole.subarray(0, -1) : whole;
    if (line.length > 0) onLine(line);
  }

  return (chunk) => {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(lineFeed, start);
      const piece = chunk.subarray(start, end < 0 ? chunk.length : end);
      if (partBytes + piece.length > lineBytesMax) throw new LineTooLongError(`a line is longer than ${lineBytesMax} bytes`);
      if (end < 0) {
        if (piece.length > 0) parts.push(piece);
        partBytes += piece.length;
        return;
      }
      endLine(piece);
      start = end + 1;
    }
  };
}

/** Text from a server, fit for a log line: control characters are escaped, and at most `lengthMax` characters are kept. */
export function printable(text: Buffer, lengthMax = 400): string {
  const shown = text.toString("utf8", 0, lengthMax * 4).slice(0, lengthMax);
  const escaped = shown.replace(controlCharacters, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return text.length > Buffer.byteLength(shown) ? `${escaped}…` : escaped;
}

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
// C0, DEL and C1, and the marks that turn the writing direction: all can forge what a terminal shows.
const controlCharacters = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
