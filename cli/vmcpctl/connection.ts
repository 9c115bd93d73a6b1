// The admin API as commands use it: one client, a deadline on every call, and errors as exit codes.
import { hostname } from "node:os";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type CallOptions, InterceptingCall, type Interceptor, type ServiceError, status } from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema } from "../../proto/gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "../../proto/gen/google/rpc/status_pb.ts";
import { Health } from "../../proto/gen/grpc/health/v1/health_pb.ts";
import { AdminService } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { TrustService } from "../../proto/gen/vmcp/admin/v1/trust_pb.ts";
import { type Client, createClient } from "../../proto/grpc.ts";
import { ExitError, exitCodes } from "../exit-codes.ts";
import { type ProofFiles, proofOf } from "./proof.ts";

/** What every command takes. */
export interface GlobalOptions extends ProofFiles {
  /** `host:port`, or `unix:/path`. */
  readonly server: string;
  /** Of one call, milliseconds. */
  readonly requestTimeout: number;
}

export interface Connection extends Disposable {
  readonly admin: Client<typeof AdminService>;
  readonly trust: Client<typeof TrustService>;
  readonly health: Client<typeof Health>;
  /** For one unary call. */
  deadline(): CallOptions;
}

/** Connects with the first call. Close it, or the process stays. Throws ExitError when what is to be shown can't be read. */
export function connect(options: GlobalOptions): Connection {
  const { server, requestTimeout } = options;
  const { security, authorization } = proofOf(options);
  const channelOptions = {
    // A control plane that vanished without a word ends a watch within a minute.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.max_receive_message_length": 32 * 1024 * 1024,
    interceptors: [saying(authorization)],
  };
  const admin = createClient(AdminService, server, security, channelOptions);
  const trust = createClient(TrustService, server, security, channelOptions);
  const health = createClient(Health, server, security, channelOptions);
  return {
    ...{ admin, trust, health },
    deadline: () => ({ deadline: Date.now() + requestTimeout }),
    [Symbol.dispose]() {
      admin.close();
      trust.close();
      health.close();
    },
  };
}

/** Who runs this program: for the history, where it is marked as what the caller says, and with proof when there is a token. */
function saying(authorization: string | undefined): Interceptor {
  return (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      start(metadata, listener, next) {
        metadata.set("vmcp-actor", whoRunsThis());
        if (authorization !== undefined) metadata.set("authorization", authorization);
        next(metadata, listener);
      },
    });
}

/** `alice@laptop`, in characters that metadata may have. */
function whoRunsThis(): string {
  const name = process.env.USER || process.env.LOGNAME || process.env.USERNAME || "unknown";
  return `${name}@${hostname()}`.replace(/[^\x21-\x7e]/g, "?");
}

/** A failed call as an ExitError with all violations; anything else as it is. */
export function explain(error: unknown, { server, requestTimeout }: GlobalOptions): unknown {
  if (!isServiceError(error)) return error;
  const { reason, violations } = detailsOf(error);
  if (error.code === status.UNAVAILABLE && reason === undefined) {
    return new ExitError(
      exitCodes.unavailable,
      `no control plane answers at ${server} (${whyNot(error.details)}); set --server or VMCP_SERVER`,
    );
  }
  if (error.code === status.DEADLINE_EXCEEDED) {
    return new ExitError(exitCodes.temporary, `${server} did not answer within ${requestTimeout / 1000} s`);
  }
  const text =
    violations.length > 1 ? violations.map(({ field, description }) => `${field}: ${description}`).join("\n") : error.details;
  return new ExitError(exitCodeOf(error.code, reason), text);
}

function exitCodeOf(code: status, reason: string | undefined): number {
  if (reason === "INVALID_RESOURCES") return exitCodes.badInput;
  switch (code) {
    case status.INVALID_ARGUMENT:
      return exitCodes.usage;
    case status.ABORTED:
      return exitCodes.conflict;
    case status.UNAVAILABLE:
      return exitCodes.unavailable;
    case status.RESOURCE_EXHAUSTED:
      return exitCodes.temporary;
    case status.PERMISSION_DENIED:
    case status.UNAUTHENTICATED:
      return exitCodes.permission;
    default:
      return exitCodes.failure;
  }
}

function detailsOf(error: ServiceError) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!(bytes instanceof Buffer)) return { reason: undefined, violations: [] };
  const details = fromBinary(StatusSchema, bytes).details;
  const info = details.map((any) => anyUnpack(any, ErrorInfoSchema)).find((found) => found !== undefined);
  const bad = details.map((any) => anyUnpack(any, BadRequestSchema)).find((found) => found !== undefined);
  return { reason: info?.reason, violations: bad?.fieldViolations ?? [] };
}

// grpc-js wraps the cause in "No connection established. Last error: … Resolution note: …".
function whyNot(details: string): string {
  if (details.includes("ECONNREFUSED")) return "connection refused";
  if (/ENOTFOUND|Name resolution/.test(details)) return "no such host";
  // A server that speaks TLS hangs up on plain text.
  if (details.includes("Failed to connect")) return "it hangs up; when it speaks TLS, see --tls-ca";
  const cause = details.split(". Last error:").at(-1) ?? details;
  return cause.replace(/ *Resolution note:.*$/, "").trim();
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && typeof error.code === "number";
}
