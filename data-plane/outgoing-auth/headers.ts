// Which headers may carry what, whoever chose them.

// RFC 9110 5.6.2 and 5.5: anything else could end the header and begin another.
const namePattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const valuePattern = /^[\t\x20-\x7e\x80-\xff]+$/;

// They belong to one connection or one message (RFC 9110 7.6.1), or to the protocol that we speak with the backend.
const reserved =
  /^(?:connection|keep-alive|te|trailer|upgrade|http2-settings|transfer-encoding|expect|host|accept|accept-encoding|content-.*|proxy-.*|mcp-.*|last-event-id)$/;
// They say where a request came from, which only the proxy in front of us may, or what else the client is known by.
const personal =
  /^(?:authorization|cookie2?|set-cookie2?|forwarded|via|x-forwarded-.*|x-real-ip|x-client-cert.*|client-cert.*|dpop)$/;

/** Why a header of this name (lower case) can't be set on requests to backends; undefined when it can. */
export function problemOfName(name: string): string | undefined {
  if (!namePattern.test(name)) return "is no name of a header";
  return reserved.test(name) ? "belongs to the connection with the backend" : undefined;
}

/** Why a client's header of this name (lower case) can't be passed on; undefined when it can. */
export function problemOfPassing(name: string): string | undefined {
  if (personal.test(name)) return "is between the client and the gateway";
  return problemOfName(name);
}

/** Whether a header can hold the text: not empty, no line breaks, nothing that Latin-1 has not. */
export function isHeaderValue(text: string): boolean {
  return valuePattern.test(text);
}
