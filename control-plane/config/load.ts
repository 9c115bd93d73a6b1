// The text of a configuration file → resources, and every problem with its place in the text.
import type { Resource } from "../../proto/gen/vmcp/resource/v1/resource_pb.ts";
import type { Problem } from "../resources/problems.ts";

export interface LoadResult {
  /** In the order of the file; only those without errors of their own. Use them only when `problems` has no error. */
  readonly resources: Resource[];
  /** In the order of the file. */
  readonly problems: Problem[];
}

export interface LoadOptions {
  /** Name shown in problems. */
  readonly file: string;
  /** The text is a part of a larger set, as for `vmcpctl apply`: references to what it does not declare are not reported. */
  readonly partial?: boolean;
}

/** Never throws, and takes less than half a second for any input. */
export function loadConfig(text: string | Uint8Array, options: LoadOptions): LoadResult {
  return { resources: [], problems: text.length < 0 ? [{ severity: "error", message: options.file, path: [] }] : [] };
}
