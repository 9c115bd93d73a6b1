// Everything there is, looked through.
import { create } from "@bufbuild/protobuf";
import {
  type AnalyzeConfigRequest,
  AnalyzeConfigResponseSchema,
  FindingSeverity,
} from "../../proto/gen/vmcp/admin/v1/analyze_pb.ts";
import { analyze } from "../analysis/analyze.ts";
import type { CatalogKeeper } from "../catalogs/keeper.ts";
import type { Discovery } from "../discovery/discovery.ts";
import type { Fleet } from "../push/fleet.ts";
import { isHeard } from "../push/rows.ts";
import type { WholeFleet } from "../push/whole-fleet.ts";
import { formatPath } from "../resources/problems.ts";
import type { Store } from "../store/store.ts";
import { checkResources } from "./requests.ts";

export interface AnalyzerOptions {
  readonly store: Pick<Store, "list">;
  readonly fleet: Pick<Fleet, "views">;
  readonly wholeFleet: Pick<WholeFleet, "proxies">;
  readonly discovery: Pick<Discovery, "isOn" | "current">;
  readonly catalogs: Pick<CatalogKeeper, "tools">;
}

// Nobody reads more, and the answer stays below what gRPC takes.
const findingsMax = 1000;

const severities = {
  error: FindingSeverity.ERROR,
  warning: FindingSeverity.WARNING,
  info: FindingSeverity.INFO,
} as const;

/** Throws AdminError only when names or kinds are wrong: what is invalid is found. */
export async function analyzeConfig(
  { store, fleet, wholeFleet, discovery, catalogs }: AnalyzerOptions,
  { resources: given }: AnalyzeConfigRequest,
) {
  checkResources(given);
  const { revision, resources } = await store.list();
  const merged = new Map([...resources, ...given].map((resource) => [resource.name, resource]));
  const connected = wholeFleet.proxies().filter(isHeard);
  const proxies = connected.map(({ node, backends }) => ({ id: node?.id ?? "", address: node?.address ?? "", backends }));
  const changed = catalogs.tools().filter(({ changedMs }) => changedMs !== undefined);
  const findings = analyze([...merged.values()], {
    discovered: discovery.isOn ? discovery.current().resources : undefined,
    observed: { proxies, changed, views: fleet.views().views },
  });
  const worst = findings.toSorted((a, b) => severities[b.severity] - severities[a.severity]).slice(0, findingsMax);
  const kept = new Set(worst);
  return create(AnalyzeConfigResponseSchema, {
    leftOut: findings.length - worst.length,
    findings: findings
      .filter((one) => kept.has(one))
      .map(({ severity, path, ...rest }) => ({
        ...rest,
        severity: severities[severity],
        path: formatPath(path),
      })),
    revision,
    resourceCount: merged.size,
    proxies: proxies.map(({ id }) => id),
  });
}
