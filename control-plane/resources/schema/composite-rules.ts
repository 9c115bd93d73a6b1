// What the steps of a workflow mean to each other.
import { didYouMean } from "../nearest.ts";
import type { CompositePart, OutputPart, StepPart } from "./composite-tools.ts";
import { type Say, sayRepeated, within } from "./fields.ts";

export function compositeListRules(list: readonly (CompositePart | undefined)[], say: Say): void {
  sayRepeated(
    say,
    list.map((tool, index) => [[index, "name"], tool?.name] as const),
    (name) => `two composite tools are named ${JSON.stringify(name)}`,
  );
  list.forEach((tool, index) => {
    if (tool !== undefined) compositeRules(tool, within(say, index));
  });
}

function compositeRules(tool: CompositePart, say: Say): void {
  const steps = tool.steps ?? [];
  const type = tool.parameters?.type;
  if (tool.parameters !== undefined && type !== "object") {
    say(type === undefined ? ["parameters"] : ["parameters", "type"], "parameters must be a JSON Schema of type object", {
      hint: "set type: object",
    });
  }
  sayRepeated(
    within(say, "steps"),
    steps.map((step, index) => [[index, "id"], step?.id] as const),
    (id) => `two steps have the id ${JSON.stringify(id)}`,
  );
  const ids = steps.flatMap((step) => (step?.id === undefined ? [] : [step.id]));
  const allKnown = ids.length === steps.length;
  steps.forEach((step, index) => {
    if (step === undefined) return;
    stepRules(step, within(say, "steps", index));
    step.dependsOn?.forEach((id, at) => {
      if (id === undefined || ids.includes(id) || !allKnown) return;
      say(["steps", index, "dependsOn", at], `no step has the id ${JSON.stringify(id)}`, { hint: didYouMean(id, ids) });
    });
  });
  cycleRule(steps, within(say, "steps"));
  if (tool.output !== undefined) outputRules(tool.output.properties ?? {}, tool.output.required, within(say, "output"), 1);
  readRules(tool, steps, say);
}

function stepRules(step: StepPart, say: Say): void {
  const type = step.type ?? (step.tool !== undefined && step.message === undefined ? "tool" : undefined);
  if (type === undefined) {
    const isBoth = step.tool !== undefined;
    say(["type"], isBoth ? "the step has both tool and message, so its type is not clear" : "the step needs a tool or a type", {
      hint: "set type: tool, elicitation or forEach",
    });
    return;
  }
  const needed = { tool: ["tool"], elicitation: ["message", "schema"], forEach: ["collection", "step"] } as const;
  for (const key of needed[type]) {
    if (step[key] === undefined) say([key], `a step of type ${type} needs ${key}`);
  }
  if (step.itemVar === "index") say(["itemVar"], "index is the position of the item already", { hint: "choose another name" });
  retryRule(step.onError, within(say, "onError"));
  retryRule(step.step?.onError, within(say, "step", "onError"));
}

function retryRule(onError: StepPart["onError"], say: Say): void {
  if (onError?.action === "retry" && (onError.retryCount ?? 0) === 0)
    say(["retryCount"], "action retry needs a retryCount from 1 to 10");
}

function cycleRule(steps: readonly (StepPart | undefined)[], say: Say): void {
  const byId = new Map(steps.flatMap((step, index) => (step?.id === undefined ? [] : [[step.id, { step, index }] as const])));
  const waiting = new Map(
    [...byId].map(([id, { step }]) => [id, (step.dependsOn ?? []).filter((on) => on !== undefined && byId.has(on))]),
  );
  // Kahn: take away what waits for nothing that is left; what can't be taken away is on a cycle or behind one.
  for (let removed = true; removed; ) {
    removed = false;
    for (const [id, on] of waiting) {
      if (on.some((other) => other !== undefined && waiting.has(other))) continue;
      waiting.delete(id);
      removed = true;
    }
  }
  const start = waiting.keys().next().value;
  if (start === undefined) return;
  const trail: string[] = [];
  for (
    let id: string | undefined = start;
    id !== undefined && !trail.includes(id);
    id = waiting.get(id)?.find((on) => on !== undefined && waiting.has(on))
  )
    trail.push(id);
  const last = trail.at(-1) ?? start;
  const again = waiting.get(last)?.find((on) => on !== undefined && waiting.has(on)) ?? start;
  const loop = [...trail.slice(trail.indexOf(again)), again];
  say([byId.get(again)?.index ?? 0, "dependsOn"], `steps wait for each other: ${loop.join(" → ")}`, {
    hint: "remove one of these dependsOn",
  });
}

const outputDepthMax = 10;

function outputRules(
  properties: Readonly<Record<string, OutputPart | undefined>>,
  required: readonly (string | undefined)[] | undefined,
  say: Say,
  depth: number,
): void {
  for (const [name, property] of Object.entries(properties)) {
    if (property === undefined) continue;
    const path = ["properties", name];
    if (property.value !== undefined && property.properties !== undefined)
      say([...path, "value"], "value and properties exclude each other");
    if (property.value === undefined && property.properties === undefined)
      say([...path, "value"], "the property needs a value or properties");
    if (property.properties !== undefined) {
      if (property.type !== undefined && property.type !== "object")
        say([...path, "type"], `a property with properties is of type object, not ${property.type}`);
      if (depth >= outputDepthMax) say([...path, "properties"], `properties are nested deeper than ${outputDepthMax}`);
      else outputRules(property.properties, undefined, within(say, ...path), depth + 1);
    }
  }
  required?.forEach((name, index) => {
    if (name === undefined || Object.hasOwn(properties, name)) return;
    say(["required", index], `no property is named ${JSON.stringify(name)}`, { hint: didYouMean(name, Object.keys(properties)) });
  });
}

/** A step that may not run must say what its readers get instead. */
function readRules(tool: CompositePart, steps: readonly (StepPart | undefined)[], say: Say): void {
  const indexOf = new Map(steps.flatMap((step, index) => (step?.id === undefined ? [] : [[step.id, index] as const])));
  const reads = [...readsOf(steps), ...readsOf(tool.output)];
  const said = new Set<string>();
  for (const { id, field } of reads) {
    const index = indexOf.get(id);
    const step = index === undefined ? undefined : steps[index];
    if (step === undefined || index === undefined) continue;
    const mayNotRun = step.condition !== undefined || step.onError?.action === "continue";
    const given = step.defaultResults;
    if (!mayNotRun || (given !== undefined && (field === undefined || Object.hasOwn(given, field)))) continue;
    const what = field ?? "output";
    if (said.has(`${id} ${what}`)) continue;
    said.add(`${id} ${what}`);
    const why = step.condition !== undefined ? "has a condition" : "may fail and continue";
    say(
      given === undefined ? ["steps", index] : ["steps", index, "defaultResults"],
      `step ${JSON.stringify(id)} ${why}, and its ${JSON.stringify(what)} is read`,
      {
        hint: `add defaultResults with ${what}`,
      },
    );
  }
}

function readsOf(value: unknown): { id: string; field?: string }[] {
  if (typeof value === "string") {
    return [...value.matchAll(/\.steps\.([A-Za-z0-9_-]+)\.output(?:\.([A-Za-z0-9_-]+))?/g)].map(([, id = "", field]) =>
      field === undefined ? { id } : { id, field },
    );
  }
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(readsOf) : [];
}
