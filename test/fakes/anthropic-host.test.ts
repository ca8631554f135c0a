/** The fake of Anthropic's API is driven by the official client, so that it is known to speak as the real one does; its bytes are checked on raw sockets. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { type AnthropicHost, startAnthropicHost } from "./anthropic-host.ts";
import { type CloudScript, textScript, toolThenText } from "./cloud-script.ts";
import { rawPost } from "./raw-post.ts";

const MODEL = "claude-opus-4-8";
const OLD = { headers: { "anthropic-version": "2023-06-01" } };
const HELLO: Anthropic.MessageParam[] = [{ role: "user", content: "Say hello" }];
const TOOLS: Anthropic.Tool[] = [
  { name: "read_file", input_schema: { type: "object", properties: { path: { type: "string" } } } },
  { name: "list", input_schema: { type: "object" } },
];

function client(host: AnthropicHost, apiKey = "none"): Anthropic {
  return new Anthropic({ baseURL: host.baseUrl, apiKey, maxRetries: 0, timeout: 20_000 });
}

type Asked = Partial<Anthropic.MessageCreateParamsNonStreaming> & Readonly<Record<string, unknown>>;
type ErrorKind = abstract new (...args: never) => unknown;

function ask(host: AnthropicHost, body: Asked = {}, options = {}): Promise<Anthropic.Message> {
  return client(host).messages.create({ model: MODEL, max_tokens: 1024, messages: HELLO, ...body }, options);
}

/** The same question streamed, put together by the client's own accumulator. */
function stream(host: AnthropicHost, body: Asked = {}): Promise<Anthropic.Message> {
  return client(host)
    .messages.stream({ model: MODEL, max_tokens: 1024, messages: HELLO, ...body })
    .finalMessage();
}

/** What is the same in a streamed and a whole answer. */
function gist(message: Anthropic.Message): object {
  const content = message.content.map((block) => {
    if (block.type === "thinking") return { ...block, signature: block.signature !== "" };
    return block.type === "tool_use" ? { name: block.name, input: block.input } : block;
  });
  return { content, stop: message.stop_reason, sequence: message.stop_sequence, output: message.usage.output_tokens };
}

