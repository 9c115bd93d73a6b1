// Which changes go to the proxies at once, instead of waiting for others to come along.
import { create, equals } from "@bufbuild/protobuf";
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import { type VirtualServer, VirtualServerSchema } from "../../proto/gen/vmcp/resource/v1/virtual_server_pb.ts";
import { isRevocationName } from "../resource-names.ts";

export interface ResourceChanged {
  readonly name: string;
  readonly before: Resource | undefined;
  readonly after: Resource | undefined;
}

/** Who revokes a session, or says otherwise who may come in, means now. */
export function isUrgent({ name, before, after }: ResourceChanged): boolean {
  const [was, is] = [before?.spec, after?.spec];
  if (isRevocationName(name) || was?.case === "authPolicy" || is?.case === "authPolicy") return true;
  if (was?.case !== "virtualServer" || is?.case !== "virtualServer") return false;
  return !equals(VirtualServerSchema, whoMayComeIn(was.value), whoMayComeIn(is.value));
}

function whoMayComeIn({ authPolicyRef, incomingAuth }: VirtualServer): VirtualServer {
  return create(VirtualServerSchema, { authPolicyRef, ...(incomingAuth && { incomingAuth }) });
}
