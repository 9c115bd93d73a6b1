// YAML is hostile input: how much of it is read at all. The checks run on the lexer's tokens and on the parser's
// stack-based syntax tree, both linear in the text, before anything recursive or quadratic sees it.
import { CST, Lexer, type Parser } from "yaml";

export interface Excess {
  readonly offset: number;
  readonly message: string;
  readonly hint: string;
}

type Token = ReturnType<Parser["parse"]> extends Generator<infer T> ? T : never;

export const bytesMax = 256 * 1024;
const depthMax = 64;
/** Keys and list entries. A hundred times what a large configuration has. */
export const entriesMax = 8_000;
// What is neither key nor entry (anchors, tags, stray characters) and what is not even content (blank lines, comments).
const contentTokensMax = 50_000;
const tokensMax = 120_000;

const simpler = "split the configuration into several virtual servers, each with a file of its own";

/** Undefined when the text is small and flat enough to be parsed. */
export function excessOf(text: string): Excess | undefined {
  const bytes = Buffer.byteLength(text);
  if (bytes > bytesMax) return { offset: 0, message: `the file has ${bytes} bytes, at most ${bytesMax} are read`, hint: simpler };
  let offset = 0;
  let entries = 0;
  let content = 0;
  let tokens = 0;
  let flowDepth = 0;
  let indicators = 0; // in a row without a value between them: each `-` of `- - -` is a level
  for (const token of new Lexer().lex(text)) {
    const type = CST.tokenType(token);
    tokens++;
    switch (type) {
      case "comma":
      case "map-value-ind":
      case "seq-item-ind":
      case "explicit-key-ind":
        entries++;
        indicators = type === "comma" ? 0 : indicators + 1;
        break;
      case "flow-map-start":
      case "flow-seq-start":
        flowDepth++;
        break;
      case "flow-map-end":
      case "flow-seq-end":
        flowDepth = Math.max(0, flowDepth - 1);
        break;
      case "scalar":
      case "newline":
        indicators = 0;
        break;
    }
    if (type !== "space" && type !== "newline" && type !== "comment") content++;
    if (entries > entriesMax) return { offset, message: `more than ${entriesMax} keys and list entries`, hint: simpler };
    if (content > contentTokensMax || tokens > tokensMax) {
      return { offset, message: "more words, marks and blank lines than a configuration has", hint: simpler };
    }
    if (flowDepth > depthMax || indicators > depthMax) return tooDeep(offset);
    if (token !== CST.DOCUMENT && token !== CST.FLOW_END && token !== CST.SCALAR) offset += token.length;
  }
  return undefined;
}

/** Undefined when no collection of the syntax tree lies deeper than `depthMax`. */
export function excessDepthOf(tree: readonly Token[]): Excess | undefined {
  const waiting: { token: CST.Token; depth: number }[] = [];
  for (const token of tree) if (token.type === "document" && token.value) waiting.push({ token: token.value, depth: 1 });
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (!CST.isCollection(next.token)) continue;
    if (next.depth > depthMax) return tooDeep(next.token.offset);
    for (const { key, value } of next.token.items) {
      if (key) waiting.push({ token: key, depth: next.depth + 1 });
      if (value) waiting.push({ token: value, depth: next.depth + 1 });
    }
  }
  return undefined;
}

function tooDeep(offset: number): Excess {
  return {
    offset,
    message: `nested deeper than ${depthMax} levels`,
    hint: "no configuration needs that; look for brackets that are not closed",
  };
}
