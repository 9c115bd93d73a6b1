// The instructions of all backends under headings: what a model reads first, so each server's share is bounded.

const perBackendMax = 4_000;
const totalMax = 16_000;

/** Undefined when no backend has any. */
export function mergeInstructions(parts: readonly { backend: string; instructions: string | undefined }[]): string | undefined {
  const sections = parts.flatMap(({ backend, instructions }) =>
    instructions ? [`## ${backend}\n\n${cut(instructions.trim(), perBackendMax)}`] : [],
  );
  return sections.length > 0 ? cut(sections.join("\n\n"), totalMax) : undefined;
}

function cut(text: string, charactersMax: number): string {
  return text.length <= charactersMax ? text : `${text.slice(0, charactersMax)}\n[cut]`;
}
