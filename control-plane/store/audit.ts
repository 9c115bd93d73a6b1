// The audit trail: one line for every attempt to change something. Each line names the hash of the line before it, so that none can
// be altered, left out or put in between without it showing; who cuts off the end must forge the head beside the trail too.
import { createHash } from "node:crypto";
import { z } from "zod";
import type { AuditHead, AuditLine, Changed, CommitOptions, DeniedAttempt, Store, UncommittedChange } from "./store.ts";

// A line is for people; what a large commit changed in full is in its revision, and vouched for by the digest.
const changesShownMax = 20;
const charactersMax = 1000;

const verifyBatch = 500;

const lineSchema = z.object({
  id: z.string().regex(/^\d{1,19}$/),
  previous: z.string(),
  timeMs: z.number(),
  actor: z.string(),
  method: z.string(),
  decision: z.enum(["allowed", "denied"]),
  code: z.string(),
  reason: z.string(),
  requestId: z.string(),
  /** Of the commit; empty for what was denied, and for what is no commit. */
  revision: z.string().regex(/^\d{0,19}$/),
  /** Etags before and after, empty where there is none; the first 20. */
  changes: z.array(z.object({ name: z.string(), before: z.string(), after: z.string() })),
  changeCount: z.number(),
  /** SHA-256 of all changes, a line each. */
  changesDigest: z.string(),
});

/** What a line says. Numbers of the store are text, because JSON has no bigint. */
export type AuditEntry = z.infer<typeof lineSchema>;

type AuditChange = AuditEntry["changes"][number];

/** The line of a commit, to come after `head`. */
export function lineOfCommit(
  head: AuditHead,
  commit: CommitOptions & { readonly revision: bigint; readonly changes: readonly Changed[]; readonly timeMs: number },
): AuditLine {
  const changes = commit.changes.map(({ name, before, after }) => ({
    name,
    before: before?.etag ?? "",
    after: after?.etag ?? "",
  }));
  const outcome = { decision: "allowed", code: "OK", revision: String(commit.revision) } as const;
  return lineAfter(head, { ...commit, ...outcome, changes });
}

/** The line of a change that is no commit, to come after `head`. */
export function lineOfChange(head: AuditHead, change: UncommittedChange & { readonly timeMs: number }): AuditLine {
  const changes = change.targets.map((name) => ({ name, before: "", after: "" }));
  return lineAfter(head, { code: "OK", ...change, decision: "allowed", revision: "", changes });
}

/** The line of an attempt that was refused, to come after `head`. */
export function lineOfDenied(head: AuditHead, denied: DeniedAttempt & { readonly timeMs: number }): AuditLine {
  const changes = denied.targets.map((name) => ({ name, before: "", after: "" }));
  return lineAfter(head, { ...denied, decision: "denied", revision: "", changes });
}

/** What a line says; throws when it says nothing of the sort. */
export function readEntry({ entry }: Pick<AuditLine, "entry">): AuditEntry {
  return lineSchema.parse(jsonOf(entry));
}

/**
 * What is wrong with a line, given the one before it; undefined when nothing is. Without one before it, the line may be the first of
 * all, or the oldest that is kept.
 */
export function faultOf(line: AuditLine, before: AuditHead | undefined): string | undefined {
  if (hashOf(line.entry) !== line.hash) return `line ${line.id} is not what was written`;
  const said = lineSchema.safeParse(jsonOf(line.entry)).data;
  if (said === undefined) return `line ${line.id} can't be read`;
  if (said.id !== String(line.id)) return `line ${line.id} was written as line ${said.id}`;
  if (before === undefined) return line.id === 1n && said.previous !== "" ? "line 1 is not the first" : undefined;
  if (line.id !== before.id + 1n) return `what was between line ${before.id} and line ${line.id} is gone`;
  return said.previous === before.hash ? undefined : `line ${line.id} does not follow line ${before.id}`;
}

export interface Verified {
  /** The oldest line that is kept; undefined when there is none. */
  readonly firstId: bigint | undefined;
  readonly head: AuditHead;
  /** The first thing that is wrong; undefined when nothing is. */
  readonly fault: string | undefined;
}

/** Looks through all that is kept. */
export async function verifyAudit({ auditTrail }: Pick<Store, "auditTrail">): Promise<Verified> {
  let firstId: bigint | undefined;
  let before: AuditHead | undefined;
  for (;;) {
    const { lines, head } = await auditTrail(before?.id ?? 0n, verifyBatch);
    for (const line of lines) {
      const fault = faultOf(line, before);
      firstId ??= line.id;
      if (fault !== undefined) return { firstId, head, fault };
      before = line;
    }
    if (lines.length === 0) return { firstId, head, fault: faultOfEnd(head, before) };
  }
}

function faultOfEnd(head: AuditHead, { id, hash }: AuditHead = { id: 0n, hash: "" }): string | undefined {
  if (head.id > id) return `what comes after line ${id} is gone, up to line ${head.id}`;
  return head.id === id && head.hash === hash ? undefined : `line ${id} is not the last that was written`;
}

type Said = Omit<AuditEntry, "id" | "previous" | "changeCount" | "changesDigest">;

function lineAfter(head: AuditHead, said: Said): AuditLine {
  const { timeMs, actor, method, decision, code, reason, requestId, revision, changes } = said;
  const id = head.id + 1n;
  const entry = JSON.stringify({
    id: String(id),
    previous: head.hash,
    timeMs,
    actor: cut(actor),
    method,
    decision,
    code,
    reason: cut(reason),
    requestId: cut(requestId),
    revision,
    changes: changes.slice(0, changesShownMax),
    changeCount: changes.length,
    changesDigest: hashOf(changes.map(textOfChange).join("")),
  } satisfies AuditEntry);
  return { id, entry, hash: hashOf(entry) };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function textOfChange({ name, before, after }: AuditChange): string {
  return `${name} ${before} ${after}\n`;
}

/** Well-formed, because a lone surrogate would not come back from a database as it went in. */
export function cut(text: string): string {
  return text.slice(0, charactersMax).toWellFormed().replaceAll("\0", "");
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
