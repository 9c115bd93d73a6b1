// `vmcpctl doctor`: looks at everything between this program and the backends, and says what to do about what is wrong.
import { statSync } from "node:fs";
import { connect as connectSocket } from "node:net";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { stringify } from "yaml";
import { softwareVersion } from "../../common/version.ts";
import { HealthCheckResponse_ServingStatus as Serving } from "../../proto/gen/grpc/health/v1/health_pb.ts";
import { type ListProxiesResponse, ProxyState, RolloutState } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { exitCodes } from "../exit-codes.ts";
import { type Connection, connect, explain, type GlobalOptions } from "./connection.ts";
import { type Format, json, type Output } from "./output.ts";
import { isHeard } from "./proxy-states.ts";
import { plain } from "./table.ts";

export interface DoctorOptions extends GlobalOptions {
  readonly output: Extract<Format, "table" | "json" | "yaml">;
}

/** `skipped`: nothing can be said, because of something above. */
type Outcome = "ok" | "warning" | "failed" | "skipped";

interface Finding {
  readonly check: string;
  readonly outcome: Outcome;
  readonly detail: string;
  /** What to do; only of what is not ok. */
  readonly hint?: string;
}

// Certificates and tokens are good from the second that they are made.
const skewMs = { warning: 2_000, failed: 30_000 };

/** Returns the exit code: 79 when something is wrong. Warnings are not. */
export async function doctor(options: DoctorOptions, output: Output): Promise<number> {
  const findings: Finding[] = [];
  const tell = (finding: Finding): void => {
    findings.push(finding);
    if (options.output === "table") output.data(lineOf(finding, output));
  };
  for await (const finding of examine(options)) tell(finding);
  const count = (outcome: Outcome) => findings.filter((one) => one.outcome === outcome).length;
  if (options.output === "table")
    output.data(`\n${count("failed")} wrong, ${count("warning")} to look at, ${count("ok")} as they should be\n`);
  else output.data(options.output === "json" ? json({ findings }) : stringify({ findings }, { lineWidth: 0 }));
  return count("failed") > 0 ? exitCodes.findings : exitCodes.ok;
}

const marks = { ok: ["green", "✓"], warning: ["yellow", "!"], failed: ["red", "✗"], skipped: ["dim", "-"] } as const;

function lineOf({ check, outcome, detail, hint }: Finding, { paint }: Output): string {
  const [style, mark] = marks[outcome];
  const line = `${paint(style, mark)} ${plain(`${check}: ${detail}`)}\n`;
  return hint === undefined ? line : `${line}    ${plain(hint)}\n`;
}

const ok = (check: string, detail: string): Finding => ({ check, outcome: "ok", detail });
const wrong = (check: string, outcome: "warning" | "failed", detail: string, hint: string): Finding => ({
  check,
  outcome,
  detail,
  hint,
});

async function* examine(options: DoctorOptions): AsyncGenerator<Finding> {
  yield checkProof(options);
  const reached = await checkAddress(options);
  yield reached;
  if (reached.outcome === "failed") {
    for (const check of ["control plane", "clock", "store", "snapshot", "control planes", "proxies", "rollout", "backends"])
      yield { check, outcome: "skipped", detail: "nobody can be asked" };
    return;
  }
  try {
    using connection = connect(options);
    yield* askControlPlane(connection);
    yield* checkHealth(connection);
    yield* checkFleet(connection);
  } catch (error) {
    const reason = explain(error, options);
    const detail = reason instanceof Error ? reason.message : String(reason);
    const isTls = /certificate|TLS|SSL|self.signed|altname|wrong version|before secure|ECONNRESET/i.test(detail);
    const hint = isTls
      ? "compare --tls-ca (VMCP_TLS_CA) with the authority of the control plane, and whether it speaks TLS at this address at all"
      : /permission|authenticat|may not|certificate of yours|token/i.test(detail)
        ? 'see "vmcpctl whoami"; show who you are with --tls-cert and --tls-key, or --token-file'
        : "its log says more";
    yield wrong("control plane", "failed", detail, hint);
  }
}

function checkProof({ server, tls, tlsCa, tlsCert, tokenFile }: DoctorOptions): Finding {
  const shown =
    [tlsCert && "a certificate", tokenFile && "a token"].filter(Boolean).join(" and ") || "nothing to prove who you are";
  const how = tls || tlsCa || tlsCert ? "TLS" : "plain text";
  if (tokenFile !== undefined && ((statSync(tokenFile, { throwIfNoEntry: false })?.mode ?? 0) & 0o077) !== 0)
    return wrong("client", "warning", `others may read ${tokenFile}`, `chmod 600 ${tokenFile}`);
  return ok("client", `vmcpctl ${softwareVersion}, ${how} to ${server}, showing ${shown}`);
}

