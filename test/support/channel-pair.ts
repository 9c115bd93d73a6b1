// The two ends of what Node opens between processes, in one: messages are copied as they are there.
import { EventEmitter } from "node:events";
import { deserialize, serialize } from "node:v8";

export interface End extends EventEmitter {
  connected: boolean;
  send(message: unknown, handle: undefined, options: undefined, callback: (error: Error | null) => void): boolean;
}

export function pair(): [End, End] {
  const ends = [0, 1].map(() => Object.assign(new EventEmitter(), { connected: true })) as unknown as [End, End];
  for (const [i, end] of ends.entries())
    end.send = (message, _handle, _options, callback) => {
      const copy = deserialize(serialize(message));
      setImmediate(() => ends[1 - i]?.emit("message", copy));
      callback(null);
      return true;
    };
  return ends;
}
