/** Anthropic's API through the real daemon: the official client, Claude Code's requests, upstreams of another dialect. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import Anthropic, { APIError, NotFoundError } from "@anthropic-ai/sdk";
import { z } from "zod";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { type ApiReply, call, configFor } from "../support/http.ts";

/** Also what was started before something failed: a host that listens would keep the test's process alive. */
const stack = new AsyncDisposableStack();
let host: OpenAiHost;
let daemon: TestDaemon;
let client: Anthropic;

before(async () => {
  host = stack.use(await startOpenAiHost({ models: ["m", "org/m2"] }));
  const more = `[routing.aliases]\nmine = ["up/m"]\n`;
  daemon = stack.use(await startTestDaemon({ config: configFor(host.baseUrl, more) }));
  client = new Anthropic({ baseURL: daemon.http, apiKey: daemon.modelKey, maxRetries: 0 });
});
after(async () => {
  await stack.disposeAsync();
  assert.deepEqual(host.violations, []);
});

const VERSION = { "anthropic-version": "2023-06-01" };
const ask = (more: object = {}) => ({
  model: "up/m",
  max_tokens: 100,
  messages: [{ role: "user", content: "hello" }],
  ...more,
});
const post = (body: unknown, path = "/v1/messages") => call(daemon, path, { body, headers: VERSION });

const upstreamBody = z.looseObject({
  messages: z.array(z.looseObject({ role: z.string(), content: z.string().nullish() })),
  tools: z.array(z.looseObject({ function: z.looseObject({ name: z.string(), parameters: z.unknown() }) })).optional(),
});
const lastAsked = () => upstreamBody.parse(host.requests.at(-1)?.body);

const errorSchema = z.strictObject({
  type: z.literal("error"),
  error: z.strictObject({ type: z.string(), message: z.string() }),
  request_id: z.string(),
});
/** The error of a body, which names the same request as its header. */
function errorOf(reply: ApiReply): z.infer<typeof errorSchema>["error"] {
  const { error, request_id: id } = errorSchema.parse(reply.json);
  assert.match(id, /^(req|ans)_/);
  assert.equal(reply.headers.get("request-id"), id);
  return error;
}

const SEARCH = { name: "read", description: "d", input_schema: { type: "object" as const, properties: {} } };

test("the official client reads a streamed answer of another dialect, with its usage", async () => {
  host.playOnce({ tokens: ["Grüße ", "aus ", "🦊"] });
  const stream = client.messages.stream({ model: "up/m", max_tokens: 50, messages: [{ role: "user", content: "hi" }] });
  const pieces: string[] = [];
  stream.on("text", (piece) => pieces.push(piece));
  const message = await stream.finalMessage();
  assert.deepEqual(pieces, ["Grüße ", "aus ", "🦊"]);
  assert.deepEqual(
    [message.role, message.model, message.stop_reason, message.content],
    ["assistant", "up/m", "end_turn", [{ type: "text", text: "Grüße aus 🦊", citations: null }]],
  );
  assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens === 3);
  assert.match(message.id, /^msg_ans_/);
  assert.match(stream.request_id ?? "", /^ans_/);
});

test("the official client runs a tool, streamed and whole", async () => {
  const toolCalls = [{ id: "call_1", name: "read", arguments: ['{"path":', '"a.ts"}'] }];
  const use = { type: "tool_use", id: "call_1", name: "read", input: { path: "a.ts" }, caller: { type: "direct" } };
  const request = {
    model: "up/m",
    max_tokens: 50,
    tools: [SEARCH],
    messages: [{ role: "user" as const, content: "hi" }],
  };
  host.playOnce({ tokens: ["I look."], toolCalls });
  const streamed = await client.messages.stream(request).finalMessage();
  host.playOnce({ tokens: ["I look."], toolCalls });
  const whole = await client.messages.create(request);
  for (const { content, stop_reason } of [streamed, whole]) {
    assert.deepEqual(content, [{ type: "text", text: "I look.", citations: null }, use]);
    assert.equal(stop_reason, "tool_use");
  }
  host.playOnce({ tokens: ["done"] });
  const results = { type: "tool_result" as const, tool_use_id: "call_1", content: "text of a.ts" };
  await client.messages.create({
    ...request,
    messages: [
      ...request.messages,
      { role: "assistant", content: whole.content },
      { role: "user", content: [results] },
    ],
  });
  assert.deepEqual(
    lastAsked().messages.map(({ role, content }) => [role, content]),
    [
      ["user", "hi"],
      ["assistant", "I look."],
      ["tool", "text of a.ts"],
    ],
  );
});

