// "1m30s" as Go writes it, and "90s" as proto JSON writes it, which is a special case of the former.

const unitNanos: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1_000n,
  µs: 1_000n, // U+00B5, micro sign
  μs: 1_000n, // U+03BC, Greek letter mu; Go reads both
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
};

const nanosMax = 2n ** 63n - 1n; // what a Go duration holds, about 292 years

/** Nanoseconds; undefined when `text` is not a Go duration. Source: time.ParseDuration. */
export function parseDuration(text: string): bigint | undefined {
  if (text.length > 64) return undefined;
  const sign = text.startsWith("-") ? -1n : 1n;
  const body = text.replace(/^[-+]/, "");
  if (body === "0") return 0n;
  let total = 0n;
  let end = 0;
  for (const part of body.matchAll(/(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)/gy)) {
    const [all, whole = "", fraction = "", unit = ""] = part;
    const nanos = unitNanos[unit];
    if (nanos === undefined || whole + fraction === "") return undefined;
    total += BigInt(whole || "0") * nanos + (BigInt(fraction || "0") * nanos) / 10n ** BigInt(fraction.length);
    end = part.index + all.length;
  }
  return end === body.length && end > 0 && total <= nanosMax ? sign * total : undefined;
}

/** Proto JSON: seconds with 0, 3, 6 or 9 decimals and `s`. */
export function formatDuration(nanos: bigint): string {
  const sign = nanos < 0n ? "-" : "";
  const size = nanos < 0n ? -nanos : nanos;
  const decimals = (size % 1_000_000_000n).toString().padStart(9, "0");
  const kept = decimals.replace(/(?:000){1,3}$/, "");
  return `${sign}${size / 1_000_000_000n}${kept === "" ? "" : `.${kept}`}s`;
}

/** Seconds of a duration in either form, or of a plain number of seconds; undefined when it is neither. */
export function toSeconds(value: unknown): number | undefined {
  if (typeof value === "number") return value;
  const nanos = typeof value === "string" ? parseDuration(value) : undefined;
  return nanos === undefined ? undefined : Number(nanos) / 1e9;
}