/** Whether anything listens there. */
async function checkAddress({ server, requestTimeout }: DoctorOptions): Promise<Finding> {
  const [, host = "", port = ""] = /^(?:dns:)?\[?(.*?)\]?:(\d+)$/.exec(server) ?? [];
  const place = server.startsWith("unix:") ? { path: server.slice("unix:".length) } : { host, port: Number(port) };
  const startMs = performance.now();
  const problem = await new Promise<string | undefined>((resolve) => {
    const socket = connectSocket(place);
    socket.setTimeout(Math.min(requestTimeout, 5_000));
    socket.once("connect", () => resolve(undefined)).once("timeout", () => resolve("no answer"));
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.once("connect", () => socket.destroy()).once("timeout", () => socket.destroy());
  });
  if (problem === undefined)
    return ok("address", `${server} takes connections, after ${Math.round(performance.now() - startMs)} ms`);
  const hint =
    problem === "ENOTFOUND"
      ? "no such host: see --server, VMCP_SERVER, or the context"
      : 'is a control plane running there ("vmcp control-plane --listen …"), and does a firewall let you through?';
  return wrong("address", "failed", `${server}: ${problem}`, hint);
}

async function* askControlPlane({ admin, deadline }: Connection): AsyncGenerator<Finding> {
  const startMs = Date.now();
  const info = await admin.getServerInfo({}, deadline());
  const tookMs = Date.now() - startMs;
  yield info.softwareVersion === softwareVersion
    ? ok("control plane", `version ${info.softwareVersion}, answers in ${tookMs} ms`)
    : wrong(
        "control plane",
        "warning",
        `version ${info.softwareVersion}, vmcpctl is ${softwareVersion}`,
        "use the same version of both",
      );
  if (info.time === undefined)
    yield { check: "clock", outcome: "skipped", detail: "a control plane of this version does not say" };
  else {
    // It looked at its clock at some moment of the call.
    const ahead = timestampMs(info.time) - (startMs + tookMs / 2);
    const off = Math.max(0, Math.abs(ahead) - tookMs / 2);
    const detail = `that of the control plane is ${(off / 1000).toFixed(1)} s ${ahead < 0 ? "behind" : "ahead"}`;
    if (off < skewMs.warning) yield ok("clock", "the same here and there");
    else
      yield wrong(
        "clock",
        off < skewMs.failed ? "warning" : "failed",
        detail,
        "certificates and tokens depend on it: set both by NTP",
      );
  }
  if (info.readOnlyReason !== "") yield wrong("changes", "warning", "this control plane takes none", info.readOnlyReason);
}

async function* checkHealth({ health, deadline }: Connection): AsyncGenerator<Finding> {
  for (const [check, service, detail, hint] of [
    ["store", "vmcp.admin.v1", "changes can be made", "reads and changes wait for it; proxies keep what they have"],
    ["snapshot", "vmcp.discovery.v1", "proxies get one", "the control plane's log says what is not valid"],
  ] as const) {
    const { status } = await health.check({ service }, deadline());
    yield status === Serving.SERVING ? ok(check, detail) : wrong(check, "failed", "it is not there", hint);
  }
}

async function* checkFleet({ admin, deadline }: Connection): AsyncGenerator<Finding> {
  const fleet = await admin.listProxies({}, deadline());
  yield checkControlPlanes(fleet);
  yield checkProxies(fleet);
  const { state, reason, targetVersion } = await admin.getRollout({}, deadline());
  const isStuck = state === RolloutState.HALTED || state === RolloutState.PARTIAL;
  yield isStuck
    ? wrong(
        "rollout",
        "failed",
        `${targetVersion} is refused${reason === "" ? "" : `: ${reason}`}`,
        'mend it and apply again, or "vmcpctl rollout undo"',
      )
    : ok("rollout", targetVersion === "" ? "nothing is declared" : `${targetVersion} goes to all`);
  yield checkBackends(fleet);
}

function checkControlPlanes({ controlPlanes }: ListProxiesResponse): Finding {
  const gone = controlPlanes.filter(({ live }) => !live).map(({ id }) => id);
  if (gone.length === 0) return ok("control planes", controlPlanes.map(({ id }) => id).join(", "));
  return wrong("control planes", "warning", `${gone.join(", ")} is gone`, "start it again; it is forgotten after 24 hours");
}

function checkProxies({ proxies }: ListProxiesResponse): Finding {
  const of = (...states: ProxyState[]) => proxies.flatMap(({ node, state }) => (states.includes(state) ? [node?.id ?? ""] : []));
  const stale = of(ProxyState.STALE, ProxyState.SERVING_STALE);
  const refusing = of(ProxyState.NACKED);
  const connected = proxies.filter(isHeard);
  if (refusing.length > 0)
    return wrong("proxies", "failed", `${refusing.join(", ")} refused what is declared`, '"vmcpctl proxy status" says why');
  if (stale.length > 0)
    return wrong(
      "proxies",
      "failed",
      `${stale.join(", ")} serves what it had: it hears of no control plane, or does not answer`,
      "can it reach one? see its log",
    );
  if (connected.length === 0)
    return wrong("proxies", "warning", "none is connected", 'start one: "vmcp proxy --control-plane …"');
  return ok("proxies", `${connected.length} connected`);
}

function checkBackends({ proxies }: ListProxiesResponse): Finding {
  const bad = new Map<string, string>();
  let seen = 0;
  for (const { node, backends } of proxies.filter(isHeard))
    for (const { name, state, error } of backends) {
      seen += 1;
      if (state === "unhealthy" || state === "unauthenticated") bad.set(name, `${name} is ${state} at ${node?.id}: ${error}`);
    }
  if (bad.size === 0) return ok("backends", seen === 0 ? "none are known" : "all are well");
  return wrong("backends", "failed", [...bad.values()].join("; "), '"vmcpctl describe backend NAME" says more');
}