describe("healthy answers", () => {
  test("whole and streamed answers are the same: text, thinking, parallel calls, calls without arguments", async () => {
    await using host = await startAnthropicHost();
    const script: CloudScript = {
      blocks: [
        { kind: "reasoning", deltas: ["Let me ", "look."] },
        { kind: "text", deltas: ["Grüße ", "🦀"] },
        { kind: "tool-call", name: "read_file", arguments: ['{"pa', 'th":"a.ts"}'], id: "toolu_a" },
        { kind: "tool-call", name: "list", arguments: [] },
      ],
    };
    host.play(script);
    const body = { tools: TOOLS, thinking: { type: "adaptive", display: "summarized" } } as const;
    const whole = await ask(host, body);
    assert.deepEqual(gist(whole), gist(await stream(host, body)));
    assert.deepEqual(gist(whole), {
      content: [
        { type: "thinking", thinking: "Let me look.", signature: true },
        { type: "text", text: "Grüße 🦀", citations: null },
        { name: "read_file", input: { path: "a.ts" } },
        { name: "list", input: {} },
      ],
      stop: "tool_use",
      sequence: null,
      output: 6,
    });
    assert.deepEqual(host.violations, []);
    assert.deepEqual(host.refusals, []);
    assert.equal(host.requests[1]?.tokensSent, 6);
    assert.equal(host.requests[1]?.state, "finished");
  });

  test("usage splits the input into what was read, written and found in the cache", async () => {
    const usage = {
      inputTokens: 1000,
      cachedTokens: 700,
      cacheWriteTokens: 200,
      outputTokens: 50,
      reasoningTokens: 30,
    };
    await using host = await startAnthropicHost({ script: { ...textScript("a"), usage } });
    for (const message of [await ask(host), await stream(host)]) {
      assert.equal(message.usage.input_tokens, 100);
      assert.equal(message.usage.cache_read_input_tokens, 700);
      assert.equal(message.usage.cache_creation_input_tokens, 200);
      assert.equal(message.usage.output_tokens, 50);
      assert.equal(message.usage.output_tokens_details?.thinking_tokens, 30);
    }
  });

  test("limits, stop sequences, refusals and words of the script end an answer as they say", async () => {
    await using host = await startAnthropicHost({ script: textScript("one ", "two ", "three ") });
    const reason = async (body: Asked = {}) => {
      const message = await stream(host, body);
      return [message.stop_reason, message.content.map((block) => block.type === "text" && block.text).join("")];
    };
    assert.deepEqual(await reason({ max_tokens: 2 }), ["max_tokens", "one two "]);
    assert.deepEqual(await reason({ stop_sequences: ["wo th"] }), ["stop_sequence", "one t"]);
    host.play({
      blocks: [
        { kind: "text", deltas: ["a", "b"] },
        { kind: "text", deltas: ["c", "d"] },
      ],
    });
    assert.deepEqual(await reason({ max_tokens: 3 }), ["max_tokens", "abc"]);
    host.play({ ...textScript("x"), finishReason: "model_context_window_exceeded" });
    assert.deepEqual(await reason(), ["model_context_window_exceeded", "x"]);
    host.play({ blocks: [{ kind: "refusal", deltas: [], category: "cyber", explanation: "no" }] });
    const refused = await stream(host);
    assert.equal(refused.stop_reason, "refusal");
    assert.deepEqual(refused.content, []);
    assert.deepEqual(refused.stop_details, { type: "refusal", category: "cyber", explanation: "no" });
  });

  test("a script can ask for a tool once and then answer", async () => {
    await using host = await startAnthropicHost();
    host.play(toolThenText({ name: "read_file", arguments: { path: "a.ts" } }, "It is empty."));
    const first = await stream(host, { tools: TOOLS });
    const [call] = first.content;
    assert.ok(call?.type === "tool_use");
    const results: Anthropic.MessageParam = {
      role: "user",
      content: [{ type: "tool_result", tool_use_id: call.id, content: "" }],
    };
    const messages = [...HELLO, { role: "assistant", content: first.content } as const, results];
    const second = await stream(host, { tools: TOOLS, messages });
    assert.deepEqual(second.content, [{ type: "text", text: "It is empty.", citations: null }]);
    assert.deepEqual(host.violations, []);
  });

  test("models are listed in pages with their capabilities, and tokens are counted", async () => {
    const models = ["claude-opus-5-5", "claude-haiku-4-5-20251001", "claude-sonnet-5-5"];
    await using host = await startAnthropicHost({ models, maxPageSize: 2 });
    const listed: Anthropic.ModelInfo[] = [];
    for await (const model of client(host).models.list({ limit: 2 })) listed.push(model);
    assert.deepEqual(
      listed.map(({ id }) => id),
      models,
    );
    assert.equal(host.requests.length, 2);
    assert.equal(listed[0]?.max_input_tokens, 1_000_000);
    assert.equal(listed[0]?.capabilities?.thinking.types.enabled.supported, false);
    assert.equal(listed[1]?.capabilities?.thinking.types.enabled.supported, true);
    assert.equal(listed[1]?.capabilities?.effort.supported, false);
    const before = await client(host).models.list({ before_id: "claude-sonnet-5-5", limit: 1 });
    assert.deepEqual([before.data[0]?.id, before.has_more], ["claude-haiku-4-5-20251001", true]);
    assert.equal((await client(host).models.retrieve("claude-opus-5-5")).id, "claude-opus-5-5");
    host.play({ usage: { inputTokens: 123 } });
    const counted = await client(host).messages.countTokens({ model: "claude-opus-5-5", messages: HELLO });
    assert.equal(counted.input_tokens, 123);
    assert.deepEqual(host.violations, []);
  });

  test("a stream keeps its meaning in CRLF, with pings, comments, unknown events, two data lines, pieces of 3 bytes", async () => {
    await using host = await startAnthropicHost();
    const script = textScript("Grüße ", "aus ", "Köln 🏙");
    const wires = [
      { lineEnd: "\r\n" },
      { commentEvery: 1 },
      { multiLineData: true },
      { writeBytes: 3 },
      { pingEvery: 1, unknownEventEvery: 2 },
    ] as const;
    for (const wire of wires) {
      host.play({ ...script, wire });
      const [block] = (await stream(host)).content;
      assert.ok(block?.type === "text" && block.text === "Grüße aus Köln 🏙", JSON.stringify(wire));
    }
    assert.match(
      (await rawPost(host.port, "/v1/messages", askBody(), HEADERS)).bytes.toString(),
      /event: content_block_hint\n/,
    );
  });
});

