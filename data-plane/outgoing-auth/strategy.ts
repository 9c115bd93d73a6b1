// What we show a backend.

/** Headers for one backend session; throws NoCredentialError when there is nothing we may show. */
export type ShowCredential = () => Promise<Readonly<Record<string, string>>>;

/** There is no credential, so the backend must not be contacted. */
export class NoCredentialError extends Error {
  override name = "NoCredentialError";
}
