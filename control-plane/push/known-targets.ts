// The targets of late, so that a proxy which comes back with one of them gets what changed since instead of everything.
import type { Hello } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { runs } from "./hello.ts";
import { isSameContent } from "./rows.ts";
import type { Target } from "./target.ts";

// They share what they have in common, so one more costs little. A proxy that was away for longer gets everything.
const keptMax = 32;

export interface KnownTargets {
  remember(target: Target): void;
  /** What a Hello names; undefined when that is not known, or was something else under the same name. */
  find(hello: Hello): Target | undefined;
  /** One with the content that this version names, whoever named it. */
  named(version: string): Target | undefined;
}

export function createKnownTargets(): KnownTargets {
  const byVersion = new Map<string, Target>();
  return {
    remember(target) {
      byVersion.delete(target.version);
      byVersion.set(target.version, target);
      const [oldest] = byVersion.keys();
      if (byVersion.size > keptMax && oldest !== undefined) byVersion.delete(oldest);
    },
    find(hello) {
      const target = byVersion.get(hello.knownVersion);
      return target && runs(hello, target) ? target : undefined;
    },
    named: (version) => [...byVersion.values()].find((target) => isSameContent(target.version, version)),
  };
}
