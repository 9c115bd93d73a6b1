// A TCP proxy that does what a bad network does, between any two parties on loopback. It knows bytes, no protocol.
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { lastingPort } from "./processes.ts";

/** "up" is from the client to the target. */
export type Direction = "up" | "down";

/**
 * What becomes of connections. New ones are those that come while the mode lasts; open ones are those that are there when it
 * begins.
 *
 * - `pass`: everything goes through. What `half-open` held goes on.
 * - `latency`: every chunk arrives `ms` later, give or take `jitterMs` (default 0), in order; new and open ones.
 * - `black-hole`: everything is read and lost, ends included; new and open ones. New ones never reach the target. Whoever was in
 *   the hole stays there, whatever mode follows: a stream with a gap would be no fault of a network.
 * - `half-open`: nothing is read, either way, and nobody hears of an end; new and open ones. New ones reach the target later.
 * - `refuse`: nobody listens, so connecting is refused. Open ones go on; `cutAll` ends them.
 * - `reset`: a real RST to both sides; new ones as soon as they come, and open ones now.
 * - `accept-then-close`: new ones are accepted and closed properly. Open ones go on.
 * - `cut-after`: both sides are closed once `bytes` of a connection went by in that direction; a later byte never does. New
 *   ones, and open ones counted from now.
 * - `cut-before-reply`: the first byte down that follows a byte up is lost, and both sides are closed: the target has the
 *   request and perhaps acted on it, the client never learns. New ones, and open ones from now.
 */
export type FaultMode =
  | { readonly kind: "pass" | "black-hole" | "half-open" | "refuse" | "reset" | "accept-then-close" | "cut-before-reply" }
  | { readonly kind: "latency"; readonly ms: number; readonly jitterMs?: number }
  | { readonly kind: "cut-after"; readonly bytes: number; readonly direction: Direction };

export interface FaultProxyOptions {
  /** Of the target. Default 127.0.0.1. */
  readonly host?: string;
  readonly port: number;
  /** Sees every chunk as it comes, before anything becomes of it: here a test ties a fault to an event. */
  readonly onData?: (chunk: Buffer, direction: Direction) => void;
  /** For jitter: from 0 up to 1. Default Math.random. */
  readonly random?: () => number;
}

export interface FaultProxy extends AsyncDisposable {
  readonly port: number;
  /** `127.0.0.1:PORT` */
  readonly address: string;
  /** Client connections that are open now. */
  readonly connections: number;
  /** Client connections so far. */
  readonly accepted: number;
  /** Begins a mode; it holds when this settles. Begins with `pass`. */
  set(mode: FaultMode): Promise<void>;
  /**
   * In whatever mode: waits for a chunk up that matches (default: the next one), lets it through, and in place of the next chunk
   * down of that connection closes both sides. Once. Settles when it has done so.
   */
  cutNext(options?: { readonly match?: (chunk: Buffer) => boolean }): Promise<void>;
  /** Closes every open connection on both sides. */
  cutAll(): void;
}

interface Trap {
  readonly match: (chunk: Buffer) => boolean;
  readonly sprung: () => void;
}

/** What all connections of one proxy share. */
interface Shared extends FaultProxyOptions {
  mode: FaultMode;
  /** Those of `cutNext` that nothing has matched yet. */
  readonly traps: Set<Trap>;
}

interface Connection {
  /** A mode has begun. */
  onMode(): void;
  cut(): void;
}

/** Listens on a free port of 127.0.0.1. A target that is down shows as a reset. */
export async function startFaultProxy(options: FaultProxyOptions): Promise<FaultProxy> {
  const port = await lastingPort();
  const shared: Shared = { ...options, mode: { kind: "pass" }, traps: new Set() };
  const clients = new Set<Socket>();
  const connections = new Set<Connection>();
  /** Came during `half-open`. */
  const waiting = new Set<Socket>();
  let accepted = 0;
  let server: Server | undefined;

  function accept(client: Socket): void {
    accepted++;
    clients.add(client);
    client.on("error", () => undefined); // "close" follows
    client.on("close", () => {
      clients.delete(client);
      waiting.delete(client);
    });
    admit(client);
  }

  function admit(client: Socket): void {
    switch (shared.mode.kind) {
      case "reset":
        return void client.resetAndDestroy();
      case "accept-then-close":
        return void client.resume().end();
      case "half-open":
        return void waiting.add(client);
      case "black-hole":
        return void client.on("data", (chunk) => shared.onData?.(chunk, "up")).resume();
      default: {
        const connection = join(client, shared, () => connections.delete(connection));
        connections.add(connection);
      }
    }
  }

  async function listen(): Promise<void> {
    if (server) return;
    server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, accept);
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  }

  function stopListening(): void {
    server?.close(); // lets nobody in from now on; that it waits for open ones is no concern here
    server = undefined;
  }

  async function set(mode: FaultMode): Promise<void> {
    shared.mode = mode;
    if (mode.kind === "refuse") stopListening();
    else await listen();
    for (const connection of connections) connection.onMode();
    if (mode.kind === "reset") for (const client of clients) client.resetAndDestroy(); // those in a hole too
    if (mode.kind === "half-open") return;
    const late = [...waiting];
    waiting.clear();
    for (const client of late) admit(client);
  }

  function cutAll(): void {
    for (const connection of connections) connection.cut();
    for (const client of clients) client.destroy();
  }

  await listen();
  return {
    port,
    address: `127.0.0.1:${port}`,
    get connections() {
      return clients.size;
    },
    get accepted() {
      return accepted;
    },
    set,
    cutNext: ({ match = () => true } = {}) =>
      new Promise((sprung) => {
        shared.traps.add({ match, sprung });
      }),
    cutAll,
    async [Symbol.asyncDispose]() {
      stopListening();
      cutAll();
    },
  };
}

