import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { eventually } from "../../test/support/eventually.ts";
import { type StatelessScript, startStatelessBackend } from "../../test/support/stateless-backend.ts";
import { type Message, readMessage, request } from "../mcp/json-rpc.ts";
import { sameForAll } from "../outgoing-auth/credential.ts";
import { type ChangeFeed, type ChangeFeedOptions, createChangeFeed } from "./change-feed.ts";
import { BackendError } from "./errors.ts";
import { createHttpTarget } from "./http-target.ts";
import { gateway, type Hear } from "./leg.ts";
import { createStatelessHttp } from "./stateless-http.ts";

const log = pino({ level: "silent" });
const subscriptionId = "io.modelcontextprotocol/subscriptionId";

interface Wanted {
  readonly toolsListChanged?: boolean;
  readonly resourceSubscriptions?: readonly string[];
  readonly taskIds?: readonly string[];
}

/** One request of the feed, at the server's end. */
interface ServerStream {
  readonly wanted: Wanted;
  readonly openedMs: number;
  /** Ended by either side. */
  readonly isOver: boolean;
  /** Takes it, or a part of it. */
  acknowledge(honoured?: Wanted): void;
  say(method: string, params?: string): void;
  /** Ends it with its result, or with an error. */
  answer(part: string): void;
  break(): void;
}

/** The server's end of a feed, in the hands of a test. */
function startServer(t: TestContext, onOpen: (stream: ServerStream, number: number) => void = () => undefined) {
  const streams: ServerStream[] = [];
  const open: ChangeFeedOptions["open"] = (message, { signal, onMessage }) =>
    new Promise<Message>((resolve, reject) => {
      let isOver = false;
      const end = (finish: () => void) => {
        isOver = true;
        finish();
      };
      signal.addEventListener("abort", () => end(() => reject(signal.reason)), { once: true });
      const { id, params } = JSON.parse(message.json.toString());
      const say = (method: string, params: string) => {
        if (!isOver) void onMessage(readMessage(request(method, params)));
      };
      const stream: ServerStream = {
        wanted: params.notifications,
        openedMs: performance.now(),
        get isOver() {
          return isOver;
        },
        acknowledge: (honoured = params.notifications) =>
          say(
            "notifications/subscriptions/acknowledged",
            `{"_meta":{"${subscriptionId}":"${id}"},"notifications":${JSON.stringify(honoured)}}`,
          ),
        say: (method, params = `{"_meta":{"${subscriptionId}":"${id}"}}`) => say(method, params),
        answer: (part) => end(() => resolve(readMessage(Buffer.from(`{"jsonrpc":"2.0","id":"${id}",${part}}`)))),
        break: () => end(() => reject(new BackendError("unavailable", "unknown", "the connection was lost"))),
      };
      streams.push(stream);
      onOpen(stream, streams.length);
    });
  const feed = createChangeFeed({ open, log });
  t.after(() => feed[Symbol.dispose]());
  const stream = (number: number) => eventually(`stream ${number}`, () => streams[number - 1]);
  return { feed, streams, stream };
}

const taking = (stream: ServerStream) => stream.acknowledge();
const lists = "notifications/tools/list_changed";
const allLists = ["tools", "prompts", "resources"].map((kind) => `notifications/${kind}/list_changed`);
const updated = "notifications/resources/updated";
const update = (stream: ServerStream | undefined, uri: string) => stream?.say(updated, JSON.stringify({ uri }));

/** A follower, and what it heard in few words. */
function follow(feed: ChangeFeed, { uris = [], wantsLists = false }: { uris?: readonly string[]; wantsLists?: boolean }) {
  const heard: string[] = [];
  const hear: Hear = ({ json, method }) => {
    const { uri, taskId } = JSON.parse(json.toString()).params ?? {};
    heard.push(uri ?? taskId ?? method);
    return undefined;
  };
  return { ...feed.follow({ hear, uris, wantsLists }), heard };
}
const never = new AbortController().signal;

