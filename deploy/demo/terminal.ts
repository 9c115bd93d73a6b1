// What the demo prints: steps with their time, and a table.

const isTerminal = process.stdout.isTTY && process.env.NO_COLOR === undefined;

/** Runs one step and says so: at once on a terminal, with a sign of life every few seconds, and its time at the end. */
export async function step<T>(label: string, work: () => Promise<T>): Promise<T> {
  const startedAt = performance.now();
  if (process.stdout.isTTY) process.stdout.write(`  … ${label}`);
  const sign = setInterval(() => process.stdout.write(process.stdout.isTTY ? "." : `  … ${label}: still waiting\n`), 3_000);
  const end = (mark: string) => {
    clearInterval(sign);
    const line = `  ${mark} ${label} ${dim(`(${seconds(performance.now() - startedAt)})`)}`;
    process.stdout.write(process.stdout.isTTY ? `\r\x1b[K${line}\n` : `${line}\n`);
  };
  try {
    const value = await work();
    end("✓");
    return value;
  } catch (error) {
    end("✗");
    throw error;
  }
}

/** Rows under their headings, columns as wide as they must be; the last one is cut to fit the terminal. */
export function table(rows: readonly Readonly<Record<string, string>>[]): string {
  const headings = Object.keys(rows[0] ?? {});
  const widths = headings.map((heading) => Math.max(heading.length, ...rows.map((row) => row[heading]?.length ?? 0)));
  const columnsMax = process.stdout.columns ?? 120;
  const line = (cells: readonly string[]) => {
    const text = cells.map((cell, i) => (i === cells.length - 1 ? cell : cell.padEnd(widths[i] ?? 0))).join("  ");
    return `  ${text.length + 2 > columnsMax ? `${text.slice(0, columnsMax - 3)}…` : text}`;
  };
  const body = rows.map((row) => line(headings.map((heading) => row[heading] ?? "")));
  return [dim(line(headings.map((heading) => heading.toUpperCase()))), ...body].join("\n");
}

/** `0.4 s`. */
export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

export const dim = (text: string): string => (isTerminal ? `\x1b[2m${text}\x1b[22m` : text);
export const bold = (text: string): string => (isTerminal ? `\x1b[1m${text}\x1b[22m` : text);