const HEADERS = { "anthropic-version": "2026-10-21", "x-api-key": "none" };

function askBody(fields: object = {}): object {
  return { model: MODEL, max_tokens: 100, messages: HELLO, stream: true, ...fields };
}

describe("rules of the API", () => {
  test("each broken rule is answered 400 in the API's shape, and is no violation", async () => {
    await using host = await startAnthropicHost({
      models: [MODEL, "claude-opus-5-5", "claude-haiku-5-5", "claude-haiku-4-5", "claude-sonnet-4-6"],
    });
    const call = (id: string) => ({ type: "tool_use", id, name: "list", input: {} }) as const;
    const result = (id: string) => ({ type: "tool_result", tool_use_id: id, content: "x" }) as const;
    const image = { type: "image", source: { type: "url", url: "http://x.test/a.png" } } as const;
    const document = { type: "document", source: { type: "text", media_type: "text/plain", data: "x" } } as const;
    const mark = (ttl: "5m" | "1h") =>
      ({ type: "text", text: "x", cache_control: { type: "ephemeral", ttl } }) as const;
    const bound = { type: "adaptive", block_binding: {} } as const;
    const budget = { thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 2048 } as const;
    const turns = (assistant: Anthropic.ContentBlockParam[], user?: Anthropic.ContentBlockParam[]) => ({
      messages: [
        ...HELLO,
        { role: "assistant", content: assistant } as const,
        ...(user === undefined ? [] : [{ role: "user", content: user } as const]),
      ],
    });
    const haiku = { model: "claude-haiku-4-5" };
    const cases: readonly (readonly [Asked, RegExp, object?])[] = [
      [{ ...haiku, max_tokens: 64_001 }, /64001 > 64000/],
      [{ temperature: 1 }, /temperature: sampling parameters/],
      [{ temperature: 1 }, /`temperature` is not supported/, OLD],
      [{ ...haiku, temperature: 0.5, top_p: 0.9 }, /cannot both be specified/, OLD],
      [{ thinking: { type: "enabled", budget_tokens: 1024 } }, /"enabled" is not supported/],
      [{ ...haiku, thinking: { type: "adaptive" } }, /"adaptive" is not supported/],
      [{ ...haiku, thinking: { type: "enabled", budget_tokens: 1023 } }, /greater than or equal to 1024/],
      [{ ...haiku, thinking: { type: "enabled", budget_tokens: 1024 } }, /`max_tokens` must be greater/],
      [{ ...haiku, output_config: { effort: "low" } }, /does not support the effort/],
      [{ model: "claude-sonnet-4-6", output_config: { effort: "xhigh" } }, /effort: "xhigh" is not supported/],
      [{ model: "claude-opus-5-5", thinking: { type: "disabled" } }, /"disabled" is not supported/],
      [{ model: "claude-opus-5-5", tools: TOOLS, tool_choice: { type: "any" } }, /"any" is not supported/],
      [{ tools: TOOLS, tool_choice: { type: "tool", name: "absent" } }, /'absent' not found/],
      [{ tool_choice: { type: "auto" } }, /only be specified while providing tools/],
      [{ tools: [{ name: "a b", input_schema: { type: "object" } }] }, /tools\.0\.custom\.name/],
      [{ tools: [...TOOLS, ...TOOLS] }, /names must be unique/],
      [{ messages: [] }, /at least one message/],
      [{ messages: [{ role: "assistant", content: "x" }] }, /first message must use the "user" role/],
      [{ messages: [...HELLO, { role: "assistant", content: "x" }] }, /does not support assistant message prefill/],
      [{ ...haiku, messages: [...HELLO, { role: "assistant", content: "x " }] }, /cannot end with trailing whitespace/],
      [{ messages: [{ role: "user", content: "" }] }, /must have non-empty content/],
      [{ messages: [{ role: "user", content: [{ type: "text", text: "" }] }] }, /must be non-empty/],
      [{ messages: [{ role: "user", content: " " }] }, /non-whitespace/],
      [{ system: [{ type: "text", text: "" }] }, /system: text content blocks must be non-empty/],
      [{ ...haiku, messages: [...HELLO, { role: "system", content: "x" }] }, /role 'system' is not supported/],
      [turns([call("a")], [{ type: "text", text: "x" }]), /without `tool_result` blocks immediately after: a/],
      [turns([call("a"), call("b")], [result("a")]), /immediately after: b/],
      [turns([call("a")], [{ type: "text", text: "x" }, result("a")]), /immediately after: a/],
      [turns([call("a")]), /immediately after: a/],
      [turns([{ type: "text", text: "x" }], [result("a")]), /unexpected `tool_use_id`.*: a/],
      [turns([call("a")], [result("a"), result("a")]), /Found multiple/],
      [turns([call("a"), call("a")], [result("a")]), /ids must be unique/],
      [turns([call("a.b")], [result("a.b")]), /tool_use\.id: String should match pattern/],
      [turns([call("a")], [{ ...result("a"), is_error: true, content: [image] }]), /all content must be type "text"/],
      [turns([image], [{ type: "text", text: "x" }]), /image blocks are only allowed in user/],
      [{ ...cached(5) }, /maximum of 4 blocks .* Found 5/],
      [{ context_management: { edits: [] } }, /context_management: Extra inputs are not permitted/],
      [{ thinking: bound }, /block_binding: Extra inputs are not permitted/],
      [{ stop_sequences: [" "] }, /must contain non-whitespace/],
      [{ ...haiku, ...budget, temperature: 0.5 }, /only be set to 1 when thinking/, OLD],
      [{ ...haiku, ...budget, top_k: 5 }, /must be unset when thinking/, OLD],
      [{ ...haiku, ...budget, ...turns([call("a")], [result("a")]) }, /Expected `thinking` or/],
      [{ ...haiku, ...budget, tools: TOOLS, tool_choice: { type: "any" } }, /tool_choice forces tool use/],
      [
        { model: "claude-haiku-5-5", thinking: { type: "disabled" }, output_config: { effort: "max" } },
        /"disabled" is not supported at effort "max"/,
      ],
      [{ system: [mark("5m")], messages: [{ role: "user", content: [mark("1h")] }] }, /must not come after/],
      [turns([document], [{ type: "text", text: "x" }]), /document blocks are not allowed in assistant/],
    ];
    for (const [body, expected, options] of cases) {
      const error: unknown = await ask(host, body, options).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof Anthropic.BadRequestError, `${expected}: ${JSON.stringify(error)}`);
      assert.equal(error.type, "invalid_request_error");
      assert.match(error.apiMessage ?? "", expected);
    }
    assert.deepEqual(host.violations, []);
    assert.equal(host.refusals.length, cases.length);
    const { bytes } = await rawPost(host.port, "/v1/messages", { model: MODEL, messages: HELLO }, HEADERS);
    assert.match(bytes.toString(), /max_tokens: Field required/);
  });

  test("what these rules are next to is answered", async () => {
    await using host = await startAnthropicHost({
      models: [MODEL, "claude-haiku-4-5", "claude-opus-4-6"],
      script: textScript("ok"),
    });
    const haiku = { model: "claude-haiku-4-5" };
    await ask(host, { ...haiku, temperature: 0.5 }, OLD);
    await ask(host, { ...haiku, thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 2048 });
    await ask(host, { ...haiku, messages: [...HELLO, { role: "assistant", content: "The best answer is (" }] });
    await ask(host, { tools: TOOLS, tool_choice: { type: "any" }, output_config: { effort: "xhigh" } });
    await ask(host, { messages: [...HELLO, { role: "system", content: "Be brief." }] });
    await ask(host, { messages: [...HELLO, ...HELLO] });
    await ask(host, cached(4));
    await client(host).beta.messages.create({
      model: MODEL,
      max_tokens: 10,
      messages: [{ role: "user", content: "x" }],
      context_management: { edits: [] },
      betas: ["context-management-2025-06-27"],
    });
    const { bytes } = await rawPost(host.port, "/v1/messages?beta=true", askBody(), HEADERS);
    assert.match(bytes.toString(), /^HTTP\/1.1 200/);
    assert.deepEqual(host.violations, []);
    assert.deepEqual(host.refusals, []);
  });

  test("unknown fields and shapes are answered 400 and kept as violations; so are unknown routes", async () => {
    await using host = await startAnthropicHost();
    const bad = [
      { new_field: 1 },
      { tools: [{ ...TOOLS[1], nmae: "x" }] },
      { messages: [{ role: "user", content: [{ type: "text", text: "x", extra: 1 }] }] },
      { messages: [{ role: "tool", content: "x" }] },
      { temperature: 2 },
    ];
    for (const fields of bad) {
      const { bytes } = await rawPost(host.port, "/v1/messages", askBody(fields), HEADERS);
      assert.match(bytes.toString(), /^HTTP\/1.1 400 [^]*"type":"invalid_request_error"/, JSON.stringify(fields));
    }
    assert.match(
      host.violations.join("\n"),
      /new_field: Extra inputs are not permitted[^]*tools\.0\.nmae: Extra inputs/,
    );
    assert.match(host.violations[2] ?? "", /messages\.0\.content\.0\.extra: Extra/);
    await assert.rejects(client(host).beta.files.list(), /501/);
    assert.equal(host.violations.length, bad.length + 1);
  });

  test("keys, models and versions are checked", async () => {
    await using host = await startAnthropicHost({ apiKey: "right" });
    const asking = (key: string, body: Asked = {}) =>
      client(host, key).messages.create({ model: MODEL, max_tokens: 10, messages: HELLO, ...body });
    host.playOnce(textScript("kept"));
    await assert.rejects(asking("wrong"), Anthropic.AuthenticationError);
    await assert.rejects(asking("right", { model: "claude-absent" }), Anthropic.NotFoundError);
    const byToken = new Anthropic({ baseURL: host.baseUrl, authToken: "right", apiKey: null, maxRetries: 0 });
    const [model] = (await byToken.models.list()).data;
    assert.equal(model?.id, "claude-opus-5-5");
    const { bytes } = await rawPost(host.port, "/v1/messages", askBody(), { "x-api-key": "right" });
    assert.match(bytes.toString(), /anthropic-version: header is required/);
    const both = { ...HEADERS, "x-api-key": "right", authorization: "Bearer wrong" };
    assert.match((await rawPost(host.port, "/v1/messages", askBody(), both)).bytes.toString(), /^HTTP\/1.1 200/);
    assert.equal(host.refusals.length, 3);
  });
});

