// A disk that is soon full: memory, mounted with a size. Undefined where this user may not mount.
import { rm } from "node:fs/promises";
import { runProcess, temporaryDirectory } from "./processes.ts";

export interface SmallDisk extends AsyncDisposable {
  readonly path: string;
}

export async function smallDisk(bytes: number): Promise<SmallDisk | undefined> {
  const directory = await temporaryDirectory();
  const mounted = await runProcess("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", directory.path]).catch(
    () => undefined,
  );
  if (mounted?.code !== 0) {
    await directory[Symbol.asyncDispose]();
    return undefined;
  }
  return {
    path: directory.path,
    async [Symbol.asyncDispose]() {
      await runProcess("umount", ["-l", directory.path]);
      await rm(directory.path, { recursive: true, force: true });
    },
  };
}
