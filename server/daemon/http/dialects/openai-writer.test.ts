import assert from "node:assert/strict";
import { test } from "node:test";
import { answerIdSchema, modelRefSchema } from "../../../../protocol/ids.ts";
import { AnswerFold } from "../../../ghostllm/frames/answer-fold.ts";
import { eventsFrame, type StreamEvent } from "../../../ghostllm/stream.ts";
import { createStreamWriter, renderWhole } from "./openai-writer.ts";

const OPTIONS = {
  format: "openai-chat",
  id: answerIdSchema.parse("ans_01M8DX5EFQK19THSPGGVWTA5MK"),
  model: modelRefSchema.parse("p/m"),
  createdAtMs: 1000,
  includeUsage: false,
} as const;

const call = (index: number, text: string, more: object = {}): StreamEvent => ({
  kind: "toolCall",
  index,
  callId: `call_${index}`,
  name: "f",
  arguments: text,
  ...more,
});
const finish = (reason: "toolCalls" | "length" | "stop"): StreamEvent => ({ kind: "finish", reason });

const streamed = (events: readonly StreamEvent[]) => {
  const writer = createStreamWriter(OPTIONS);
  const shown = writer.write(eventsFrame(events)).toString();
  return { shown, end: () => shown + writer.end().toString() };
};
const whole = (events: readonly StreamEvent[]) => renderWhole(OPTIONS, new AnswerFold().addAll(events));

const BROKEN: readonly (readonly [name: string, event: StreamEvent])[] = [
  ["a function's", call(0, '{"path":"/tm')],
  ["a free-form tool's", call(0, '{"input":"rm -rf /tmp/', { isCustom: true })],
];
for (const [name, event] of BROKEN) {
  test(`${name} call that its model broke off is an error, and never told as called`, () => {
    for (const reason of ["toolCalls", "stop"] as const) {
      const { shown, end } = streamed([event, finish(reason)]);
      assert.throws(end, /broke off the arguments of its call of "f"/);
      assert.doesNotMatch(shown, /"finish_reason":"|"custom"/);
      assert.throws(() => whole([event, finish(reason)]), /broke off the arguments/);
    }
  });
}

test("a call that ran out of tokens is told as the answer's length, and a free-form one is not shown", () => {
  for (const [name, event] of BROKEN) {
    const text = streamed([event, finish("length")]).end();
    assert.match(text, /"finish_reason":"length"/);
    assert.doesNotMatch(text + whole([event, finish("length")]), /rm -rf/, name);
    assert.match(whole([event, finish("length")]), /"finish_reason":"length"/);
  }
});

test("calls without an id get one each, the same in a stream and in a whole answer", () => {
  const events = [call(0, "{}", { callId: "" }), call(4, "", { callId: "" }), finish("stop")];
  const ids = (text: string) => [...text.matchAll(/"id":"(call_[^"]+)"/g)].map(([, id]) => id);
  const told = ids(streamed(events).end());
  assert.equal(new Set(told).size, 2);
  assert.deepEqual(ids(whole(events)), told);
});

test("pieces of a call that nobody opened are of a tool on the provider's side, and shown to nobody", () => {
  const piece: StreamEvent = { kind: "toolCall", index: 3, arguments: '{"query":"x"}' };
  const events = [piece, { kind: "text", text: "found" } as const, finish("stop")];
  assert.doesNotMatch(streamed(events).end(), /tool_calls/);
  assert.doesNotMatch(whole(events), /tool_calls/);
});
