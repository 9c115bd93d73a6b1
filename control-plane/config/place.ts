// Offsets in a text → line, column, and the line as it may be shown with a pointer under the culprit.
import type { Place } from "../resources/problems.ts";
import type { Range } from "./plain.ts";

export interface Lines {
  /** `masked` are the parts that nobody may see. */
  place(file: string, range: Range): Place;
  /** Line number of an offset, from 1. */
  lineAt(offset: number): number;
}

const windowMax = 110; // columns; a terminal of 120 less the line number
const tabWidth = 2;
const aroundMax = 400; // characters looked at on either side: a whole file may be one line

export function indexLines(text: string, masked: readonly Range[]): Lines {
  const starts = [0];
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  const hidden = [...masked].sort((a, b) => a.start - b.start);

  function lineAt(offset: number): number {
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((starts[middle] ?? 0) <= offset) low = middle;
      else high = middle - 1;
    }
    return low + 1;
  }

  return {
    lineAt,
    place(file, range) {
      const start = Math.min(range.start, text.length);
      const line = lineAt(start);
      const lineStart = starts[line - 1] ?? 0;
      const lineEnd = (starts[line] ?? text.length + 1) - 1;
      const end = Math.max(start + 1, Math.min(range.end, lineEnd));
      const [from, to] = [Math.max(lineStart, start - aroundMax), Math.min(lineEnd, start + aroundMax)];
      const window = windowOf(cellsOf(text, from, to, hidden), start, end, { head: from > lineStart, tail: to < lineEnd });
      return { file, line, column: codePoints(text, lineStart, Math.min(start, lineEnd)) + 1, ...window };
    },
  };
}

function codePoints(text: string, start: number, end: number): number {
  let count = 0;
  for (let at = start; at < end; at++) {
    const unit = text.charCodeAt(at);
    if (unit < 0xdc00 || unit > 0xdfff) count++; // the second half of a pair counts with the first
  }
  return count;
}

interface Cell {
  readonly offset: number;
  readonly text: string;
  readonly width: number;
}

function cellsOf(text: string, start: number, end: number, hidden: readonly Range[]): Cell[] {
  const cells: Cell[] = [];
  const masks = hidden.filter((range) => range.start < end && range.end > start);
  const line = text.slice(start, end).replace(/\r$/, "");
  let offset = start;
  for (const char of line) {
    const isHidden = masks.some((range) => offset >= range.start && offset < range.end);
    cells.push({ offset, ...(isHidden ? { text: "*", width: 1 } : shownChar(char)) });
    offset += char.length;
  }
  return cells;
}

function shownChar(char: string): { text: string; width: number } {
  const code = char.codePointAt(0) ?? 0;
  if (char === "\t") return { text: " ".repeat(tabWidth), width: tabWidth };
  // A report goes to terminals: escape sequences and direction overrides in it could show a lie.
  if (code < 0x20) return { text: String.fromCodePoint(0x2400 + code), width: 1 };
  if (code === 0x7f) return { text: "\u2421", width: 1 };
  if (/[\u0080-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]/u.test(char)) return { text: "\ufffd", width: 1 };
  if (/[\p{Mn}\p{Me}\p{Cf}]/u.test(char)) return { text: char, width: 0 };
  return { text: char, width: isWide(char, code) ? 2 : 1 };
}

// Unicode Standard Annex 11, the blocks whose characters take two columns, and emoji.
function isWide(char: string, code: number): boolean {
  if (code < 0x1100) return false;
  const blocks = [
    [0x1100, 0x115f],
    [0x2e80, 0x303e],
    [0x3041, 0xa4cf],
    [0xa960, 0xa97f],
    [0xac00, 0xd7a3],
    [0xf900, 0xfaff],
    [0xfe30, 0xfe6f],
    [0xff00, 0xff60],
    [0xffe0, 0xffe6],
    [0x20000, 0x3fffd],
  ] as const;
  return blocks.some(([from, to]) => code >= from && code <= to) || /\p{Emoji_Presentation}/u.test(char);
}

/** Cuts a long line down to what surrounds the culprit. */
function windowOf(
  cells: readonly Cell[],
  start: number,
  end: number,
  cut: { head: boolean; tail: boolean },
): Pick<Place, "source" | "indent" | "width"> {
  const widthOf = (from: number, to: number) => cells.slice(from, to).reduce((sum, cell) => sum + cell.width, 0);
  const at = (offset: number) => {
    const index = cells.findIndex((cell) => cell.offset >= offset);
    return index === -1 ? cells.length : index;
  };
  const [first, last] = [at(start), at(end)];
  let from = 0;
  if (cut.head || widthOf(0, last) > windowMax) {
    from = first;
    for (let room = windowMax / 4; from > 0 && room > 0; from--) room -= cells[from - 1]?.width ?? 1;
  }
  let to = from;
  for (let room = windowMax; to < cells.length && room >= (cells[to]?.width ?? 1); to++) room -= cells[to]?.width ?? 1;
  const [head, tail] = [from > 0 || cut.head ? "… " : "", to < cells.length || cut.tail ? " …" : ""];
  return {
    source: `${head}${cells
      .slice(from, to)
      .map((cell) => cell.text)
      .join("")}${tail}`.trimEnd(),
    indent: head.length + widthOf(from, first),
    width: Math.max(1, widthOf(first, Math.min(last, to))),
  };
}
