// The audit trail as operators read it.
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type AuditEvent, AuditEventSchema, type ListAuditEventsRequest } from "../../proto/gen/vmcp/admin/v1/admin_pb.ts";
import { readEntry, verifyAudit } from "../store/audit.ts";
import type { AuditLine, Store } from "../store/store.ts";
import { checkPageSize, checkPosition } from "./requests.ts";

export async function auditPage(store: Store, { pageSize, pageToken, oldestFirst }: ListAuditEventsRequest) {
  const size = checkPageSize(pageSize);
  const position = checkPosition(pageToken);
  const { lines, nextPageToken } = oldestFirst
    ? await upwards(store, position ?? 0n, size)
    : await downwards(store, position ?? (await store.auditTrail(0n, 1)).head.id, size);
  return { events: lines.map(toEvent), nextPageToken };
}

export async function auditVerdict(store: Store) {
  const { firstId = 0n, head, fault = "" } = await verifyAudit(store);
  return { firstId, lastId: head.id, lastHash: head.hash, fault };
}

async function upwards(store: Store, after: bigint, size: number) {
  const { lines } = await store.auditTrail(after, size + 1);
  const page = lines.slice(0, size);
  return { lines: page, nextPageToken: lines.length > size ? String(page.at(-1)?.id) : "" };
}

/** Ids have no gaps, so the page below a line is known by its number. */
async function downwards(store: Store, from: bigint, size: number) {
  const below = from - BigInt(size);
  const { lines } = await store.auditTrail(below < 0n ? 0n : below, size);
  const page = lines.filter(({ id }) => id <= from).reverse();
  const lowest = page.at(-1)?.id ?? 0n;
  return { lines: page, nextPageToken: lowest === below + 1n && below > 0n ? String(below) : "" };
}

function toEvent(line: AuditLine): AuditEvent {
  const { timeMs, actor, method, decision, code, reason, requestId, revision, changes, changeCount } = readEntry(line);
  return create(AuditEventSchema, {
    ...{ ...line, actor, method, decision, code, reason, requestId },
    time: timestampFromMs(timeMs),
    revision: BigInt(revision),
    targets: changes.map(({ name }) => name),
    targetCount: changeCount,
  });
}
