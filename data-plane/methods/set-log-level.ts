// `logging/setLevel`: kept with the session, told to every backend that the session talks to, now and later.
import { resultResponse } from "../mcp/json-rpc.ts";
import { logLevels } from "../mcp/stateless.ts";
import { invalidParams, type Method } from "./call.ts";

export const setLogLevel: Method = async (call) => {
  const { level } = call.params;
  if (!(logLevels as readonly unknown[]).includes(level))
    return invalidParams(call, `"level" is none of ${logLevels.join(", ")}`);
  await call.session.change((state) => ({ ...state, logLevel: JSON.stringify(level) }));
  for (const backend of call.server.backends.values()) void backend.setLogLevel(call.session);
  return resultResponse(call.id, "{}");
};
