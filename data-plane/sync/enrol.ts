// How a proxy gets a certificate: with a token when it comes, with the present certificate after that, with both when it is late.
import { createPrivateKey, sign, X509Certificate } from "node:crypto";
import { parseToken } from "../../common/enrolment-token.ts";
import { EnrolmentService } from "../../proto/gen/vmcp/enrolment/v1/enrolment_pb.ts";
import { createClient, type Tls } from "../../proto/grpc.ts";
import { type Identity, readIdentity } from "./identity.ts";
import { findAuthority, tlsOf, tlsOfStranger } from "./secure.ts";

const answerMs = 10_000;

/** With the certificate that it has. Throws what the call throws. */
export async function renew(address: string, identity: Identity): Promise<Identity> {
  return ask(address, { name: identity.id.name, tls: tlsOf(identity) });
}

export interface Admission {
  readonly name: string;
  /** The text of the token. */
  readonly token: string;
  /** The certificate before, of which the key is still there. */
  readonly before: Identity | undefined;
}

/** With a token; the server must be of the authority that the token names. Throws what the call throws. */
export async function enrol(address: string, { name, token, before }: Admission): Promise<Identity> {
  const parts = parseToken(token);
  if (parts === undefined) throw new Error("the enrolment token is not complete; it looks like vmcpt.ID.SECRET");
  const authority = await findAuthority(address, parts.pin);
  return ask(address, { name, token: token.trim(), before, tls: tlsOfStranger(authority) });
}

interface Asking {
  readonly name: string;
  readonly tls: Tls;
  readonly token?: string;
  readonly before?: Identity | undefined;
}

/** Each certificate has a key of its own, which never leaves this machine. */
async function ask(address: string, { name, tls, token = "", before }: Asking): Promise<Identity> {
  const { requestCertificate } = await import("../../common/certificate-request.ts");
  const { key, request } = await requestCertificate();
  const evidence = before && {
    endedCertificate: new Uint8Array(new X509Certificate(before.certificate).raw),
    proof: new Uint8Array(sign("sha256", request, createPrivateKey(before.key))),
  };
  using client = createClient(EnrolmentService, address, tls);
  const { certificate, authority } = await client.enrol(
    { name, certificateRequest: request, token, ...evidence },
    { deadline: Date.now() + answerMs },
  );
  return readIdentity({ key, certificate, authority });
}
