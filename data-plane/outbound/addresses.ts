// Which addresses are on the public Internet, and so may be reached for somebody who is not the operator.
import { BlockList, isIP } from "node:net";

// IANA special-purpose registries (RFC 6890 and later), and ways to write an IPv4 address inside an IPv6 one: translation
// (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380), IPv4-compatible (RFC 4291). What they lead to depends on the network.
const special4 = [
  ...["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"],
  ...["192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"],
  ...["198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"],
];
const special6 = ["2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"];
const global6 = ["2000::/3"]; // all that was ever given out

const specials = new BlockList();
for (const [family, blocks] of [["ipv4", special4] as const, ["ipv6", special6] as const])
  for (const block of blocks) {
    const [net = "", bits] = block.split("/");
    specials.addSubnet(net, Number(bits), family);
  }
const globals = new BlockList();
for (const block of global6) {
  const [net = "", bits] = block.split("/");
  globals.addSubnet(net, Number(bits), "ipv6");
}

/** Whether an IP address is one of the public Internet. Anything that is not an IP address is not. */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 4) return !specials.check(address, "ipv4");
  if (family !== 6 || address.includes("%")) return false;
  return globals.check(address, "ipv6") && !specials.check(address, "ipv6");
}
