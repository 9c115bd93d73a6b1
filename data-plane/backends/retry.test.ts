import assert from "node:assert/strict";
import { test } from "node:test";
import { errorResponse, readMessage, request } from "../mcp/json-rpc.ts";
import type { BackendErrorCode } from "./errors.ts";
import { callFacts, type Failed, type Retry, retryOf } from "./retry.ts";

const repeatable = [
  "tools/list",
  "prompts/list",
  "resources/list",
  "resources/templates/list",
  "server/discover",
  "ping",
  "completion/complete",
];
const others = [
  "tools/call",
  "resources/read",
  "prompts/get",
  "resources/subscribe",
  "logging/setLevel",
  "tasks/get",
  "tasks/cancel",
  "x/unheard-of",
  undefined,
];
const methods = [...repeatable, ...others];
const codes = {
  unavailable: true,
  gone: true,
  timeout: true,
  session_gone: true,
  bad_answer: true,
  refused: true,
  unauthorized: true,
  no_credential: true,
  unanswered: true,
  shed: true,
} satisfies Record<BackendErrorCode, true>;
const outcomes = ["not_executed", "unknown"] as const;
const bools = [false, true];

function* combinations(): Generator<Failed> {
  for (const method of methods)
    for (const code of Object.keys(codes) as BackendErrorCode[])
      for (const outcome of outcomes)
        for (const attempts of [1, 2, 3])
          for (const bodyBytes of [0, 64 * 1024, 64 * 1024 + 1])
            for (const isRequest of bools)
              for (const hasNewSession of bools)
                for (const hasSpoken of bools)
                  for (const carriesInput of bools)
                    for (const budgetAllows of bools)
                      for (const credentialRenewed of bools) {
                        const call = { method, isRequest, carriesInput, bodyBytes };
                        const state = { attempts, hasNewSession, hasSpoken, budgetAllows, credentialRenewed };
                        yield { ...call, ...state, code, outcome };
                      }
}

/** Every combination there is. */
const everyFailure: readonly Failed[] = [...combinations()];

// The rules once more, as sets: what there is a reason for, and what nothing is a reason for.
const isRepeatable = ({ method }: Failed) => method !== undefined && repeatable.includes(method);
const isSessionRefused = ({ code, outcome }: Failed) => code === "session_gone" && outcome === "not_executed";

const reasons: readonly [why: string, verdict: Retry, holds: (failed: Failed) => boolean][] = [
  ["not sent", "again", ({ code, outcome }) => code === "unavailable" && outcome === "not_executed"],
  ["the session is gone", "on_new_session", isSessionRefused],
  ["asks only", "again", (failed) => isRepeatable(failed) && failed.code === "unavailable" && failed.outcome === "unknown"],
  ["asks only", "again", (failed) => isRepeatable(failed) && failed.code === "bad_answer" && failed.outcome === "unknown"],
  [
    "401",
    "again",
    ({ code, outcome, credentialRenewed }) => code === "unauthorized" && outcome === "not_executed" && credentialRenewed === true,
  ],
];
const obstacles: readonly [why: string, holds: (failed: Failed) => boolean][] = [
  ["nobody waits for it", ({ isRequest }) => !isRequest],
  ["the client has heard of it", ({ hasSpoken }) => hasSpoken],
  ["it goes on with a call", (failed) => failed.carriesInput && !isSessionRefused(failed)],
  ["two attempts", (failed) => failed.attempts >= 2 && !isSessionRefused(failed)],
  ["two sessions refused", (failed) => failed.hasNewSession && failed.code === "session_gone"],
  ["no budget", ({ budgetAllows, code }) => !budgetAllows && code !== "session_gone" && code !== "unauthorized"],
  [
    "large, and not sent",
    ({ code, outcome, bodyBytes }) => code === "unavailable" && outcome === "not_executed" && bodyBytes > 65_536,
  ],
];

test("every failure there can be has the answer of the rules", () => {
  let cases = 0;
  for (const failed of everyFailure) {
    const stopped = obstacles.some(([, holds]) => holds(failed));
    const wanted = stopped ? "no" : (reasons.find(([, , holds]) => holds(failed))?.[1] ?? "no");
    const verdict = retryOf(failed);
    if (verdict !== wanted) assert.equal(verdict, wanted, JSON.stringify(failed));
    cases++;
  }
  assert.equal(cases, methods.length * 10 * 2 * 3 * 3 * 2 ** 6);
});

// What must hold whatever else is changed in the rules.
const invariants: readonly [promise: string, holds: (failed: Failed, verdict: Retry) => boolean][] = [
  [
    "what may have run is not run again, unless it only asks",
    (failed, verdict) => failed.outcome === "not_executed" || isRepeatable(failed) || verdict === "no",
  ],
  [
    "a tool that may have run is never run again",
    ({ method, outcome }, verdict) => method !== "tools/call" || outcome === "not_executed" || verdict === "no",
  ],
  ["a call that its client has heard of is never made again", ({ hasSpoken }, verdict) => !hasSpoken || verdict === "no"],
  ["no notification and no answer is sent again", ({ isRequest }, verdict) => isRequest || verdict === "no"],
  [
    "answers to a backend's questions are only sent again when it refused the session",
    ({ carriesInput }, verdict) => !carriesInput || verdict !== "again",
  ],
  ["a second failure is the last one", ({ attempts }, verdict) => attempts < 2 || verdict !== "again"],
  ["a call is given one new session", ({ hasNewSession }, verdict) => !hasNewSession || verdict !== "on_new_session"],
  [
    "there is a new session only for one that was refused",
    ({ code }, verdict) => verdict !== "on_new_session" || code === "session_gone",
  ],
  [
    "without a budget nothing is tried again but what was refused",
    ({ budgetAllows, code }, verdict) => budgetAllows || verdict !== "again" || code === "unauthorized",
  ],
  [
    "a refused credential is not shown twice",
    ({ code, credentialRenewed }, verdict) => code !== "unauthorized" || credentialRenewed === true || verdict === "no",
  ],
  [
    "deadlines, refusals, silence and shed calls are final",
    ({ code }, verdict) => !["timeout", "refused", "unanswered", "shed", "no_credential"].includes(code) || verdict === "no",
  ],
];
for (const [promise, holds] of invariants) {
  test(promise, () => {
    for (const failed of everyFailure) {
      const verdict = retryOf(failed);
      if (!holds(failed, verdict)) assert.fail(`${verdict}: ${JSON.stringify(failed)}`);
    }
  });
}