test("nothing is opened before somebody wants to hear of something", async (t) => {
  const { feed, streams, stream } = startServer(t, taking);
  const silent = follow(feed, {});
  assert.equal(await silent.ready, true);
  assert.equal(streams.length, 0);
  assert.equal(await silent.add("x:1", never), true);
  assert.deepEqual((await stream(1)).wanted, { resourceSubscriptions: ["x:1"] });
});

test("one stream tells many followers, each what it asked for", async (t) => {
  const { feed, streams, stream } = startServer(t, taking);
  const everything = follow(feed, { wantsLists: true, uris: ["x:1"] });
  const same = follow(feed, { uris: ["x:1", "x:2"] });
  const other = follow(feed, { uris: ["x:3"] });
  other.addTask("t1");
  const silent = follow(feed, {});
  assert.deepEqual(await Promise.all([everything.ready, same.ready, other.ready, silent.ready]), [true, true, true, true]);
  assert.equal(streams.length, 1);
  const only = await stream(1);
  assert.deepEqual(only.wanted, {
    toolsListChanged: true,
    promptsListChanged: true,
    resourcesListChanged: true,
    resourceSubscriptions: ["x:1", "x:2", "x:3"],
    taskIds: ["t1"],
  });
  for (const uri of ["x:1", "x:2", "x:3", "x:4"]) update(only, uri);
  only.say(lists);
  for (const taskId of ["t1", "t2"]) only.say("notifications/tasks", JSON.stringify({ taskId, status: "working" }));
  assert.deepEqual(everything.heard, ["x:1", lists]);
  assert.deepEqual(same.heard, ["x:1", "x:2"]);
  assert.deepEqual(other.heard, ["x:3", "t1"]);
  assert.deepEqual(silent.heard, []);
});

const parts: [whole: string, uri: string, isPart: boolean][] = [
  ["x://a", "x://a", true],
  ["x://a", "x://a/b", true],
  ["x://a", "x://a/b/c", true],
  ["x://a/", "x://a/b", true],
  ["x://a", "x://ab", false],
  ["x://a/", "x://a", false],
  ["x://a/b", "x://a", false],
  ["x://a", "x://A/b", false],
];
for (const [whole, uri, isPart] of parts)
  test(`an update of ${uri} is ${isPart ? "" : "not "}for who follows ${whole}`, async (t) => {
    const { feed, stream } = startServer(t, taking);
    const follower = follow(feed, { uris: [whole] });
    await follower.ready;
    update(await stream(1), uri);
    assert.deepEqual(follower.heard, isPart ? [uri] : []);
  });

test("what is told says nothing of our stream, and is otherwise what the server wrote", async (t) => {
  const { feed, stream } = startServer(t, taking);
  const heard: string[] = [];
  const { ready } = feed.follow({ hear: ({ json }) => void heard.push(json.toString()), uris: ["x:1"], wantsLists: true });
  await ready;
  const only = await stream(1);
  only.say(lists, `{"_meta":{"${subscriptionId}":"vmcp-listen-1"}}`);
  only.say(updated, `{ "uri":"x:1","n":9007199254740993,"_meta":{ "a/b":1.0, "${subscriptionId}" : 1 } }`);
  only.say(updated, '{"uri":"x\\u003a1"}');
  only.say(updated, '{"uri":"x:1","_meta":{"io.modelcontextprotocol\\/subscriptionId":"vmcp-listen-1"}}');
  assert.deepEqual(heard, [
    `{"jsonrpc":"2.0","method":"${lists}","params":{}}`,
    `{"jsonrpc":"2.0","method":"${updated}","params":{ "uri":"x:1","n":9007199254740993,"_meta":{ "a/b":1.0 } }}`,
    `{"jsonrpc":"2.0","method":"${updated}","params":{"uri":"x\\u003a1"}}`,
    `{"jsonrpc":"2.0","method":"${updated}","params":{"uri":"x:1"}}`,
  ]);
});

