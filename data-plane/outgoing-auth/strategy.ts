// What we show a backend.

/** Headers for one backend session; throws BackendError("unauthorized") when there is nothing we may show. */
export type ShowCredential = () => Promise<Readonly<Record<string, string>>>;
