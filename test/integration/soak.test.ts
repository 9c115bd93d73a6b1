// A short round of `npm run test:soak`: what everybody leaves behind when they go. Whether memory stays flat takes longer to see.
import { test } from "node:test";
import { soak } from "../soak/soak.ts";

test("when everybody has left, nothing of them is left", { timeout: 90_000 }, (t) =>
  soak({ ms: 4_000, samples: 2, say: (line) => t.diagnostic(line) }),
);
