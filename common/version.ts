// The version of this software, from package.json.
import { createRequire } from "node:module";

export const softwareVersion: string = (createRequire(import.meta.url)("../package.json") as { version: string }).version;
