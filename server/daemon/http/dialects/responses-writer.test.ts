import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { OperationalError } from "../../../base/errors.ts";
import { BlockSequence } from "../../../ghostllm/frames/block-sequence.ts";
import type { StreamEvent } from "../../../ghostllm/stream.ts";
import { endingOf, ResponseEvents, responseUsage } from "./responses-writer.ts";

const head = {
  id: "resp_1",
  model: "up/m",
  createdAtMs: 1_000,
  echo: '"store":true',
  sealReasoning: (data: string) => `sealed ${data}`,
  sealCall: (callId: string, data: string) => `sealed ${callId} ${data}`,
};
const eventSchema = z.looseObject({ type: z.string(), sequence_number: z.int() });
const itemSchema = z.looseObject({ id: z.string(), type: z.string(), status: z.string().optional() });

function write(events: readonly StreamEvent[]) {
  const seen: z.infer<typeof eventSchema>[] = [];
  const writer = new ResponseEvents(head, (type, json) => {
    const event = eventSchema.parse(JSON.parse(json));
    assert.equal(event.type, type);
    seen.push(event);
  });
  const sequence = new BlockSequence();
  for (const event of events) for (const step of sequence.add(event)) writer.step(step);
  const finish = () => {
    const { reason } = sequence;
    const steps = sequence.end();
    for (const [index, step] of steps.entries())
      writer.step(step, { isCutShort: reason === "length" && index === steps.length - 1 });
    const { text } = writer.finish({ ...endingOf(reason), completedAtMs: 2_000, usage: sequence.usage });
    return z.looseObject({ status: z.string(), output: z.array(itemSchema) }).parse(JSON.parse(text));
  };
  return { seen, writer, finish };
}

const types = (seen: readonly { readonly type: string }[]) => seen.map(({ type }) => type.replace(/^response\./, ""));

test("thinking, words and a call: the events in their order", () => {
  const { seen, finish } = write([
    { kind: "reasoning", text: "hm" },
    { kind: "reasoning", text: "", opaque: "data" },
    { kind: "text", text: "a" },
    { kind: "toolCall", index: 4, callId: "c", name: "n", arguments: "{" },
    { kind: "toolCall", index: 4, arguments: "}" },
    { kind: "finish", reason: "stop" },
  ]);
  const { output, status } = finish();
  const expected = `created in_progress
    output_item.added reasoning_summary_part.added reasoning_summary_text.delta
    reasoning_summary_text.done reasoning_summary_part.done output_item.done
    output_item.added content_part.added output_text.delta output_text.done content_part.done output_item.done
    output_item.added function_call_arguments.delta function_call_arguments.delta
    function_call_arguments.done output_item.done completed`;
  assert.deepEqual(types(seen), expected.split(/\s+/));
  assert.deepEqual([status, seen.map((event) => event.sequence_number)], ["completed", seen.map((_, index) => index)]);
  assert.deepEqual(
    output.map(({ id, encrypted_content: sealed }) => [id, sealed]),
    [
      ["rs_1_0", "sealed data"],
      ["msg_1_1", undefined],
      ["fc_1_2", undefined],
    ],
  );
});

