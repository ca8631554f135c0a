import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { StreamEvent } from "../stream.ts";
import { anthropicFrame, decodeAnthropic, hasMessageStop, readSeal } from "./anthropic.ts";
import { AnswerFold } from "./answer-fold.ts";
import { decodeFrame } from "./decode.ts";

const sse = (...events: readonly { readonly type: string }[]) =>
  Buffer.from(events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(""));
const start = (index: number, block: object) => ({ type: "content_block_start", index, content_block: block });
const delta = (index: number, value: object) => ({ type: "content_block_delta", index, delta: value });
const check = (bytes: Buffer, expected: readonly StreamEvent[]) => assert.deepEqual(decodeAnthropic(bytes), expected);
const end = (reason: string | null, usage: object = {}) => ({
  type: "message_delta",
  delta: { stop_reason: reason },
  usage,
});

test("text comes as it is; pings, stops and events of later years say nothing", () => {
  const bytes = sse(
    { type: "ping" },
    start(0, { type: "text", text: "" }),
    delta(0, { type: "text_delta", text: "Grüße 🦊" }),
    delta(0, { type: "citations_delta", citation: {} }),
    delta(0, { type: "new_in_2027_delta", text: "x" }),
    { type: "content_block_stop" },
    { type: "new_in_2027" },
  );
  check(bytes, [{ kind: "text", text: "Grüße 🦊" }]);
});

test("calls keep the numbers of their blocks, and pieces belong to them also in another run of frames", () => {
  check(sse(start(2, { type: "tool_use", id: "toolu_1", name: "read", input: {} })), [
    { kind: "toolCall", index: 2, callId: "toolu_1", name: "read", arguments: "" },
  ]);
  check(
    sse(
      delta(2, { type: "input_json_delta", partial_json: "" }),
      delta(2, { type: "input_json_delta", partial_json: '{"a":' }),
    ),
    [{ kind: "toolCall", index: 2, arguments: '{"a":' }],
  );
});

test("thinking is sealed by its signature, byte for byte, and redacted thinking by its data", () => {
  const bytes = sse(
    start(0, { type: "thinking", thinking: "", signature: "" }),
    delta(0, { type: "thinking_delta", thinking: "a\u0000 “b”\n" }),
    delta(0, { type: "thinking_delta", thinking: "c " }),
    delta(0, { type: "signature_delta", signature: "c2ln" }),
    start(1, { type: "redacted_thinking", data: "ZGF0YQ==" }),
  );
  const fold = new AnswerFold().addAll(decodeAnthropic(bytes));
  assert.deepEqual(fold.parts("anthropic"), [
    { kind: "reasoning", text: "a\u0000 “b”\nc ", opaque: { maker: "anthropic", data: '{"signature":"c2ln"}' } },
    { kind: "reasoning", text: "", opaque: { maker: "anthropic", data: '{"redacted":"ZGF0YQ=="}' } },
  ]);
  assert.deepEqual(readSeal('{"signature":"c2ln"}'), { signature: "c2ln" });
  assert.deepEqual(readSeal('{"redacted":"x"}'), { redacted: "x" });
  for (const foreign of ["", "[]", '{"encrypted":"x"}', '{"signature":1}']) assert.equal(readSeal(foreign), undefined);
});

test("that thinking has begun is told before its first word", () => {
  check(sse(start(0, { type: "thinking", thinking: "", signature: "" })), [{ kind: "reasoning", text: "", block: 0 }]);
});

test("what runs on Anthropic's side is no call of a client", () => {
  const bytes = sse(
    start(0, { type: "server_tool_use", id: "srvtoolu_1", name: "web_search", input: {} }),
    delta(0, { type: "input_json_delta", partial_json: '{"query":"x"}' }),
    start(1, { type: "web_search_tool_result", tool_use_id: "srvtoolu_1", content: [] }),
    start(2, { type: "tool_use", id: "toolu_1", name: "read", input: {} }),
    delta(2, { type: "input_json_delta", partial_json: "{}" }),
  );
  const fold = new AnswerFold().addAll(decodeAnthropic(bytes));
  assert.deepEqual(fold.parts("anthropic"), [{ kind: "toolCall", callId: "toolu_1", name: "read", arguments: "{}" }]);
});

