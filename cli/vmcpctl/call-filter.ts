// Which calls `tap` and `top` look at, and whom they ask.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { CallFilterSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import type { Output } from "./output.ts";
import { plain } from "./table.ts";

export interface CallFilterOptions {
  readonly group?: string | undefined;
  readonly virtualServer?: string | undefined;
  readonly workload?: string | undefined;
  readonly tool?: string | undefined;
  /** `ok`, `failed`, or one outcome. */
  readonly status?: string | undefined;
  readonly proxy?: string | undefined;
}

export function callFilter(options: CallFilterOptions): MessageInitShape<typeof CallFilterSchema> {
  const { group = "", virtualServer = "", workload = "", tool = "", status = "", proxy = "" } = options;
  return { group, virtualServer, workload, tool, status, proxy };
}

/** For the person who asked; nothing for a message that does not say it. */
export function noteAsked({ asked, unable }: { asked: readonly string[]; unable: readonly string[] }, output: Output): void {
  if (asked.length > 0) output.note(`${plain(`listening to ${asked.join(", ")}`)}\n`);
  if (unable.length > 0) output.note(`${plain(`of a version that can't be asked: ${unable.join(", ")}`)}\n`);
}
