// A control plane with certificates, in this process, and whoever may call it.
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { pino } from "pino";
import { requestCertificate } from "../../common/certificate-request.ts";
import { controlPlaneCheck, type SpiffeIdentity, spiffeId } from "../../common/spiffe.ts";
import { type ControlPlaneOptions, startControlPlane } from "../../control-plane/index.ts";
import { openAuthority } from "../../control-plane/trust/authority.ts";
import { type Role, TrustService } from "../../proto/gen/vmcp/admin/v1/trust_pb.ts";
import { EnrolmentService } from "../../proto/gen/vmcp/enrolment/v1/enrolment_pb.ts";
import { type Client, createClient, type Tls } from "../../proto/grpc.ts";
import { temporaryDirectory } from "./processes.ts";

export interface TrustedPlane extends AsyncDisposable {
  /** Over TLS. */
  readonly address: string;
  /** For whoever is on the machine. */
  readonly socket: string;
  /** What a client needs to trust it, and shows nothing. */
  readonly stranger: Tls;
  /** Of this machine: may do everything. */
  readonly local: Client<typeof TrustService>;
  /** What somebody shows: a certificate that the authority made for them, and that no store knows of. */
  made(identity: Partial<SpiffeIdentity>, options?: Partial<Made>): Promise<Tls>;
  /** The certificate of an operator, with a role in a group or everywhere. */
  operator(name: string, role?: Role, group?: string): Promise<Tls>;
  /** The certificate of a proxy that enrolled with a token. */
  proxy(name: string): Promise<Tls>;
}

export interface Made {
  readonly directory: string;
  readonly nowMs: number;
  readonly ttlMs: number;
  readonly usage: "client" | "server";
}

export const grpcDeadline = () => ({ deadline: Date.now() + 10_000 });

export async function startTrustedPlane(options: Partial<ControlPlaneOptions> = {}): Promise<TrustedPlane> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryDirectory());
  const directory = join(folder.path, "trust");
  const socket = `unix:${join(folder.path, "admin.sock")}`;
  const log = pino({ level: "silent" });
  const security = { ...options.security, authority: { directory } };
  const plane = stack.use(
    await startControlPlane({ store: ":memory:", log, ...options, listen: ["127.0.0.1:0", socket], security }),
  );
  const local = stack.use(createClient(TrustService, socket, grpc.credentials.createInsecure()));
  const authority = await openAuthority({ directory }, "vmcp.local", Date.now);
  const stranger: Tls = { authority: authority.bundle, checkServer: controlPlaneCheck("vmcp.local") };
  let bindings = 0;
  const owned = stack.move();
  return {
    ...{ address: plane.address, socket, stranger, local },
    async made(identity, made = {}) {
      const { nowMs = Date.now(), ttlMs = 60_000, usage = "client" } = made;
      const by = await openAuthority({ directory: made.directory ?? directory }, "vmcp.local", () => nowMs);
      const { key, request } = await requestCertificate();
      const whole = { kind: "operator", trustDomain: "vmcp.local", scope: "default", name: "somebody", ...identity } as const;
      return { ...stranger, key, certificate: (await by.issue(request, { identity: whole, ttlMs, usage })).certificate };
    },
    async operator(name, role, group = "") {
      const { key, request } = await requestCertificate();
      const { certificate } = await local.issueOperatorCertificate({ name, certificateRequest: request }, grpcDeadline());
      const subject = spiffeId({ kind: "operator", trustDomain: "vmcp.local", scope: "", name });
      if (role !== undefined)
        await local.createRoleBinding({ binding: { name: `b${++bindings}`, subject, role, group } }, grpcDeadline());
      return { ...stranger, key, certificate };
    },
    async proxy(name) {
      const { token } = await local.createEnrolmentToken({ namePrefix: name }, grpcDeadline());
      const { key, request } = await requestCertificate();
      using enrolment = createClient(EnrolmentService, plane.address, stranger);
      const { certificate } = await enrolment.enrol({ name, certificateRequest: request, token }, grpcDeadline());
      return { ...stranger, key, certificate };
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** What came of a call. */
export interface Outcome {
  readonly code: grpc.status;
  readonly details: string;
  readonly messages: number;
}

/**
 * Calls any method with an empty request, or with these bytes, and waits until it ends, or until the first message of a stream. `ms`
 * (default 5 s) later it is cut.
 */
export async function callRaw(
  channel: grpc.Client,
  { path, isStream }: { readonly path: string; readonly isStream: boolean },
  options: { readonly metadata?: grpc.Metadata; readonly bytes?: Buffer; readonly ms?: number } = {},
): Promise<Outcome> {
  const { metadata = new grpc.Metadata(), bytes = Buffer.alloc(0), ms = 5_000 } = options;
  const same = (one: Buffer) => one;
  const call = channel.makeBidiStreamRequest(path, same, same, metadata, { deadline: Date.now() + ms });
  let messages = 0;
  call.on("data", () => {
    messages += 1;
    if (isStream) call.cancel();
  });
  call.write(bytes);
  if (!isStream) call.end();
  const { code, details } = await new Promise<grpc.StatusObject>((resolve) => {
    call.on("error", () => undefined).on("status", resolve);
  });
  return { code, details, messages };
}
