// Sends with a credential, made for whoever the request is for, and tells it when it was refused.
import { type Credential, type HeaderList, NoCredentialError } from "../outgoing-auth/credential.ts";
import { BackendError } from "./errors.ts";
import type { RequestOptions } from "./leg.ts";

/** For whom something is sent; nobody is the gateway itself. */
export type Asker = Pick<RequestOptions, "caller" | "clientHeaders">;

/** What became of what was shown: to be told how the response begins. */
export interface Refusals {
  noteStart(status: number, headers: Readonly<Record<string, string | string[] | undefined>>): void;
}

/**
 * Sends what `send` sends, with these headers, names and values in turn. Rejects as it does; of a credential that was refused the
 * error says whether there is another. Throws BackendError "no_credential" when there is none to show.
 */
export async function sendWith<T>(
  credential: Credential,
  { caller, clientHeaders }: Asker,
  send: (shown: HeaderList, refusals: Refusals) => Promise<T>,
): Promise<T> {
  const making = show(credential, caller, clientHeaders);
  const shown = making instanceof Promise ? await making : making;
  let status = 0;
  let challenge: string | undefined;
  try {
    return await send(shown, {
      noteStart(responseStatus, headers) {
        status = responseStatus;
        challenge = status === 401 ? headers["www-authenticate"]?.toString() : undefined;
      },
    });
  } catch (error) {
    if (status !== 401 || !(error instanceof BackendError) || error.code !== "unauthorized") throw error;
    const credentialRenewed = await credential.refused(caller, shown, challenge);
    throw new BackendError(error.code, error.outcome, error.message, error, { credentialRenewed });
  }
}

function show(credential: Credential, ...asker: Parameters<Credential["show"]>): HeaderList | Promise<HeaderList> {
  try {
    const shown = credential.show(...asker);
    return shown instanceof Promise ? shown.catch(none) : shown;
  } catch (error) {
    return none(error);
  }
}

/** Whatever goes wrong with a credential, the backend is not contacted without it. */
function none(error: unknown): never {
  const words = error instanceof NoCredentialError ? error.message : "the credential could not be made";
  throw new BackendError("no_credential", "not_executed", words, error);
}
