// What changed between two texts, line by line.

export interface DiffLine {
  readonly sign: "+" | "-" | " ";
  readonly text: string;
}

// The table below has lines × lines cells. Beyond this the texts are shown as replaced, which is what they look like anyway.
const cellsMax = 4_000_000;

/** Shortest edit between the lines of two texts; both end with a newline or are empty. */
export function lineDiff(before: string, after: string): DiffLine[] {
  const a = linesOf(before);
  const b = linesOf(after);
  if (a.length * b.length > cellsMax) return [...a.map((text) => line("-", text)), ...b.map((text) => line("+", text))];
  const common = longestCommon(a, b);
  const diff: DiffLine[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const left = a[i];
    const right = b[j];
    if (left !== undefined && left === right) {
      diff.push(line(" ", left));
      i += 1;
      j += 1;
    } else if (left !== undefined && (right === undefined || common(i + 1, j) >= common(i, j + 1))) {
      diff.push(line("-", left));
      i += 1;
    } else {
      diff.push(line("+", right ?? ""));
      j += 1;
    }
  }
  return diff;
}

/** Changed lines and `around` lines beside them; a gap is shown as one line of dots. */
export function withContext(diff: readonly DiffLine[], around = 3): DiffLine[] {
  const kept = diff.map((_, at) => diff.slice(Math.max(0, at - around), at + around + 1).some(({ sign }) => sign !== " "));
  return diff.flatMap((one, at) => {
    if (kept[at]) return [one];
    return at === 0 || kept[at - 1] ? [line(" ", "…")] : [];
  });
}

/** Length of the longest common subsequence of what follows (i, j). */
function longestCommon(a: readonly string[], b: readonly string[]): (i: number, j: number) => number {
  const width = b.length + 1;
  const lengths = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const skip = Math.max(lengths[(i + 1) * width + j] ?? 0, lengths[i * width + j + 1] ?? 0);
      lengths[i * width + j] = a[i] === b[j] ? (lengths[(i + 1) * width + j + 1] ?? 0) + 1 : skip;
    }
  }
  return (i, j) => lengths[i * width + j] ?? 0;
}

function linesOf(text: string): string[] {
  return text === "" ? [] : text.replace(/\n$/, "").split("\n");
}

function line(sign: DiffLine["sign"], text: string): DiffLine {
  return { sign, text };
}
