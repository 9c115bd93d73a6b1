// Where a command writes: data to standard output, everything else to standard error, colour only where a terminal shows it.
import { stripVTControlCharacters, styleText } from "node:util";

export type Format = "table" | "json" | "yaml" | "name";

export const formats: readonly Format[] = ["table", "json", "yaml", "name"];

type Style = "red" | "green" | "yellow" | "dim" | "bold";

export interface Output {
  data(text: string): void;
  note(text: string): void;
  /** For `data`; plain text when colours are off. */
  paint(style: Style, text: string): string;
}

/** Colours follow NO_COLOR, FORCE_COLOR, TERM and whether standard output is a terminal. */
export function standardOutput(): Output {
  return {
    data: (text) => void process.stdout.write(text),
    note: (text) => void process.stderr.write(text),
    paint: (style, text) => {
      const painted = styleText(style, text, { stream: process.stdout });
      return process.env.TERM === "dumb" ? stripVTControlCharacters(painted) : painted;
    },
  };
}

export function json(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}
