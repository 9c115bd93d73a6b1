// What a strategy is made for, and what it may use.
import type { Log } from "../../common/log.ts";
import type { IncomingAuth } from "../../proto/gen/vmcp/resource/v1/incoming_auth_pb.ts";
import type { OutgoingAuthStrategy } from "../../proto/gen/vmcp/resource/v1/outgoing_auth_pb.ts";
import type { Keys } from "../mcp/seal.ts";
import type { Credential } from "./credential.ts";
import type { Gates } from "./endpoint-gate.ts";
import type { SignIns } from "./sign-ins.ts";
import type { TokenCache } from "./token-cache.ts";
import type { TokenCounters } from "./token-metrics.ts";
import type { UserTokens } from "./user-tokens.ts";

/** Whom credentials are shown to. */
export interface Recipient {
  /** Full resource name of the backend. */
  readonly resource: string;
  /** Its name within the virtual server. */
  readonly backend: string;
  /** Undefined for a backend that is a program. */
  readonly url: string | undefined;
  readonly virtualServer: string;
  /** Who its callers are, and where they come from. */
  readonly incomingAuth: IncomingAuth | undefined;
}

/** Shared by all strategies of this process, but for the counters. */
export interface StrategyTools {
  readonly log: Log;
  readonly keys: Keys;
  readonly cache: TokenCache;
  readonly gates: Gates;
  /** Of this strategy and backend. */
  readonly counters: TokenCounters;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
  /** What users signed in for. */
  readonly userTokens: UserTokens;
  /** Where links for a sign-in lead to. */
  readonly signIns: SignIns;
  /** Where clients and browsers reach the proxies, `https://host[:port]`; undefined: as each client says. */
  readonly publicUrl: string | undefined;
}

/** Throws an Error fit for the operator when the credential can't be made on this proxy. */
export type CreateCredential = (strategy: OutgoingAuthStrategy, recipient: Recipient, tools: StrategyTools) => Credential;