const shapes: readonly [name: string, events: readonly StreamEvent[], output: readonly object[]][] = [
  [
    "a phase is its message's, not an item",
    [
      { kind: "reasoning", text: "", opaque: '{"phase":"final_answer"}' },
      { kind: "text", text: "a" },
    ],
    [{ type: "message", phase: "final_answer", id: "msg_1_0" }],
  ],
  [
    "a phase is of one message only",
    [
      { kind: "reasoning", text: "", opaque: '{"phase":"commentary"}' },
      { kind: "text", text: "a" },
      { kind: "reasoning", text: "hm" },
      { kind: "text", text: "b" },
    ],
    [{ phase: "commentary" }, { type: "reasoning" }, { type: "message", phase: undefined }],
  ],
  [
    "thinking whose text is withheld is an item for its seal, and none without one",
    [
      { kind: "reasoning", text: "", opaque: "data" },
      { kind: "text", text: "a" },
      { kind: "reasoning", text: "" },
      { kind: "text", text: "b" },
    ],
    [
      { type: "reasoning", summary: [], encrypted_content: "sealed data" },
      {
        type: "message",
        content: [
          { type: "output_text", text: "a" },
          { type: "output_text", text: "b" },
        ],
      },
    ],
  ],
  [
    "text and a refusal are parts of one message",
    [
      { kind: "text", text: "a" },
      { kind: "refusal", text: "no" },
    ],
    [
      {
        type: "message",
        content: [
          { type: "output_text", text: "a" },
          { type: "refusal", refusal: "no" },
        ],
      },
    ],
  ],
  [
    "what a call's maker wants back stands behind the call",
    [{ kind: "toolCall", index: 0, callId: "c", name: "n", arguments: "", isWhole: true, opaque: "sig" }],
    [
      { type: "function_call", call_id: "c", arguments: "{}" },
      { type: "reasoning", summary: [], encrypted_content: "sealed c sig" },
    ],
  ],
  [
    "a call without an id gets one that is not its item's",
    [{ kind: "toolCall", index: 0, name: "n", arguments: "{}" }],
    [{ id: "fc_1_0", call_id: "call_fc_1_0" }],
  ],
  [
    "a summary in parts ends in the parts that its maker gave",
    [
      { kind: "reasoning", text: "a\n\nb" },
      { kind: "reasoning", text: "", opaque: '{"id":"rs","encrypted_content":"e","summary":["a","b"]}' },
    ],
    [
      {
        type: "reasoning",
        summary: [
          { type: "summary_text", text: "a" },
          { type: "summary_text", text: "b" },
        ],
      },
    ],
  ],
];
for (const [name, events, output] of shapes) {
  test(name, () => {
    const { finish } = write(events);
    const found = finish().output;
    assert.equal(found.length, output.length);
    for (const [index, expected] of output.entries())
      assert.partialDeepStrictEqual({ phase: undefined, ...found[index] }, expected);
  });
}

test("a call that ran out of tokens is incomplete, and one before it is not", () => {
  const { finish } = write([
    { kind: "toolCall", index: 0, callId: "a", name: "n", arguments: "{}" },
    { kind: "toolCall", index: 1, callId: "b", name: "n", arguments: '{"path":"/et' },
    { kind: "finish", reason: "length" },
  ]);
  const { status, output } = finish();
  assert.deepEqual([status, ...output.map((item) => item.status)], ["incomplete", "completed", "incomplete"]);
});

test("a call whose JSON broke off for no reason is no call, and neither is one of a free-form tool", () => {
  for (const more of [{ arguments: '{"path":"/et' }, { arguments: '{"input":"rm -rf /tmp/', isCustom: true }]) {
    const { seen, finish } = write([
      { kind: "toolCall", index: 0, callId: "b", name: "n", ...more },
      { kind: "finish", reason: "stop" },
    ]);
    assert.throws(finish, /broke off the arguments of its call of "n"/);
    assert.ok(!types(seen).includes("output_item.done"));
    assert.ok(!types(seen).includes("custom_tool_call_input.done"));
  }
});

test("a broken answer keeps what was said, and calls nothing of it done", () => {
  const { seen, writer } = write([
    { kind: "text", text: "half" },
    { kind: "toolCall", index: 0, callId: "a", name: "n", arguments: '{"pa' },
  ]);
  writer.fail(new OperationalError("upstream_overloaded", "too much"));
  const done = seen.filter(({ type }) => type === "response.output_item.done").map((event) => event["item"]);
  assert.deepEqual(
    z
      .array(itemSchema)
      .parse(done)
      .map(({ type }) => type),
    ["message"],
  );
  assert.deepEqual(types(seen).slice(-2), ["error", "failed"]);
  assert.equal(seen.at(-2)?.["code"], "server_is_overloaded");
  assert.doesNotMatch(JSON.stringify(seen.at(-1)), /function_call/);
});

test("counts that nobody knows make usage null, and never 0", () => {
  assert.equal(responseUsage(null), "null");
  assert.equal(responseUsage({ promptTokens: 3 }), "null");
  assert.deepEqual(JSON.parse(responseUsage({ promptTokens: 3, completionTokens: 2, reasoningTokens: 1 })), {
    input_tokens: 3,
    input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
    output_tokens: 2,
    output_tokens_details: { reasoning_tokens: 1 },
    total_tokens: 5,
  });
});