test("Claude Code's request reaches a server of another dialect: system, tools with odd schemas, results in place", async () => {
  const fixture = new URL("../fixtures/clients/claude-code-request.json", import.meta.url);
  const body: Record<string, unknown> = JSON.parse(readFileSync(fixture, "utf8"));
  host.playOnce({ tokens: ["ok"] });
  const reply = await call(daemon, "/v1/messages?beta=true", {
    body: { ...body, model: "up/m" },
    headers: { ...VERSION, "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14" },
  });
  assert.equal(reply.status, 200, reply.text);
  assert.match(reply.text, /event: message_stop\n/);
  const { messages, tools = [] } = lastAsked();
  assert.deepEqual(
    messages.map(({ role }) => role),
    ["system", "user", "system", "assistant", "tool", "tool", "user"],
  );
  const texts = messages.map(({ content }) => content ?? "");
  assert.match(texts[0] ?? "", /^You are a coding assistant.*\n\nWork step by step/);
  assert.ok(!host.requests.at(-1)?.bodyText.includes("billing"));
  assert.match(texts[2] ?? "", /notes\.txt in the editor/);
  assert.match(texts[4] ?? "", /feed the fox/);
  assert.match(texts[5] ?? "", /permission denied/);
  const declared = z
    .array(z.object({ name: z.string(), input_schema: z.unknown(), defer_loading: z.boolean().optional() }))
    .parse(body["tools"]);
  const offered = declared.filter((tool) => tool.defer_loading !== true);
  assert.equal(offered.length, declared.length - 1, "what is loaded later is not there yet");
  assert.deepEqual(
    tools.map((tool) => [tool.function.name, tool.function.parameters]),
    offered.map((tool) => [tool.name, tool.input_schema]),
  );
  assert.equal(lastAsked()["reasoning_effort"], "low", "the last turn's, not the request's");
  const dropped = (reply.headers.get("x-ghost-dropped") ?? "").split(", ").toSorted();
  assert.deepEqual(dropped, ["cache_control", "context_management", "metadata.user_id", "x-anthropic-billing-header"]);
});

test("a whole answer has every field that the client's types have", async () => {
  host.playOnce({ tokens: ["ok"] });
  const { json } = await post(ask());
  const fields = ["container", "content", "diagnostics", "id", "model", "role", "stop_details", "stop_reason"];
  assert.deepEqual(Object.keys(z.record(z.string(), z.unknown()).parse(json)).toSorted(), [
    ...fields,
    "stop_sequence",
    "type",
    "usage",
  ]);
});

test("a server that counts nothing: the schema's 0, named as unknown", async () => {
  host.playOnce({ tokens: ["ok"], usage: "never" });
  const { json } = await post(ask());
  const { usage } = z.object({ usage: z.record(z.string(), z.unknown()) }).parse(json);
  assert.deepEqual(
    [usage["input_tokens"], usage["output_tokens"], usage["ghost_unknown"]],
    [0, 0, ["input_tokens", "output_tokens"]],
  );
});

test("a session goes on over several requests of this dialect", async () => {
  const messages = [{ role: "user", content: "the first question of a session" }];
  host.playOnce({ tokens: ["one"] });
  const first = z.object({ content: z.array(z.unknown()) }).parse((await post(ask({ messages }))).json);
  const more = [...messages, { role: "assistant", content: first.content }, { role: "user", content: "and then?" }];
  host.playOnce({ tokens: ["two"] });
  await post(ask({ messages: more }));
  using face = await daemon.connect();
  const { sessions } = await face.api.session.list({ limit: 1000 }, AbortSignal.timeout(10_000));
  assert.deepEqual(
    sessions.filter(({ title }) => title.startsWith("the first question")).map(({ messages: count }) => count),
    [4],
  );
});