test("a further wish opens another stream, and the one before ends when that is taken", async (t) => {
  const { feed, streams, stream } = startServer(t);
  const follower = follow(feed, { wantsLists: true });
  (await stream(1)).acknowledge();
  await follower.ready;
  const added = follower.add("x:1", never);
  const second = await stream(2);
  const first = streams[0];
  assert.deepEqual(second.wanted.resourceSubscriptions, ["x:1"]);
  assert.equal(second.wanted.toolsListChanged, true);
  first?.say(lists); // still told
  assert.equal(first?.isOver, false);
  second.acknowledge();
  assert.equal(await added, true);
  await eventually("the first one's end", () => first?.isOver);
  update(second, "x:1");
  second.say(lists);
  assert.deepEqual(follower.heard, [lists, "x:1", lists]);
  assert.equal(streams.length, 2);
});

test("a server that takes a part of what is wanted is believed", async (t) => {
  const { feed, streams } = startServer(t, (stream) => {
    const uris = stream.wanted.resourceSubscriptions?.filter((uri) => !uri.startsWith("secret:"));
    stream.acknowledge({ ...stream.wanted, ...(uris ? { resourceSubscriptions: uris } : {}) });
  });
  const follower = follow(feed, { uris: ["x:1"] });
  await follower.ready;
  assert.deepEqual(await Promise.all([follower.add("x:2", never), follower.add("secret:1", never)]), [true, false]);
  assert.equal(await follower.add("x:3", never), true);
  const last = streams.at(-1);
  assert.deepEqual(last?.wanted.resourceSubscriptions, ["x:1", "x:2", "x:3"], "what was not taken is not asked for again");
  assert.equal(streams.filter(({ isOver }) => !isOver).length, 1);
});

test("a wish that another stream covers already opens none", async (t) => {
  const { feed, streams } = startServer(t, taking);
  await follow(feed, { uris: ["x:1"] }).ready;
  const late = follow(feed, {});
  assert.equal(await late.add("x:1", never), true);
  assert.equal(streams.length, 1);
  update(streams[0], "x:1");
  assert.deepEqual(late.heard, ["x:1"]);
});

test("what is no longer wanted is not told, and wanted again without another stream", async (t) => {
  const { feed, streams } = startServer(t, taking);
  const follower = follow(feed, { uris: ["x:1"] });
  await follower.ready;
  follower.remove("x:1");
  update(streams[0], "x:1");
  assert.equal(await follower.add("x:1", never), true);
  update(streams[0], "x:1");
  assert.deepEqual(follower.heard, ["x:1"]);
  assert.equal(streams.length, 1);
});

test("wishes that come one after the other while the server is slow are all taken", async (t) => {
  const { feed, stream } = startServer(t);
  const follower = follow(feed, {});
  const one = follower.add("x:1", never);
  const first = await stream(1);
  const other = follower.add("x:2", never);
  await sleep(50); // long enough for another stream, if the feed does not wait
  first.acknowledge();
  const second = await stream(2);
  await new Promise(setImmediate);
  second.acknowledge();
  assert.deepEqual(await Promise.all([one, other]), [true, true]);
  await eventually("the first one's end", () => first.isOver);
  update(second, "x:1");
  update(second, "x:2");
  assert.deepEqual(follower.heard, ["x:1", "x:2"]);
});

test("a wish that is taken on a later stream than its own is taken", async (t) => {
  const { feed, stream, streams } = startServer(t);
  const early = follow(feed, { uris: ["x:1"] });
  const first = await stream(1);
  const late = follow(feed, { uris: ["x:2"] });
  // A feed may well wait for the first; one that does not must take what comes.
  await sleep(50);
  streams[1]?.acknowledge();
  first.acknowledge();
  (await stream(2)).acknowledge();
  assert.deepEqual(await Promise.all([early.ready, late.ready]), [true, true]);
  await eventually("one stream", () => streams.filter(({ isOver }) => !isOver).length === 1);
  const living = streams.find(({ isOver }) => !isOver);
  assert.deepEqual(living?.wanted.resourceSubscriptions, ["x:1", "x:2"]);
  update(living, "x:1");
  update(living, "x:2");
  assert.deepEqual([early.heard, late.heard], [["x:1"], ["x:2"]]);
});

