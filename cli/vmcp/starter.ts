// The text of a starter file. Written by hand where comments explain, by the YAML library where names come from outside.
import { stringify } from "yaml";
import type { DesktopServer } from "../../control-plane/index.ts";

export interface StarterBackends {
  /** To be listed. Undefined: none, and an example stands there in comments. */
  readonly servers?: readonly DesktopServer[] | undefined;
  /** What is discovered right now; stands there in comments, because it is found live. */
  readonly found?: readonly DesktopServer[] | undefined;
}

/** A whole configuration file. */
export function starterText(group: string, { servers, found = [] }: StarterBackends): string {
  const name = `${
    group
      .replaceAll(" ", "-")
      .replace(/^[_-]+/, "")
      .slice(0, 58) || "my"
  }-vmcp`;
  return `# Configuration of vmcp: many MCP servers behind one URL.
#   check it:  vmcp validate --config FILE
#   serve it:  vmcp serve --config FILE      then connect a client to http://127.0.0.1:4483/mcp

# Reported to clients, and the path of this endpoint: /${name}/mcp
name: ${JSON.stringify(name)}

# The group whose servers are aggregated. With backends listed below, only those are.
groupRef: ${JSON.stringify(group)}

${servers === undefined && found.length > 0 ? backendsText(found, foundTitle) : backendsText(servers)}
# Who may call. anonymous lets everybody in who reaches the port, which is this machine only unless --host says otherwise.
incomingAuth:
  type: anonymous

# What the servers are shown.
outgoingAuth:
  source: inline
  default:
    type: unauthenticated

# How equal names are kept apart:
#   prefix    every tool gets its server's name in front
#   priority  the server that stands first in priorityOrder keeps the name
#   manual    you rename tools under tools: until no two are equal
aggregation:
  conflictResolution: prefix
  conflictResolutionConfig:
    prefixFormat: "{workload}_"
  # tools:
  #   - workload: github             # rename, describe, and choose what is listed
  #     filter: [create_pr, list_prs]
  #     overrides:
  #       create_pull_request: { name: create_pr }

operational:
  timeouts:
    default: 30s # for every call
    # perWorkload: { slow-server: 2m }
  failureHandling:
    circuitBreaker: # calls to a server that keeps failing are refused at once, for a while
      failureThreshold: 5
      timeout: 60s
`;
}

const example = `# The servers. Remove the # and edit, or let those of the group be found by discovery.
# backends:
#   - name: github # letters, digits, '.', '_' and '-'; tools are listed as github_<tool>
#     url: http://127.0.0.1:3001/mcp
#     transport: streamable-http # or sse, for servers of the older kind
#   - name: files # started by vmcp, which speaks stdio with it
#     command: npx
#     args: ["-y", "@modelcontextprotocol/server-filesystem", "/tmp"]
#     env: { API_KEY: "env:API_KEY" } # taken from the environment of vmcp
`;

const foundTitle = `# These servers were found in the group when this file was written. They need not be listed: as long as nothing is, the group's
# servers are found while vmcp runs, those that come later too. Remove the # to have just these.`;

function backendsText(servers: readonly DesktopServer[] | undefined, title = "# The servers."): string {
  if (servers === undefined) return example;
  const hasAny = servers.some(({ isDisabled }) => !isDisabled);
  const blocks = servers.map(({ entry, comments, isDisabled }) => {
    const notes = comments.map((comment) => `  # ${comment.replaceAll(/\s+/g, " ")}\n`).join("");
    const text = stringify([entry], { lineWidth: 0, defaultKeyType: "PLAIN", defaultStringType: "QUOTE_DOUBLE" });
    const lines = text.trimEnd().split("\n");
    return notes + lines.map((line) => `  ${isDisabled ? "# " : ""}${line}\n`).join("");
  });
  return `${title}\n${hasAny ? "backends:" : "# backends:"}\n${blocks.join("")}`;
}
