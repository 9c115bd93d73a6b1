import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import { refusalOf } from "./origin.ts";

const loopback = { isLoopback: true, allowedHosts: ["mcp.example.com"], allowedOrigins: ["https://app.example.com"] };
const open = { ...loopback, isLoopback: false };
const request = (...rawHeaders: string[]) => ({ rawHeaders }) as unknown as IncomingMessage;

const cases: [name: string, rules: typeof loopback, headers: string[], allowed: boolean][] = [
  ["localhost", loopback, ["Host", "localhost:4483"], true],
  ["a loopback address", loopback, ["Host", "127.0.0.1"], true],
  ["IPv6 loopback", loopback, ["Host", "[::1]:80"], true],
  ["a configured name", loopback, ["Host", "MCP.example.com:443"], true],
  ["a rebound name", loopback, ["Host", "evil.example.com"], false],
  ["a name that begins like loopback", loopback, ["Host", "127.0.0.1.evil.example.com"], false],
  ["user information", loopback, ["Host", "localhost@evil.example.com"], false],
  ["a path", loopback, ["Host", "localhost/evil"], false],
  ["two hosts", loopback, ["Host", "localhost", "host", "localhost"], false],
  ["no host", loopback, [], false],
  ["another address on loopback", loopback, ["Host", "192.168.0.7"], false],
  ["an address on an open listener", open, ["Host", "192.168.0.7:4483"], true],
  ["an unknown name on an open listener", open, ["Host", "gateway.local"], false],
  ["a loopback origin", loopback, ["Host", "localhost", "Origin", "http://localhost:6274"], true],
  ["a configured origin", loopback, ["Host", "localhost", "Origin", "https://app.example.com"], true],
  ["a foreign origin", loopback, ["Host", "localhost", "Origin", "https://evil.example.com"], false],
  ["a null origin", loopback, ["Host", "localhost", "Origin", "null"], false],
  ["another scheme", loopback, ["Host", "localhost", "Origin", "ftp://localhost"], false],
  ["two origins", loopback, ["Host", "localhost", "Origin", "http://localhost", "Origin", "http://localhost"], false],
];
for (const [name, rules, headers, allowed] of cases) {
  test(`${allowed ? "lets in" : "keeps out"} ${name}`, () =>
    assert.equal(refusalOf(request(...headers), rules) === undefined, allowed));
}