test("a wish that is given up is not followed", async (t) => {
  const { feed, stream } = startServer(t);
  const follower = follow(feed, {});
  const patience = new AbortController();
  const added = follower.add("x:1", patience.signal);
  const only = await stream(1);
  patience.abort(new Error("no longer"));
  await assert.rejects(added, /no longer/);
  only.acknowledge();
  update(only, "x:1");
  assert.deepEqual(follower.heard, []);
});

const refusals: [what: string, asked: number, refuse: (stream: ServerStream) => void][] = [
  ["does not know such streams", 2, (stream) => stream.answer('"error":{"code":-32601,"message":"Method not found"}')],
  ["does not take the wish", 3, (stream) => stream.answer('"error":{"code":-32602,"message":"bad filter"}')],
];
test("a server that does not know such streams, or does not take the wish, is asked again for another wish alone", async (t) => {
  await Promise.all(
    refusals.map(async ([what, asked, refuse]) => {
      const { feed, streams } = startServer(t, refuse);
      const follower = follow(feed, { wantsLists: true });
      assert.equal(await follower.ready, false, what);
      assert.equal(await follower.add("x:1", never), false, what);
      assert.equal(streams.length, asked, what); // once more for the lists alone, which may be what it takes
      await sleep(1_100); // longer than the longest first pause
      assert.equal(streams.length, asked, what);
      assert.deepEqual(follower.heard, []);
    }),
  );
});

test("a further wish that the server refuses takes nothing from those who follow already", async (t) => {
  const { feed, streams } = startServer(t, (stream) => {
    if (stream.wanted.resourceSubscriptions?.includes("bad"))
      stream.answer('"error":{"code":-32602,"message":"no such resource"}');
    else stream.acknowledge();
  });
  const follower = follow(feed, { wantsLists: true });
  await follower.ready;
  assert.equal(await follow(feed, {}).add("bad", never), false);
  const living = await eventually("a stream that lives", () => streams.find(({ isOver }) => !isOver), 2_000);
  living.say(lists);
  assert.ok(follower.heard.includes(lists));
});

test("a wish that is refused together with the first ones costs nobody the lists", async (t) => {
  const { feed, streams } = startServer(t, (stream) => {
    if (stream.wanted.resourceSubscriptions) stream.answer('"error":{"code":-32602,"message":"no such resource"}');
    else stream.acknowledge();
  });
  const [all, one] = [follow(feed, { wantsLists: true }), follow(feed, { uris: ["bad"] })];
  await Promise.all([all.ready, one.ready]);
  const living = await eventually("a stream that lives", () => streams.find(({ isOver }) => !isOver), 2_000);
  living.say(lists);
  assert.ok(all.heard.includes(lists));
});

test("a stream that breaks comes back after a moment, and everything may have changed", async (t) => {
  const { feed, stream } = startServer(t, taking);
  const all = follow(feed, { wantsLists: true, uris: ["x:1"] });
  const one = follow(feed, { uris: ["x:2"] });
  await one.ready;
  const first = await stream(1);
  const brokenMs = performance.now();
  first.break();
  const second = await stream(2);
  assert.ok(second.openedMs - brokenMs >= 200, "not at once");
  assert.deepEqual(second.wanted, first.wanted);
  await eventually("the news", () => one.heard.length > 0);
  assert.deepEqual(all.heard, [...allLists, "x:1"]);
  assert.deepEqual(one.heard, ["x:2"]);
  second.say(lists);
  assert.equal(all.heard.at(-1), lists);
});

test("a stream that the server ends comes back", async (t) => {
  const { feed, stream } = startServer(t, taking);
  const follower = follow(feed, { wantsLists: true });
  await follower.ready;
  (await stream(1)).answer('"result":{"resultType":"complete"}');
  await stream(2);
  await eventually("the news", () => follower.heard.length === 3);
});

