// Headers of the caller's own request, as they came. The gateway's own requests carry none of them.
import type { IncomingHttpHeaders } from "node:http";
import { type Credential, type HeaderList, NoCredentialError, sameForAll } from "./credential.ts";
import { isHeaderValue, problemOfPassing } from "./headers.ts";
import type { CreateCredential } from "./strategy.ts";

const valueLengthMax = 4_096;
const headersMax = 32;
const none: HeaderList = [];

/**
 * Headers that a request does not have are not shown; one that is too long (4,096 characters) or not fit for a header is an
 * error, because the backend might mean something else by its absence. Throws when a name may not be passed on.
 */
export const passThrough: CreateCredential = ({ passThrough: block }, { backend, virtualServer }, { log }) => {
  const names = [...new Set(block?.headers.map((name) => name.toLowerCase()))];
  if (names.length === 0) throw new Error("pass_through names no headers");
  if (names.length > headersMax) throw new Error(`pass_through names ${names.length} headers; at most ${headersMax}`);
  const isTrusted = block?.trustedWithAuthorization === true;
  for (const name of names) {
    const problem = name === "authorization" && isTrusted ? undefined : problemOfPassing(name);
    if (problem) throw new Error(`pass_through can't pass on header "${name}", which ${problem}`);
  }
  if (names.includes("authorization"))
    log.warn({ virtualServer, backend }, "this backend gets callers' own tokens, and can act as them wherever they are good");
  return {
    ...sameForAll(none),
    clientHeaders: names,
    show: (caller, clientHeaders) => (caller && clientHeaders ? passed(names, clientHeaders) : none),
  } satisfies Credential;
};

/** The credential, and besides it these headers of the caller's request. Throws when a name may not be passed on. */
export function passingOn(credential: Credential, headers: readonly string[]): Credential {
  const names = [...new Set(headers.map((name) => name.toLowerCase()))];
  if (names.length === 0) return credential;
  for (const name of names) {
    const problem = problemOfPassing(name);
    if (problem) throw new Error(`passthroughHeaders can't pass on header "${name}", which ${problem}`);
  }
  const show: Credential["show"] = (caller, clientHeaders) => {
    const shown = credential.show(caller, clientHeaders);
    const more = caller && clientHeaders ? passed(names, clientHeaders) : none;
    if (more.length === 0) return shown;
    return shown instanceof Promise ? shown.then((settled) => settled.concat(more)) : shown.concat(more);
  };
  // What the credential says of itself may change while it is in use.
  return Object.create(credential, {
    show: { value: show },
    clientHeaders: { value: [...credential.clientHeaders, ...names] },
  }) as Credential;
}

function passed(names: readonly string[], clientHeaders: IncomingHttpHeaders): HeaderList {
  const shown: string[] = [];
  for (const name of names) {
    const value = clientHeaders[name];
    if (value === undefined || value === "") continue;
    if (typeof value !== "string" || value.length > valueLengthMax || !isHeaderValue(value))
      throw new NoCredentialError(`header "${name}" of the request can't be passed on`);
    shown.push(name, value);
  }
  return shown;
}