/** A request with so many cached blocks. */
function cached(count: number): Asked {
  const block = { type: "text", text: "x", cache_control: { type: "ephemeral" } } as const;
  return { messages: [{ role: "user", content: Array.from({ length: count }, () => block) }] };
}

describe("thinking that comes back", () => {
  const MODELS = ["claude-opus-5-5", "claude-opus-4-8", "claude-sonnet-5-5"];
  const script: CloudScript = {
    blocks: [
      { kind: "reasoning", deltas: ["think"] },
      { kind: "reasoning", deltas: ["hidden"], isRedacted: true },
      { kind: "text", deltas: ["answer"] },
    ],
  };
  const adaptive = { thinking: { type: "adaptive", display: "summarized" } } as const;
  const next = (content: Anthropic.ContentBlockParam[], first = HELLO): Asked => ({
    ...adaptive,
    messages: [...first, { role: "assistant", content }, { role: "user", content: "go on" }],
  });

  test("unchanged it is accepted by every Claude; changed or strange it is not", async () => {
    await using host = await startAnthropicHost({ models: MODELS, script });
    for (const model of MODELS) {
      const { content } = await stream(host, { ...adaptive, model });
      assert.deepEqual(
        content.map(({ type }) => type),
        ["thinking", "redacted_thinking", "text"],
      );
      for (const other of MODELS) await ask(host, { ...next(content), model: other });
      const changed = content.map((block) => (block.type === "thinking" ? { ...block, thinking: "other" } : block));
      await assert.rejects(ask(host, { ...next(changed), model }), /Invalid `signature` in `thinking` block/);
      const strange = content.map((block) => (block.type === "redacted_thinking" ? { ...block, data: "x" } : block));
      await assert.rejects(ask(host, { ...next(strange), model }), /Invalid `data` in `redacted_thinking` block/);
    }
    assert.deepEqual(host.violations, []);
  });

  test("a model that binds it refuses it behind another beginning, system or tool; without it the history passes", async () => {
    await using host = await startAnthropicHost({ models: MODELS, script });
    const model = "claude-opus-5-5";
    const { content } = await stream(host, { ...adaptive, model, system: "S", tools: TOOLS });
    const same = { model, system: "S", tools: TOOLS };
    const marked = [{ type: "text", text: "S", cache_control: { type: "ephemeral" } } as const];
    await ask(host, { ...same, ...next(content), system: marked });
    const bound = /bound to a different conversation/;
    await assert.rejects(ask(host, { ...same, ...next(content), system: "T" }), bound);
    await assert.rejects(ask(host, { ...same, ...next(content), tools: TOOLS.slice(1) }), bound);
    await assert.rejects(ask(host, { ...same, ...next(content, [{ role: "user", content: "Say bye" }]) }), bound);
    const kept = content.filter(({ type }) => type === "text");
    await ask(host, { ...same, ...next(kept, [{ role: "user", content: "Say bye" }]) });
    const dropping = {
      thinking: { type: "adaptive", block_binding: { prefix_mismatch_behavior: "drop_block" } },
    } as const;
    const beta = { headers: { "anthropic-beta": "thinking-binding-controls-2026-08-01" } };
    await client(host).messages.create(
      { max_tokens: 10, ...same, ...next(content), messages: next(content).messages ?? [], system: "T", ...dropping },
      beta,
    );
    assert.deepEqual(host.violations, []);
  });

  test("it is shown as the request asks: summarized, signed without its text, not at all", async () => {
    await using host = await startAnthropicHost({ models: [...MODELS, "claude-haiku-4-5"], script });
    const shown = async (body: Asked) =>
      (await stream(host, body)).content.map((block) =>
        block.type === "thinking" ? `${block.thinking}:${block.signature !== ""}` : block.type,
      );
    assert.deepEqual(await shown({ model: "claude-opus-5-5" }), [":true", "redacted_thinking", "text"]);
    assert.deepEqual(await shown({ model: "claude-opus-4-8" }), ["text"]);
    assert.deepEqual(await shown({ model: "claude-haiku-4-5" }), ["text"]);
    const budget = { type: "enabled", budget_tokens: 1024 } as const;
    assert.deepEqual(await shown({ model: "claude-haiku-4-5", thinking: budget, max_tokens: 2000 }), [
      "think:true",
      "redacted_thinking",
      "text",
    ]);
  });
});

