/** What is sent to a server that speaks Responses, and what comes of its answers; on the fake host, which refuses what the real one does. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { textScript } from "../../../test/fakes/cloud-script.ts";
import { chat, failsWith, framesOf, never } from "../../../test/fakes/ollama-provider-kit.ts";
import {
  assistant,
  foldOf,
  KEY,
  originOf,
  responsesWorld as world,
  user,
} from "../../../test/fakes/responses-provider-kit.ts";
import type { Message, Part, ToolSpec } from "../stream.ts";

const read: ToolSpec = {
  kind: "function",
  name: "read",
  description: "Reads a file.",
  parameters: { type: "object", properties: { path: { type: "string" } } },
};
const textOf = (fold: Awaited<ReturnType<typeof foldOf>>) =>
  fold.blocks.map((block) => (block.kind === "text" ? block.text : "")).join("");

test("a request in our words keeps nothing at the provider, asks for its reasoning, and says each wish in its field", async (context) => {
  const { host, provider, model, lastBody } = await world(context);
  host.playOnce(textScript("Grüße ", "🦊"));
  const request = chat("hi", {
    messages: async () => [{ role: "system", parts: [{ kind: "text", text: "Be brief." }] }, user("hi")],
    tools: [read],
    toolChoice: "required",
    parallelToolCalls: false,
    reasoning: { effort: "minimal", isShown: true },
    output: { maxTokens: 3000, stop: [], format: { kind: "schema", name: "my answer", schema: { type: "object" } } },
    cacheKey: "k".repeat(100),
    extras: { verbosity: "low", metadata: { a: "b" }, store: false, logit_bias: { 5: 1 } },
  });
  const attempt = await provider.chat(request, await model("gpt-5.6-sol"), never);
  assert.equal(textOf(await foldOf(attempt)), "Grüße 🦊");
  const { prompt_cache_key: cacheKey, ...body } = lastBody();
  assert.deepEqual(body, {
    model: "gpt-5.6-sol",
    input: [
      { type: "message", role: "developer", content: "Be brief." },
      { type: "message", role: "user", content: "hi" },
    ],
    tools: [
      { type: "function", name: "read", description: "Reads a file.", parameters: parametersOf(read), strict: false },
    ],
    tool_choice: "required",
    parallel_tool_calls: false,
    text: {
      format: { type: "json_schema", name: "answer", schema: { type: "object" }, strict: false },
      verbosity: "low",
    },
    reasoning: { effort: "low", summary: "auto" },
    store: false,
    stream: true,
    stream_options: { include_obfuscation: false },
    include: ["reasoning.encrypted_content"],
    max_output_tokens: 3000,
    metadata: { a: "b" },
  });
  assert.match(String(cacheKey), /^.{43}$/);
  assert.deepEqual(attempt.dropped, ["logit_bias"]);
});

const parametersOf = (tool: ToolSpec) => (tool.kind === "function" ? tool.parameters : undefined);

test("a temperature goes to models that take one, and is named where they do not", async (context) => {
  const { provider, model, lastBody } = await world(context, { models: ["gpt-4.1", "gpt-5.4", "gpt-6.1-sol"] });
  const ask = async (name: string, effort?: "none" | "high") => {
    const request = chat("hi", {
      sampling: { temperature: 0.3, topP: 0.9, seed: 7 },
      ...(effort === undefined ? {} : { reasoning: { effort } }),
    });
    const attempt = await provider.chat(request, await model(name), never);
    await foldOf(attempt);
    return [lastBody()["temperature"], lastBody()["top_p"], attempt.dropped];
  };
  assert.deepEqual(await ask("gpt-4.1"), [0.3, 0.9, ["seed"]]);
  assert.deepEqual(await ask("gpt-4.1", "high"), [0.3, 0.9, ["seed", "reasoning"]]);
  assert.deepEqual(await ask("gpt-5.4", "none"), [0.3, 0.9, ["seed"]]);
  assert.deepEqual(await ask("gpt-5.4"), [undefined, undefined, ["seed", "temperature", "top_p"]]);
  assert.deepEqual(await ask("gpt-6.1-sol", "none"), [undefined, undefined, ["seed", "temperature", "top_p"]]);
  assert.deepEqual(lastBody()["reasoning"], { effort: "low" });
});

test("a turn with reasoning, commentary, parallel calls of all kinds and results goes back as it came", async (context) => {
  const { host, provider, model, lastBody } = await world(context, { models: ["gpt-5.6-sol"] });
  const tools: readonly ToolSpec[] = [
    read,
    { kind: "function", name: "find me", namespace: "files", description: undefined, parameters: { type: "object" } },
    {
      kind: "custom",
      name: "patch",
      description: "Patches.",
      format: { type: "grammar", grammar: { syntax: "lark", definition: "start: /./" } },
    },
    { kind: "custom", name: "shell", namespace: "sys", description: "Runs." },
    { kind: "hosted", name: "web_search", spec: { type: "web_search" } },
  ];
  const reasoning = { isShown: true } as const;
  const target = await model("gpt-5.6-sol");
  const history: Message[] = [user("look")];
  const request = () => chat("", { messages: async () => history, tools, reasoning });
  host.playOnce(({ body }) => {
    const names = Object.assign({ tools: [] }, body).tools.map(({ name }: { name: string }) => name);
    return {
      blocks: [
        { kind: "reasoning", deltas: ["I ", "think."] },
        { kind: "text", deltas: ["Let me look."], phase: "commentary" },
        { kind: "tool-call", name: "read", arguments: ['{"path"', ':"a"}'] },
        { kind: "tool-call", name: names[1] ?? "", arguments: [] },
        { kind: "tool-call", name: names[2] ?? "", arguments: ['{"input":', '"ls"}'] },
        { kind: "tool-call", name: "patch", arguments: ["*** Be", 'gin "x"'] },
      ],
      wire: { interleaveCalls: true },
    };
  });
  const attempt = await provider.chat(request(), target, never);
  assert.deepEqual(attempt.dropped, ["hosted tools"]);
  const fold = await foldOf(attempt);
  const calls = fold.blocks.filter((block) => block.kind === "toolCall");
  assert.deepEqual(
    calls.map(({ name, namespace, isCustom, arguments: text }) => [name, namespace, isCustom, text]),
    [
      ["read", undefined, undefined, '{"path":"a"}'],
      ["find me", "files", undefined, "{}"],
      ["shell", "sys", true, '{"input":"ls"}'],
      ["patch", undefined, true, '{"input":"*** Begin \\"x\\""}'],
    ],
  );
  assert.equal(fold.reason, "toolCalls");
  const sent = lastBody()["tools"];
  assert.ok(Array.isArray(sent));
  assert.deepEqual(sent.at(-1), {
    type: "custom",
    name: "patch",
    description: "Patches.",
    format: { type: "grammar", syntax: "lark", definition: "start: /./" },
  });

  const image = "data:image/png;base64,iVBORw0KGgo=";
  const results = calls.map(
    ({ callId }, index): Message => ({
      role: "tool",
      parts: [
        {
          kind: "toolResult",
          callId,
          text: `r${index}`,
          ...(index === 0 ? { images: [image] } : { isError: index === 1 }),
        },
      ],
    }),
  );
  history.push({ role: "assistant", parts: fold.parts("openai") }, ...results);
  host.playOnce(textScript("Done."));
  assert.equal(textOf(await foldOf(await provider.chat(request(), target, never))), "Done.");
  const input = lastBody()["input"];
  assert.ok(Array.isArray(input));
  const short = input.map((item: Record<string, unknown>) => [
    item["type"],
    item["phase"] ?? item["name"] ?? item["output"] ?? null,
  ]);
  assert.deepEqual(short, [
    ["message", null],
    ["reasoning", null],
    ["message", "commentary"],
    ["function_call", "read"],
    ["function_call", input[4].name],
    ["function_call", "sys__shell"],
    ["custom_tool_call", "patch"],
    [
      "function_call_output",
      [
        { type: "input_text", text: "r0" },
        { type: "input_image", image_url: image, detail: "auto" },
      ],
    ],
    ["function_call_output", "Error: r1"],
    ["function_call_output", "r2"],
    ["custom_tool_call_output", "r3"],
  ]);
  assert.deepEqual(input[1].summary, [{ type: "summary_text", text: "I think." }]);
  assert.equal(input[6].input, '*** Begin "x"');
});

test("reasoning of others, and reasoning that led to nothing, is left out", async (context) => {
  const { provider, model, lastBody } = await world(context);
  const seal = (maker: string): Part => ({
    kind: "reasoning",
    text: "hm",
    opaque: { maker, data: JSON.stringify({ id: "rs_1", encrypted_content: "gAAA" }) },
  });
  const messages = [
    user("a"),
    assistant(seal("anthropic"), { kind: "reasoning", text: "plain" }, { kind: "text", text: "b" }),
    assistant(seal("openai")),
    user("c"),
  ];
  await foldOf(await provider.chat(chat("", { messages: async () => messages }), await model("gpt-5.5"), never));
  assert.deepEqual(lastBody()["input"], [
    { type: "message", role: "user", content: "a" },
    { type: "message", role: "assistant", content: "b" },
    { type: "message", role: "user", content: "c" },
  ]);
});

test("reasoning that the server cannot read is left out at a second try, in our words and in a relay", async (context) => {
  const { host, provider, model, lastBody } = await world(context, { expectsRefusals: true });
  const data = JSON.stringify({ id: "rs_1", encrypted_content: "made elsewhere" });
  const messages = [
    user("a"),
    assistant({ kind: "reasoning", text: "hm", opaque: { maker: "openai", data } }, { kind: "text", text: "b" }),
    user("c"),
  ];
  const request = chat("", { messages: async () => messages });
  const target = await model("gpt-5.5");
  await foldOf(await provider.chat(request, target, never));
  assert.equal(host.refusals.length, 1);
  const own = lastBody()["input"];
  assert.ok(Array.isArray(own) && own.length === 3);
  const input = [
    { type: "reasoning", id: "rs_1", summary: [], encrypted_content: "made elsewhere" },
    { role: "assistant", content: "b" },
    { role: "user", content: "c" },
  ];
  const origin = originOf("openai-responses", { input, store: false, stream: true });
  await foldOf(await provider.chat({ ...request, origin }, target, never));
  assert.equal(host.refusals.length, 2);
  assert.deepEqual(lastBody()["input"], own);
});

test("call ids that OpenAI does not take are encoded alike in call and result", async (context) => {
  const { provider, model, lastBody } = await world(context);
  const callId = `toolu:${"x".repeat(80)}`;
  const messages: Message[] = [
    user("a"),
    assistant({ kind: "toolCall", callId, name: "read", arguments: "" }),
    { role: "tool", parts: [{ kind: "toolResult", callId, text: "r" }] },
  ];
  await foldOf(
    await provider.chat(chat("", { messages: async () => messages, tools: [read] }), await model("gpt-5.5"), never),
  );
  const input = lastBody()["input"];
  assert.ok(Array.isArray(input));
  assert.match(input[1].call_id, /^[A-Za-z0-9_-]{1,64}$/);
  assert.equal(input[2].call_id, input[1].call_id);
  assert.equal(input[1].arguments, "{}");
});

test("pictures and documents go along, and a model's own are shown as the user's", async (context) => {
  const { provider, model, lastBody } = await world(context);
  const url = "data:image/png;base64,iVBORw0KGgo=";
  const pdf = "data:application/pdf;base64,JVBERi0=";
  const messages: Message[] = [
    {
      role: "user",
      parts: [
        { kind: "text", text: "see" },
        { kind: "image", url },
        { kind: "file", url: pdf, mediaType: "application/pdf" },
        { kind: "text", text: "and" },
      ],
    },
    assistant({ kind: "text", text: "ok" }, { kind: "image", url: "https://example.com/a.png" }),
    {
      role: "user",
      parts: [
        { kind: "text", text: "one" },
        { kind: "text", text: "two" },
        { kind: "file", url: "https://example.com/a.pdf", mediaType: "application/pdf", name: "a.pdf" },
      ],
    },
  ];
  await foldOf(
    await provider.chat(chat("", { messages: async () => messages, hasImages: true }), await model("gpt-5.5"), never),
  );
  const picture = (image_url: string) => ({ type: "input_image", image_url, detail: "auto" });
  assert.deepEqual(lastBody()["input"], [
    {
      type: "message",
      role: "user",
      content: [
        { type: "input_text", text: "see" },
        picture(url),
        { type: "input_file", filename: "document.pdf", file_data: pdf },
        { type: "input_text", text: "and" },
      ],
    },
    { type: "message", role: "assistant", content: "ok" },
    { type: "message", role: "user", content: [picture("https://example.com/a.png")] },
    {
      type: "message",
      role: "user",
      content: [
        { type: "input_text", text: "one" },
        { type: "input_text", text: "two" },
        { type: "input_file", file_url: "https://example.com/a.pdf" },
      ],
    },
  ]);
});

test("a stop string cuts the text here, wherever the pieces end, and stops the upstream", async (context) => {
  const { host, provider, model } = await world(context);
  const request = (stream: boolean) => chat("count", { stream, output: { stop: ["END"], format: { kind: "text" } } });
  const target = await model("gpt-5.5");
  host.playOnce({
    blocks: [{ kind: "text", deltas: ["one E", "N", "Done", " E", "ND two", ..." three".repeat(5_000)] }],
  });
  const streamed = await foldOf(await provider.chat(request(true), target, never));
  assert.deepEqual([textOf(streamed), streamed.reason, streamed.usage], ["one ENDone".slice(0, 4), "stop", undefined]);
  await host.until(() => host.openRequests === 0, "the upstream to be stopped");
  assert.equal(host.requests.at(-1)?.state, "closed-by-peer");
  host.playOnce(textScript("one E", "N", "D two"));
  const whole = await foldOf(await provider.chat(request(false), target, never));
  assert.deepEqual([textOf(whole), whole.reason], ["one ", "stop"]);
  assert.ok((whole.usage?.completionTokens ?? 0) > 0);
  host.playOnce(textScript("one", " E"));
  assert.equal(textOf(await foldOf(await provider.chat(request(true), target, never))), "one E");
});

test("usage, reasoning and refusals arrive, streamed and plain alike", async (context) => {
  const { host, provider, model } = await world(context);
  const target = await model("gpt-5.5");
  const script = {
    blocks: [
      { kind: "reasoning", deltas: ["hm"] },
      { kind: "refusal", deltas: ["I ", "won't."] },
    ],
    usage: { inputTokens: 100, cachedTokens: 40, cacheWriteTokens: 5, outputTokens: 20, reasoningTokens: 8 },
  } as const;
  for (const stream of [true, false]) {
    host.playOnce(script);
    const fold = await foldOf(await provider.chat(chat("hi", { stream, reasoning: { isShown: true } }), target, never));
    assert.deepEqual(
      fold.blocks.map((block) => [block.kind, block.kind === "toolCall" ? "" : block.text]),
      [
        ["reasoning", "hm"],
        ["refusal", "I won't."],
      ],
    );
    assert.equal(fold.reason, "contentFilter");
    assert.deepEqual(fold.usage, {
      promptTokens: 100,
      completionTokens: 20,
      cachedTokens: 40,
      cacheWriteTokens: 5,
      reasoningTokens: 8,
    });
  }
  host.playOnce({ ...textScript("a"), usage: "never", finishReason: "max_output_tokens" });
  const short = await foldOf(
    await provider.chat(chat("hi", { output: { maxTokens: 3, stop: [], format: { kind: "text" } } }), target, never),
  );
  assert.deepEqual([short.reason, short.usage], ["length", undefined]);
});

test("a client of the same dialect is relayed byte for byte, but for the model's name", async (context) => {
  const { host, provider, model } = await world(context);
  const origin = originOf("openai-responses", { input: "hi", store: false, stream: true, max_output_tokens: 100 });
  host.playOnce(textScript("Hal", "lo"));
  const attempt = await provider.chat(
    chat("hi", { origin: { ...origin, headers: { "x-own": "1" } } }),
    await model("gpt-5.5"),
    never,
  );
  const frames = await framesOf(attempt);
  const request = host.requests.at(-1);
  assert.equal(request?.bodyText, origin.bodyFor("gpt-5.5").toString());
  assert.deepEqual([request.headers["x-own"], request.headers.authorization], ["1", `Bearer ${KEY}`]);
  assert.deepEqual([attempt.dropped, frames.every(({ dialect }) => dialect === "openai-responses")], [undefined, true]);
  const bytes = Buffer.concat(frames.map((frame) => frame.bytes)).toString();
  assert.match(bytes, /^event: response\.created\n/);
  assert.match(bytes, /"type":"response\.completed".*\n\n$/);
});

const faults: readonly (readonly [name: string, fault: object])[] = [
  ["a reset", { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" }],
  ["an end inside a character", { kind: "cut", afterTokens: 2, where: "mid-utf8", how: "close" }],
  ["a clean end without its terminal event", { kind: "cut", afterTokens: 2, where: "between-frames", how: "clean" }],
  ["half a frame", { kind: "cut", afterTokens: 2, where: "mid-frame", how: "clean" }],
];
for (const dialect of ["own", "relay"] as const) {
  for (const [name, fault] of faults) {
    test(`${name} is a failure and never an end (${dialect})`, async (context) => {
      const { host, provider, model } = await world(context);
      host.playOnce({
        ...textScript("a", "b", "ç", "d"),
        fault: Object.assign({ kind: "hang", afterTokens: 0 } as const, fault),
      });
      const origin = originOf("openai-responses", { input: "hi", store: false, stream: true });
      const request = chat("hi", dialect === "relay" ? { origin } : {});
      const attempt = await provider.chat(request, await model("gpt-5.5"), never);
      await assert.rejects(framesOf(attempt), failsWith("upstream_failed"));
    });
  }
  for (const as of ["error", "failed"] as const) {
    test(`an error in the stream has its meaning, before the first content and after it (${dialect}, ${as})`, async (context) => {
      const { host, provider, model } = await world(context);
      const origin = originOf("openai-responses", { input: "hi", store: false, stream: true });
      const request = chat("hi", dialect === "relay" ? { origin } : {});
      const error = { message: `busy, ${KEY}`, errorCode: "server_is_overloaded" };
      const target = await model("gpt-5.5");
      host.playOnce({ ...textScript("a", "b"), fault: { kind: "error-in-band", afterTokens: 0, error, as } });
      await assert.rejects(provider.chat(request, target, never), failsWith("upstream_overloaded", /busy, \[secret\]/));
      host.playOnce({ ...textScript("a", "b"), fault: { kind: "error-in-band", afterTokens: 1, error, as } });
      const attempt = await provider.chat(request, target, never);
      await assert.rejects(framesOf(attempt), failsWith("upstream_overloaded", /busy/));
    });
  }
}

test("an unknown reason for an incomplete answer is an error", async (context) => {
  const { host, provider, model } = await world(context);
  host.playOnce({ ...textScript("a"), finishReason: "solar_flare" });
  const attempt = await provider.chat(chat(), await model("gpt-5.5"), never);
  await assert.rejects(framesOf(attempt), failsWith("upstream_failed", /solar_flare/));
});

const wires = [
  { lineEnd: "\r\n" },
  { commentEvery: 1 },
  { multiLineData: true },
  { writeBytes: 7 },
  { unterminatedLastFrame: true },
  { unknownEventEvery: 2 },
  { emptyFinalOutput: true },
  { omitEvents: ["response.output_item.done", "response.function_call_arguments.done"] },
  { omitEvents: ["response.output_item.added", "response.function_call_arguments.delta"] },
] as const;
for (const wire of wires) {
  test(`the answer is whole with ${JSON.stringify(wire)}`, async (context) => {
    const { host, provider, model } = await world(context);
    host.playOnce({
      blocks: [
        { kind: "text", deltas: ["ä", "b"] },
        { kind: "tool-call", name: "read", arguments: ['{"path":', '"ü"}'], id: "call_1" },
      ],
      wire,
    });
    const fold = await foldOf(await provider.chat(chat("", { tools: [read] }), await model("gpt-5.5"), never));
    const [text, call] = fold.blocks;
    assert.deepEqual(
      [
        text?.kind === "text" && text.text,
        call?.kind === "toolCall" && [call.callId, call.name, call.arguments],
        fold.reason,
      ],
      ["äb", ["call_1", "read", '{"path":"ü"}'], "toolCalls"],
    );
  });
}

test("aborting stops the upstream before its first content and after", async (context) => {
  const { host, provider, model } = await world(context);
  const target = await model("gpt-5.5");
  for (const fault of [
    { kind: "hang-before-headers" },
    { kind: "hang", afterTokens: 0 },
    { kind: "hang", afterTokens: 1 },
  ] as const) {
    const controller = new AbortController();
    const seen = host.requests.length;
    host.playOnce({ ...textScript("a", "b"), fault });
    const answer = provider.chat(chat(), target, controller.signal).then(framesOf);
    await host.until(
      () =>
        host.requests.length > seen &&
        (host.requests.at(-1)?.tokensSent ?? 0) >= (fault.kind === "hang" ? fault.afterTokens : 0),
      "the request",
    );
    controller.abort();
    await assert.rejects(answer, failsWith("cancelled"));
    await host.until(() => host.openRequests === 0, "its end");
    assert.equal(host.requests.at(-1)?.state, "closed-by-peer");
  }
});

const statuses: readonly (readonly [status: object, code: string, retryAfterMs?: number])[] = [
  [{ code: 401 }, "upstream_auth"],
  [{ code: 403 }, "upstream_auth"],
  [{ code: 429, retryAfterS: 7 }, "upstream_rate_limited", 7000],
  [{ code: 429, headers: { "retry-after-ms": "1500" } }, "upstream_rate_limited", 1500],
  [{ code: 429, errorCode: "slow_down" }, "upstream_rate_limited"],
  [{ code: 429, errorCode: "insufficient_quota", retryAfterS: 7 }, "upstream_quota"],
  [{ code: 429, errorCode: "credit_balance_exhausted" }, "upstream_quota"],
  [{ code: 503 }, "upstream_overloaded"],
  [{ code: 500 }, "upstream_failed"],
  [{ code: 502, body: "html" }, "upstream_failed"],
  [{ code: 504, body: "empty" }, "upstream_timeout"],
  [{ code: 400, errorCode: "context_length_exceeded" }, "context_too_long"],
  [{ code: 400, message: "This model's maximum context length is 128 tokens." }, "context_too_long"],
  [{ code: 400, errorCode: "content_filter" }, "upstream_filtered"],
  [{ code: 400, errorCode: "invalid_prompt" }, "upstream_filtered"],
  [{ code: 400 }, "upstream_rejected"],
  [{ code: 404, errorCode: "model_not_found" }, "model_not_found"],
];
test("each refusal has its code, the server's words without the key, and how long to wait", async (context) => {
  const { host, provider, model } = await world(context);
  const target = await model("gpt-5.5");
  for (const [status, code, retryAfterMs] of statuses) {
    host.playOnce({ status: Object.assign({ code: 500, message: `words ${KEY}` }, status) });
    await assert.rejects(provider.chat(chat(), target, never), (error) => {
      failsWith(code)(error);
      assert.ok(error instanceof Error && !error.message.includes(KEY), String(error));
      assert.equal("retryAfterMs" in error ? error.retryAfterMs : undefined, retryAfterMs, JSON.stringify(status));
      return true;
    });
  }
  assert.equal(host.requests.filter(({ method }) => method === "POST").length, statuses.length);
});

test("an organisation that gets no summaries gets its answer without one", async (context) => {
  const { host, provider, model, lastBody } = await world(context);
  const message = "Your organization must be verified to generate reasoning summaries.";
  host.playOnce({ status: { code: 400, message, errorCode: "unsupported_value" } });
  const request = chat("", { reasoning: { effort: "high", isShown: true } });
  await foldOf(await provider.chat(request, await model("gpt-5.5"), never));
  assert.deepEqual(lastBody()["reasoning"], { effort: "high" });
});

test("a model that encrypts no reasoning answers without", async (context) => {
  const { host, provider, model, lastBody } = await world(context);
  host.playOnce({ status: { code: 400, message: "Encrypted content is not supported with this model." } });
  await foldOf(await provider.chat(chat(), await model("gpt-5.5"), never));
  assert.equal(lastBody()["include"], undefined);
});
