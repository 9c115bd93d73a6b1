// Tools that only run as tasks (MCP 2025-11-25, experimental tasks). We offer clients no tasks, so such tools are listed as if
// they were plain ones: clients would refuse to call them otherwise. The gateway runs the task.
import type { ServerFacts } from "../backends/leg.ts";
import { member, members } from "../mcp/scan.ts";

/** Whether a tool's definition says that it can only be called as a task. */
export function requiresTask(tool: Buffer): boolean {
  if (!tool.includes('"required"')) return false; // rules out nearly every tool without reading it
  const execution = member(tool, 0, "execution");
  const support = execution && isObject(tool, execution.start) && member(tool, execution.start, "taskSupport");
  return support ? tool.toString("utf8", support.start, support.end) === '"required"' : false;
}

/** The definition without `execution`; every other byte is the backend's. */
export function asPlainTool(tool: Buffer): Buffer {
  const present = members(tool);
  const bodyStart = tool.indexOf("{") + 1;
  // What stands between two values, comma and name, goes with the later one.
  const pieces = present.map(({ key, end }, i) => ({ key, text: tool.subarray(present[i - 1]?.end ?? bodyStart, end) }));
  const kept = pieces.filter(({ key }) => key !== "execution").map(({ text }) => text);
  if (kept[0] && kept[0] !== pieces[0]?.text) kept[0] = kept[0].subarray(kept[0].indexOf(",") + 1);
  return Buffer.concat([tool.subarray(0, bodyStart), ...kept, tool.subarray(present.at(-1)?.end ?? bodyStart)]);
}

/**
 * Whether a backend runs tools as tasks. Without that, its tools are called plainly whatever they say of themselves
 * (MCP 2025-11-25, tasks, tool-level negotiation).
 */
export function runsTasks({ capabilities }: ServerFacts): boolean {
  const tasks = capabilities.tasks as { requests?: { tools?: { call?: unknown } } } | null | undefined;
  return tasks?.requests?.tools?.call !== undefined;
}

function isObject(json: Buffer, start: number): boolean {
  return json[start] === 0x7b;
}
