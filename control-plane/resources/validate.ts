// The rules that every declared resource obeys, however it arrived: by a file or by the admin API.
import { toJson } from "@bufbuild/protobuf";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { inspect } from "./inspect.ts";
import { type Problem, printable } from "./problems.ts";
import { type Declared, referenceProblems } from "./references.ts";
import { groupName, plainName } from "./schema/fields.ts";

export interface ValidateOptions {
  /** More is declared elsewhere: references to what is not in the set are not reported. Default false. */
  readonly partial?: boolean;
  /** Groups that discovery knows. Undefined: it does not run. */
  readonly discovered?: ReadonlySet<string> | undefined;
}

/**
 * All problems of a whole set of resources: each by itself, and their references to each other. Never throws.
 * Every problem names its resource; paths are those of the spec as proto JSON, which is the YAML's.
 */
export function validateResources(
  resources: readonly Resource[],
  { partial = false, discovered }: ValidateOptions = {},
): Problem[] {
  const problems: Problem[] = [];
  const declared: Declared[] = [];
  const names = new Set<string>();
  for (const resource of resources) {
    const report = (path: (string | number)[], message: string) =>
      problems.push({ severity: "error", message, resource: resource.name, path });
    if (names.has(resource.name)) report([], `${resource.name} is declared twice`);
    names.add(resource.name);
    const kind = resource.spec.case;
    if (kind === undefined) {
      report([], "the resource has no spec");
      continue;
    }
    const named = parseName(resource.name);
    if (named?.kind !== kind) {
      report([], `${JSON.stringify(resource.name)} is not a name for this kind of resource; wanted ${patterns[kind]}`);
      continue;
    }
    const json = specJson(resource);
    if (json === undefined) {
      report([], "a value of the spec has no JSON form, such as a duration out of range or a number that is not finite");
      continue;
    }
    if ("name" in resource.spec.value) {
      // A spec may leave its name to the resource's.
      if (json.name === undefined) json.name = named.last;
      else if (json.name !== named.last)
        report(["name"], `the spec is named ${JSON.stringify(json.name)}, the resource ${JSON.stringify(resource.name)}`);
    }
    const inspected = inspect(kind, json);
    problems.push(...inspected.problems.map((problem) => ({ ...problem, resource: resource.name })));
    declared.push({ name: resource.name, kind, part: inspected.part });
  }
  return [...problems, ...referenceProblems(declared, { isPartial: partial, discovered })].map(printable);
}

const patterns = {
  group: "groups/{group}",
  backend: "groups/{group}/backends/{backend}",
  virtualServer: "virtualServers/{name}",
  authPolicy: "authPolicies/{name}",
  revocation: "revocations/{id}",
};

function parseName(name: string): { kind: keyof typeof patterns; last: string } | undefined {
  const [collection, first = "", below, second = "", ...rest] = name.split("/");
  if (rest.length > 0 || first === "") return undefined;
  if (collection === "groups") {
    if (!groupName.safeParse(first).success) return undefined;
    if (below === undefined) return { kind: "group", last: first };
    return below === "backends" && plainName.safeParse(second).success ? { kind: "backend", last: second } : undefined;
  }
  if (below !== undefined || !plainName.safeParse(first).success) return undefined;
  if (collection === "virtualServers") return { kind: "virtualServer", last: first };
  if (collection === "revocations") return { kind: "revocation", last: first };
  return collection === "authPolicies" ? { kind: "authPolicy", last: first } : undefined;
}

function specJson(resource: Resource): Record<string, unknown> | undefined {
  try {
    const json = toJson(ResourceSchema, resource) as Record<string, Record<string, unknown>>;
    return json[resource.spec.case ?? ""] ?? {};
  } catch {
    return undefined;
  }
}
