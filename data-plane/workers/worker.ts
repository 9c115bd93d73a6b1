// A worker: one of several processes that serve as one proxy. It does what it is asked to by the process that leads it, and ends
// with it.
import { openLog } from "../../common/log.ts";
import { type Engine, startEngine } from "../engine.ts";
import { SnapshotRefusedError } from "../runtime.ts";
import type { Prepared } from "../sync/apply.ts";
import { createReporter } from "../sync/report.ts";
import type { CallsReport } from "../telemetry/tap.ts";
import { openChannel } from "./channel.ts";
import type { LeaderAnswers, WorkerAnswers } from "./protocol.ts";
import { recordsOf, userTokensOf } from "./shared-stores.ts";

const reportSoonMs = 100;

// The leader says when to stop; a terminal and some supervisors tell all processes.
for (const signal of ["SIGINT", "SIGTERM", "SIGQUIT"] as const) process.on(signal, () => undefined);
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

let log = openLog("proxy");
process.on("unhandledRejection", (error) => log.error({ err: error }, "something failed that nobody waited for"));

let engine: Engine | undefined;
let prepared: Prepared | undefined;
let reporting: NodeJS.Timeout | undefined;
const taps = new Map<number, () => void>();
const news = createReporter();

const leader = openChannel<LeaderAnswers, WorkerAnswers>(process);
leader.serve({
  async start({ worker, secret, ...options }) {
    log = log.child({ worker });
    const env = secret === undefined ? process.env : { ...process.env, VMCP_SESSION_HMAC_SECRET: secret };
    const isAlone = options.session?.redis === undefined;
    engine = await startEngine({
      ...options,
      ...{ log, env },
      ...(isAlone && { openRecords: () => recordsOf(leader), userTokens: userTokensOf(leader) }),
      pages: { status: () => leader.ask("status"), metrics: () => leader.ask("metrics") },
      onChange: () => reportIn(reportSoonMs),
    });
    return engine.serving.self.address;
  },
  async prepare(content, how) {
    try {
      prepared = await running().live.prepare(content, how);
      return [];
    } catch (error) {
      if (error instanceof SnapshotRefusedError) return error.violations;
      throw error;
    }
  },
  enter: () => prepared?.enter(),
  drop: () => prepared?.drop(),
  obey: (terms) => running().live.obey(terms),
  watch: (duties) => running().watch(duties),
  listing: (catalog) => running().listing(catalog),
  join: () => running().serving.join(),
  alive: () => undefined,
  status: () => running().serving.pages.status(),
  metrics: () => running().serving.pages.metrics(),
  sessions: (filter) => running().serving.list(filter),
  heard: (event) => running().serving.sessions.hear(event),
  setDrained(isWanted) {
    running().serving.setDrained(isWanted);
    reportIn(reportSoonMs);
  },
  tap(number, query) {
    taps.get(number)?.();
    taps.delete(number);
    if (query === undefined) return;
    const emit = (report: CallsReport) => {
      leader.ask("calls", number, report).catch(() => undefined); // nobody asks any more
      return true;
    };
    taps.set(number, running().serving.openTap(query, emit));
  },
  async drain() {
    clearTimeout(reporting);
    await engine?.[Symbol.asyncDispose]();
  },
});

function running(): Engine {
  if (!engine) throw new Error("this worker has not started");
  return engine;
}

/** Reports soon, and again when it is time. */
function reportIn(ms: number): void {
  clearTimeout(reporting);
  reporting = setTimeout(() => {
    const state = running().state();
    leader.ask("report", { ...state, report: news(state) }).catch(() => undefined); // the next one says it again
    reportIn(state.everyMs);
  }, ms);
}
