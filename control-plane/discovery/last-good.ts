// Files that others write while we read: each counts as it was when it was last whole.
import { readFile, stat } from "node:fs/promises";

export interface Reading<T> {
  /** What it said when it was last whole; undefined when it never was. */
  readonly value: T | undefined;
  /** What is wrong with it now. */
  readonly fault: string | undefined;
}

export interface LastGood<T> {
  /** Readings of those that exist; what is known of all others is forgotten. */
  read(paths: readonly string[]): Promise<ReadonlyMap<string, Reading<T>>>;
}

/** `parse` throws with what is wrong. A file is read again only when it looks different. */
export function createLastGood<T>({
  parse,
  bytesMax,
}: {
  parse: (bytes: Buffer, path: string) => T;
  bytesMax: number;
}): LastGood<T> {
  let known = new Map<string, Reading<T> & { readonly look: string }>();

  async function readOne(path: string): Promise<(Reading<T> & { readonly look: string }) | undefined> {
    const before = known.get(path);
    const value = before?.value;
    let look = "";
    try {
      const { mtimeNs, size, ino } = await stat(path, { bigint: true });
      look = `${mtimeNs} ${size} ${ino}`;
      if (before?.look === look) return before;
      if (size > bytesMax) return { value, look, fault: `it is larger than ${bytesMax} bytes` };
      return { value: parse(await readFile(path), path), look, fault: undefined };
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      return code === "ENOENT" ? undefined : { value, look, fault: code ?? message };
    }
  }

  return {
    async read(paths) {
      const readings = await Promise.all(paths.map(async (path) => [path, await readOne(path)] as const));
      known = new Map(readings.flatMap(([path, reading]) => (reading ? [[path, reading]] : [])));
      return known;
    },
  };
}
