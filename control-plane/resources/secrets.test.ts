import assert from "node:assert/strict";
import { test } from "node:test";
import { isSecretPath } from "./secrets.ts";

const cases: [path: (string | number)[], isSecret: boolean][] = [
  [["outgoingAuth", "default", "headerInjection", "headerValue"], true],
  [["outgoingAuth", "default", "headerInjection", "headrVal"], true],
  [["outgoingAuth", "default", "headerInjection", "headerName"], false],
  [["outgoingAuth", "default", "headerInjection", "headerValueEnv"], false],
  [["outgoingAuth", "backends", "a", "tokenExchange", "clientSecret"], true],
  [["outgoingAuth", "backends", "a", "tokenExchange", "clientSecretEnv"], false],
  [["outgoingAuth", "backends", "a", "tokenExchange", "tokenUrl"], false],
  [["outgoingAuth", "backends", "a", "tokenExchange", "subjectTokenType"], false],
  [["outgoingAuth", "backends", "a", "xaa", "idpTokenUrl"], false],
  [["outgoingAuth", "backends", "a", "tokenExchange", "privateKeyFile"], false],
  [["outgoingAuth", "backends", "a", "tokenExchange", "privateKeyId"], true], // where a mistyped private key lands
  [["outgoingAuth", "backends", "a", "tokenExchange", "privateKey"], true],
  [["outgoingAuth", "backends", "a", "tokenExchange", "actorToken"], true],
  [["outgoingAuth", "backends", "a", "clientCredentials", "clientSecret"], true],
  [["outgoingAuth", "backends", "a", "clientCredentials", "clientScret"], true],
  [["outgoingAuth", "backends", "a", "clientCredentials", "clientAuthMethod"], false],
  [["outgoingAuth", "backends", "a", "upstreamOauth", "clientSecret"], true],
  [["outgoingAuth", "backends", "a", "upstreamOauth", "issuer"], false],
  [["outgoingAuth", "backends", "a", "passThrough", "headers", 0], false],
  [["outgoingAuth", "backends", "a", "passThrough", "trustedWithAuthorization"], false],
  [["incomingAuth", "oidc", "clientSecret"], true],
  [["incomingAuth", "oidc", "clientSecretFile"], false],
  [["incomingAuth", "oidc", "tokenType"], false],
  [["telemetry", "headers", "X-Team"], true],
  [["backends", 0, "env", "GITHUB_TOKEN"], true],
  [["backends", 0, "env", "API_KEY"], true],
  [["backends", 0, "env", "LOG_LEVEL"], false],
  [["backends", 0, "url"], false],
  [["passwrod_hint", "password"], true],
  [["aggregation", "tools", 0, "filter", 1], false],
];

for (const [path, isSecret] of cases)
  test(`${path.join(".")} is ${isSecret ? "secret" : "shown"}`, () => assert.equal(isSecretPath(path), isSecret));