test("while a server stays away the pauses grow, and that everything may have changed is said when it is back", async (t) => {
  const { feed, stream } = startServer(t, (stream, number) => (number === 2 ? stream.break() : stream.acknowledge()));
  const follower = follow(feed, { wantsLists: true });
  await follower.ready;
  const brokenMs = performance.now();
  (await stream(1)).break();
  const [second, third] = [await stream(2), await stream(3)];
  await eventually("the news", () => follower.heard.length >= 3);
  assert.ok(third.openedMs - second.openedMs > (second.openedMs - brokenMs) * 0.9);
  assert.deepEqual(follower.heard, allLists);
});

test("a stream that breaks before it is taken is no refusal", async (t) => {
  const { feed, stream } = startServer(t, (stream, number) => (number === 1 ? stream.break() : stream.acknowledge()));
  const follower = follow(feed, { wantsLists: true });
  assert.equal(await follower.ready, true);
  (await stream(2)).say(lists);
  assert.ok(follower.heard.includes(lists));
});

test("a server that fails once when its stream comes back is asked again", async (t) => {
  const { feed, stream, streams } = startServer(t, (stream, number) => {
    if (number === 2) stream.answer('"error":{"code":-32603,"message":"starting"}');
    else stream.acknowledge();
  });
  const follower = follow(feed, { wantsLists: true });
  await follower.ready;
  (await stream(1)).break();
  (await eventually("another try", () => streams[2], 4_000)).say(lists);
  assert.ok(follower.heard.includes(lists));
});

test("a wish that comes while a broken stream is away does not hide that everything may have changed", async (t) => {
  const { feed, stream } = startServer(t, taking);
  const follower = follow(feed, { wantsLists: true });
  await follower.ready;
  (await stream(1)).break();
  assert.equal(await follow(feed, {}).add("x:1", never), true);
  await eventually("the news", () => follower.heard.length >= 3, 2_000);
  assert.deepEqual(follower.heard.toSorted(), allLists.toSorted());
});

test("a wish that comes while a broken stream comes back leaves one stream", async (t) => {
  const { feed, stream, streams } = startServer(t, (stream, number) => (number === 1 ? stream.acknowledge() : undefined));
  const follower = follow(feed, { wantsLists: true });
  await follower.ready;
  (await stream(1)).break();
  const second = await stream(2);
  const added = follow(feed, {}).add("x:1", never);
  await sleep(50); // long enough for another stream, if the feed does not wait
  second.acknowledge();
  (await stream(3)).acknowledge();
  assert.equal(await added, true);
  await eventually("one stream", () => streams.filter(({ isOver }) => !isOver).length === 1, 2_000);
});

test("the stream before lives on until the next one is taken, however long that takes", async (t) => {
  const { feed, stream } = startServer(t, (stream, number) => (number === 1 ? stream.acknowledge() : undefined));
  const follower = follow(feed, { wantsLists: true });
  await follower.ready;
  const late = follow(feed, { uris: ["x:1"] });
  await stream(2);
  assert.equal(await late.ready, true); // after five seconds
  const first = await stream(1);
  first.say(lists);
  assert.deepEqual(follower.heard, [lists]);
});

test("the last one to leave ends the stream", async (t) => {
  const { feed, streams } = startServer(t, taking);
  const [one, other] = [follow(feed, { wantsLists: true }), follow(feed, { wantsLists: true })];
  await Promise.all([one.ready, other.ready]);
  one.close();
  streams[0]?.say(lists);
  assert.deepEqual([one.heard, other.heard], [[], [lists]]);
  other.close();
  await eventually("the end of the stream", () => streams[0]?.isOver);
  assert.equal(streams.length, 1);
});

