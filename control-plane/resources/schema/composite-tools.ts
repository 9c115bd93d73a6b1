// Workflows that are listed as tools: their shape. What their steps mean to each other is in composite-rules.ts.
import { z } from "zod";
import { toolAnnotations } from "./aggregation.ts";
import { anyObject, count, duration, matching, type Partly, section, text, texts, word } from "./fields.ts";

const toolName = matching(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, "a tool's name, alone or as workload.tool");

const onError = section({
  action: word("abort", "continue", "retry"),
  retryCount: count(0, 10).optional(),
  retryDelay: duration("any").optional(),
});

const onAnswer = section({ action: word("skip_remaining", "abort", "continue") });

const stepShape = {
  id: matching(/^[A-Za-z0-9_-]{1,64}$/, "an id of letters, digits, '_' and '-'"),
  type: word("tool", "elicitation", "forEach").optional(),
  tool: toolName.optional(),
  arguments: anyObject.optional(),
  condition: text("a template").optional(),
  dependsOn: texts("step ids").optional(),
  onError: onError.optional(),
  timeout: duration().optional(),
  defaultResults: anyObject.optional(),
  message: text("the question").optional(),
  schema: anyObject.optional(),
  onDecline: onAnswer.optional(),
  onCancel: onAnswer.optional(),
  collection: text("a template that gives a JSON list").optional(),
  itemVar: matching(/^[A-Za-z_][A-Za-z0-9_]*$/, "a name of letters, digits and _").optional(),
  maxParallel: count(0, 50).optional(),
  maxIterations: count(0, 1000).optional(),
};

// The step inside a forEach is a tool call; its id may be left out.
const innerStep = section({
  id: stepShape.id.optional(),
  type: z.enum(["tool"], { error: "tool: a forEach runs nothing else" }).optional(),
  tool: toolName,
  arguments: stepShape.arguments,
  condition: stepShape.condition,
  onError: stepShape.onError,
  timeout: stepShape.timeout,
  defaultResults: stepShape.defaultResults,
});

const step = section({ ...stepShape, step: innerStep.optional() });

export interface OutputPart {
  readonly type?: string | undefined;
  readonly description?: string | undefined;
  readonly value?: string | undefined;
  readonly properties?: Readonly<Record<string, OutputPart | undefined>> | undefined;
  readonly default?: unknown;
}

const outputProperty: z.ZodType<OutputPart> = section({
  type: word("string", "integer", "number", "boolean", "object", "array"),
  description: text("text that says what the property means"),
  value: text("a template").optional(),
  get properties() {
    return z.record(z.string(), outputProperty, { error: "a map of property names" }).optional();
  },
  default: z.json().optional(),
});

const output = section({
  properties: z.record(z.string(), outputProperty, { error: "a map of property names" }),
  required: texts("property names").optional(),
});

const compositeTool = section({
  name: matching(/^[A-Za-z0-9_.-]{1,64}$/, "a tool name of at most 64 letters, digits, '_', '-' and '.'"),
  description: text("text that says what the tool does"),
  parameters: anyObject.optional(),
  timeout: duration().optional(),
  steps: z
    .array(step, { error: "a list of maps, one per step" })
    .min(1, { error: "at least one step" })
    .max(100, { error: "at most 100 steps" }),
  output: output.optional(),
  annotations: toolAnnotations.optional(),
});

export const compositeTools = z.array(compositeTool, { error: "a list of maps, one per tool" });

export type CompositePart = Partly<z.output<typeof compositeTool>>;
export type StepPart = Partly<z.output<typeof step>>;
