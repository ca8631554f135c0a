/** OpenAI's API through the real daemon, with a scripted upstream that misbehaves in every way we know. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, configFor, errorOf, sse, textOf } from "../support/http.ts";

let host: OpenAiHost;
let spare: OpenAiHost;
let daemon: TestDaemon;

before(async () => {
  host = await startOpenAiHost({ models: ["m"], extraFields: ["custom_field"] });
  spare = await startOpenAiHost({ models: ["m2"] });
  const more = `[providers.compatible.spare]\nbase_url = "${spare.baseUrl}"\nlocality = "machine"\n[routing.aliases]\nboth = ["up/m", "spare/m2"]\nfirst = ["embedded/tiny-code-fim", "up/m"]\n`;
  daemon = await startTestDaemon({ config: configFor(host.baseUrl, more) });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  await spare[Symbol.asyncDispose]();
  assert.deepEqual([...host.violations, ...spare.violations], []);
});

const stream = (script: Script, more: object = {}) => {
  host.playOnce(script);
  return call(daemon, "/v1/chat/completions", { body: ask("up/m", { stream: true, ...more }) });
};

test("a stream arrives whole, with one [DONE] and without the usage nobody asked for", async () => {
  const reply = await stream({ tokens: ["Grüße ", "aus ", "🦊", "."] });
  const { chunks, isDone } = sse(reply.text);
  assert.deepEqual([reply.status, textOf(chunks), isDone], [200, "Grüße aus 🦊.", true]);
  assert.equal(reply.text.split("[DONE]").length, 2);
  assert.ok(!reply.text.includes('"prompt_tokens"'));
  assert.match(reply.headers.get("x-request-id") ?? "", /^ans_/);
  assert.equal(reply.headers.get("x-ghost-model"), "up/m");
  assert.match(reply.headers.get("x-ghost-route") ?? "", /the model you named/);
});

test("usage comes where it was asked for, and is asked for upstream in any case", async () => {
  const reply = await stream({ tokens: 3 }, { stream_options: { include_usage: true } });
  assert.ok(sse(reply.text).chunks.some((chunk) => chunk["usage"] !== null && chunk["usage"] !== undefined));
  await stream({ tokens: 3 });
  assert.match(host.requests.at(-1)?.bodyText ?? "", /"stream_options":\{"include_usage":true\}/);
});

test("the body reaches the upstream as it came, but for the model's name", async () => {
  host.playOnce({ tokens: 1 });
  const rawBody =
    '{ "custom_field": 12345678901234567890, "model" : "up/m", "messages":[{"role":"user","content":"h\\u00ef"}] , "temperature":1.0}';
  const reply = await call(daemon, "/v1/chat/completions", { rawBody });
  assert.equal(reply.status, 200);
  assert.equal(host.requests.at(-1)?.bodyText, rawBody.replace('"up/m"', '"m"'));
});

test("a plain answer is one JSON object", async () => {
  host.playOnce({ tokens: ["a", "b"] });
  const reply = await call(daemon, "/v1/chat/completions", { body: ask("up/m") });
  assert.match(reply.text, /"content":"ab"/);
  assert.match(reply.text, /"usage"/);
});

test("tool calls pass in both forms", async () => {
  const toolCalls = [{ id: "call_1", name: "read", arguments: ['{"path":', '"a.ts"}'] }];
  const tools = [{ type: "function", function: { name: "read", parameters: { type: "object" } } }];
  const streamed = await stream({ tokens: 0, toolCalls }, { tools });
  assert.match(streamed.text, /"tool_calls"/);
  assert.ok(sse(streamed.text).isDone);
  host.playOnce({ tokens: 0, toolCalls });
  const plain = await call(daemon, "/v1/chat/completions", { body: ask("up/m", { tools }) });
  assert.match(plain.text, /call_1/);
});

const wires: readonly [name: string, script: Script][] = [
  ["CRLF line ends", { tokens: ["ä", "b"], wire: { lineEnd: "\r\n" } }],
  ["pings between the frames", { tokens: ["ä", "b"], wire: { commentEvery: 1 } }],
  ["data over several lines", { tokens: ["ä", "b"], wire: { multiLineData: true } }],
  ["every byte in a packet of its own", { tokens: ["ä", "b"], wire: { writeBytes: 1 } }],
  ["no [DONE] after the finish", { tokens: ["ä", "b"], wire: { omitDone: true } }],
  ["a last frame without its blank line", { tokens: ["ä", "b"], wire: { unterminatedLastFrame: true } }],
];
for (const [name, script] of wires) {
  test(`${name}: the answer is whole`, async () => {
    const reply = await stream(script);
    const { chunks, isDone } = sse(reply.text);
    assert.deepEqual([textOf(chunks), isDone, reply.isCut], ["äb", true, false]);
  });
}

const brokenStreams: readonly [name: string, fault: NonNullable<Script["fault"]>][] = [
  ["a reset between frames", { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" }],
  ["a reset inside a frame", { kind: "cut", afterTokens: 2, where: "mid-frame", how: "reset" }],
  ["an end inside a character", { kind: "cut", afterTokens: 2, where: "mid-utf8", how: "close" }],
  ["a well-formed end without a finish", { kind: "cut", afterTokens: 2, where: "between-frames", how: "clean" }],
  ["half a frame, then a well-formed end", { kind: "cut", afterTokens: 2, where: "mid-frame", how: "clean" }],
  ["an error in band", { kind: "error-in-band", afterTokens: 2, message: "the GPU fell over" }],
];
for (const [name, fault] of brokenStreams) {
  test(`${name} never looks like an end: what came, an error, no [DONE], a cut connection`, async () => {
    const reply = await stream({ tokens: ["one ", "two ", "thrée ", "four"], fault });
    const { chunks, isDone } = sse(reply.text);
    assert.equal(reply.status, 200);
    assert.equal(textOf(chunks), "one two ");
    assert.ok(
      chunks.some((chunk) => "error" in chunk),
      reply.text,
    );
    assert.deepEqual([isDone, reply.isCut], [false, true]);
  });
}

test("an answer that writes of [DONE] is whole only when its server says so", async () => {
  const tokens = [
    "a stream ends with data: [DONE]",
    ", always: ",
    '"finish_reason":"stop" and\n\ndata: [DONE]\n\n',
    "x",
  ];
  const whole = sse((await stream({ tokens })).text);
  assert.deepEqual([textOf(whole.chunks), whole.isDone], [tokens.join(""), true]);
  const reply = await stream({ tokens, fault: { kind: "cut", afterTokens: 3, where: "between-frames", how: "clean" } });
  const { chunks, isDone } = sse(reply.text);
  assert.equal(textOf(chunks), tokens.slice(0, 3).join(""));
  assert.deepEqual([isDone, reply.isCut], [false, true]);
});

test("a broken plain answer is an error, not half an answer", async () => {
  host.playOnce({ tokens: 4, fault: { kind: "cut", afterTokens: 2, where: "mid-frame", how: "close" } });
  const reply = await call(daemon, "/v1/chat/completions", { body: ask("up/m") });
  assert.equal(reply.status, 502);
  assert.equal(errorOf(reply).code, "upstream_failed");
});

const refusals: readonly [name: string, script: Script, status: number, code: string, says: RegExp][] = [
  ["its 401", { status: { code: 401, body: "json", message: "bad key" } }, 502, "upstream_auth", /bad key/],
  [
    "its 429 with retry-after",
    { status: { code: 429, body: "json", message: "slow down", retryAfterS: 7 } },
    429,
    "rate_limit_exceeded",
    /slow down/,
  ],
  [
    "its 400",
    { status: { code: 400, body: "json", message: "no such option" } },
    400,
    "upstream_rejected",
    /no such option/,
  ],
  [
    "its context error",
    { status: { code: 400, body: "json", message: "too long", errorCode: "context_length_exceeded" } },
    400,
    "context_length_exceeded",
    /too long/,
  ],
  ["a proxy's HTML 502", { status: { code: 502, body: "html" } }, 502, "upstream_failed", /502/],
  [
    "a reset before the head",
    { fault: { kind: "reset-before-headers" } },
    502,
    "upstream_failed",
    /broke the connection/,
  ],
  [
    "an in-band error before any content",
    { tokens: 2, fault: { kind: "error-in-band", afterTokens: 0, message: "overloaded" } },
    502,
    "upstream_failed",
    /overloaded/,
  ],
];
for (const [name, script, status, code, says] of refusals) {
  test(`${name} comes out before any 200 was promised`, async () => {
    const reply = await stream(script);
    const error = errorOf(reply);
    assert.deepEqual([reply.status, error.code], [status, code]);
    assert.match(error.message, says);
    assert.ok(!error.message.includes("<"), error.message);
    if (status === 429) assert.equal(reply.headers.get("retry-after"), "7");
  });
}

test("an alias goes on to the next model when the first fails before its first word", async () => {
  for (const script of [
    { status: { code: 500, body: "json" } },
    { fault: { kind: "reset-before-headers" } },
    { tokens: 3, fault: { kind: "cut", afterTokens: 0, where: "between-frames", how: "clean" } },
  ] satisfies Script[]) {
    host.playOnce(script);
    spare.playOnce({ tokens: ["from the spare"] });
    const reply = await call(daemon, "/v1/chat/completions", { body: ask("both", { stream: true }) });
    assert.equal(textOf(sse(reply.text).chunks), "from the spare");
    assert.equal(reply.headers.get("x-ghost-model"), "spare/m2");
  }
});

test("an explicit model is never replaced by another", async () => {
  host.playOnce({ status: { code: 500, body: "json" } });
  const before = spare.requests.length;
  const reply = await call(daemon, "/v1/chat/completions", { body: ask("up/m") });
  assert.deepEqual([reply.status, spare.requests.length], [502, before]);
});

test("an upstream that refuses connections is unreachable", async () => {
  await using away = await startOpenAiHost({ models: ["x"] });
  await using other = await startTestDaemon({ config: configFor(away.baseUrl) });
  await call(other, "/v1/models");
  await away.refuse();
  const reply = await call(other, "/v1/chat/completions", { body: ask("up/x") });
  assert.deepEqual([reply.status, errorOf(reply).code], [502, "upstream_unreachable"]);
});

test("a megabyte in one delta and four megabytes of prompt pass", async () => {
  const big = "x".repeat(1_000_000);
  const answer = await stream({ tokens: [big] });
  assert.equal(textOf(sse(answer.text).chunks).length, big.length);
  host.playOnce({ tokens: 1 });
  const reply = await call(daemon, "/v1/chat/completions", {
    body: { model: "up/m", messages: [{ role: "user", content: "y".repeat(4_000_000) }] },
  });
  assert.equal(reply.status, 200);
  assert.ok((host.requests.at(-1)?.bodyText.length ?? 0) > 4_000_000);
});

test("a wrong field deep in a large body is named by the worker as well", async () => {
  const messages = [
    { role: "user", content: "y".repeat(600_000) },
    { role: "user", content: 7 },
  ];
  const reply = await call(daemon, "/v1/chat/completions", { body: { model: "up/m", messages } });
  assert.deepEqual([reply.status, errorOf(reply).param], [400, "messages.1.content"]);
});

test("the official client reads streams, plain answers, completions, embeddings, models and errors", async () => {
  const client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey, maxRetries: 0 });
  host.playOnce({ tokens: ["a", "b"] });
  let text = "";
  for await (const chunk of await client.chat.completions.create({
    model: "up/m",
    stream: true,
    messages: [{ role: "user", content: "x" }],
  })) {
    text += chunk.choices[0]?.delta.content ?? "";
  }
  assert.equal(text, "ab");
  host.playOnce({ tokens: ["c"] });
  const completion = await client.completions.create({ model: "up/m", prompt: "x" });
  assert.equal(completion.choices[0]?.text, "c");
  const embedding = await client.embeddings.create({ model: "up/m", input: ["x", "y"] });
  assert.equal(embedding.data.length, 2);
  const models: string[] = [];
  for await (const model of client.models.list()) models.push(model.id);
  assert.ok(
    models.includes("up/m") &&
      models.includes("ghost/auto") &&
      models.includes("both") &&
      models.includes("embedded/tiny-code-fim"),
  );
  await assert.rejects(
    client.chat.completions.create({ model: "up/mm", messages: [{ role: "user", content: "x" }] }),
    (error) =>
      error instanceof OpenAI.NotFoundError && error.code === "model_not_found" && /`up\/m`/.test(error.message),
  );
  const stranger = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: "nope", maxRetries: 0 });
  await assert.rejects(
    async () => stranger.models.list(),
    (error) => error instanceof OpenAI.AuthenticationError && error.code === "invalid_api_key",
  );
});

test("an error in the middle of a stream reaches the official client as an error", async () => {
  const client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey, maxRetries: 0 });
  host.playOnce({
    tokens: ["a", "b", "c"],
    fault: { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" },
  });
  let text = "";
  await assert.rejects(async () => {
    for await (const chunk of await client.chat.completions.create({
      model: "up/m",
      stream: true,
      messages: [{ role: "user", content: "x" }],
    }))
      text += chunk.choices[0]?.delta.content ?? "";
  });
  assert.equal(text, "ab");
});

test("what the first model of an alias cannot do goes to the next; asked for by name, it is refused before a token is spent", async () => {
  const tool = { type: "function", function: { name: "look", parameters: { type: "object", properties: {} } } };
  const image = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } };
  const wishes = [{ tools: [tool] }, { messages: [{ role: "user", content: [image] }] }];
  for (const wish of wishes) {
    host.playOnce({ tokens: ["here"] });
    const routed = await call(daemon, "/v1/chat/completions", { body: ask("first", wish) });
    assert.deepEqual([routed.status, routed.headers.get("x-ghost-model")], [200, "up/m"]);
    const named = await call(daemon, "/v1/chat/completions", { body: ask("embedded/tiny-code-fim", wish) });
    assert.deepEqual([named.status, errorOf(named).code], [400, "capability_missing"]);
  }
});
