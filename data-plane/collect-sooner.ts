// Keeps the process small while it is not busy with being fast. V8 lets garbage grow to the size of what lives before it collects,
// which for ten thousand sessions is more than they need themselves. Collecting sooner all the time would cost more than half of a
// call again, so it is done only beyond a bound, and only for as long as it helps.
import { setFlagsFromString } from "node:v8";

export interface CollectSoonerOptions {
  /** Resident memory beyond which garbage is collected sooner, bytes. Default 384 MB. */
  readonly beyondBytes?: number;
  /** How often memory is looked at, milliseconds. Default 1,000. */
  readonly periodMs?: number;
  readonly rssBytes?: () => number;
  readonly setSooner?: (isSooner: boolean) => void;
}

/** Looks after the memory of this process until it is disposed. */
export function collectSooner(options: CollectSoonerOptions = {}): Disposable {
  const { beyondBytes = 384 * 1024 * 1024, periodMs = 1_000, rssBytes = process.memoryUsage.rss, setSooner = tellV8 } = options;
  let soonerLooks = 0; // for how many looks it has been collected sooner
  let pauseLooks = 0; // for how many more it is left alone, because that was no help
  const timer = setInterval(() => {
    if (pauseLooks > 0) return void pauseLooks--;
    if (rssBytes() > beyondBytes && soonerLooks < looksMax) {
      if (soonerLooks++ === 0) setSooner(true);
    } else if (soonerLooks > 0) {
      if (soonerLooks === looksMax) pauseLooks = pauseLooksMax; // so much lives
      soonerLooks = 0;
      setSooner(false);
    }
  }, periodMs).unref();
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      if (soonerLooks > 0) setSooner(false);
    },
  };
}

const looksMax = 10;
const pauseLooksMax = 30;

function tellV8(isSooner: boolean): void {
  setFlagsFromString(isSooner ? "--optimize-for-size" : "--no-optimize-for-size");
}
