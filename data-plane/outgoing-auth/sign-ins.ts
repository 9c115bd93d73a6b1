// Which backends users sign in at: links name them, whichever replica they lead to.
import type { Credential } from "./credential.ts";
import type { SignInPlace, UpstreamSignIn } from "./upstream-sign-in.ts";

type Named = Pick<SignInPlace, "virtualServer" | "resource">;

export interface SignIns {
  /** The newest of a place is the one that links lead to. */
  offer(credential: Credential, signIn: UpstreamSignIn): void;
  /** A credential is in use again, so what it offered is the newest. */
  renew(credential: Credential): void;
  find(place: Named): UpstreamSignIn | undefined;
}

const placesMax = 4_096;

export function createSignIns(): SignIns {
  const newest = new Map<string, UpstreamSignIn>();
  const offered = new WeakMap<Credential, UpstreamSignIn>();
  const nameOf = ({ virtualServer, resource }: Named): string => JSON.stringify([virtualServer, resource]);

  function put(signIn: UpstreamSignIn): void {
    const name = nameOf(signIn.place);
    newest.delete(name);
    newest.set(name, signIn);
    if (newest.size > placesMax) newest.delete(newest.keys().next().value as string);
  }

  return {
    offer(credential, signIn) {
      offered.set(credential, signIn);
      put(signIn);
    },
    renew(credential) {
      const signIn = offered.get(credential);
      if (signIn) put(signIn);
    },
    find: (place) => newest.get(nameOf(place)),
  };
}
