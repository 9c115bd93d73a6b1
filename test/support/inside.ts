// Looks inside a running Node process, through its inspector: start it with `env: inspected`.
import { eventually } from "./eventually.ts";
import type { RunningProcess } from "./processes.ts";

export const inspected = { NODE_OPTIONS: "--inspect=127.0.0.1:0" };

export interface Inside extends Disposable {
  /** After everything that can be collected was. */
  memory(): Promise<Memory>;
  /** What keeps the process alive, and what listens for its events: name → how many. Connections of ours to it are not counted. */
  held(): Promise<Readonly<Record<string, number>>>;
}

export interface Memory {
  readonly heapBytes: number;
  readonly residentBytes: number;
}

const answerMs = 20_000;

export async function lookInside(child: Pick<RunningProcess, "stderr">): Promise<Inside> {
  const address = /Debugger listening on (ws:\S+)/;
  const url = await eventually("the inspector listens", () => address.exec(child.stderr())?.[1]);
  const socket = new WebSocket(url);
  const waiting = new Map<number, (result: { result?: { value?: unknown } }) => void>();
  let asked = 0;
  socket.addEventListener("message", ({ data }) => {
    const { id, result } = JSON.parse(String(data)) as { id: number; result: { result?: { value?: unknown } } };
    waiting.get(id)?.(result);
    waiting.delete(id);
  });
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve);
    socket.addEventListener("error", reject);
  });

  function ask(method: string, params: object = {}): Promise<{ result?: { value?: unknown } }> {
    return new Promise((resolve, reject) => {
      const id = ++asked;
      const late = setTimeout(() => reject(new Error(`the inspector did not answer ${method}`)), answerMs);
      waiting.set(id, (result) => {
        clearTimeout(late);
        resolve(result);
      });
      socket.send(JSON.stringify({ id, method, params }));
    });
  }

  const evaluate = async <T>(expression: string): Promise<T> => {
    const { result } = await ask("Runtime.evaluate", { expression: `JSON.stringify(${expression})`, returnByValue: true });
    return JSON.parse(String(result?.value)) as T;
  };
  return {
    async memory() {
      for (let i = 0; i < 2; i++) await ask("HeapProfiler.collectGarbage");
      const { heapUsed, rss } = await evaluate<NodeJS.MemoryUsage>("process.memoryUsage()");
      return { heapBytes: heapUsed, residentBytes: rss };
    },
    async held() {
      const resources = await evaluate<string[]>("process.getActiveResourcesInfo()");
      const listeners = await evaluate<[string, number][]>(
        "process.eventNames().map((name) => ['process ' + String(name), process.listenerCount(name)])",
      );
      const counts: Record<string, number> = Object.fromEntries(listeners);
      for (const name of resources) counts[name] = (counts[name] ?? 0) + 1;
      return counts;
    },
    [Symbol.dispose]: () => socket.close(),
  };
}
