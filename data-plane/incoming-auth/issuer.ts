// One issuer: its keys, its rules, and whom it vouches for. What it has is used for no other issuer's tokens.
import { readAccessToken } from "./access-token.ts";
import type { Clock } from "./clock.ts";
import type { CompactJws } from "./compact-jws.ts";
import { createIntrospection, type Introspect } from "./introspection.ts";
import { createKeySet } from "./key-set.ts";
import { createMetadata } from "./metadata.ts";
import type { IssuerSettings } from "./oidc-settings.ts";
import type { QuietLog } from "./quiet-log.ts";
import { badToken, cannotTell } from "./refusals.ts";
import { isSigned } from "./signature.ts";
import { createVerifiedToken, type Judgement } from "./verified-token.ts";

export interface Issuer {
  readonly issuer: string;
  /** `jws` is what `token` says; its `iss` has led here. Rejects only when something is wrong with us. */
  verify(token: string, jws: CompactJws): Promise<Judgement>;
  /** Undefined when it is never asked about tokens. */
  readonly introspect: Introspect | undefined;
}

export interface IssuerOptions {
  readonly settings: IssuerSettings;
  readonly clock: Clock;
  readonly log: QuietLog;
}

export function createIssuer({ settings, clock, log }: IssuerOptions): Issuer {
  const { rules, algorithms, fetch } = settings;
  const { issuer } = rules;
  const metadata = createMetadata({ issuer, fetch, clock });
  const keys = createKeySet({ issuer, clock, log, load: loadKeys });

  async function loadKeys(): Promise<unknown> {
    const url = settings.jwksUrl ?? (await metadata.get()).jwksUrl;
    if (!url) throw new Error("the metadata does not say where the keys are");
    try {
      const response = await fetch(url, { headers: { accept: "application/json, application/jwk-set+json" } });
      if (response.status !== 200) throw new Error(`the keys are answered with HTTP ${response.status}`);
      return await response.json();
    } catch (error) {
      metadata.doubt();
      throw error;
    }
  }

  return {
    issuer,
    introspect: createIntrospection({ settings, metadata, clock }),
    async verify(token, { header, claims }) {
      const { alg, kid, typ } = header;
      if (!algorithms.includes(alg)) return badToken("the token is signed in a way that is not accepted here");
      // Before keys are looked for: what is refused anyhow should not make us ask the issuer.
      const judged = { claims, source: { kind: "jwt", typ }, nowMs: clock.nowMs() } as const;
      const read = readAccessToken(rules, judged);
      if ("problem" in read) return badToken(`the token ${read.problem}`);
      const key = await keys.find({ kid, algorithm: alg });
      if (key === "unreachable") return cannotTell("the keys of the issuer can't be fetched now");
      const imported = key === "unknown" ? undefined : await key.importFor(alg);
      if (key === "unknown" || !imported) return badToken("the token is signed with a key that its issuer does not publish");
      if (!(await isSigned(token, imported, alg))) return badToken("the signature of the token is wrong");
      return { verified: createVerifiedToken({ token, read, rules, isCurrent: () => keys.isCurrent(key) }) };
    },
  };
}