describe("faults", () => {
  test("statuses become the client's error classes, with details and retry-after", async () => {
    await using host = await startAnthropicHost();
    const cases: readonly (readonly [NonNullable<CloudScript["status"]>, ErrorKind, string | null])[] = [
      [
        { code: 400, message: "prompt is too long: 9 tokens > 8 maximum" },
        Anthropic.BadRequestError,
        "invalid_request_error",
      ],
      [{ code: 403 }, Anthropic.PermissionDeniedError, "permission_error"],
      [{ code: 429, retryAfterS: 7 }, Anthropic.RateLimitError, "rate_limit_error"],
      [{ code: 429, errorCode: "enforced_spend_limit_reached" }, Anthropic.RateLimitError, "rate_limit_error"],
      [{ code: 500 }, Anthropic.InternalServerError, "api_error"],
      [{ code: 529, headers: { "x-should-retry": "false" } }, Anthropic.InternalServerError, "overloaded_error"],
      [{ code: 502, body: "html" }, Anthropic.InternalServerError, null],
      [{ code: 413, body: "empty" }, Anthropic.APIError, null],
    ];
    for (const [status, kind, type] of cases) {
      host.playOnce({ status });
      const error: unknown = await ask(host).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof kind, JSON.stringify(status));
      assert.ok(error instanceof Anthropic.APIError);
      assert.equal(error.status, status.code);
      assert.equal(error.type ?? null, type);
      assert.equal(error.errorCode ?? undefined, status.errorCode);
      if (status.retryAfterS !== undefined) assert.equal(error.headers?.get("retry-after"), "7");
      assert.match(error.headers?.get("request-id") ?? "", /^req_fake_/);
    }
    assert.deepEqual(host.refusals, []);
  });

  test("an error event follows what was sent before it", async () => {
    await using host = await startAnthropicHost();
    const error = { type: "overloaded_error", message: "Overloaded" };
    host.play({ ...textScript("a", "b", "c"), fault: { kind: "error-in-band", afterTokens: 2, error } });
    const thrown: unknown = await stream(host).catch((reason: unknown) => reason);
    assert.ok(thrown instanceof Anthropic.APIError);
    assert.equal(thrown.type, "overloaded_error");
    assert.equal(host.requests[0]?.tokensSent, 2);
    assert.equal(host.requests[0]?.state, "faulted");
    const { bytes } = await rawPost(host.port, "/v1/messages", askBody(), HEADERS);
    assert.match(
      bytes.toString(),
      /"text":"b"[^]*event: error\ndata: \{"type":"error","error":\{"type":"overloaded_error"/,
    );
    assert.doesNotMatch(bytes.toString(), /message_stop/);
  });

  test("each cut sends exactly what it says and ends as it says", async () => {
    await using host = await startAnthropicHost();
    for (const how of ["reset", "close", "clean"] as const) {
      for (const where of ["between-frames", "mid-frame", "mid-utf8"] as const) {
        host.play({ ...textScript("a1", "b2", "ü3"), fault: { kind: "cut", afterTokens: 2, where, how } });
        const { bytes, isReset } = await rawPost(host.port, "/v1/messages", askBody(), HEADERS);
        const name = `${how} ${where}`;
        assert.equal(isReset, how === "reset", name);
        assert.equal(bytes.subarray(-5).equals(Buffer.from("0\r\n\r\n")), how === "clean", name);
        assert.ok(bytes.includes("b2") && !bytes.includes("ü"), name);
        assert.equal(bytes.includes(0xc3), where === "mid-utf8", name);
      }
    }
    host.play({ ...textScript("a"), wire: { omitEvents: ["message_stop"] } });
    const text = (await rawPost(host.port, "/v1/messages", askBody(), HEADERS)).bytes.toString();
    assert.ok(text.includes("event: message_delta") && !text.includes("message_stop") && text.endsWith("0\r\n\r\n"));
    host.play({ ...textScript("one", "two"), fault: { kind: "invalid-utf8", afterTokens: 1 } });
    const { bytes } = await rawPost(host.port, "/v1/messages", askBody(), HEADERS);
    assert.equal(bytes.subarray(bytes.indexOf(0xff) + 1, bytes.indexOf(0xff) + 3).toString(), "wo");
  });

  test("a peer that leaves a stalled or slow answer is seen, with what had been sent by then", async () => {
    await using host = await startAnthropicHost();
    const leave = async (script: CloudScript, tokens: number) => {
      host.play(script);
      const number = host.requests.length;
      const stop = new AbortController();
      const work = client(host)
        .messages.stream({ model: MODEL, max_tokens: 10, messages: HELLO }, { signal: stop.signal })
        .finalMessage()
        .catch(() => undefined); // The abort below: what it looks like to the client is not what is tested.
      await host.until(() => (host.requests[number]?.tokensSent ?? -1) >= tokens, "the state to leave in");
      stop.abort();
      await work;
      await host.until(() => host.openRequests === 0, "the close");
      assert.equal(host.requests[number]?.state, "closed-by-peer");
      assert.equal(host.requests[number]?.tokensSent, tokens);
    };
    await leave({ fault: { kind: "hang-before-headers" } }, 0);
    await leave({ afterHeadersMs: 60_000 }, 0);
    await leave({ ...textScript("a", "b", "c"), fault: { kind: "hang", afterTokens: 2 } }, 2);
    await leave({ ...textScript("a", "b"), msPerToken: 60_000 }, 1);
    host.play({ fault: { kind: "reset-before-headers" } });
    await assert.rejects(ask(host), Anthropic.APIConnectionError);
    assert.deepEqual(host.violations, []);
  });
});
