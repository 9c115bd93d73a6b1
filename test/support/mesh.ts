// One control plane and any number of proxies, each a process of its own.
import { type Finished, type RunningVmcp, runVmcpctl, startVmcp, temporaryDirectory } from "./processes.ts";

export interface Mesh extends AsyncDisposable {
  readonly controlPlane: RunningVmcp;
  readonly proxies: readonly RunningVmcp[];
  /** Runs `vmcpctl …` against the control plane. */
  ctl(...args: string[]): Promise<Finished>;
  /** `vmcpctl apply` of resource documents, each with its `kind`. */
  apply(documents: readonly object[], ...flags: string[]): Promise<Finished>;
}

/** Starts it empty: nothing is declared, and no proxy waits for anything. `moreFlags` are those of every proxy. */
export async function startMesh(proxyCount: number, moreFlags: readonly string[] = []): Promise<Mesh> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory());
  const controlPlane = stack.use(await startVmcp(["control-plane", "--listen", "127.0.0.1:0", "--store", ":memory:"]));
  const { adminAddress } = controlPlane;
  const ids = Array.from({ length: proxyCount }, (_, i) => `proxy-${i + 1}`);
  const flags = ["--control-plane", adminAddress, "--port", "0", "--allow-stdio", "--drain-delay", "0s", ...moreFlags];
  const start = (id: string) => startVmcp(["proxy", "--id", id, ...flags], { isReady: false });
  const starts = await Promise.allSettled(ids.map(async (id) => stack.use(await start(id))));
  const proxies = starts.map((started) => {
    if (started.status === "rejected") throw started.reason; // those that did start are stopped with the stack
    return started.value;
  });
  const ctl = (...args: string[]) => runVmcpctl(adminAddress, args);
  let applied = 0;
  const owned = stack.move();
  return {
    controlPlane,
    proxies,
    ctl,
    apply: async (documents, ...flags) => {
      const text = documents.map((document) => JSON.stringify(document, undefined, 2)).join("\n---\n");
      return ctl("apply", "-f", await directory.write(`apply-${++applied}.yaml`, text), ...flags);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** One process of several that serve as one proxy. */
export interface Worker {
  readonly worker: number;
  readonly pid: number;
  /** Where just this one is, `http://127.0.0.1:PORT`. */
  readonly address: string;
  readonly connections: number;
  readonly sessions: number;
}

/** Of a proxy with `--workers`. */
export async function workersOf(proxy: { readonly address: string }): Promise<{ restarts: number; running: readonly Worker[] }> {
  const { workers } = (await (await fetch(`${proxy.address}/status`)).json()) as {
    workers: { restarts: number; running: Worker[] };
  };
  return workers;
}
