// `prompts/get`: from the prompt's backend, under the backend's own name for it.
import { noteUris } from "../session/handed-out.ts";
import { invalidParams, type Method } from "./call.ts";
import { departedAnswer, drainingRoute } from "./departed.ts";
import { forward, replaceParam } from "./forward.ts";

export const getPrompt: Method = async (call) => {
  const { name } = call.params;
  if (typeof name !== "string") return invalidParams(call, '"name" is not a string');
  const route = call.view.prompts.get(name) ?? drainingRoute(call, "prompts", name);
  if (!route) return departedAnswer(call, "prompts", name) ?? invalidParams(call, `unknown prompt: ${name}`);
  const response = await forward(call, route, replaceParam(call, "name", name, route.original));
  await noteUris(call.session, route.backend, response);
  return response.json;
};