test("usage is a total: the last event replaces what the first said, null keeps it, and caches are part of the prompt", () => {
  const first = {
    type: "message_start",
    message: {
      usage: { input_tokens: 10, cache_creation_input_tokens: 200, cache_read_input_tokens: 3000, output_tokens: 1 },
    },
  };
  check(sse(first), [{ kind: "usage", usage: { promptTokens: 3210, cachedTokens: 3000, cacheWriteTokens: 200 } }]);
  const last = { output_tokens: 50, output_tokens_details: { thinking_tokens: 20 } };
  const kept = { input_tokens: null, cache_creation_input_tokens: null, cache_read_input_tokens: null };
  const fold = new AnswerFold().addAll(decodeAnthropic(sse(first, end("end_turn", { ...kept, ...last }))));
  assert.deepEqual(fold.usage, {
    promptTokens: 3210,
    cachedTokens: 3000,
    cacheWriteTokens: 200,
    completionTokens: 50,
    reasoningTokens: 20,
  });
  const grown = { input_tokens: 11, cache_creation_input_tokens: 0, cache_read_input_tokens: 3200, output_tokens: 5 };
  fold.addAll(decodeAnthropic(sse(end("end_turn", grown))));
  assert.deepEqual([fold.usage?.promptTokens, fold.usage?.cachedTokens], [3211, 3200]);
  check(sse(end("end_turn", { input_tokens: 12, cache_read_input_tokens: null, output_tokens: 5 })), [
    { kind: "usage", usage: { completionTokens: 5 } },
    { kind: "finish", reason: "stop" },
  ]);
});

test("a count that nobody gave is unknown", () => {
  const first = { type: "message_start", message: {} };
  check(sse(first, end("end_turn")), [{ kind: "finish", reason: "stop" }]);
  check(sse(end(null, { output_tokens: -1, input_tokens: "7" })), []);
  check(sse(end("end_turn", { input_tokens: 7, output_tokens: 3 })), [
    { kind: "usage", usage: { promptTokens: 7, completionTokens: 3 } },
    { kind: "finish", reason: "stop" },
  ]);
});

const reasons: readonly (readonly [word: string, reason: string])[] = [
  ["end_turn", "stop"],
  ["stop_sequence", "stop"],
  ["max_tokens", "length"],
  ["model_context_window_exceeded", "length"],
  ["tool_use", "toolCalls"],
  ["refusal", "contentFilter"],
  ["pause_turn", "unknown"],
  ["new_in_2027", "unknown"],
];
for (const [word, reason] of reasons) {
  test(`${word} ends as ${reason}`, () => {
    assert.deepEqual(decodeAnthropic(sse(end(word))), [{ kind: "finish", reason }]);
  });
}

test("an error in band has its own code, and a frame that is not JSON is one", () => {
  const error = (type: string, message: string) => ({ type: "error", error: { type, message } });
  const codeIn = (bytes: Buffer) =>
    decodeAnthropic(bytes).map((event) => (event.kind === "error" ? event.error.code : ""));
  assert.deepEqual(codeIn(sse(error("overloaded_error", "Overloaded"))), ["upstream_overloaded"]);
  assert.deepEqual(codeIn(sse(error("rate_limit_error", "slow"))), ["upstream_rate_limited"]);
  assert.deepEqual(codeIn(sse(error("new_in_2027", "what"))), ["upstream_failed"]);
  assert.deepEqual(codeIn(Buffer.from('data: {"type":"ping"\n\ndata: {"type":"ping"}\n\n')), ["upstream_failed"]);
});

