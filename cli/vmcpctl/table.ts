// Tables for people: stable columns, no wrapping, and nothing in a cell that a terminal would obey.

/** Upper-case headings, two spaces between columns, no padding at the end of a line. Ends with a newline. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [headings, ...rows].map((row) => row.map((cell) => plain(cell) || "-"));
  const widths = headings.map((_, at) => Math.max(...lines.map((line) => widthOf(line[at] ?? ""))));
  const padded = lines.map((line) => line.map((cell, at) => cell + " ".repeat((widths[at] ?? 0) - widthOf(cell))).join("  "));
  return padded.map((line) => `${line.trimEnd()}\n`).join("");
}

/** Text from elsewhere on one line, with control and format characters made visible. */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return character === "\n" || character === "\t" ? " " : `\\u{${code.toString(16)}}`;
  });
}

/** The same for text that may have several lines. */
export function plainLines(text: string): string {
  return text.split("\n").map(plain).join("\n");
}

/** `12s`, `5m`, `3h`, `9d`; `-` when unknown. */
export function age(fromMs: number | undefined, nowMs: number): string {
  if (fromMs === undefined) return "-";
  const seconds = Math.max(0, Math.floor((nowMs - fromMs) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86_400)}d`;
}

/** `0.4 ms`, `12 ms`, `3.2 s`. */
export function msText(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** `312 B`, `4.1 kB`, `12 MB`. */
export function bytesText(bytes: number): string {
  const unit = ["B", "kB", "MB", "GB"].find((_, at) => bytes < 1000 ** (at + 1)) ?? "GB";
  const value = bytes / 1000 ** ["B", "kB", "MB", "GB"].indexOf(unit);
  return `${unit === "B" || value >= 10 ? Math.round(value) : value.toFixed(1)} ${unit}`;
}

// East Asian wide and emoji take two columns; close enough for names.
const wide =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u;

function widthOf(text: string): number {
  let width = 0;
  for (const character of text) width += wide.test(character) ? 2 : /\p{Mn}/u.test(character) ? 0 : 1;
  return width;
}
