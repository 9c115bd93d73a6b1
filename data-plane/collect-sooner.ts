// Keeps the process small while it is not busy with being fast. V8 lets garbage grow to the size of what lives before it collects,
// which for ten thousand sessions is more than they need themselves. Collecting sooner all the time would cost more than half of a
// call again, so it is done only beyond a bound, and only for as long as it helps. And after most sessions ended, a process that
// has little to do would keep what they left for hours: it is collected then, and now and then while they say goodbye to backends.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

export interface CollectSoonerOptions {
  /** Resident memory beyond which garbage is collected sooner, bytes. Default 384 MB. */
  readonly beyondBytes?: number;
  /** How often memory is looked at, milliseconds. Default 1,000. */
  readonly periodMs?: number;
  /** How many sessions are in hand now. */
  readonly sessions: () => number;
  readonly rssBytes?: () => number;
  readonly setSooner?: (isSooner: boolean) => void;
  readonly collect?: () => void;
}

/** Looks after the memory of this process until it is disposed. */
export function collectSooner(options: CollectSoonerOptions): Disposable {
  const { beyondBytes = 384 * 1024 * 1024, periodMs = 1_000, rssBytes = process.memoryUsage.rss } = options;
  const { sessions, setSooner = tellV8, collect = collectNow } = options;
  const hasEbbed = ebb();
  let ebbLooks = 0; // how many looks are left of the time after that
  let soonerLooks = 0; // for how many looks it has been collected sooner
  let pauseLooks = 0; // for how many more it is left alone, because that was no help
  const timer = setInterval(() => {
    if (hasEbbed(sessions())) ebbLooks = ebbLooksMax;
    if (ebbLooks > 0 && ebbLooks-- % ebbEvery === 0) collect();
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

/** Says once, when they no longer fall, that most of many sessions ended: so few live then that the pause is short. */
function ebb(): (now: number) => boolean {
  let most = 0;
  let last = 0;
  return (now) => {
    const hasEbbed = most >= many && now < most / 4 && now >= last;
    most = hasEbbed ? now : Math.max(most, now);
    last = now;
    return hasEbbed;
  };
}

const many = 1_000;
const ebbLooksMax = 60;
const ebbEvery = 10;
const looksMax = 10;
const pauseLooksMax = 30;

function tellV8(isSooner: boolean): void {
  setFlagsFromString(isSooner ? "--optimize-for-size" : "--no-optimize-for-size");
}

let gc: (() => void) | undefined;

function collectNow(): void {
  if (gc === undefined) {
    setFlagsFromString("--expose-gc");
    gc = runInNewContext("gc") as () => void;
  }
  gc();
}
