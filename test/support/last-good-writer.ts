// A process that writes snapshots to disk as fast as it can, to be killed in the middle. Run by itself it is that process.
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { pino } from "pino";
import { resourceDigest, snapshotDigest } from "../../common/snapshot-digest.ts";
import { openLastGood } from "../../data-plane/sync/last-good.ts";
import { SnapshotResourceSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { eventually } from "./eventually.ts";
import { startProcess } from "./processes.ts";

export interface LastGoodWriter {
  /** SIGKILL. Gives the last revision that it said to have written. */
  kill(): Promise<number>;
}

/** Starts it, and waits until it has written one. */
export async function startLastGoodWriter(directory: string, from: number): Promise<LastGoodWriter> {
  const child = startProcess(process.execPath, [join(import.meta.dirname, "last-good-writer.ts"), directory, String(from)]);
  await eventually("the first is written", () => child.stdout().includes("\n"), 30_000);
  return {
    async kill() {
      child.kill("SIGKILL");
      await child.ended;
      return Number(child.stdout().trim().split("\n").at(-1));
    },
  };
}

async function write(directory: string, from: number): Promise<never> {
  const files = await openLastGood(directory, pino({ level: "silent" }));
  if (!files) throw new Error(`${directory} can't be used`);
  const value = Buffer.alloc(200_000, "x");
  const large = { name: "a", digest: resourceDigest(value), body: { typeUrl: "type.googleapis.com/test.Text", value } };
  const resources = [create(SnapshotResourceSchema, large)];
  const content = { resources, digest: snapshotDigest(resources), storeUid: "store", createdMs: Date.now(), terms: undefined };
  for (let revision = from; ; revision++) {
    files.save({ ...content, version: `r${revision}-e`, revision: BigInt(revision) });
    await files.settled();
    process.stdout.write(`${revision}\n`);
  }
}

if (import.meta.main) await write(process.argv[2] ?? "", Number(process.argv[3]));