test("a call costs three attempts at the very most, whatever fails in which order", () => {
  const failures = everyFailure.filter(({ attempts, hasNewSession }) => attempts === 1 && !hasNewSession);
  const kinds = Object.keys(codes).flatMap((code) => outcomes.map((outcome) => ({ code: code as BackendErrorCode, outcome })));
  const longest = (call: Failed): number => {
    const verdict = retryOf(call);
    if (verdict === "no") return call.attempts;
    const next = { ...call, attempts: call.attempts + 1, hasNewSession: call.hasNewSession || verdict === "on_new_session" };
    return Math.max(...kinds.map((kind) => longest({ ...next, ...kind })));
  };
  assert.equal(Math.max(...failures.map(longest)), 3);
});

const first: Failed = {
  method: "tools/call",
  isRequest: true,
  code: "unavailable",
  outcome: "not_executed",
  attempts: 1,
  hasNewSession: false,
  hasSpoken: false,
  carriesInput: false,
  bodyBytes: 200,
  budgetAllows: true,
};
const cut = { code: "unavailable", outcome: "unknown" } as const;
const gone = { code: "session_gone", outcome: "not_executed" } as const;

const table: readonly (readonly [situation: string, failed: Partial<Failed>, wanted: Retry])[] = [
  ["a tool call that could not be sent", {}, "again"],
  ["… for the second time", { attempts: 2 }, "no"],
  ["… while many others could not be sent either", { budgetAllows: false }, "no"],
  ["… of 64 KB", { bodyBytes: 64 * 1024 }, "again"],
  ["… of more", { bodyBytes: 64 * 1024 + 1 }, "no"],
  ["… that brings answers", { carriesInput: true }, "no"],
  ["a call to a backend that is left alone", { code: "shed" }, "no"],
  ["a refused credential", { code: "unauthorized" }, "no"],
  ["a refused credential that there is a new one for", { code: "unauthorized", credentialRenewed: true }, "again"],
  ["… which is refused too", { code: "unauthorized", credentialRenewed: true, attempts: 2 }, "no"],
  ...repeatable.map((method) => [`${method} that was cut`, { ...cut, method }, "again"] as const),
  ["a list that was cut twice", { ...cut, method: "tools/list", attempts: 2 }, "no"],
  ["a list that came as rubbish", { method: "tools/list", code: "bad_answer", outcome: "unknown" }, "again"],
  ["a list that took too long", { method: "tools/list", code: "timeout", outcome: "unknown" }, "no"],
  ["resources/read that was cut", { ...cut, method: "resources/read" }, "no"],
  ["prompts/get that was cut", { ...cut, method: "prompts/get" }, "no"],
  ["tools/call that was cut", cut, "no"],
  ["tools/call that came back as rubbish", { code: "bad_answer", outcome: "unknown" }, "no"],
  ["tools/call that took too long", { code: "timeout", outcome: "unknown" }, "no"],
  ["a request that the backend refused", { code: "refused" }, "no"],
  ["a notification that could not be sent", { method: "notifications/roots/list_changed", isRequest: false }, "no"],
  ["an answer that could not be sent", { method: undefined, isRequest: false }, "no"],
  ["a list of which the client has heard progress", { ...cut, method: "tools/list", hasSpoken: true }, "no"],
  ["a call whose session is gone", gone, "on_new_session"],
  ["… after it could not be sent at first", { ...gone, attempts: 2 }, "on_new_session"],
  ["… and that brings answers", { ...gone, carriesInput: true }, "on_new_session"],
  ["… while there is no budget", { ...gone, budgetAllows: false }, "on_new_session"],
  ["… and the new one too", { ...gone, attempts: 2, hasNewSession: true }, "no"],
  ["… after the client has heard of it", { ...gone, hasSpoken: true }, "no"],
];
for (const [situation, failed, wanted] of table) {
  test(`${situation}: ${wanted}`, () => assert.equal(retryOf({ ...first, ...failed }), wanted));
}

for (const [what, json, wanted] of [
  ["a plain call", request("tools/call", '{"name":"t","arguments":{"requestState":"s"}}', "1"), [true, false]],
  ["a call with answers", request("tools/call", '{"name":"t","input\\u0052esponses":{}}', "1"), [true, true]],
  ["a call with a state", request("tools/call", '{"name":"t","requestState":"s"}', "1"), [true, true]],
  ["a call with odd params", request("tools/call", "[1]", "1"), [true, false]],
  ["a notification", request("notifications/initialized", undefined), [false, false]],
  ["an answer", errorResponse("1", { code: 1, message: "no" }), [false, false]],
] as const) {
  test(`${what} is known as such`, () => {
    const { isRequest, carriesInput, bodyBytes } = callFacts(readMessage(json));
    assert.deepEqual([isRequest, carriesInput, bodyBytes], [...wanted, json.length]);
  });
}
