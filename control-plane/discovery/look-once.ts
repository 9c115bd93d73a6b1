// What there is to discover right now, for commands that end.
import type { Log } from "../../common/log.ts";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { createDiscovery } from "./discovery.ts";
import { createProviders, type DiscoveryChoice } from "./registry.ts";

export interface Looked {
  /** Groups and backends, sorted by name. */
  readonly resources: readonly Resource[];
  /** The providers that see something. */
  readonly providers: readonly string[];
  /** Why the others don't, a line each. */
  readonly failures: readonly string[];
}

/** Takes 5 s at most. */
export async function lookOnce(choice: DiscoveryChoice, log: Log): Promise<Looked> {
  await using discovery = createDiscovery({ log });
  await discovery.use(createProviders(choice, log));
  const status = discovery.status();
  return {
    resources: discovery.current().resources,
    providers: status.filter(({ isUsed }) => isUsed).map(({ name }) => name),
    failures: status.filter(({ state }) => state === "failing").map(({ name, error }) => `${name}: ${error || "no answer"}`),
  };
}
