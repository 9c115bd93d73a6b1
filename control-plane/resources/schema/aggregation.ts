// How the tools of many backends become one list: conflict strategy, overrides, filters.
import { z } from "zod";
import { nearest } from "../nearest.ts";
import { flag, namedRef, type Partly, type Say, sayRepeated, section, text, texts, within, word } from "./fields.ts";

export const toolAnnotations = section({
  title: z.string({ error: "text" }).optional(),
  readOnlyHint: flag.optional(),
  destructiveHint: flag.optional(),
  idempotentHint: flag.optional(),
  openWorldHint: flag.optional(),
});

const override = section({
  name: text("the tool's new name").optional(),
  description: text("the tool's new description").optional(),
  annotations: toolAnnotations.optional(),
});

const workloadTools = section({
  workload: text("a backend's name"),
  filter: texts("tool names").optional(),
  overrides: z.record(z.string(), override, { error: "a map of the backend's tool name to what replaces it" }).optional(),
  excludeAll: flag.optional(),
  toolConfigRef: namedRef.optional(),
});

export const aggregation = section(
  {
    conflictResolution: word("prefix", "priority", "manual"),
    conflictResolutionConfig: section({
      prefixFormat: text('text with {workload} in it, such as "{workload}_"').optional(),
      priorityOrder: texts("backend names").optional(),
    }).optional(),
    tools: z.array(workloadTools, { error: "a list of maps, one per workload" }).optional(),
    excludeAllTools: flag.optional(),
    defaultToolVisibility: word("", "allow", "deny").optional(),
    toolChanges: word("report", "quarantine").optional(),
  },
  "a map such as { conflictResolution: prefix }",
);

export type AggregationPart = Partly<z.output<typeof aggregation>>;
type ToolsPart = Partly<z.output<typeof workloadTools>>;

export function aggregationRules(value: AggregationPart, say: Say): void {
  const order = value.conflictResolutionConfig?.priorityOrder ?? [];
  const tools = value.tools ?? [];
  if (value.conflictResolution === "priority" && order.length === 0) {
    say(["conflictResolutionConfig", "priorityOrder"], "strategy priority needs a priorityOrder", {
      hint: "list the backends, best first",
    });
  }
  if (value.conflictResolution === "manual" && tools.length === 0) {
    say(["tools"], "strategy manual needs entries in tools", {
      hint: "name each workload whose tools are renamed, with its overrides",
    });
  }
  const prefixFormat = value.conflictResolutionConfig?.prefixFormat;
  if (prefixFormat !== undefined) prefixRules(prefixFormat, within(say, "conflictResolutionConfig", "prefixFormat"));
  sayRepeated(
    within(say, "conflictResolutionConfig", "priorityOrder"),
    order.map((name, index) => [[index], name] as const),
    (name) => `${JSON.stringify(name)} stands twice in priorityOrder`,
  );
  sayRepeated(
    within(say, "tools"),
    tools.map((entry, index) => [[index, "workload"], entry?.workload] as const),
    (name) => `two entries of tools are for workload ${JSON.stringify(name)}`,
  );
  denyRule(value, say);
  tools.forEach((entry, index) => {
    if (entry !== undefined) workloadRules(entry, within(say, "tools", index));
  });
  if (value.conflictResolution === "manual") manualRule(tools, within(say, "tools"));
}

function prefixRules(format: string, say: Say): void {
  for (const [placeholder, inner = ""] of format.matchAll(/\{([^{}]*)\}/g)) {
    if (inner === "workload") continue;
    say([], `unknown placeholder ${placeholder}`, {
      hint: nearest(inner, ["workload"]) === undefined ? "the only one is {workload}" : "did you mean {workload}?",
    });
    return;
  }
  const rest = format.replaceAll("{workload}", "");
  if (/[^A-Za-z0-9_.-]/.test(rest)) {
    say([], `${JSON.stringify(format)} puts characters into tool names that many clients refuse`, {
      severity: "warning",
      hint: "use letters, digits, '_', '-' and '.' around {workload}",
    });
  }
  if (rest === format) {
    say([], `prefix ${JSON.stringify(format)} is the same for every backend, so it resolves no conflict`, {
      severity: "warning",
      hint: 'put {workload} into it, as in "{workload}_"',
    });
  }
}

// A backend that is preferred and hidden at the same time is a contradiction; the original refuses it too.
function denyRule(value: AggregationPart, say: Say): void {
  if (value.defaultToolVisibility !== "deny" || value.conflictResolution !== "priority") return;
  const listed = new Set(value.tools?.map((entry) => entry?.workload));
  value.conflictResolutionConfig?.priorityOrder?.forEach((name, index) => {
    if (name === undefined || listed.has(name)) return;
    say(
      ["conflictResolutionConfig", "priorityOrder", index],
      `defaultToolVisibility deny hides all tools of ${JSON.stringify(name)}, which priorityOrder prefers`,
      {
        hint: `add an entry "workload: ${name}" to tools, or drop it from priorityOrder`,
      },
    );
  });
}

function workloadRules(value: ToolsPart, say: Say): void {
  const newNames = new Map<string, string>();
  for (const [original, entry] of Object.entries(value.overrides ?? {})) {
    if (entry === undefined) continue;
    const path = ["overrides", original];
    if (Object.keys(entry).length === 0)
      say(path, "the override replaces nothing", { hint: "set name, description or annotations" });
    const { name } = entry;
    if (name === undefined) continue;
    const other = newNames.get(name);
    if (other !== undefined) {
      say(
        [...path, "name"],
        `tools ${JSON.stringify(other)} and ${JSON.stringify(original)} would both be named ${JSON.stringify(name)}`,
      );
    }
    newNames.set(name, original);
    if (!/^[A-Za-z0-9_.-]{1,64}$/.test(name)) {
      say([...path, "name"], `${JSON.stringify(name)} is a tool name that many clients refuse`, {
        severity: "warning",
        hint: "use at most 64 letters, digits, '_', '-' and '.'",
      });
    }
  }
  value.filter?.forEach((name, index) => {
    const overrides = value.overrides ?? {};
    const isOriginal = name !== undefined && !newNames.has(name) && Object.hasOwn(overrides, name);
    const renamed = isOriginal ? overrides[name]?.name : undefined;
    if (renamed === undefined || renamed === name) return;
    say(
      ["filter", index],
      `filter compares new names, and the overrides rename ${JSON.stringify(name)} to ${JSON.stringify(renamed)}`,
      {
        severity: "warning",
        hint: `write ${JSON.stringify(renamed)} to list the tool`,
      },
    );
  });
}

function manualRule(tools: readonly (ToolsPart | undefined)[], say: Say): void {
  const owners = new Map<string, string>();
  tools.forEach((entry, index) => {
    const workload = entry?.workload;
    if (entry === undefined || workload === undefined || entry.excludeAll === true) return;
    for (const [original, { name } = {}] of Object.entries(entry.overrides ?? {})) {
      if (name === undefined) continue;
      const owner = owners.get(name);
      if (owner !== undefined && owner !== workload) {
        say(
          [index, "overrides", original, "name"],
          `workloads ${JSON.stringify(owner)} and ${JSON.stringify(workload)} would both offer ${JSON.stringify(name)}`,
          {
            hint: "strategy manual needs a different name for each",
          },
        );
      }
      owners.set(name, workload);
    }
  });
}