const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
const moments: [when: string, prepare: (server: ReturnType<typeof startServer>) => Promise<unknown>][] = [
  ["while its stream is open", async ({ stream }) => (await stream(1)).acknowledge()],
  ["before its stream is taken", async ({ stream }) => stream(1)],
  [
    "while a broken stream is away",
    async ({ stream }) => {
      (await stream(1)).acknowledge();
      (await stream(1)).break();
    },
  ],
  [
    "while a stream is replaced",
    async ({ stream, feed }) => {
      (await stream(1)).acknowledge();
      feed.follow({ hear: () => undefined, uris: ["x:1"], wantsLists: false });
      await stream(2);
    },
  ],
  ["before anything was opened", async () => undefined],
];
for (const [when, prepare] of moments)
  test(`a feed that ends ${when} leaves no stream and no timer`, async (t) => {
    const before = timers();
    const server = startServer(t);
    const { feed, streams } = server;
    const followers = [follow(feed, { wantsLists: true }), follow(feed, { uris: ["x:9"] })];
    await prepare(server);
    feed[Symbol.dispose]();
    await Promise.all(followers.map(({ ended }) => ended));
    await eventually("the end of all streams", () => streams.every(({ isOver }) => isOver), 2_000);
    await eventually("no timer", () => timers() <= before, 1_000);
    const opened = streams.length;
    const late = follow(feed, { wantsLists: true });
    await late.ended;
    assert.equal(await late.ready, false);
    assert.equal(streams.length, opened);
  });

/** The same over HTTP, from a scripted server. */
async function overHttp(t: TestContext, script: StatelessScript = {}) {
  const server = await startStatelessBackend(script);
  const target = createHttpTarget({ url: server.url, credential: sameForAll([]), log });
  const wire = createStatelessHttp(target, gateway, () => undefined);
  t.after(async () => {
    wire[Symbol.dispose]();
    await target.close();
    await server[Symbol.asyncDispose]();
  });
  return { server, feed: wire.changes, wire };
}

test("over HTTP: one listen tells all, and another wish loses nothing of what is said meanwhile", async (t) => {
  const { server, feed, wire } = await overHttp(t, { delayMs: 30 });
  const [one, other] = [follow(feed, { uris: ["x:0"], wantsLists: true }), follow(feed, { uris: ["x:0"] })];
  assert.deepEqual(await Promise.all([one.ready, other.ready]), [true, true]);
  assert.equal(server.received("subscriptions/listen").length, 1);
  let said = 0;
  let isOver = false;
  const saying = (async () => {
    for (; !isOver; said++) {
      server.push((tag) => `{"jsonrpc":"2.0","method":"${updated}","params":{"_meta":{${tag}},"uri":"x:0/${said}"}}`);
      await sleep(1);
    }
  })();
  for (const uri of ["x:1", "x:2", "x:3"]) assert.equal(await one.add(uri, never), true);
  isOver = true;
  await saying;
  for (const { heard } of [one, other])
    await eventually("every update", () => new Set(heard.filter((uri) => uri.startsWith("x:0/"))).size === said);
  await eventually("one listen", () => server.listens().length === 1);
  server.announce("tools");
  server.updated("x:3");
  await eventually("the news", () => one.heard.includes(lists) && one.heard.includes("x:3"));
  assert.ok(!other.heard.includes(lists) && !other.heard.includes("x:3"));
  wire[Symbol.dispose]();
  await Promise.all([one.ended, other.ended]);
  await eventually("no listen", () => server.listens().length === 0);
});

for (const [how, end] of [
  ["cut", (server) => server.cutListens()],
  ["ended by the server", (server) => server.endListens()],
] as [string, (server: Awaited<ReturnType<typeof startStatelessBackend>>) => void][])
  test(`over HTTP: a listen that is ${how} comes back`, async (t) => {
    const { server, feed } = await overHttp(t);
    const follower = follow(feed, { uris: ["x:1"], wantsLists: true });
    await follower.ready;
    end(server);
    await eventually("another listen", () => server.listens().length === 1);
    await eventually("the news", () => follower.heard.length === 4);
    server.updated("x:1");
    await eventually("an update", () => follower.heard.length === 5);
  });

for (const [what, body] of [
  ["in words of MCP", '{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"}}'],
  ["without a word", ""],
] as const)
  test(`over HTTP: a server that has no such streams, and says so ${what}, is not asked again`, async (t) => {
    const { server, feed } = await overHttp(t, { faults: { "subscriptions/listen": { status: 404, body } } });
    const follower = follow(feed, { wantsLists: true });
    assert.equal(await follower.ready, false);
    await sleep(1_100); // longer than the longest first pause
    assert.equal(server.received("subscriptions/listen").length, 1);
  });
