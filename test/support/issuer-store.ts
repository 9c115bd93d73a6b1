// What a test issuer remembers, apart from the provider that uses it: a provider with other keys goes on where the last one was.
import type { Adapter, AdapterFactory, AdapterPayload } from "oidc-provider";

interface Entry {
  readonly payload: AdapterPayload;
  readonly endMs: number;
}

/** `findClient` gives the metadata of a client that nobody registered, if there is one. */
export function createIssuerStore(findClient: (id: string) => Promise<AdapterPayload | undefined>): AdapterFactory {
  const entries = new Map<string, Entry>();

  function read(key: string): AdapterPayload | undefined {
    const entry = entries.get(key);
    return entry && entry.endMs > Date.now() ? entry.payload : undefined;
  }

  function search(model: string, isWanted: (payload: AdapterPayload) => boolean): AdapterPayload | undefined {
    for (const [key, { payload }] of entries) if (key.startsWith(`${model}:`) && isWanted(payload)) return read(key);
    return undefined;
  }

  return (model) =>
    ({
      find: async (id) => (model === "Client" ? findClient(id) : read(`${model}:${id}`)),
      findByUid: async (uid) => search(model, (payload) => payload.uid === uid),
      findByUserCode: async (code) => search(model, (payload) => payload.userCode === code),
      async upsert(id, payload, seconds = Number.POSITIVE_INFINITY) {
        entries.set(`${model}:${id}`, { payload, endMs: Date.now() + seconds * 1_000 });
      },
      async consume(id) {
        const payload = read(`${model}:${id}`);
        if (payload) payload.consumed = Math.floor(Date.now() / 1_000);
      },
      async destroy(id) {
        entries.delete(`${model}:${id}`);
      },
      async revokeByGrantId(grantId) {
        for (const [key, { payload }] of entries)
          if (key.startsWith(`${model}:`) && payload.grantId === grantId) entries.delete(key);
      },
    }) satisfies Adapter;
}
