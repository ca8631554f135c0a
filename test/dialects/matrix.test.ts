/** Every client dialect against every kind of upstream, through the real daemon. `cells.ts` says what is expected of each cell. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { CASES, type CaseName, cellOf, CLIENTS, UPSTREAMS } from "./cells.ts";
import { type Client, type ClientAnswer, clients, type Daemon, type Question } from "./clients.ts";
import { startUpstreams, type Upstream } from "./upstreams.ts";

const WORDS = ["Grüße ", "aus ", "🦊", "bau."];
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const SCHEMA = {
  type: "object",
  properties: { city: { type: "string", enum: ["Köln", "Bonn"] } },
  required: ["city"],
  additionalProperties: false,
};

let upstreams: readonly Upstream[];
let daemon: TestDaemon;
let doors: Daemon;

before(async () => {
  upstreams = await startUpstreams();
  const config = [
    "[http.ollama]\nenabled = true\nport = 0\nallow_cloud = true",
    "[providers.ollama]\ndiscover = false",
    ...upstreams.map((upstream) => upstream.config),
  ].join("\n");
  const env = Object.assign({}, ...upstreams.map((upstream) => upstream.env));
  daemon = await startTestDaemon({ config, env });
  doors = { http: daemon.http, modelKey: daemon.modelKey, ollama: ollamaDoor(daemon) };
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  for (const upstream of upstreams) await upstream[Symbol.asyncDispose]();
});

/** Where the keyless front listens is in the log: its port is chosen by the system. */
function ollamaDoor({ logs }: TestDaemon): string {
  const line = logs().find(({ event }) => event === "ollama_http.listening");
  assert.ok(line !== undefined, "the Ollama front does not listen");
  return `http://127.0.0.1:${String(line["port"])}`;
}

const upstreamCalled = (name: string): Upstream => {
  const found = upstreams.find((upstream) => upstream.name === name);
  assert.ok(found !== undefined, `no upstream ${name}`);
  return found;
};

interface Pair {
  readonly client: Client;
  readonly upstream: Upstream;
}

function ask({ client, upstream }: Pair, more: Partial<Question> = {}): Promise<ClientAnswer> {
  return client.ask(doors, { model: upstream.model, text: "Say something.", stream: false, ...more });
}

function assertWhole(answer: ClientAnswer): void {
  assert.equal(answer.status, 200, answer.reply.text.slice(0, 2000));
  assert.ok(answer.isWhole, answer.reply.text.slice(-2000));
}

async function assertSays(pair: Pair, stream: boolean): Promise<void> {
  pair.upstream.play({ kind: "text", deltas: WORDS });
  const answer = await ask(pair, { stream });
  assertWhole(answer);
  if (pair.upstream.name !== "embedded") {
    assert.equal(answer.text, WORDS.join(""));
    assert.equal(answer.finish, "stop");
  } else assert.ok(answer.text.length > 0 || answer.finish === "length", answer.reply.text);
}

const CITY = { name: "get_weather", arguments: '{"city":"Köln"}' };
const NOW = { name: "get_time", arguments: "" };
const called = [
  { name: "get_weather", arguments: { city: "Köln" } },
  { name: "get_time", arguments: {} },
];

async function assertCalls(pair: Pair, count: 1 | 2): Promise<void> {
  const { upstream } = pair;
  const scripted = { kind: "calls", calls: [CITY, NOW].slice(0, count) } as const;
  for (const stream of [true, false]) {
    upstream.play(scripted);
    const answer = await ask(pair, { stream, withTools: true });
    assertWhole(answer);
    assert.deepEqual(
      answer.calls.map((call) => ({ name: call.name, arguments: call.arguments })),
      called.slice(0, count),
    );
    assert.equal(answer.finish, "toolCalls", answer.reply.text);
    if (stream) continue;
    assert.equal(new Set(answer.calls.map(({ id }) => id)).size, count);
    upstream.play({ kind: "text", deltas: WORDS });
    const results = answer.calls.map(({ id, name }) => ({ callId: id, name, text: `result of ${name}` }));
    const last = await ask(pair, { withTools: true, after: { answer, results } });
    assertWhole(last);
    assert.equal(last.text, WORDS.join(""));
    for (const { text } of results) assert.ok(upstream.lastBody().includes(text), upstream.lastBody());
    if (upstream.seal !== undefined) assert.match(upstream.lastBody(), upstream.seal, "signed thinking was lost");
  }
}

const works: Record<CaseName, (pair: Pair) => Promise<void>> = {
  plain: (pair) => assertSays(pair, false),
  stream: (pair) => assertSays(pair, true),
  tools: (pair) => assertCalls(pair, 1),
  "parallel tools": (pair) => assertCalls(pair, 2),
  async images(pair) {
    pair.upstream.play({ kind: "text", deltas: WORDS });
    assertWhole(await ask(pair, { image: PIXEL }));
    assert.ok(pair.upstream.lastBody().includes(PIXEL), "the image did not arrive");
  },
  async schema(pair) {
    pair.upstream.play({ kind: "text", deltas: ['{"city":', '"Köln"}'] });
    const answer = await ask(pair, { schema: SCHEMA, text: "A city as JSON." });
    assertWhole(answer);
    assert.equal(typeof JSON.parse(answer.text).city, "string");
    if (pair.upstream.name !== "embedded") assert.match(pair.upstream.lastBody(), /"city"/);
  },
  async error(pair) {
    pair.upstream.play({ kind: "rate-limited", retryAfterS: 7 });
    const { status, reply } = await ask(pair);
    assert.equal(status, 429, reply.text);
    assert.ok(pair.client.errorOf(reply).length > 10, reply.text);
    // Ollama names no time, and Copilot's runtime passes none on.
    if (pair.upstream.name !== "Ollama" && pair.upstream.name !== "Copilot")
      assert.equal(reply.headers.get("retry-after"), "7");
  },
  async cut(pair) {
    pair.upstream.play({ kind: "cut", deltas: WORDS, after: 2 });
    const answer = await ask(pair, { stream: true });
    assert.ok(!answer.isWhole, `a cut answer looks whole: ${answer.reply.text}`);
    if (answer.status === 200) assert.ok(WORDS.join("").startsWith(answer.text));
    else assert.ok(answer.status >= 500, answer.reply.text);
  },
};

async function assertRefused(pair: Pair, name: CaseName): Promise<void> {
  const shown: Partial<Question> = name === "images" ? { image: PIXEL } : { withTools: true };
  const more = name === "schema" ? { schema: SCHEMA } : shown;
  const { status, reply } = await ask(pair, more);
  assert.equal(status, 400, reply.text);
  assert.ok(pair.client.errorOf(reply).length > 10, reply.text);
}

assert.deepEqual(
  clients.map(({ name }) => name),
  [...CLIENTS],
);
for (const client of clients) {
  for (const upstream of UPSTREAMS) {
    for (const name of CASES) {
      const cell = cellOf(client.name, upstream, name);
      if (cell === "none") continue;
      test(`${client.name} to ${upstream}: ${name} ${cell}`, async () => {
        const pair = { client, upstream: upstreamCalled(upstream) };
        await (cell === "works" ? works[name](pair) : assertRefused(pair, name));
        assert.deepEqual(pair.upstream.violations, []);
      });
    }
  }
}
