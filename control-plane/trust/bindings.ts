// Who has which role, and where.
import { z } from "zod";
import { parseSpiffeId, segmentPattern } from "../../common/spiffe.ts";
import type { Attempt, Records } from "../store/store.ts";
import { TrustError } from "./errors.ts";
import { createShelf } from "./shelf.ts";

const bindingsMax = 1_000;
const charactersMax = 500;

export const roles = ["viewer", "operator", "editor", "security-admin", "admin"] as const;
export type Role = (typeof roles)[number];

const bindingSchema = z.object({ subject: z.string(), role: z.enum(roles), group: z.string() });

export interface Binding {
  readonly name: string;
  /** SPIFFE id of an operator, `oidc:SUBJECT` or `oidc-group:GROUP`. */
  readonly subject: string;
  readonly role: Role;
  /** Empty: everywhere. */
  readonly group: string;
}

export interface Bindings {
  create(binding: Binding, by: Attempt): Promise<void>;
  /** Sorted by name. */
  list(): Promise<Binding[]>;
  get(name: string): Promise<Binding | undefined>;
  remove(name: string, by: Attempt): Promise<void>;
}

/** What they throw is TrustError or StoreError. */
export function createBindings(records: Records): Bindings {
  const shelf = createShelf(records, "roleBindings", bindingSchema);
  return {
    async create({ name, ...binding }, by) {
      check({ name, ...binding });
      const present = await shelf.list();
      if (present.some(({ id }) => id === name)) throw new TrustError("exists", `there is a role binding "${name}" already`);
      if (present.length >= bindingsMax) throw new TrustError("full", `there are ${bindingsMax} role bindings; delete some`);
      await records.change([shelf.add(name, binding)], by);
    },
    list: async () => (await shelf.list()).map(({ id, value }) => ({ name: id, ...value })),
    async get(name) {
      const found = await shelf.get(name);
      return found && { name, ...found.value };
    },
    async remove(name, by) {
      if ((await shelf.get(name)) === undefined) throw new TrustError("not_found", `there is no role binding "${name}"`);
      await records.change([shelf.remove(name)], by);
    },
  };
}

function check({ name, subject, role, group }: Binding): void {
  if (!segmentPattern.test(name)) throw new TrustError("invalid", `"${name}" is no name; wanted letters, digits, ".", "_", "-"`);
  const isOperator = parseSpiffeId(subject)?.kind === "operator";
  if (!isOperator && !/^oidc(-group)?:./.test(subject))
    throw new TrustError(
      "invalid",
      `"${subject}" is no subject; wanted spiffe://TRUST-DOMAIN/operator/NAME, oidc:SUBJECT or oidc-group:GROUP`,
    );
  if (subject.length > charactersMax || group.length > charactersMax)
    throw new TrustError("invalid", "subject or group is too long");
  if (group !== "" && (role === "security-admin" || role === "admin"))
    throw new TrustError("invalid", `the role ${role} is for everything, and not for one group`);
}
