// A real nginx as the load balancer in front of proxies: round robin, without stickiness. The open one has no health checks of
// its own that ask, so one stands beside it and tells it who is ready, as an ingress controller does.
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { programPath } from "./debian.ts";
import { eventually } from "./eventually.ts";
import { freePort, startProcess, temporaryDirectory } from "./processes.ts";

export interface NginxOptions {
  /** Between two looks at who is ready. Default 150. */
  readonly periodMs?: number;
  /**
   * Whether clients may use a connection for several requests. Default false, at a quarter of the requests per second: an nginx
   * that reloads closes kept connections, also those on which a request is just coming (337 of 98,000 requests failed so in 58
   * reloads), and a test would take that for a fault of the proxies.
   */
  readonly keepsClients?: boolean;
}

export interface Nginx extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  readonly address: string;
  /** Balances over these from now on; it does when this settles. */
  setUpstreams(upstreams: readonly string[]): Promise<void>;
  /** Who gets requests now. With nobody, nginx answers 503. */
  ready(): readonly string[];
  /** What nginx wrote about requests that went wrong. */
  errors(): Promise<string>;
}

const reloadMs = 10_000;
const checkMs = 500;

/**
 * Balances over upstreams given as `http://host:port`, each of which gets requests while its `/readyz` answers 200 within 500 ms.
 * Settles when nginx listens and has the first answers.
 */
export async function startNginx(initial: readonly string[], options: NginxOptions = {}): Promise<Nginx> {
  const { periodMs = 150, keepsClients = false } = options;
  const program = await programPath("nginx", "nginx");
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const port = await freePort();
  const address = `http://127.0.0.1:${port}`;
  const write = () => directory.write("nginx.conf", configuration({ directory: directory.path, port, keepsClients }, ready));
  let upstreams = initial;
  let ready = await whoIsReady(upstreams);
  const path = await write();

  const args = ["-p", directory.path, "-c", path, "-e", "stderr"];
  // Before the child's own listener: workers outlive a master that is killed.
  const onExit = () => killWorkers(child.pid);
  process.once("exit", onExit);
  stack.defer(() => void process.off("exit", onExit));
  const child = stack.use(startProcess(program, args, { cwd: directory.path }));
  await eventually("nginx listens", async () => (await request(address, { reset: true })).body.dump().then(() => true)).catch(
    (error: Error) => {
      throw new Error(`${error.message}\n${child.stderr().slice(-2_000)}`, { cause: error });
    },
  );

  /** Settles when the workers that go by the old list accept no more. */
  async function reload(): Promise<void> {
    const before = retirements(child.stderr());
    await write();
    child.kill("SIGHUP");
    await eventually("nginx has reloaded", () => retirements(child.stderr()) > before, reloadMs);
  }

  async function check(): Promise<void> {
    const found = await whoIsReady(upstreams);
    if (found.join() === ready.join()) return;
    ready = found;
    await reload();
  }

  let turn = Promise.resolve();
  const inTurn = (work: () => Promise<void>): Promise<void> => {
    turn = turn.then(work);
    return turn;
  };
  const stop = new AbortController();
  const checking = (async () => {
    while (!stop.signal.aborted) {
      await inTurn(check);
      await sleep(periodMs, undefined, { signal: stop.signal }).catch(() => undefined); // told to stop
    }
  })();
  checking.catch(() => undefined); // who lets go of it sees it
  stack.defer(() => {
    stop.abort();
    return checking;
  });

  const owned = stack.move();
  return {
    address,
    setUpstreams: (next) =>
      inTurn(() => {
        upstreams = next;
        return check();
      }),
    ready: () => ready,
    errors: () => readFile(join(directory.path, "errors.log"), "utf8"),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function whoIsReady(upstreams: readonly string[]): Promise<readonly string[]> {
  const answers = await Promise.all(upstreams.map(isReady));
  return upstreams.filter((_, i) => answers[i]);
}

/** On a connection of its own each time, as a kept one would keep a server from ending. */
async function isReady(upstream: string): Promise<boolean> {
  try {
    const { statusCode, body } = await request(`${upstream}/readyz`, { reset: true, signal: AbortSignal.timeout(checkMs) });
    await body.dump();
    return statusCode === 200;
  } catch {
    return false;
  }
}

/** Workers that were told to finish so far. */
const retirements = (log: string): number => log.match(/gracefully shutting down/g)?.length ?? 0;

function killWorkers(master: number): void {
  const workers = readFileSync(`/proc/${master}/task/${master}/children`, "utf8").trim();
  for (const worker of workers === "" ? [] : workers.split(" ")) process.kill(Number(worker), "SIGKILL");
}

interface Place {
  readonly directory: string;
  readonly port: number;
  readonly keepsClients: boolean;
}

function configuration({ directory, port, keepsClients }: Place, upstreams: readonly string[]): string {
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  // Who fails is for the health checks to say: by default nginx avoids a server for 10 s after one error.
  const servers = upstreams.map((upstream) => `server ${new URL(upstream).host} max_fails=0;`);
  return `
daemon off;
${process.getuid?.() === 0 ? "user root;" : "" /* or its workers may not write here */}
worker_processes 1;
pid ${directory}/nginx.pid;
error_log stderr notice;
events { worker_connections 4096; }
http {
  access_log off;
  error_log ${directory}/errors.log error;
  ${paths.map((path) => `${path}_temp_path ${directory}/${path};`).join("\n  ")}
  ${servers.length === 0 ? "" : `upstream proxies {\n    ${servers.join("\n    ")}\n    keepalive 64;\n  }`}
  server {
    listen 127.0.0.1:${port};
    ${keepsClients ? "" : "keepalive_timeout 0;"}
    location / {
      ${servers.length === 0 ? "return 503;" : "proxy_pass http://proxies;"}
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_buffering off;
      proxy_read_timeout 1h;
    }
  }
}
`;
}
