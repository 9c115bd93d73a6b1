// Strategy → resolver.
import { manual } from "./manual.ts";
import { prefix } from "./prefix.ts";
import { priority } from "./priority.ts";
import type { Resolver } from "./resolver.ts";

export const resolvers: ReadonlyMap<string, Resolver> = new Map(Object.entries({ prefix, priority, manual }));
