import assert from "node:assert/strict";
import { test } from "node:test";
import { formatReport, hasErrors } from "../resources/problems.ts";
import { bytesMax, entriesMax } from "./bounds.ts";
import { loadConfig } from "./load.ts";

const base = `name: my-vmcp
groupRef: my-team
incomingAuth: { type: anonymous }
outgoingAuth: { source: inline }
aggregation: { conflictResolution: prefix }
`;

function messages(text: string | Uint8Array, partial = false): string[] {
  return loadConfig(text, { file: "f.yaml", partial }).problems.map(
    ({ severity, message, place }) => `${place?.line}:${place?.column} ${severity} ${message}`,
  );
}

test("every problem of a file is reported at once, in its order", () => {
  const found = messages(
    base.replace("anonymous", "anonymos").replace("prefix", "prefixx").concat("metadata: { a: [] }\nfoo: 1\n"),
  );
  assert.deepEqual(
    found.map((line) => line.split(" ")[0]),
    ["3:23", "5:36", "6:13", "7:1"],
  );
});

test("a fault in one document leaves the others", () => {
  const { resources, problems } = loadConfig(`kind: Group\nname: a\n---\nkind: Gruop\nname: b\n`, { file: "f.yaml" });
  assert.deepEqual([resources.map(({ name }) => name), problems.length], [["groups/a"], 1]);
});

test("a part of a larger set may name what it does not declare", () => {
  const part = "kind: Backend\ngroup: elsewhere\nname: a\nurl: http://127.0.0.1:1\n";
  assert.deepEqual(messages(part), ['2:8 error group "elsewhere" is not declared']);
  assert.deepEqual(messages(part, true), []);
});

test("a byte order mark is nothing to mention", () => {
  assert.deepEqual(messages(`\ufeff${base}`, true), []);
  assert.deepEqual(messages(Buffer.from(`\ufeff${base}`), true), []);
});

test("empty documents between others are skipped", () => {
  assert.deepEqual(messages(`---\n---\n${base}---\n# end\n`, true), []);
});

test("merged keys win only where the map has none of its own", () => {
  const text = `${base}backends:\n  - &a { name: a, url: "http://x/mcp", metadata: { k: v } }\n  - { <<: [*a, { command: never }], name: b, url: "http://y/mcp" }\n`;
  const { resources, problems } = loadConfig(text, { file: "f.yaml" });
  assert.deepEqual(
    problems.map(({ message }) => message),
    ["a stdio backend has no url"],
  );
  assert.equal(resources.length, 0);
  const sound = loadConfig(text.replace(", { command: never }", ""), { file: "f.yaml" }).resources[0]?.spec;
  assert.deepEqual(
    sound?.case === "virtualServer" && sound.value.backends.map(({ name, url, metadata }) => [name, url, metadata.k]),
    [
      ["a", "http://x/mcp", "v"],
      ["b", "http://y/mcp", "v"],
    ],
  );
});

test("as much as the bounds allow is read, and one more is refused", () => {
  const labels = (count: number) =>
    `${base}metadata:\n${Array.from({ length: count }, (_, index) => `  k${index}: v\n`).join("")}`;
  const used = 10; // keys and commas of the rest
  assert.deepEqual(messages(labels(entriesMax - used), true), []);
  assert.match(messages(labels(entriesMax)).join(), /more than 8000 keys/);
  const filled = (size: number) => `${base}# ${"x".repeat(size - base.length - 2)}`;
  assert.deepEqual(messages(filled(bytesMax), true), []);
  assert.match(messages(filled(bytesMax + 1)).join(), /the file has 262145 bytes/);
});

test("names from JavaScript's own objects are names like others", () => {
  for (const name of ["constructor", "toString", "hasOwnProperty", "valueOf"]) {
    const text = `${base.replace("prefix }", `prefix, tools: [{ workload: ${name}, filter: [${name}], overrides: { ${name}: { description: x } } }] }`)}metadata: { ${name}: x }\n`;
    assert.deepEqual(messages(text, true), [], name);
    assert.match(messages(`${base}${name}: 1\n`).join(), /unknown key/);
  }
  assert.match(messages(`${base}metadata: { __proto__: x }\n`).join(), /can't be named "__proto__"/);
});

// Secrets in every place that may hold one, each in a file with something wrong on the very line.
const secret = "hunter2\u00a7hunter2";
const places: Record<string, string> = {
  "a header": `outgoingAuth: { default: { type: header_injection, headerInjection: { headerName: X, headerValue: "${secret}", oops: 1 } } }`,
  "a mistyped header": `outgoingAuth: { default: { type: header_injection, headerInjection: { headerName: X, hdr: "${secret}" } } }`,
  "a mistyped block": `outgoingAuth: { default: { type: header_injection, headerInjektion: { headerValue: "${secret}" } } }`,
  "a client secret": `outgoingAuth: { default: { type: token_exchange, tokenExchange: { clientSecret: "${secret}", tokenUrl: 5 } } }`,
  "a list for a secret": `outgoingAuth: { default: { type: token_exchange, tokenExchange: { clientSecret: ["${secret}"] } } }`,
  "the environment of a server": `backends: [{ name: a, command: x, env: { GITHUB_TOKEN: "${secret}", "B-C": 1 } }]`,
  "a url": `backends: [{ name: a, url: "https://user:${secret}@example.com/mcp" }]`,
  "a telemetry header": `telemetry: { headers: { X-Team: "${secret}", "X Y": 1 } }`,
  "a block scalar": `telemetry:\n  headers:\n    Authorization: |\n      ${secret}\n     oops`,
  "an alias": `metadata: { &k password: &s "${secret}", x: [*s] }`,
  "broken YAML": `telemetry: { headers: { Authorization: "${secret} }`,
  "broken YAML with a comma": `x: [\npassword: a,${secret}\n bad: : :`,
  "headers in broken YAML": `telemetry:\n  headers:\n    X-Team: ${secret}\n   bad: "`,
  "broken YAML without quotes": `x:\n  password: ${secret}\n bad: : :`,
};

for (const [what, text] of Object.entries(places)) {
  test(`a secret in ${what} is not shown`, () => {
    const { problems } = loadConfig(`${base.replace(/^outgoingAuth.*\n/m, what.includes("telemetry") ? "$&" : "")}${text}\n`, {
      file: "f.yaml",
    });
    assert.ok(hasErrors(problems));
    assert.doesNotMatch(formatReport(problems) + JSON.stringify(problems), /hunter2/);
  });
}
