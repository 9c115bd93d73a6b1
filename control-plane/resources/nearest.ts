// Did you mean …? The nearest of the words that would have been right.

const lengthMax = 64; // the distance costs length × length, and longer words are not typing mistakes of ours

/** The word nearest to `seen` within a third of its length in edits, ignoring case; undefined when none is near. */
export function nearest(seen: string, words: Iterable<string>): string | undefined {
  if (seen.length > lengthMax) return undefined;
  const bare = fold(seen);
  let best: { word: string; distance: number } | undefined;
  for (const word of words) {
    if (word === "" || word.length > lengthMax) continue;
    const allowed = Math.max(1, Math.floor(Math.min(seen.length, word.length) / 3));
    const other = fold(word);
    if (Math.abs(bare.length - other.length) > allowed) continue;
    const distance = editDistance(bare, other);
    if (distance <= allowed && (best === undefined || distance < best.distance)) best = { word, distance };
  }
  return best?.word;
}

/** `did you mean "x"?`, or undefined. */
export function didYouMean(seen: unknown, words: Iterable<string>): string | undefined {
  const word = typeof seen === "string" ? nearest(seen, words) : undefined;
  return word === undefined ? undefined : `did you mean ${JSON.stringify(word)}?`;
}

// best_effort, bestEffort and best-effort are one word to a human eye.
function fold(word: string): string {
  return word.toLowerCase().replaceAll(/[-_ ]/g, "");
}

/** Insertions, deletions, replacements and swaps of neighbours (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let least = Math.min((above[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1, (above[column - 1] ?? 0) + (same ? 0 : 1));
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) least = Math.min(least, (before[column - 2] ?? 0) + 1);
      current.push(least);
    }
    before = above;
    above = current;
  }
  return above[b.length] ?? 0;
}
