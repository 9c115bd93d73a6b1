// MCP Inspector's command line in each of its modes, before servers of either era. It is 110 MB and comes when it is asked for,
// so this is no part of npm test. Ends with 1 when it could not list or call.
import { startFixture } from "./conformance/fixture.ts";
import { httpBackend } from "./support/config.ts";
import { runProcess } from "./support/processes.ts";
import { serve } from "./support/serve.ts";

const inspector = ["-y", "@modelcontextprotocol/inspector@2.12.0", "--cli"];
const downloadMs = 180_000;

let failures = 0;
for (const backend of ["session", "stateless", "both"] as const) {
  await using fixture = await startFixture(backend);
  await using gateway = await serve({ backends: [httpBackend("fixture", fixture.url)] });
  for (const mode of ["legacy", "auto", "modern"]) {
    const run = (...args: string[]) =>
      runProcess("npx", [...inspector, gateway.url, "--transport", "http", "--protocol-era", mode, ...args], { ms: downloadMs });
    const listed = await run("--method", "tools/list");
    const called = await run("--method", "tools/call", "--tool-name", "fixture_test_simple_text");
    const isFine =
      listed.code === 0 &&
      listed.stdout.includes('"fixture_test_simple_text"') &&
      called.code === 0 &&
      called.stdout.includes("simple text response");
    if (!isFine) failures++;
    console.log(`${isFine ? "✓" : "✗"} ${mode} client, ${backend} server${isFine ? "" : `: ${listed.stderr}${called.stderr}`}`);
  }
}
process.exitCode = failures > 0 ? 1 : 0;
