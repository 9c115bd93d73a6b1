// Which client sessions are over. Files do not declare it, but what is stored obeys rules however it arrived.
import { z } from "zod";
import { flag, matching, type Partly, type Say, section } from "./fields.ts";

const name = textUpTo(1024);

export const revocation = section({
  session: matching(
    /^[A-Za-z0-9_-]{22}$/,
    'the key of a session: 22 letters, digits, "-" or "_", as "vmcpctl session list" shows it',
  ).optional(),
  issuer: name.optional(),
  subject: name.optional(),
  all: flag.optional(),
  virtualServer: name.optional(),
  reason: textUpTo(1000).optional(),
});

export function revocationRules(value: Partly<z.output<typeof revocation>>, say: Say): void {
  const { session, issuer, subject, all = false, virtualServer } = value;
  const named = [session !== undefined && "session", subject !== undefined && "subject", all && "all"].filter(Boolean);
  if (named.length > 1) say([], `found ${named.join(" and ")}, wanted one of them`);
  if (named.length === 0) say(["session"], "no session is named", { hint: "set session, subject or all" });
  if (issuer !== undefined && subject === undefined)
    say(["issuer"], "issuer goes with a subject", { hint: "set subject, or leave issuer out" });
  if (virtualServer !== undefined && !all)
    say(["virtualServer"], "virtualServer goes with all", { hint: "set all, or leave virtualServer out" });
}

function textUpTo(characters: number) {
  const wanted = `text of 1 to ${characters} characters`;
  return z.string({ error: wanted }).min(1, { error: wanted }).max(characters, { error: wanted });
}
