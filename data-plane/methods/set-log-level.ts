// `logging/setLevel`: kept with the session, told to every backend that the session talks to, now and later.
import { resultResponse } from "../mcp/json-rpc.ts";
import { invalidParams, type Method } from "./call.ts";

const levels = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

export const setLogLevel: Method = (call) => {
  const { level } = call.params;
  if (!levels.includes(level as string)) return invalidParams(call, `"level" is none of ${levels.join(", ")}`);
  call.session.logLevel = JSON.stringify(level);
  for (const backend of call.server.backends.values()) backend.setLogLevel(call.session);
  return resultResponse(call.id, "{}");
};
