// No input crashes or hangs the loader: any text, damaged configurations, and YAML made to hurt.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { loadConfig } from "../../control-plane/config/load.ts";
import { formatReport, hasErrors, problemToJson } from "../../control-plane/resources/problems.ts";
import { validateResources } from "../../control-plane/resources/validate.ts";

const callMax = 2_000; // ms
const valid = new URL("./valid/", import.meta.url);
const texts = readdirSync(valid).map((name) => readFileSync(new URL(name, valid), "utf8"));

/** What must hold for every input at all. */
function check(input: string | Uint8Array): void {
  const start = process.cpuUsage();
  const { resources, problems } = loadConfig(input, { file: "x.yaml" });
  const { user, system } = process.cpuUsage(start);
  // CPU time, because the machine may be busy with something else.
  assert.ok((user + system) / 1000 < callMax, `took ${(user + system) / 1000} ms`);
  assert.ok(resources.length > 0 || hasErrors(problems), "nothing is declared and nothing is wrong");
  const report = formatReport(problems);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: terminals obey them, so a report has none
  assert.doesNotMatch(report, /[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/);
  JSON.stringify(problems.map(problemToJson));
  for (const { place } of problems) {
    if (place === undefined) continue;
    assert.ok(place.line >= 1 && place.column >= 1 && place.width >= 1 && place.indent >= 0);
    assert.ok(place.indent <= 260 && place.source.length <= 600, "the pointer is in sight");
  }
  if (!hasErrors(problems))
    assert.deepEqual(
      validateResources(resources).filter(({ severity }) => severity === "error"),
      [],
    );
}

const run = (runs: number) => ({ numRuns: runs, endOnFailure: true });

test("any text", () => {
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 300 }), check), run(400));
});

test("any bytes", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), check), run(200));
});

test("text of YAML's own marks", () => {
  const marks = fc.constantFrom(
    "-",
    "?",
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\t",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "!!str ",
    "!x ",
    "|\n",
    ">-\n",
    "'",
    '"',
    "#",
    "%",
    "@",
    "`",
    "---\n",
    "...\n",
    "<<: ",
    "name",
    "kind",
    "a",
    "1",
    "~",
    "\r\n",
    "\ufeff",
    "__proto__",
    "constructor",
  );
  fc.assert(
    fc.property(fc.array(marks, { maxLength: 60 }), (parts) => check(parts.join(""))),
    run(600),
  );
});

test("configurations with a few characters changed", () => {
  const edit = fc.tuple(
    fc.nat(),
    fc.nat({ max: 12 }),
    fc.oneof(
      fc.string({ maxLength: 6 }),
      fc.constantFrom("\n", "  ", "\t", ":", "[", "{", '"', "*a", "&a ", "null", "-1", "日本", "🚀"),
    ),
  );
  fc.assert(
    fc.property(fc.constantFrom(...texts), fc.array(edit, { minLength: 1, maxLength: 4 }), (text, edits) => {
      let damaged = text;
      for (const [at, length, insert] of edits) {
        const start = at % (damaged.length + 1);
        damaged = damaged.slice(0, start) + insert + damaged.slice(start + length);
      }
      check(damaged);
    }),
    run(500),
  );
});

test("configurations with lines moved, doubled and lost", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...texts),
      fc.array(fc.tuple(fc.nat(), fc.nat(), fc.constantFrom("drop", "double", "swap", "indent")), { minLength: 1, maxLength: 5 }),
      (text, edits) => {
        const lines = text.split("\n");
        for (const [a, b, how] of edits) {
          const [i, j] = [a % lines.length, b % lines.length];
          if (how === "drop") lines.splice(i, 1);
          else if (how === "double") lines.splice(j, 0, lines[i] ?? "");
          else if (how === "indent") lines[i] = `  ${lines[i]}`;
          else [lines[i], lines[j]] = [lines[j] ?? "", lines[i] ?? ""];
        }
        check(lines.join("\n"));
      },
    ),
    run(250),
  );
});

test("any JSON below known keys", () => {
  const keys = [
    "name",
    "groupRef",
    "backends",
    "incomingAuth",
    "outgoingAuth",
    "aggregation",
    "compositeTools",
    "operational",
    "telemetry",
    "rateLimiting",
    "passthroughHeaders",
    "tools",
    "steps",
    "overrides",
    "kind",
    "metadata",
    "type",
    "default",
  ];
  const { tree } = fc.letrec((tie) => ({
    leaf: fc.oneof(
      fc.string(),
      fc.integer(),
      fc.double(),
      fc.boolean(),
      fc.constant(null),
      fc.constantFrom("anonymous", "prefix", "priority", "manual", "my-team", "a", "30s", "VirtualServer", "Group"),
    ),
    tree: fc.oneof(
      { maxDepth: 5 },
      tie("leaf"),
      fc.array(tie("tree"), { maxLength: 4 }),
      fc.dictionary(fc.oneof(fc.constantFrom(...keys), fc.string()), tie("tree"), { maxKeys: 5 }),
    ),
  }));
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...keys), tree, { minKeys: 1 }), (value) => check(JSON.stringify(value))),
    run(300),
  );
});

const base = texts.find((text) => text.startsWith('name: "my-vmcp"')) ?? "";
const many = (count: number, line: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => line(index)).join("");
const bombs: Record<string, string> = {
  "30,000 keys": many(30_000, (index) => `k${index}: v\n`),
  "20,000 keys within the size": many(20_000, (index) => `k${index}: v\n`),
  "as many keys as are read": many(7_900, (index) => `k${index}: v\n`),
  "one key 7,000 times": "a: 1\n".repeat(7_000),
  "100,000 brackets": "[".repeat(100_000),
  "100,000 dashes": "- ".repeat(100_000),
  "700 levels of maps": many(700, (index) => `${" ".repeat(index)}a:\n`),
  "doubled 60 times by aliases": `a0: &a0 [x, x]\n${many(60, (index) => `a${index + 1}: &a${index + 1} [*a${index}, *a${index}]\n`)}`,
  "3,000 merges": `a: &a { x: 1 }\n${many(2_000, (index) => `m${index}: { <<: *a }\n`)}`,
  "1,500 documents": many(1_500, () => "---\nname: x\n"),
  "7,000 tags that nobody knows": "- !x y\n".repeat(7_000),
  "40,000 directives": "%X y\n".repeat(40_000),
  "a line of 250,000 characters": `${base}metadata: { a: [${"x".repeat(250_000)}] }\n`,
  "a file on one line": `{${many(3_000, (index) => `"headerValue${index}": "s${index}", `)}}`,
  "1,500 backends and workloads that none is": `${base}backends:\n${many(1_000, (index) => `  - { name: b${index}, url: "http://x" }\n`)}operational: { timeouts: { perWorkload: { ${many(1_500, (index) => `x${index}: 1s, `)} } } }\n`,
  "10,000 secrets before blank lines": `${"token: | ".repeat(10_000)}${"\n".repeat(100_000)}`,
  "secrets that are nested": many(600, (index) => `${" ".repeat(index)}token: |\n`),
  "escapes without an end": `a: "${"\\u0041".repeat(40_000)}`,
};

for (const [name, text] of Object.entries(bombs)) test(`bomb: ${name}`, () => check(text));
