// A load balancer without stickiness: every HTTP request goes to the next proxy, also those that come on one connection.
import { once } from "node:events";
import { Agent, createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** One request on its way. */
export interface Exchange {
  readonly method: string;
  /** Which backend got it, by its place in the list. */
  readonly backend: number;
  /** What of the body has passed, as text. */
  body(): string;
  /** Of the answer; undefined before there is one. */
  readonly status: number | undefined;
  readonly isOpen: boolean;
  /** Cuts both connections, as a network that fails does. */
  cut(): void;
}

export interface Balancer extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  readonly address: string;
  /** Requests sent to each backend, in the order of the list. */
  readonly counts: readonly number[];
  /** The last requests, oldest first; at most `exchangesMax`. */
  readonly exchanges: readonly Exchange[];
  /** Cuts the newest open exchange that the test accepts; gives it, undefined when there is none. */
  cut(test: (exchange: Exchange) => boolean): Exchange | undefined;
}

const exchangesMax = 10_000;

/** Balances over backends given as `http://host:port`, the first one first. */
export async function startBalancer(backends: readonly string[]): Promise<Balancer> {
  const counts = backends.map(() => 0);
  const exchanges: Exchange[] = [];
  const agent = new Agent({ keepAlive: true });
  let turn = 0;
  const server = createServer((request, response) => {
    const backend = turn++ % backends.length;
    counts[backend] = (counts[backend] ?? 0) + 1;
    exchanges.push(pass({ request, response, backend, address: backends[backend] as string, agent }));
    if (exchanges.length > exchangesMax) exchanges.shift();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    address: `http://127.0.0.1:${port}`,
    counts,
    exchanges,
    cut(test) {
      const exchange = exchanges.findLast((one) => one.isOpen && test(one));
      exchange?.cut();
      return exchange;
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      agent.destroy();
      await closed;
    },
  };
}

interface Passage {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly backend: number;
  readonly address: string;
  readonly agent: Agent;
}

/** Streams both ways; whoever leaves, the other side sees it go. */
function pass({ request, response, backend, address, agent }: Passage): Exchange {
  const chunks: Buffer[] = [];
  const onward = httpRequest(`${address}${request.url}`, { method: request.method, headers: request.headers, agent });
  let status: number | undefined;
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.pipe(onward);
  onward.on("response", (answer) => {
    status = answer.statusCode ?? 0;
    response.writeHead(status, answer.headers).flushHeaders();
    // A stream may be silent for long: what comes goes on at once, and an end that is none goes on as one too.
    answer.on("error", () => response.destroy());
    answer.pipe(response);
  });
  onward.on("error", () => {
    if (response.headersSent || response.destroyed) response.destroy();
    else response.writeHead(502).end();
  });
  response.on("close", () => onward.destroy());
  return {
    method: request.method ?? "",
    backend,
    body: () => Buffer.concat(chunks).toString(),
    get status() {
      return status;
    },
    get isOpen() {
      return !response.closed;
    },
    cut() {
      response.destroy();
      onward.destroy();
    },
  };
}
