// Keys of sessions as they are written on the command line: whole, or as much of one as tells it from all others.

const charactersMin = 6;
const characters = 22;

/** Why a text can't be a key nor the beginning of one; undefined when it can. */
export function keyProblem(text: string): string | undefined {
  if (/^[A-Za-z0-9_-]+$/.test(text) && text.length >= charactersMin && text.length <= characters) return undefined;
  return `${JSON.stringify(text)} is no key of a session, nor its first ${charactersMin} characters or more`;
}

export function isWholeKey(text: string): boolean {
  return text.length === characters && keyProblem(text) === undefined;
}

/**
 * Arguments of the program with whole keys that begin with "-" behind a "--", where nothing is taken for an option. No option
 * has as many characters.
 */
export function keysLast(args: readonly string[]): string[] {
  const end = args.indexOf("--");
  const before = end < 0 ? args : args.slice(0, end);
  const isKey = (text: string) => text.startsWith("-") && isWholeKey(text);
  if (!before.includes("revoke") || !before.some(isKey)) return [...args];
  const after = end < 0 ? [] : args.slice(end + 1);
  return [...before.filter((text) => !isKey(text)), "--", ...before.filter(isKey), ...after];
}