/** Connects a client to the target, and carries what they say; `onGone` when both are gone. */
function join(client: Socket, shared: Shared, onGone: () => void): Connection {
  const target = connect({ port: shared.port, host: shared.host ?? "127.0.0.1", allowHalfOpen: true, noDelay: true });
  const passed = { up: 0, down: 0 };
  /** A byte went up in this mode. */
  let isAsked = false;
  /** Set once a trap has matched. */
  let sprung: (() => void) | undefined;
  let isLost = false;
  let isCut = false;

  function cut(): void {
    isCut = true;
    client.destroy();
    target.destroy();
  }

  /** What of a chunk goes on; cuts when the mode says so. */
  function judge(chunk: Buffer, direction: Direction): Buffer | undefined {
    const { mode, traps } = shared;
    if (direction === "up") {
      isAsked = true;
      const trap = [...traps].find(({ match }) => match(chunk));
      if (trap) {
        traps.delete(trap);
        sprung = trap.sprung;
      }
    } else if (sprung || (mode.kind === "cut-before-reply" && isAsked)) {
      cut();
      sprung?.();
      return undefined;
    }
    if (mode.kind !== "cut-after" || mode.direction !== direction) return chunk;
    const rest = mode.bytes - passed[direction];
    passed[direction] += chunk.length;
    if (passed[direction] < mode.bytes) return chunk;
    isCut = true;
    (direction === "up" ? client : target).destroy(); // the other side still gets its last bytes
    return chunk.subarray(0, rest);
  }

  /** Queues what comes, until it is due and the other side takes it. */
  function carry(direction: Direction, from: Socket, to: Socket): () => void {
    const queue: { readonly chunk: Buffer | undefined; readonly dueMs: number }[] = [];
    let bytes = 0;
    let lastDueMs = 0;
    let timer: NodeJS.Timeout | undefined;

    function put(chunk: Buffer | undefined): void {
      if (chunk) shared.onData?.(chunk, direction);
      if (isLost) return;
      // Never before the one that came before it.
      lastDueMs = Math.max(lastDueMs, performance.now() + delayMs(shared));
      queue.push({ chunk, dueMs: lastDueMs });
      bytes += chunk?.length ?? 0;
      move();
    }

    function move(): void {
      clearTimeout(timer);
      if (isLost || isCut) queue.length = 0;
      const isHeld = shared.mode.kind === "half-open";
      while (queue[0] && !isHeld && !isCut && !to.writableNeedDrain && !to.destroyed) {
        const waitMs = queue[0].dueMs - performance.now();
        if (waitMs > 0) {
          timer = setTimeout(move, waitMs);
          break;
        }
        const { chunk } = queue.shift() as (typeof queue)[number];
        bytes -= chunk?.length ?? 0;
        const kept = chunk && judge(chunk, direction);
        if (kept) to.write(kept);
        else if (!chunk) to.end();
      }
      if (isHeld || bytes > queueBytesMax || (to.writableNeedDrain && !isLost)) from.pause();
      else from.resume();
      // Who is gone takes the other along, unless the mode hides it.
      if (isHeld || isLost || !from.destroyed) return;
      if (from.errored) to.resetAndDestroy();
      else if (queue.length === 0) to.destroySoon();
    }

    from.on("data", put);
    from.on("end", () => put(undefined));
    from.on("error", () => undefined); // "close" follows
    from.on("close", () => {
      move();
      if (to.destroyed) onGone();
    });
    to.on("drain", move);
    to.on("close", () => clearTimeout(timer));
    move();
    return move;
  }

  const moves = [carry("up", client, target), carry("down", target, client)];
  return {
    onMode() {
      const { kind } = shared.mode;
      passed.up = 0;
      passed.down = 0;
      isAsked = false;
      if (kind === "black-hole") isLost = true;
      if (kind === "reset") for (const socket of [client, target]) socket.resetAndDestroy();
      for (const move of moves) move();
    },
    cut,
  };
}

// What a slow link may hold of one direction before its sender has to wait.
const queueBytesMax = 1024 * 1024;

function delayMs({ mode, random = Math.random }: Shared): number {
  if (mode.kind !== "latency") return 0;
  return Math.max(0, mode.ms + (random() * 2 - 1) * (mode.jitterMs ?? 0));
}
