import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { StreamEvent } from "../stream.ts";
import { AnswerFold } from "./answer-fold.ts";
import { BlockSequence, type BlockStep } from "./block-sequence.ts";

const text = (words: string): StreamEvent => ({ kind: "text", text: words });
const call = (index: number, more: Partial<Extract<StreamEvent, { kind: "toolCall" }>> = {}): StreamEvent => ({
  kind: "toolCall",
  index,
  arguments: "",
  ...more,
});

function play(events: readonly StreamEvent[]): { readonly steps: readonly BlockStep[]; readonly live: number } {
  const sequence = new BlockSequence();
  const live = events.flatMap((event) => sequence.add(event));
  return { steps: [...live, ...sequence.end()], live: live.length };
}

/** `open text|text:Hi|close text`: one word for each step. */
const brief = (steps: readonly BlockStep[]) =>
  steps.map((step) => {
    const name = step.block.kind === "toolCall" ? step.block.callId : step.block.kind;
    return step.step === "delta" ? `${name}:${step.text}` : `${step.step} ${name}`;
  });

const cases: readonly [name: string, events: readonly StreamEvent[], expected: readonly string[]][] = [
  ["text", [text("Hi"), text(" you")], ["open text", "text:Hi", "text: you", "close text"]],
  [
    "thinking, then text, then a call",
    [
      { kind: "reasoning", text: "hm" },
      { kind: "reasoning", text: "", opaque: "seal" },
      text("ok"),
      call(7, { callId: "a", name: "f", arguments: '{"x":' }),
      call(7, { arguments: "1}" }),
      { kind: "finish", reason: "stop" },
    ],
    [
      "open reasoning",
      "reasoning:hm",
      "close reasoning",
      "open text",
      "text:ok",
      "close text",
      "open a",
      'a:{"x":',
      "a:1}",
      "close a",
    ],
  ],
  [
    "interleaved calls come out one after the other",
    [
      call(0, { callId: "a", name: "f" }),
      call(1, { callId: "b", name: "g" }),
      call(1, { arguments: '{"b"' }),
      call(0, { arguments: '{"a":"}"' }),
      call(1, { arguments: ":2}" }),
      call(0, { arguments: "}" }),
      text("after"),
    ],
    [
      "open a",
      'a:{"a":"}"',
      "a:}",
      "close a",
      "open b",
      'b:{"b"',
      "b::2}",
      "close b",
      "open text",
      "text:after",
      "close text",
    ],
  ],
  [
    "what is repeated at the end is given once",
    [
      call(0, { callId: "a", name: "f", arguments: '{"a":1' }),
      call(0, { arguments: '{"a":1}', isWhole: true }),
      call(0, { arguments: '{"a":1}', isWhole: true }),
    ],
    ["open a", 'a:{"a":1', "a:}", "close a"],
  ],
  [
    "calls without arguments",
    [call(0, { callId: "a", name: "f" }), call(1, { callId: "b", name: "g" }), { kind: "finish", reason: "toolCalls" }],
    ["open a", "close a", "open b", "close b"],
  ],
  [
    "a call that was cut is closed at the end, and what waited for it follows",
    [call(0, { callId: "a", name: "f", arguments: '{"a"' }), text("late")],
    ["open a", 'a:{"a"', "close a", "open text", "text:late", "close text"],
  ],
];
for (const [name, events, expected] of cases) test(name, () => assert.deepEqual(brief(play(events).steps), expected));

test("text leaves in the call in which it came", () => {
  const sequence = new BlockSequence();
  assert.deepEqual(brief(sequence.add(text("a"))), ["open text", "text:a"]);
  assert.deepEqual(brief(sequence.add(text("b"))), ["text:b"]);
});

test("calls make `stop` into `toolCalls`, and an unsaid reason stays unsaid", () => {
  const sequence = new BlockSequence();
  sequence.add(call(0, { callId: "a", name: "f", arguments: "{}" }));
  assert.equal(sequence.reason, undefined);
  sequence.add({ kind: "finish", reason: "stop" });
  assert.equal(sequence.reason, "toolCalls");
});

const piece = fc.oneof(
  fc.string({ minLength: 1, maxLength: 5 }).map(text),
  fc
    .record({ text: fc.string({ maxLength: 4 }), block: fc.nat(2) })
    .map((given): StreamEvent => ({ kind: "reasoning", ...given })),
  fc
    .record({ index: fc.nat(3), arguments: fc.constantFrom("", "{", "}", '{"a":"b}"}', '"', "x") })
    .map((given): StreamEvent => ({ kind: "toolCall", callId: `c${given.index}`, name: "f", ...given })),
);

test("whatever the order, blocks never overlap, and no text or argument before a call's end is lost or doubled", () => {
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (events) => {
      const { steps } = play(events);
      let open: number | undefined;
      const sums = new Map<string, string>();
      for (const step of steps) {
        if (step.step === "open") {
          assert.equal(open, undefined);
          open = step.number;
          continue;
        }
        assert.equal(step.number, open);
        const key = step.block.kind === "toolCall" ? step.block.callId : step.block.kind;
        if (step.step === "delta") sums.set(key, (sums.get(key) ?? "") + step.text);
        else open = undefined;
      }
      assert.equal(open, undefined);
      const fold = new AnswerFold().addAll(events);
      for (const kind of ["text", "reasoning"] as const) {
        const all = fold.blocks.flatMap((block) => (block.kind === kind ? [block.text] : [])).join("");
        assert.equal(sums.get(kind) ?? "", all);
      }
      for (const block of fold.blocks) {
        if (block.kind !== "toolCall") continue;
        // What follows a call's complete JSON is no part of it.
        assert.ok(block.arguments.startsWith(sums.get(block.callId) ?? ""));
      }
      const opened = steps.filter((step) => step.step === "open" && step.block.kind === "toolCall");
      assert.equal(opened.length, fold.blocks.filter(({ kind }) => kind === "toolCall").length);
    }),
  );
});

test("pieces of a call that nobody opened belong to a tool on the provider's side, and open nothing", () => {
  const sequence = new BlockSequence();
  const events: readonly StreamEvent[] = [
    { kind: "toolCall", index: 1, arguments: '{"query":' },
    { kind: "toolCall", index: 2, callId: "a", name: "f", arguments: "{" },
    { kind: "toolCall", index: 1, arguments: '"x"}' },
    { kind: "toolCall", index: 2, arguments: "}" },
  ];
  const steps = [...events.flatMap((event) => sequence.add(event)), ...sequence.end()];
  assert.deepEqual(
    steps.map(({ step, block }) => [step, block.kind === "toolCall" ? block.callId : ""]),
    [
      ["open", "a"],
      ["delta", "a"],
      ["delta", "a"],
      ["close", "a"],
    ],
  );
});
