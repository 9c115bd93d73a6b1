// A tool that asks the client what its arguments say, round by round, and gives the client's answers: for servers of either era.
import type { Backend, Handler } from "./backend.ts";
import { textResult } from "./backend.ts";
import { eventually } from "./eventually.ts";
import type { StatelessHandler } from "./stateless-backend.ts";
import { completeText, rawError } from "./stateless-backend.ts";

/** Questions of one round by key; keys mean nothing to servers of the session era. */
export type Round = Readonly<Record<string, { readonly method: string; readonly params?: object }>>;

let questions = 0;

/**
 * Asks by requests in the middle of the call, and waits until `isOver` for answers. Its result is the list of all answers, in
 * the order of the questions.
 */
export function askInSession(backend: () => Backend, isOver: AbortSignal): Handler {
  return async ({ params, notify }) => {
    const { rounds } = params.arguments as { rounds: readonly Round[] };
    const answers: unknown[] = [];
    for (const round of rounds) {
      const ids = Object.values(round).map((question) => {
        const id = `question-${++questions}`;
        notify(JSON.stringify({ jsonrpc: "2.0", id, ...question }));
        return id;
      });
      for (const id of ids) answers.push(await answerTo(backend(), id, isOver));
    }
    return textResult(JSON.stringify(answers));
  };
}

/** The result, or the error, that the client answered with. */
async function answerTo(backend: Backend, id: string, isOver: AbortSignal): Promise<unknown> {
  const isAnswer = ({ message }: Backend["requests"][number]) =>
    message?.id === JSON.stringify(id) && message.method === undefined;
  const body = await eventually(`an answer to ${id}`, () => (isOver.aborted ? "{}" : backend.requests.find(isAnswer)?.body));
  const { result, error } = JSON.parse(body) as { result?: unknown; error?: unknown };
  return result ?? { error };
}

/** What a server may well put into a state: whoever passes it on must not read it, nor write it in other words. */
export const stateOf = (round: number, answers: readonly unknown[]): string =>
  JSON.stringify({ round, answers, odd: 'é☃ "quoted" \\ / +=&' });

/** Asks by results. Its last result is the list of all answers, in the order of their rounds. */
export const askStateless: StatelessHandler = ({ params }) => {
  const { rounds } = params.arguments as { rounds: readonly Round[] };
  const { requestState, inputResponses = {} } = params as { requestState?: string; inputResponses?: Record<string, unknown> };
  const before = requestState === undefined ? { round: 0, answers: [] } : readState(requestState);
  if (!before) return rawError(`{"code":-32602,"message":"not my state"}`);
  const answers = [...before.answers, ...Object.values(inputResponses)];
  const round = rounds[before.round];
  if (!round) return completeText(JSON.stringify(answers));
  return JSON.stringify({ resultType: "input_required", inputRequests: round, requestState: stateOf(before.round + 1, answers) });
};

function readState(text: string): { round: number; answers: unknown[] } | undefined {
  try {
    const state = JSON.parse(text) as { round: number; answers: unknown[] };
    return stateOf(state.round, state.answers) === text ? state : undefined;
  } catch {
    return undefined;
  }
}

/** A question of each kind, and an answer to it. */
export const kinds = {
  elicitation: {
    question: {
      method: "elicitation/create",
      params: { mode: "form", message: "who?", requestedSchema: { type: "object", properties: { name: { type: "string" } } } },
    },
    answer: { action: "accept", content: { name: "Ada" } },
  },
  sampling: {
    question: {
      method: "sampling/createMessage",
      params: { messages: [{ role: "user", content: { type: "text", text: "hi" } }], maxTokens: 9 },
    },
    answer: { model: "m", role: "assistant", content: { type: "text", text: "sampled" } },
  },
  roots: { question: { method: "roots/list" }, answer: { roots: [{ uri: "file:///work" }] } },
} as const;
