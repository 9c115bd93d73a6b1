// Fails when proto/gen is not what the .proto files generate now: somebody edited it, or forgot `npm run generate`.
import { execFileSync } from "node:child_process";
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

type Files = ReadonlyMap<string, string>;

const root = join(import.meta.dirname, "..");
const directory = mkdtempSync(join(tmpdir(), "vmcp-generated-"));
try {
  execFileSync("buf", ["generate", "--output", directory], { cwd: root, stdio: "inherit" });
  const problems = compare(read(join(root, "proto/gen")), read(join(directory, "proto/gen")));
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) console.error("Run `npm run generate` and commit proto/gen together with the .proto files.");
  process.exitCode = problems.length > 0 ? 1 : 0;
} finally {
  rmSync(directory, { recursive: true, force: true });
}

function read(directory: string): Files {
  const paths = globSync("**/*.ts", { cwd: directory });
  return new Map(paths.map((path) => [path, readFileSync(join(directory, path), "utf8")]));
}

function compare(committed: Files, generated: Files): string[] {
  const paths = [...new Set([...committed.keys(), ...generated.keys()])].sort();
  return paths.flatMap((path) => {
    if (!generated.has(path)) return [`proto/gen/${path}: no .proto file generates it`];
    if (!committed.has(path)) return [`proto/gen/${path}: missing`];
    return committed.get(path) === generated.get(path) ? [] : [`proto/gen/${path}: differs from what its .proto file generates`];
  });
}
