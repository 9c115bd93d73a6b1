// Every change that operators make goes through here: refused when the control plane is read-only, checked and committed by the
// editor, and done once when its request has an id. The answer is committed with the change, so that a caller who did not hear it, whoever
// he asks next, gets it by asking again.
import { createHash } from "node:crypto";
import { create, type DescMessage, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { canonicalBytes } from "../canonical.ts";
import type { Answered, Store } from "../store/store.ts";
import type { Caller } from "./caller.ts";
import type { Edited, EditOptions, Editor, Plan } from "./edit.ts";
import { AdminError } from "./errors.ts";

/** What a request wants done. */
export interface Write<Response> extends Pick<EditOptions, "onProblems"> {
  readonly plan: Plan;
  /** For the history. */
  readonly reason: string;
  /** Names, for the audit trail when it is refused. */
  readonly targets: readonly string[];
  /** It operates and does not configure, so that a read-only control plane does it too. Default false. */
  readonly isOperation?: boolean;
  /** After the plan was made. */
  toAnswer(edited: Edited): Response;
}

/** A method of the service, as it is generated. */
interface Method<I extends DescMessage, O extends DescMessage> {
  readonly name: string;
  readonly input: I;
  readonly output: O;
}

type Request<I extends DescMessage> = MessageShape<I> & { readonly requestId: string; readonly validateOnly: boolean };
type Answer<O extends DescMessage> = MessageInitShape<O> | MessageShape<O>;

/** Makes the handler of a method of what its requests want. */
export type Writing = <I extends DescMessage, O extends DescMessage>(
  method: Method<I, O>,
  read: (request: Request<I>) => Write<MessageInitShape<O>>,
) => (request: Request<I>, caller: Caller) => Promise<Answer<O>>;

export interface WriterOptions {
  readonly store: Store;
  readonly editor: Editor;
  /** Empty: it is not read-only. Dry runs always work. */
  readonly readOnlyReason: string;
}

export function createWriting({ store, editor, readOnlyReason }: WriterOptions): Writing {
  return (method, read) => async (request, caller) => {
    const requestId = checkRequestId(request.requestId);
    const by = { ...caller, ...(requestId !== undefined && { requestId }), method: method.name };
    const isRepeatable = requestId !== undefined && !request.validateOnly;
    const fingerprint = isRepeatable ? fingerprintOf(method, { ...request, requestId }, caller) : "";

    async function perform(): Promise<Answer<typeof method.output>> {
      const { plan, reason, targets, isOperation = false, onProblems, toAnswer } = read(request);
      const attempt = { ...by, reason };
      if (readOnlyReason !== "" && !request.validateOnly && !isOperation) {
        await store.audit({ ...attempt, code: "READ_ONLY", targets });
        throw new AdminError("READ_ONLY", readOnlyReason);
      }
      const encode = (edited: Edited) => toBinary(method.output, create(method.output, toAnswer(edited)));
      const answer = isRepeatable ? { id: requestId, fingerprint, encode } : undefined;
      const { validateOnly } = request;
      return toAnswer(await editor.edit(plan, { ...attempt, validateOnly, answer, ...(onProblems && { onProblems }) }));
    }

    if (!isRepeatable) return perform();
    const repeat = (known: Answered) => {
      if (known.fingerprint !== fingerprint) throw reused(requestId);
      return fromBinary(method.output, known.body);
    };
    const known = await store.answered(requestId);
    if (known) return repeat(known);
    try {
      return await perform();
    } catch (error) {
      // The same request may have been under way elsewhere, or here, with the answer lost.
      const meanwhile = await store.answered(requestId).catch(() => undefined);
      if (meanwhile) return repeat(meanwhile);
      throw error;
    }
  };
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

function checkRequestId(given: string): string | undefined {
  if (given === "") return undefined;
  const id = given.toLowerCase();
  if (uuid.test(id)) return id;
  const description = `${JSON.stringify(given.slice(0, 100))} is not a UUID`;
  throw new AdminError("INVALID_REQUEST", `request_id: ${description}`, { violations: [{ field: "request_id", description }] });
}

/** Who asks for what. */
function fingerprintOf<I extends DescMessage>(
  { name, input }: Pick<Method<I, never>, "name" | "input">,
  request: MessageShape<I>,
  { actor }: Caller,
) {
  return createHash("sha256")
    .update(JSON.stringify([name, actor]))
    .update(canonicalBytes(input, request))
    .digest("hex");
}

function reused(requestId: string): AdminError {
  const description = "another request was made with this id within the last hour";
  return new AdminError("REQUEST_ID_REUSED", `request_id: ${description}`, {
    violations: [{ field: "request_id", description }],
    metadata: { requestId },
  });
}
