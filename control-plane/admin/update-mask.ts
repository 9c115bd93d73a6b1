// Which fields of a resource an update means (AIP-134, AIP-161), and the resource with them changed.
import { clone, type DescField, type DescMessage } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import type { FieldMask } from "@bufbuild/protobuf/wkt";
import { type Resource, ResourceSchema } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { parseName, specCaseOf } from "../resource-names.ts";
import type { FieldViolation } from "./errors.ts";
import { invalid } from "./requests.ts";

/** `merge`: what is set in the resource that was given. `replace`: its whole spec. */
export type Mask = "merge" | "replace" | readonly (readonly DescField[])[];

/** Throws AdminError with every path that names no field, or one of another kind of resource. */
export function readMask(mask: FieldMask | undefined, { name }: Resource): Mask {
  const paths = mask?.paths ?? [];
  if (paths.length === 0) return "merge";
  if (paths.length === 1 && paths[0] === "*") return "replace";
  const violations: FieldViolation[] = [];
  const fields = paths.flatMap((path, at) => {
    const found = path === "*" ? "* stands alone" : fieldsOf(path, name);
    if (typeof found !== "string") return [found];
    violations.push({ field: `update_mask.paths[${at}]`, description: found });
    return [];
  });
  if (violations.length > 0) throw invalid(violations);
  return fields.filter(([first]) => !isOutputOnly(first));
}

/** A copy of `before` with what the mask means taken from `given`. */
export function updated(before: Resource, given: Resource, mask: Mask): Resource {
  if (mask === "replace") return given;
  const result = clone(ResourceSchema, before);
  const target = reflect(ResourceSchema, result);
  const source = reflect(ResourceSchema, clone(ResourceSchema, given));
  if (mask === "merge") merge(target, source);
  else for (const path of mask) copy(target, source, path);
  return result;
}

/** The fields on the way, or why there is no such way. */
function fieldsOf(path: string, resource: string): DescField[] | string {
  const fields: DescField[] = [];
  let message: DescMessage | undefined = ResourceSchema;
  for (const part of path.split(".")) {
    if (message === undefined) return `${quoted(path)}: ${fields.at(-1)?.name} is replaced as a whole`;
    const field: DescField | undefined = message.fields.find(({ name }) => name === part);
    if (field === undefined) return `${quoted(path)}: there is no field ${quoted(part)}`;
    fields.push(field);
    message = plainMessage(field);
  }
  const [first] = fields;
  const kind = parseName(resource)?.kind;
  const isOther = first?.oneof !== undefined && kind !== undefined && first.localName !== specCaseOf(kind);
  return isOther ? `${quoted(path)} is not for a resource named ${quoted(resource)}` : fields;
}

function isOutputOnly(field: DescField | undefined): boolean {
  return field?.oneof === undefined; // beside the spec there are the name, the etag, and what the control plane sets
}

function merge(target: ReflectMessage, source: ReflectMessage): void {
  for (const field of source.fields) {
    if (!source.isSet(field) || (target.desc === ResourceSchema && isOutputOnly(field))) continue;
    if (plainMessage(field) !== undefined && target.isSet(field)) {
      const inner = target.get(field) as ReflectMessage;
      merge(inner, source.get(field) as ReflectMessage);
      target.set(field, inner);
    } else target.set(field, source.get(field));
  }
}

function copy(target: ReflectMessage, source: ReflectMessage | undefined, [field, ...rest]: readonly DescField[]): void {
  if (field === undefined) return;
  const isSet = source?.isSet(field) === true;
  if (rest.length === 0) {
    if (isSet) target.set(field, source.get(field));
    else target.clear(field);
    return;
  }
  if (!isSet && !target.isSet(field)) return;
  const inner = target.isSet(field) ? (target.get(field) as ReflectMessage) : reflect(plainMessage(field) as DescMessage);
  copy(inner, isSet ? (source.get(field) as ReflectMessage) : undefined, rest);
  target.set(field, inner);
}

/** Of a field that holds one message with fields of its own; durations and the like are values. */
function plainMessage(field: DescField): DescMessage | undefined {
  return field.fieldKind === "message" && !field.message.typeName.startsWith("google.protobuf.") ? field.message : undefined;
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}
