// One header, the same for everybody.
import { readSecret } from "../secrets.ts";
import { sameForAll } from "./credential.ts";
import { isHeaderValue, problemOfName } from "./headers.ts";
import type { CreateCredential } from "./strategy.ts";

/** The value is read once. Throws when there is none, or none that a header can hold; never shows it. */
export const headerInjection: CreateCredential = ({ headerInjection: block }) => {
  if (!block) throw new Error("header_injection needs its block");
  const { headerName: name, headerValue, headerValueEnv: env, headerValueFile: file } = block;
  const problem = problemOfName(name.toLowerCase());
  if (problem) throw new Error(`header_injection can't set header "${name}", which ${problem}`);
  const value = headerValue || readSecret({ env, file })?.reveal();
  if (!value) throw new Error(`header_injection has no value for header "${name}"`);
  if (!isHeaderValue(value))
    throw new Error(`the value for header "${name}" holds characters that a header can't, or line breaks`);
  return sameForAll([name, value]);
};