const refused: readonly [name: string, body: unknown, status: number, type: string, says: RegExp][] = [
  ["no max_tokens", ask({ max_tokens: undefined }), 400, "invalid_request_error", /`max_tokens`/],
  [
    "an unknown role",
    ask({ messages: [{ role: "x", content: "" }] }),
    400,
    "invalid_request_error",
    /messages\.0\.role/,
  ],
  ["an unknown model", ask({ model: "up/none" }), 404, "not_found_error", /up\/none/],
  [
    "what no other provider can be told",
    ask({ mcp_servers: [{ type: "url", url: "https://x", name: "x" }] }),
    400,
    "invalid_request_error",
    /mcp_servers/,
  ],
];
for (const [name, body, status, type, says] of refused) {
  test(`${name}: an error in Anthropic's shape`, async () => {
    const reply = await post(body);
    const error = errorOf(reply);
    assert.deepEqual([reply.status, error.type], [status, type]);
    assert.match(error.message, says);
  });
}

test("a wrong key, a path that is not there, and a body that is no JSON have that shape, too", async () => {
  const wrong = await call(daemon, "/v1/messages", { body: ask(), key: "wrong" });
  assert.deepEqual([wrong.status, errorOf(wrong).type], [401, "authentication_error"]);
  const nothing = await post(ask(), "/v1/messages/batches");
  assert.deepEqual([nothing.status, errorOf(nothing).type], [404, "not_found_error"]);
  const broken = await call(daemon, "/v1/messages", { rawBody: "{" });
  assert.deepEqual([broken.status, errorOf(broken).type], [400, "invalid_request_error"]);
});

test("a call that is nested without end is refused, before anybody has to write it anew", async () => {
  const deep = `${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`;
  const turns = `[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"tool_use","id":"c","name":"n","input":${deep}}]}]`;
  const rawBody = `{"model":"up/m","max_tokens":1,"messages":${turns}}`;
  const reply = await call(daemon, "/v1/messages", { rawBody });
  assert.deepEqual([reply.status, errorOf(reply).type], [400, "invalid_request_error"]);
});

test("an upstream's refusals keep their meaning, and the official client its classes", async () => {
  host.playOnce({ status: { code: 429, body: "json", message: "slow down", retryAfterS: 7 } });
  const limited = await post(ask());
  assert.deepEqual([limited.status, errorOf(limited).type], [429, "rate_limit_error"]);
  assert.equal(limited.headers.get("retry-after"), "7");
  await assert.rejects(
    client.messages.create({ model: "up/none", max_tokens: 1, messages: [{ role: "user", content: "x" }] }),
    (error) => error instanceof NotFoundError && (error.requestID ?? "").startsWith("req_"),
  );
});

