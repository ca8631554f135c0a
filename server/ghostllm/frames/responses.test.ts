/** Events of OpenAI's Responses, from the bytes of a stream and of a plain answer. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { StreamEvent } from "../stream.ts";
import { AnswerFold } from "./answer-fold.ts";
import { decodeFrame } from "./decode.ts";
import { decodeResponses, readSeal } from "./responses.ts";

const sse = (...events: readonly object[]) =>
  Buffer.from(events.map((event) => `event: x\ndata: ${JSON.stringify(event)}\n\n`).join(""));
const check = (events: readonly object[], expected: readonly StreamEvent[]) =>
  assert.deepEqual(decodeResponses(sse(...events)), expected);
const folded = (events: readonly StreamEvent[]) => new AnswerFold().addAll(events);

test("text, and a refusal, come in the order of their deltas", () => {
  check(
    [
      { type: "response.created", response: { status: "in_progress", error: null } },
      { type: "response.output_item.added", output_index: 0, item: { type: "message", content: [] } },
      { type: "response.content_part.added", output_index: 0, part: { type: "output_text", text: "" } },
      { type: "response.output_text.delta", output_index: 0, delta: "Grüße " },
      { type: "response.output_text.delta", output_index: 0, delta: "🦊" },
      { type: "response.output_text.done", output_index: 0, text: "Grüße 🦊" },
      { type: "response.refusal.delta", output_index: 1, delta: "No." },
      { type: "response.something.new", output_index: 1, delta: "?" },
    ],
    [
      { kind: "text", text: "Grüße " },
      { kind: "text", text: "🦊" },
      { kind: "refusal", text: "No." },
    ],
  );
});

test("reasoning is told apart by its place, its parts by a blank line, and its seal ends it", () => {
  const item = {
    type: "reasoning",
    id: "rs_1",
    encrypted_content: "gAAA",
    summary: [
      { type: "summary_text", text: "one" },
      { type: "summary_text", text: "two" },
    ],
  };
  const events = [
    { type: "response.output_item.added", output_index: 2, item: { type: "reasoning", encrypted_content: "half" } },
    { type: "response.reasoning_summary_part.added", output_index: 2, summary_index: 0, part: {} },
    { type: "response.reasoning_summary_text.delta", output_index: 2, summary_index: 0, delta: "one" },
    { type: "response.reasoning_summary_part.added", output_index: 2, summary_index: 1, part: {} },
    { type: "response.reasoning_summary_text.delta", output_index: 2, summary_index: 1, delta: "two" },
    { type: "response.output_item.done", output_index: 2, item },
  ];
  const blocks = folded(decodeResponses(sse(...events))).blocks;
  assert.equal(blocks.length, 1);
  const [block] = blocks;
  assert.ok(block?.kind === "reasoning");
  assert.deepEqual([block.text, block.block], ["one\n\ntwo", 2]);
  const seal = { kind: "reasoning", id: "rs_1", encryptedContent: "gAAA", summary: ["one", "two"] };
  assert.deepEqual(readSeal(block.opaque ?? ""), seal);
});

test("a seal holds the item's id and content, and a summary only where it has several parts", () => {
  const [event] = decodeResponses(
    sse({
      type: "response.output_item.done",
      output_index: 0,
      item: {
        type: "reasoning",
        id: "rs_1",
        encrypted_content: "gAAA",
        summary: [{ type: "summary_text", text: "a" }],
      },
    }),
  );
  assert.ok(event?.kind === "reasoning");
  assert.deepEqual(JSON.parse(event.opaque ?? ""), { id: "rs_1", encrypted_content: "gAAA" });
  assert.equal(readSeal("nonsense"), undefined);
  assert.equal(readSeal('{"id":"rs_1"}'), undefined);
});

test("the phase of a message comes before its text, as a seal of its own", () => {
  const events = decodeResponses(
    sse(
      { type: "response.output_item.added", output_index: 1, item: { type: "message", phase: "commentary" } },
      { type: "response.output_text.delta", output_index: 1, delta: "Let me look." },
      { type: "response.output_item.done", output_index: 1, item: { type: "message", phase: "commentary" } },
    ),
  );
  assert.deepEqual(events, [
    { kind: "reasoning", text: "", block: 1, opaque: '{"phase":"commentary"}' },
    { kind: "text", text: "Let me look." },
  ]);
  assert.deepEqual(readSeal('{"phase":"commentary"}'), { kind: "phase", phase: "commentary" });
});

const call = { type: "function_call", call_id: "call_1", name: "read", id: "fc_1" };
const added = { type: "response.output_item.added", output_index: 1, item: { ...call, arguments: "" } };
const delta = (text: string) => ({
  type: "response.function_call_arguments.delta",
  output_index: 1,
  item_id: "fc_1",
  delta: text,
});
const said = { type: "response.function_call_arguments.done", output_index: 1, arguments: '{"a":1}' };
const done = { type: "response.output_item.done", output_index: 1, item: { ...call, arguments: '{"a":1}' } };

const callStreams: readonly (readonly [name: string, events: readonly object[]])[] = [
  ["in deltas, repeated twice at the end", [added, delta('{"a"'), delta(":1}"), said, done]],
  ["in deltas, repeated once", [added, delta('{"a"'), delta(":1}"), said]],
  ["in deltas alone", [added, delta('{"a":1}')]],
  ["only where the arguments are done", [added, said]],
  ["only where the item is done", [added, done]],
  ["in one event, without a beginning", [done]],
];
for (const [name, events] of callStreams) {
  test(`a call whose arguments come ${name} is one call with its arguments once`, () => {
    const { blocks } = folded(decodeResponses(sse(...events)));
    assert.deepEqual(blocks, [{ kind: "toolCall", index: 1, callId: "call_1", name: "read", arguments: '{"a":1}' }]);
  });
}

test("parallel calls whose deltas take turns stay apart, with their namespaces", () => {
  const begin = (index: number) => ({
    type: "response.output_item.added",
    output_index: index,
    item: { type: "function_call", call_id: `c${index}`, name: `t${index}`, namespace: "ns", arguments: "" },
  });
  const next = (index: number, text: string) => ({ ...delta(text), output_index: index });
  const { blocks } = folded(
    decodeResponses(sse(begin(1), begin(2), next(1, '{"x"'), next(2, '{"y"'), next(1, ":1}"), next(2, ":2}"))),
  );
  assert.deepEqual(
    blocks.map((block) => block.kind === "toolCall" && [block.callId, block.namespace, block.arguments]),
    [
      ["c1", "ns", '{"x":1}'],
      ["c2", "ns", '{"y":2}'],
    ],
  );
});

test("free text for a tool comes as JSON, streamed and whole alike", () => {
  const input = 'a "quoted"\nline — 🦊';
  const item = { type: "custom_tool_call", call_id: "c", name: "patch", input: "" };
  const place = { output_index: 0, item_id: "ctc_1" };
  const events = [
    { type: "response.output_item.added", ...place, item },
    ...input.split(" ").map((piece, index) => ({
      type: "response.custom_tool_call_input.delta",
      ...place,
      delta: index === 0 ? piece : ` ${piece}`,
    })),
    { type: "response.custom_tool_call_input.done", ...place, input },
    { type: "response.output_item.done", ...place, item: { ...item, input } },
  ];
  const expected = {
    kind: "toolCall",
    index: 0,
    callId: "c",
    name: "patch",
    isCustom: true,
    arguments: JSON.stringify({ input }),
  };
  for (const count of [events.length, events.length - 1]) {
    assert.deepEqual(folded(decodeResponses(sse(...events.slice(0, count)))).blocks, [expected]);
  }
  // What was streamed is the beginning of what is whole: nothing has to be taken back.
  const streamed = decodeResponses(sse(...events.slice(0, -2))).map((event) =>
    event.kind === "toolCall" ? event.arguments : "",
  );
  assert.ok(JSON.stringify({ input }).startsWith(streamed.join("")));
});

const end = (status: string, more: object = {}) => ({
  type: `response.${status}`,
  response: { status, output: [], error: null, incomplete_details: null, ...more },
});

test("what ends an answer is told by its word; an unknown one is an error", () => {
  check([end("completed")], [{ kind: "finish", reason: "stop" }]);
  check([end("completed", { output: [call] })], [{ kind: "finish", reason: "toolCalls" }]);
  const refused = [{ type: "message", content: [{ type: "refusal", refusal: "No." }] }];
  check([end("completed", { output: refused })], [{ kind: "finish", reason: "contentFilter" }]);
  const incomplete = (reason: string) => end("incomplete", { incomplete_details: { reason } });
  check([incomplete("max_output_tokens")], [{ kind: "finish", reason: "length" }]);
  check([incomplete("content_filter")], [{ kind: "finish", reason: "contentFilter" }]);
  for (const reason of ["steered", "solar_flare", ""]) {
    const [event] = decodeResponses(sse(incomplete(reason)));
    assert.equal(event?.kind, "error", reason);
  }
  const [cancelled] = decodeResponses(sse({ type: "response.completed", response: { status: "cancelled" } }));
  assert.equal(cancelled?.kind, "error");
});

test("usage has every count that was given, xAI's price, and nothing that was not", () => {
  const usage = {
    input_tokens: 100,
    input_tokens_details: { cached_tokens: 60, cache_write_tokens: 7 },
    output_tokens: 50,
    output_tokens_details: { reasoning_tokens: 30 },
    total_tokens: 150,
    cost_in_usd_ticks: 12_340_000,
  };
  check(
    [end("completed", { usage })],
    [
      {
        kind: "usage",
        usage: {
          promptTokens: 100,
          completionTokens: 50,
          cachedTokens: 60,
          cacheWriteTokens: 7,
          reasoningTokens: 30,
          costUsdMicros: 1234,
        },
      },
      { kind: "finish", reason: "stop" },
    ],
  );
  check(
    [end("completed", { usage: { input_tokens: 3, output_tokens: -1, output_tokens_details: null } })],
    [
      { kind: "usage", usage: { promptTokens: 3 } },
      { kind: "finish", reason: "stop" },
    ],
  );
  check([end("completed", { usage: null })], [{ kind: "finish", reason: "stop" }]);
});

const errors: readonly (readonly [event: object, code: string, message: RegExp])[] = [
  [{ type: "error", code: "server_is_overloaded", message: "busy", param: null }, "upstream_overloaded", /busy/],
  [{ type: "error", error: { type: "rate_limit_exceeded", message: "slow" } }, "upstream_rate_limited", /slow/],
  [end("failed", { error: { code: "server_error", message: "oops" } }), "upstream_failed", /oops/],
  [end("failed", { error: { code: "invalid_prompt", message: "flagged" } }), "upstream_filtered", /flagged/],
  [end("failed", { error: { code: "image_too_large", message: "big" } }), "upstream_rejected", /big/],
  [end("failed"), "upstream_failed", /failed/],
  [{ error: { message: "a proxy's own", code: 529 } }, "upstream_failed", /a proxy's own/],
];
test("an error in the stream has our code, and nothing behind it counts", () => {
  for (const [event, code, message] of errors) {
    const events = decodeResponses(sse(event, { type: "response.output_text.delta", delta: "more" }));
    assert.equal(events.length, 1, JSON.stringify(event));
    assert.ok(events[0]?.kind === "error");
    assert.equal(events[0].error.code, code);
    assert.match(events[0].error.message, message);
  }
  assert.equal(decodeResponses(Buffer.from("data: {oops\n\n"))[0]?.kind, "error");
  assert.deepEqual(decodeResponses(Buffer.from("data: [DONE]\n\n")), []);
});

test("a plain answer has the same events, whole", () => {
  const answer = {
    id: "resp_1",
    status: "completed",
    error: null,
    output: [
      {
        type: "reasoning",
        id: "rs_1",
        encrypted_content: "gAAA",
        summary: [
          { type: "summary_text", text: "a" },
          { type: "summary_text", text: "b" },
        ],
      },
      { type: "message", phase: "final_answer", content: [{ type: "output_text", text: "Hi", annotations: [] }] },
      { type: "web_search_call", id: "ws_1" },
      { ...call, arguments: '{"a":1}' },
    ],
    usage: { input_tokens: 1, output_tokens: 2 },
  };
  const fold = folded(decodeFrame("openai-responses", Buffer.from(JSON.stringify(answer))));
  assert.deepEqual(
    fold.blocks.map((block) => [block.kind, block.kind === "toolCall" ? block.arguments : block.text]),
    [
      ["reasoning", "a\n\nb"],
      ["reasoning", ""],
      ["text", "Hi"],
      ["toolCall", '{"a":1}'],
    ],
  );
  assert.equal(fold.reason, "toolCalls");
  assert.deepEqual(fold.usage, { promptTokens: 1, completionTokens: 2 });
  const failed = decodeResponses(Buffer.from('{"error":{"message":"x","type":"server_error","code":null}}'));
  assert.equal(failed[0]?.kind, "error");
});

test("events that only say the request again are not parsed", () => {
  for (const state of ["created", "queued", "in_progress"]) {
    const unread = Buffer.from(`event: x\ndata: {"type":"response.${state}","response":{"tools":[not read}\n\n`);
    const hi = sse({ type: "response.output_text.delta", output_index: 0, delta: "Hi" });
    assert.deepEqual(decodeResponses(Buffer.concat([unread, hi])), [{ kind: "text", text: "Hi" }], state);
  }
});

test("a chunk of text is decoded in far less than 60 µs", () => {
  const frame = sse({
    type: "response.output_text.delta",
    item_id: "msg_0123456789abcdef0123456789abcdef",
    output_index: 0,
    content_index: 0,
    delta: " some words",
    logprobs: [],
    sequence_number: 17,
  });
  const rounds = 20_000;
  for (let round = 0; round < rounds; round += 1) decodeResponses(frame);
  const before = process.cpuUsage();
  for (let round = 0; round < rounds; round += 1) decodeResponses(frame);
  const { user, system } = process.cpuUsage(before);
  assert.ok((user + system) / rounds < 60, `${(user + system) / rounds} µs`);
});
