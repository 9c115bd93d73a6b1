// When those who are refused may come again. To refuse costs a third of a call: clients that ask again at once would take with their
// refusals what calls need. So what is told is spread over the more seconds the more there are, and the connection of who does not wait
// as told is not read from for a moment: they get their turns in a line of so many a second. Whoever waits as told never notices.

export interface ComeAgain {
  /** Notes for whom a connection is. One that is for several has a proxy at its other end, and is always read from. */
  saw(connection: object, caller: string): void;
  /** To be called for every refusal of what came on a connection. */
  refused(
    connection: object,
    nowMs: number,
  ): {
    /** What the client is told, 1 to 30. */
    readonly afterSeconds: number;
    /** How long nothing more is read from its connection; mostly 0, and never longer than it was told to wait. */
    readonly unreadMs: number;
  };
}

export interface ComeAgainOptions {
  /** How many may come again in a second. Default 500, a twentieth of a processor. */
  readonly perSecond?: number;
  /** From 0 to 1. Default Math.random. */
  readonly random?: () => number;
}

interface Connection {
  readonly caller: string;
  isShared: boolean;
  /** Until when it was told to wait. */
  toldMs: number;
}

// So much at once is no flood.
const burstMs = 50;
const unreadMsMax = 2_000;
// The line does not get longer than this, and so is forgotten soon after the flood.
const lineMsMax = 3_000;
const afterSecondsMax = 30;

export function createComeAgain({ perSecond = 500, random = Math.random }: ComeAgainOptions = {}): ComeAgain {
  let turnMs = 0; // of who is refused next
  const connections = new WeakMap<object, Connection>();
  return {
    saw(connection, caller) {
      const known = connections.get(connection);
      if (!known) connections.set(connection, { caller, isShared: false, toldMs: 0 });
      else if (known.caller !== caller) known.isShared = true;
    },
    refused(connection, nowMs) {
      turnMs = Math.min(Math.max(turnMs, nowMs) + 1_000 / perSecond, nowMs + lineMsMax);
      const waitMs = turnMs - nowMs;
      const known = connections.get(connection);
      const isImpatient = known !== undefined && !known.isShared && nowMs < known.toldMs;
      const unreadMs = waitMs < burstMs || !isImpatient ? 0 : Math.min(waitMs, unreadMsMax);
      const least = Math.max(1, Math.ceil(unreadMs / 1_000));
      const spread = 2 + waitMs / 100; // seconds
      const afterSeconds = Math.min(afterSecondsMax, least + Math.floor(random() * spread));
      if (known) known.toldMs = nowMs + afterSeconds * 1_000;
      return { afterSeconds, unreadMs };
    },
  };
}
