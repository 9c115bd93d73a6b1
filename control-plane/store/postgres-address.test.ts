import assert from "node:assert/strict";
import { test } from "node:test";
import { postgresName, readPostgresAddress } from "./postgres-address.ts";

test("an address in full", () => {
  const address = readPostgresAddress("postgresql://me%40x:p%2Fw@db.example:6432/mesh?schema=prod&sslmode=require");
  const { password, ...rest } = address;
  assert.deepEqual(rest, {
    ...{ host: "db.example", port: 6432, user: "me@x", database: "mesh", schema: "prod", tls: { rejectUnauthorized: false } },
  });
  assert.equal(password?.(), "p/w");
  assert.equal(postgresName(address), "postgres://db.example:6432/mesh?schema=prod");
});

test("what is left out: port, user, schema, and a password where the driver looks for one", () => {
  const { port, user, schema, password } = readPostgresAddress("postgres://127.0.0.1/mesh", {});
  assert.deepEqual([port, user, schema, password], [5432, "vmcp", "vmcp", undefined]);
  assert.equal(readPostgresAddress("postgres://127.0.0.1/mesh", { PGUSER: "me" }).user, "me");
  assert.equal(readPostgresAddress("postgres://127.0.0.1/mesh", { VMCP_STORE_PASSWORD: "given" }).password?.(), "given");
});

for (const [text, wanted] of [
  ["postgres://127.0.0.1/mesh", undefined],
  ["postgres://localhost/mesh", undefined],
  ["postgres://[::1]/mesh", undefined],
  ["postgres://db.example/mesh", { rejectUnauthorized: true }],
  ["postgres://db.example/mesh?sslmode=disable", undefined],
  ["postgres://127.0.0.1/mesh?sslmode=verify-full", { rejectUnauthorized: true }],
] as const) {
  test(`TLS for ${text}`, () => assert.deepEqual(readPostgresAddress(text).tls, wanted));
}

for (const text of [
  "postgres://",
  "postgres://u:hush@127.0.0.1",
  "postgres://u:hush@127.0.0.1:99999/mesh",
  "postgres://u:hush@127.0.0.1/a/b",
  "postgres://u:hush%@127.0.0.1/mesh",
  "postgres://u:hush@127.0.0.1/mesh?schema=Drop%20table",
  "postgres://u:hush@127.0.0.1/mesh?sslmode=prefer",
  "postgres://u:hush@127.0.0.1/mesh?password=hush",
  "postgres://u:hush@127.0.0.1/mesh#hush",
  "postgres://u:hush@127.0.0.1/mesh?sslmode=verify-full&sslrootcert=/nowhere",
]) {
  test(`${text} is refused without its password`, () => {
    assert.throws(
      () => readPostgresAddress(text),
      (error: Error & { code: string }) => error.code === "unusable" && !/hush/.test(error.message + error.stack),
    );
  });
}
