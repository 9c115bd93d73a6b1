// A short round of what `npm run test:churn` does for three minutes.
import { test } from "node:test";
import { churn } from "../chaos/churn.ts";

test("backends join and leave all the time: nothing of the others fails, nothing is left over", async (t) => {
  t.diagnostic(await churn({ seconds: 8, joinsPerMinute: 120, callsPerSecond: 100 }));
});