test("a whole answer is decoded block by block, and is broken without its end", () => {
  const whole = {
    type: "message",
    content: [
      { type: "thinking", thinking: "hm", signature: "s" },
      { type: "text", text: "a" },
      { type: "tool_use", id: "t", name: "n", input: { x: 1 } },
      { type: "tool_use", id: "u", name: "n", input: {} },
    ],
    stop_reason: "tool_use",
    usage: { input_tokens: 1, output_tokens: 2, cache_read_input_tokens: null },
  };
  check(Buffer.from(JSON.stringify(whole)), [
    { kind: "reasoning", text: "hm", block: 0, opaque: '{"signature":"s"}' },
    { kind: "text", text: "a" },
    { kind: "toolCall", index: 2, callId: "t", name: "n", arguments: '{"x":1}' },
    { kind: "toolCall", index: 3, callId: "u", name: "n", arguments: "" },
    { kind: "usage", usage: { promptTokens: 1, completionTokens: 2 } },
    { kind: "finish", reason: "toolCalls" },
  ]);
  const cut = decodeAnthropic(Buffer.from(JSON.stringify({ ...whole, stop_reason: null })));
  assert.equal(cut.at(-1)?.kind, "error");
});

test("the end is seen in every form of the wire, and text that only names it is no end", () => {
  assert.equal(hasMessageStop(sse({ type: "message_stop" })), true);
  assert.equal(hasMessageStop(Buffer.from('data:{"type" : "message_stop",\r\ndata: "x": 1}\r\n\r\n')), true);
  const text = delta(0, { type: "text_delta", text: '{"type":"message_stop"} event: message_stop' });
  assert.equal(hasMessageStop(sse(text)), false);
});

test("the transcript decodes the same events from the bytes", () => {
  const bytes = sse(delta(0, { type: "text_delta", text: "a" }), end("end_turn"));
  assert.deepEqual(decodeFrame("anthropic-messages", bytes), anthropicFrame(bytes).events());
});

/** Streams in the provider's own form (`test/fixtures/wire`): what they say, how they end, what they cost. */
const goldens: readonly (readonly [file: string, says: readonly string[], end: string, usage: string])[] = [
  ["text", ["text: Bonjour, à bientôt 🌍!"], "stop", "25+0 15"],
  ["refusal", ["text: Sure, to"], "contentFilter", "25+0 4"],
  ["overloaded", ["text: The first half"], "upstream_overloaded", "25+0 ?"],
  [
    "omitted-thinking-max-tokens",
    ['reasoning: {"signature":"EqQBCgIYAhIMb21pdHRlZA=="}', "text: Part"],
    "length",
    "25+0 64",
  ],
  [
    "thinking-tools",
    [
      'reasoning: The user wants the weather in two places.{"signature":"EqQBCgIYAhIMZ29sZGVuc2lnbmF0dXJl"}',
      "text: I'll look at both.",
      'toolCall: toolu_01GoldenParis get_weather {"location": "Paris"}',
      "toolCall: toolu_01GoldenNow get_time ",
    ],
    "toolCalls",
    "20485+18330 117",
  ],
];
for (const [file, says, end, usage] of goldens) {
  test(`${file}.sse is understood`, () => {
    const bytes = readFileSync(new URL(`../../../test/fixtures/wire/anthropic/${file}.sse`, import.meta.url));
    const fold = new AnswerFold().addAll(decodeAnthropic(bytes));
    const said = fold.blocks.map((block) => {
      if (block.kind === "toolCall") return `toolCall: ${block.callId} ${block.name} ${block.arguments}`;
      return `${block.kind}: ${block.text}${block.kind === "reasoning" ? (block.opaque ?? "") : ""}`;
    });
    const { promptTokens, cachedTokens, completionTokens } = fold.usage ?? {};
    assert.deepEqual(said, says);
    assert.equal(fold.error?.code ?? fold.reason, end);
    assert.equal(`${promptTokens}+${cachedTokens} ${completionTokens ?? "?"}`, usage);
    assert.equal(hasMessageStop(bytes), fold.error === undefined);
  });
}
