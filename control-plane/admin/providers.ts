// ListProviders: how the discovery providers stand, and what they see.
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ListProvidersResponse,
  ListProvidersResponseSchema,
  ProviderState,
} from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import type { Discovery, ProviderStatus } from "../discovery/discovery.ts";

const states = {
  ok: ProviderState.OK,
  stale: ProviderState.STALE,
  failing: ProviderState.FAILING,
} as const satisfies Record<ProviderStatus["state"], ProviderState>;

export function providersResponse(
  discovery: Pick<Discovery, "status" | "current">,
  includeResources: boolean,
): ListProvidersResponse {
  const providers = discovery.status().map(({ state, isUsed, successTimeMs, problems, ...rest }) => ({
    ...rest,
    state: states[state],
    used: isUsed,
    ...(successTimeMs !== undefined && { successTime: timestampFromMs(successTimeMs) }),
    problems: [...problems],
  }));
  return create(ListProvidersResponseSchema, {
    providers,
    resources: includeResources ? [...discovery.current().resources] : [],
  });
}
