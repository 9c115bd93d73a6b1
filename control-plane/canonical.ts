// Equal messages, equal bytes. Protobuf leaves the order of map entries open and the encoder writes them as they were inserted,
// so etags and snapshot versions would change with the order in which a file or a client happened to name things.
import { clone, type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type ReflectList, type ReflectMap, type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";

/** The encoding with every map sorted by key, at every depth, JSON objects included. */
export function canonicalBytes<D extends DescMessage>(schema: D, message: MessageShape<D>): Uint8Array {
  return toBinary(schema, canonical(schema, message));
}

/** A copy with its maps in that order. */
export function canonical<D extends DescMessage>(schema: D, message: MessageShape<D>): MessageShape<D> {
  const copy = clone(schema, message);
  sortMaps(reflect(schema, copy));
  return copy;
}

function sortMaps(message: ReflectMessage): void {
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    if (field.fieldKind === "map") sortEntries(message.get(field) as ReflectMap<string>);
    else if (field.fieldKind === "list" && field.listKind === "message") {
      for (const item of message.get(field) as ReflectList<ReflectMessage>) sortMaps(item);
    } else if (field.fieldKind === "message") {
      const value = message.get(field) as ReflectMessage;
      sortMaps(value);
      // google.protobuf.Struct is kept as plain JSON, and what `get` gave is a copy of it.
      message.set(field, value);
    }
  }
}

function sortEntries(map: ReflectMap<string>): void {
  const entries = [...map.entries()].sort(([a], [b]) => (a < b ? -1 : 1));
  map.clear();
  for (const [key, value] of entries) {
    if (isMessage(value)) sortMaps(value);
    map.set(key, value);
  }
}

function isMessage(value: unknown): value is ReflectMessage {
  return typeof value === "object" && value !== null && "desc" in value && "fields" in value;
}
