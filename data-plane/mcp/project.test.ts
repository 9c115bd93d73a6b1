import assert from "node:assert/strict";
import { test } from "node:test";
import { projectResult } from "./project.ts";
import { type SessionVersion, sessionVersions } from "./versions.ts";

const link = '{"type":"resource_link","uri":"file:///r.csv","name":"r","title":"Report","mimeType":"text/csv","icons":[]}';
const linkText = String.raw`{"type":"text","text":"Resource \"Report\" (text/csv): file:///r.csv","uri":"file:///r.csv","name":"r","title":"Report","mimeType":"text/csv","icons":[]}`;
const sound = '{"type":"audio","data":"AAECAw==","mimeType":"audio/wav","annotations":{"priority":1.0}}';
const soundText =
  '{"type":"text","text":"Audio (audio/wav, 4 bytes), left out: this client\'s MCP revision has no audio.","mimeType":"audio/wav","annotations":{"priority":1.0}}';
const text = '{"type":"text","text":"audio resource_link \\u00fc"}';
const image = '{ "type" : "image" , "data":"AA==","mimeType":"image/png" }';
const content = (...blocks: string[]) => `{"content":[${blocks.join(", ")}],"isError":false,"_meta":{"n":12345678901234567890}}`;
const prompt = (...blocks: string[]) =>
  `{"description":"d","messages":[${blocks.map((block) => `{"role":"user","content":${block}}`).join(",")}]}`;

const changed: [string, SessionVersion, string, string, string][] = [
  ["a resource link", "2025-03-26", "tools/call", content(text, link, image), content(text, linkText, image)],
  ["a resource link", "2024-11-05", "tools/call", content(link), content(linkText)],
  ["audio", "2024-11-05", "tools/call", content(sound, image, link), content(soundText, image, linkText)],
  ["a prompt's resource link", "2025-03-26", "prompts/get", prompt(text, link), prompt(text, linkText)],
  ["a prompt's audio", "2024-11-05", "prompts/get", prompt(sound, text), prompt(soundText, text)],
  [
    "a type in escapes",
    "2025-03-26",
    "tools/call",
    content('{"type":"resourc\\u0065_link","uri":"a:b"}'),
    content('{"type":"text","text":"Resource: a:b","uri":"a:b"}'),
  ],
  [
    "a description, and a member of the same name as the text",
    "2025-03-26",
    "tools/call",
    content('{"text":1,"uri":"a:b","name":"n","description":"two\\nlines","type":"resource_link"}'),
    content('{"type":"text","text":"Resource \\"n\\": a:b\\ntwo\\nlines","uri":"a:b","name":"n","description":"two\\nlines"}'),
  ],
  [
    "structured content alone",
    "2025-03-26",
    "tools/call",
    '{"structuredContent":{"n":12345678901234567890, "s":"ü"}}',
    '{"structuredContent":{"n":12345678901234567890, "s":"ü"},"content":[{"type":"text","text":"{\\"n\\":12345678901234567890, \\"s\\":\\"ü\\"}"}]}',
  ],
  [
    "structured content beside an empty list",
    "2024-11-05",
    "tools/call",
    '{"content": [ ],"structuredContent":{}}',
    '{"content": [{"type":"text","text":"{}"}],"structuredContent":{}}',
  ],
];
for (const [name, version, method, result, wanted] of changed)
  test(`${version} gets ${name} of ${method} as text`, () => {
    const projected = projectResult(method, version, Buffer.from(result)).toString();
    assert.equal(projected, wanted);
    JSON.parse(projected);
  });

const untouched: [string, string, string][] = [
  ["plain content", "tools/call", content(text, image)],
  ["structured content beside content", "tools/call", `{"content":[${text}],"structuredContent":{"type":"audio"}}`],
  ["an embedded resource that looks like a link", "tools/call", content(`{"type":"resource","resource":${link}}`)],
  ["content of a type nobody knows", "tools/call", content('{"type":"hologram","x":"audio"}')],
  ["content that is no list", "tools/call", '{"content":"resource_link"}'],
  ["blocks that are no objects", "tools/call", '{"content":["resource_link",1,null,{"type":1}]}'],
  ["structured content that is null", "tools/call", '{"structuredContent":null}'],
  ["no content at all", "tools/call", "{}"],
  ["a result that is no object", "tools/call", '"resource_link"'],
  ["a text that is not JSON", "tools/call", '{"content":[{"type":"resource_link"'],
  ["messages that are no list", "prompts/get", '{"messages":{"type":"audio"}}'],
  ["messages that are no objects", "prompts/get", '{"messages":["audio",{"role":"user"}]}'],
  [
    "a tool with everything that newer revisions have",
    "tools/list",
    '{"tools":[{"name":"a","title":"A","icons":[{"src":"x"}],"execution":{"taskSupport":"required"},"outputSchema":{"type":"object"},"annotations":{},"_meta":{},"inputSchema":{"type":"object"}}]}',
  ],
  ["a resource's contents", "resources/read", '{"contents":[{"uri":"a:b","mimeType":"audio/wav","blob":"AAAA","_meta":{}}]}'],
  ["a list of resources", "resources/list", '{"resources":[{"uri":"a:b","name":"resource_link","title":"audio"}]}'],
];
for (const [name, method, result] of untouched)
  test(`every revision gets ${name} of ${method} as it is`, () => {
    const bytes = Buffer.from(result);
    for (const version of sessionVersions)
      assert.equal(projectResult(method, version, bytes).compare(Buffer.from(result)), 0, version);
  });

test("nothing is copied when nothing changes", () => {
  const everything = Buffer.from(content(text, link, sound));
  for (const version of ["2025-11-25", "2025-06-18"] as const)
    assert.equal(projectResult("tools/call", version, everything), everything);
  const plain = Buffer.from(content(text, image));
  for (const version of sessionVersions) assert.equal(projectResult("tools/call", version, plain), plain);
  const audioOnly = Buffer.from(content(sound));
  assert.equal(projectResult("tools/call", "2025-03-26", audioOnly), audioOnly);
});
