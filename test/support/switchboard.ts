// A port behind which the server can be exchanged for another: what a restart of another version looks like from outside.
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export interface Switchboard extends AsyncDisposable {
  readonly url: string;
  /** Cuts every connection, and lets nobody in. */
  down(): Promise<void>;
  /** Lets everybody in to the server at this port. */
  up(port: number): Promise<void>;
}

/** Begins with the server at this port. */
export async function startSwitchboard(first: number): Promise<Switchboard> {
  let target = first;
  const sockets = new Set<Socket>();
  const server = createServer((incoming) => {
    const outgoing = connect(target, "127.0.0.1");
    for (const [one, other] of [
      [incoming, outgoing],
      [outgoing, incoming],
    ] as const) {
      sockets.add(one);
      one.on("error", () => undefined); // "close" follows
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;

  async function down(): Promise<void> {
    if (!server.listening) return;
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of sockets) socket.destroy();
    await closed;
  }

  return {
    url: `http://127.0.0.1:${port}/mcp`,
    down,
    async up(next) {
      target = next;
      server.listen(port, "127.0.0.1");
      await once(server, "listening");
    },
    [Symbol.asyncDispose]: down,
  };
}
