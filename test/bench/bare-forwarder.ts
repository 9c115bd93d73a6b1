// A program: the least that forwards HTTP in Node with a pool, `bare-forwarder.ts <origin>`: no check, no session, no name. What a gateway
// costs beyond it is its own doing. Tells its port on standard output.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Pool } from "undici";

const pool = new Pool(process.argv[2] as string, { connections: 64 });

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const body = chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
    const { host, connection, "content-length": length, ...headers } = request.headers;
    const options = {
      path: request.url as string,
      method: request.method as "POST",
      headers,
      body: body.length > 0 ? body : null,
    };
    pool.dispatch(options, {
      onRequestStart: () => undefined,
      onResponseStart(_controller, status, answered) {
        response.writeHead(status, answered as Record<string, string>);
      },
      onResponseData(_controller, chunk) {
        response.write(chunk);
      },
      onResponseEnd: () => void response.end(),
      onResponseError: () => void response.destroy(),
    });
  });
});
server.listen(0, "127.0.0.1", () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));
