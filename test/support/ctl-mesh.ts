// vmcpctl as a program, against a control plane and proxies in the process of the test.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { pino } from "pino";
import { type ControlPlaneOptions, startControlPlane } from "../../control-plane/index.ts";
import { startDataPlane } from "../../data-plane/index.ts";
import { root } from "./processes.ts";

const log = pino({ level: "silent" });

/** A group with one backend that nobody runs, and a virtual server over it. */
export const declared = `
kind: Group
name: tools
backends:
  - name: fetch
    url: http://127.0.0.1:9/mcp
---
kind: VirtualServer
name: dev
groupRef: tools
incomingAuth: { type: anonymous }
outgoingAuth: { source: inline, default: { type: unauthenticated } }
aggregation: { conflictResolution: prefix }
`;

export interface CtlFinished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CtlMesh extends AsyncDisposable {
  readonly server: string;
  run(args: readonly string[], stdin?: string): Promise<CtlFinished>;
  /** Starts a proxy that may not start programs, and waits until it runs what is declared. */
  proxy(id: string): Promise<void>;
}

export async function startCtlMesh(options: Partial<ControlPlaneOptions> = {}): Promise<CtlMesh> {
  await using stack = new AsyncDisposableStack();
  const plane = stack.use(await startControlPlane({ listen: "127.0.0.1:0", store: ":memory:", log, ...options }));
  const owned = stack.move();
  return {
    server: plane.address,
    run: (args, stdin = "") => runCtl({ args, stdin, server: plane.address }),
    async proxy(id) {
      const live = Promise.withResolvers<string>();
      const where = { controlPlanes: [plane.address], host: "127.0.0.1", port: 0 };
      owned.use(await startDataPlane({ ...where, id, log, onLive: live.resolve }));
      await live.promise;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

export interface CtlRun {
  readonly args: readonly string[];
  /** Default: an empty one. */
  readonly stdin?: string;
  readonly server: string;
}

export async function runCtl({ args, stdin = "", server }: CtlRun): Promise<CtlFinished> {
  const program = join(root, "cli/vmcpctl.ts");
  const child = spawn(process.execPath, [program, ...args], { env: { ...process.env, VMCP_SERVER: server, NO_COLOR: "1" } });
  child.stdin.end(stdin);
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), closed]);
  return { code, stdout, stderr };
}
