// Who is to watch, as the control plane says it and as long as there is one.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { WatchOrdersSchema } from "../../proto/gen/vmcp/discovery/v1/discovery_pb.ts";
import { createWatchDuty, type Duties, dutyIn, noDuties } from "./watch-duty.ts";

test("orders hold until 5 s after the stream is gone; then everything is ours, until there are orders again", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let duties: Duties = noDuties;
  using duty = createWatchDuty({
    onChange: (next) => {
      duties = next;
    },
  });
  const others = [
    { catalog: "b", state: "healthy", error: "" },
    { catalog: "c", state: "on fire", error: "" },
  ];
  const all = () => ["a", "b", "c"].map((catalog) => dutyIn(duties, catalog));
  assert.deepEqual(all(), ["others", "others", "others"], "who has just started leaves it to those who watch");
  duty.obey(create(WatchOrdersSchema, { catalogs: ["a"], others }));
  const ordered = ["ours", { catalog: "b", state: "healthy", error: undefined }, "others"];
  assert.deepEqual(all(), ordered);
  t.mock.timers.tick(60_000);
  assert.deepEqual(all(), ordered);

  duty.lost();
  t.mock.timers.tick(2_000);
  duty.lost();
  assert.deepEqual(all(), ordered);
  t.mock.timers.tick(3_000);
  assert.deepEqual(all(), ["ours", "ours", "ours"]);
  duty.obey(create(WatchOrdersSchema, {}));
  assert.deepEqual(all(), ["others", "others", "others"]);
});

test("who never hears of a control plane watches everything", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let duties: Duties = noDuties;
  using _duty = createWatchDuty({
    onChange: (next) => {
      duties = next;
    },
  });
  t.mock.timers.tick(5_000);
  assert.equal(dutyIn(duties, "a"), "ours");
});
