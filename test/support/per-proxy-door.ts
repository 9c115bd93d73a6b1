// A door in front of a backend that proxies show their names at, so that a test sees which of them comes, and can shut out one.
import { once } from "node:events";
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";

export interface Door extends AsyncDisposable {
  readonly url: string;
  /** Names of the proxies with an open GET stream, sorted; a proxy stands there once for each stream. */
  listening(): string[];
  /** Requests of a proxy so far, as `POST`. */
  requests(proxy: string): string[];
  /** From now on connections of this proxy are reset. */
  shutOut(proxy: string): void;
}

/** Opens it on a free port of 127.0.0.1; the name is the value of the header `x-proxy`. */
export async function openDoor(target: string): Promise<Door> {
  const out = new Set<string>();
  const streams: string[] = [];
  const seen: { readonly proxy: string; readonly method: string }[] = [];
  const server = createServer((request, response) => {
    const proxy = String(request.headers["x-proxy"] ?? "");
    if (out.has(proxy)) return void request.socket.destroy();
    seen.push({ proxy, method: request.method ?? "" });
    if (request.method === "GET") {
      streams.push(proxy);
      response.once("close", () => streams.splice(streams.indexOf(proxy), 1));
    }
    const passed = httpRequest(target, { method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers).flushHeaders();
      answer.pipe(response);
    });
    passed.on("error", () => response.destroy());
    response.on("close", () => passed.destroy());
    request.pipe(passed);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`,
    listening: () => [...streams].sort(),
    requests: (proxy) => seen.filter((one) => one.proxy === proxy).map(({ method }) => method),
    shutOut(proxy) {
      out.add(proxy);
      server.closeAllConnections(); // the others come again
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
