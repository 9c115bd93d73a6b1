// Callers on this machine are its user: whoever can connect from here could as well start programs as this user.
import { BlockList, isIP } from "node:net";
import { userInfo } from "node:os";
import type { Authenticator } from "./authenticator.ts";
import type { Caller } from "./caller.ts";

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** `username`: default the one this process runs as. Throws when the system has no name for it. */
export function createLocal(username = nameOfUser()): Authenticator {
  const caller: Caller = {
    identity: { issuer: "vmcp-local", subject: username, isAnonymous: false },
    token: undefined,
    scopes: new Set(),
  };
  const verdict = { caller };
  const refused = { refusal: { status: 401, description: "only connections from the machine itself are let in" } } as const;
  return {
    authenticate: ({ remoteAddress }) => (isLoopback(remoteAddress) ? verdict : refused),
    scopesFor: () => [],
    discovery: undefined,
  };
}

function isLoopback(address: string | undefined): boolean {
  const family = isIP(address ?? "");
  // An IPv4 address inside an IPv6 one (`::ffff:127.0.0.1`) is found in the IPv4 net.
  return family !== 0 && loopback.check(address as string, family === 4 ? "ipv4" : "ipv6");
}

function nameOfUser(): string {
  try {
    return userInfo().username;
  } catch {
    throw new Error(`incoming auth "local" needs the name of the user that this proxy runs as, and the system has none`);
  }
}
