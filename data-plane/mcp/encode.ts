// Several texts as one sequence of bytes, for keyed hashes.

/** Each field after its length (4 bytes, big endian), so that no two lists of fields give the same bytes. */
export function encode(...fields: readonly string[]): Buffer {
  // UTF-16, because UTF-8 writes all lone surrogates alike.
  const bytes = Buffer.alloc(fields.reduce((sum, field) => sum + 4 + field.length * 2, 0));
  let at = 0;
  for (const field of fields) {
    at = bytes.writeUInt32BE(field.length * 2, at);
    at += bytes.write(field, at, "utf16le");
  }
  return bytes;
}