const faults: readonly [name: string, fault: NonNullable<Script["fault"]>][] = [
  ["a reset between frames", { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" }],
  ["a well-formed end without a finish", { kind: "cut", afterTokens: 2, where: "between-frames", how: "clean" }],
  ["an error in band", { kind: "error-in-band", afterTokens: 2, message: "the GPU fell over" }],
];
for (const [name, fault] of faults) {
  test(`${name}: what came, an error event, a cut connection, and no end`, async () => {
    host.playOnce({ tokens: ["one ", "two ", "three"], fault });
    const reply = await post(ask({ stream: true }));
    assert.match(reply.text, /"text_delta","text":"one "/);
    assert.match(reply.text, /event: error\ndata: \{"type":"error","error":\{"type":"api_error"/);
    assert.ok(!/message_stop|message_delta/.test(reply.text));
    assert.equal(reply.isCut, true);
    host.playOnce({ tokens: ["one ", "two ", "three"], fault });
    const stream = client.messages.stream({ model: "up/m", max_tokens: 9, messages: [{ role: "user", content: "x" }] });
    await assert.rejects(stream.finalMessage(), (error) => error instanceof Error);
  });
}

test("a client that leaves stops the upstream", async () => {
  host.playOnce({ tokens: 500, msPerToken: 20 });
  const stream = client.messages.stream({ model: "up/m", max_tokens: 900, messages: [{ role: "user", content: "x" }] });
  stream.on("text", () => stream.abort());
  await assert.rejects(stream.finalMessage(), APIError);
  await host.until(() => host.requests.at(-1)?.state === "closed-by-peer", "the upstream's end");
});

test("tokens are estimated, and that is said, where the model's server cannot count", async () => {
  const { max_tokens: _none, ...body } = ask({ system: "s".repeat(400) });
  const reply = await post(body, "/v1/messages/count_tokens");
  assert.deepEqual([reply.status, reply.headers.get("x-ghost-estimated")], [200, "true"]);
  assert.deepEqual(reply.json, { input_tokens: Math.ceil((400 + "hello".length) / 4) });
  const asked = host.requests.length;
  const counted = await client.messages.countTokens({
    model: "mine",
    messages: [{ role: "user", content: "12345678" }],
  });
  assert.deepEqual([counted.input_tokens, host.requests.length], [2, asked]);
});

test("models in Anthropic's form, page by page", async () => {
  const ids: string[] = [];
  for await (const { id, type, created_at } of client.models.list({ limit: 2 })) {
    ids.push(id);
    assert.deepEqual([type, created_at], ["model", "1970-01-01T00:00:00Z"]);
  }
  const all = z
    .object({ object: z.literal("list"), data: z.array(z.object({ id: z.string() })) })
    .parse((await call(daemon, "/v1/models")).json);
  assert.deepEqual(
    ids,
    all.data.map(({ id }) => id),
  );
  assert.ok(ids.includes("up/org/m2") && ids.includes("mine") && ids.includes("ghost/auto"));
  const page = z.object({ data: z.array(z.object({ id: z.string() })), has_more: z.boolean(), first_id: z.string() });
  const read = async (query: string) =>
    page.parse((await call(daemon, `/v1/models?${query}`, { headers: VERSION })).json);
  const last = ids.at(-1) ?? "";
  const before = await read(`limit=2&before_id=${encodeURIComponent(last)}`);
  assert.deepEqual(
    [before.data.map(({ id }) => id), before.has_more, before.first_id],
    [ids.slice(-3, -1), true, ids.at(-3)],
  );
  assert.equal((await read("limit=1000")).has_more, false);
});

test("a wrong page is refused with its field", async () => {
  for (const [query, field] of [
    ["limit=0", "limit"],
    ["limit=x", "limit"],
    ["after_id=nobody", "after_id"],
    ["before_id=nobody", "before_id"],
  ]) {
    const reply = await call(daemon, `/v1/models?${query}`, { headers: VERSION });
    const error = errorOf(reply);
    assert.deepEqual([reply.status, error.type], [400, "invalid_request_error"], query);
    assert.ok(error.message.includes(`\`${field}\``), error.message);
  }
});

test("one model, by an encoded and by a raw id, in both forms", async () => {
  const model = await client.models.retrieve("up/org/m2");
  assert.deepEqual([model.id, model.type, model.lifecycle], ["up/org/m2", "model", "active"]);
  const raw = await call(daemon, "/v1/models/up/org/m2");
  assert.deepEqual(raw.json, { id: "up/org/m2", object: "model", created: 0, owned_by: "up" });
  assert.equal((await call(daemon, "/v1/models/mine")).status, 200);
  const none = await call(daemon, "/v1/models/up%2Fnone");
  assert.match(none.text, /"code":"model_not_found"/);
  assert.equal(none.status, 404);
  await assert.rejects(client.models.retrieve("up/none"), NotFoundError);
});

test("the probe that Claude Code sends first needs no key", async () => {
  assert.equal((await call(daemon, "/", { method: "HEAD", key: null })).status, 200);
});

test("a conversation of megabytes is read in a worker and asked as it should be", async () => {
  const content = [{ type: "text", text: "x".repeat(1_500_000) }];
  host.playOnce({ tokens: ["ok"] });
  const reply = await post(ask({ messages: [{ role: "user", content }], system: "be brief" }));
  assert.equal(reply.status, 200, reply.text.slice(0, 300));
  const { messages } = lastAsked();
  assert.deepEqual([messages[0]?.content, messages[1]?.content?.length], ["be brief", 1_500_000]);
  const counted = await post({ ...ask({ messages: [{ role: "user", content }] }) }, "/v1/messages/count_tokens");
  assert.deepEqual(counted.json, { input_tokens: 375_000 });
});
