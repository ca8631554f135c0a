import assert from "node:assert/strict";
import { test } from "node:test";
import type { StreamEvent } from "../stream.ts";
import { decodeOpenAi } from "./openai.ts";

const sse = (...chunks: unknown[]) => chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("");
const delta = (value: object, finish: string | null = null) => ({
  choices: [{ index: 0, delta: value, finish_reason: finish }],
});

const cases: readonly [name: string, input: string, expected: readonly StreamEvent[]][] = [
  [
    "text deltas",
    sse(delta({ role: "assistant", content: "" }), delta({ content: "Hi" })),
    [{ kind: "text", text: "Hi" }],
  ],
  [
    "both names for reasoning",
    sse(delta({ reasoning_content: "a" }), delta({ reasoning: "b" })),
    [
      { kind: "reasoning", text: "a" },
      { kind: "reasoning", text: "b" },
    ],
  ],
  [
    "a refusal, also beside empty content",
    sse(delta({ content: "", refusal: "I " }), delta({ refusal: "won't" }), delta({ content: "", refusal: null })),
    [
      { kind: "refusal", text: "I " },
      { kind: "refusal", text: "won't" },
    ],
  ],
  [
    "content in parts, with thinking among them",
    sse(
      delta({ content: [{ type: "thinking", thinking: [{ type: "text", text: "hm" }] }] }),
      delta({
        content: [
          { type: "text", text: "Hi" },
          { type: "reference", reference_ids: [1] },
        ],
      }),
      delta({ content: " you" }),
    ),
    [
      { kind: "reasoning", text: "hm" },
      { kind: "text", text: "Hi" },
      { kind: "text", text: " you" },
    ],
  ],
  [
    "arguments as an object",
    sse(delta({ tool_calls: [{ id: "c", function: { name: "f", arguments: { a: [1] } } }] })),
    [{ kind: "toolCall", index: 0, callId: "c", name: "f", arguments: '{"a":[1]}' }],
  ],
  ["a finish reason of no words", sse(delta({ content: "Hi" }, "")), [{ kind: "text", text: "Hi" }]],
  [
    "interleaved tool calls",
    sse(
      delta({ tool_calls: [{ index: 1, id: "c", function: { name: "f", arguments: "" } }] }),
      delta({ tool_calls: [{ index: 1, function: { arguments: "{}" } }] }, "tool_calls"),
    ),
    [
      { kind: "toolCall", index: 1, callId: "c", name: "f", arguments: "" },
      { kind: "toolCall", index: 1, arguments: "{}" },
      { kind: "finish", reason: "toolCalls" },
    ],
  ],
  [
    "usage with cached tokens",
    sse({
      choices: [],
      usage: { prompt_tokens: 5, completion_tokens: 2, prompt_tokens_details: { cached_tokens: 4 } },
    }),
    [{ kind: "usage", usage: { promptTokens: 5, completionTokens: 2, cachedTokens: 4 } }],
  ],
  ["unknown usage stays unknown", sse({ choices: [], usage: { prompt_tokens: null } }), [{ kind: "usage", usage: {} }]],
  [
    "one plain answer",
    JSON.stringify({ choices: [{ message: { content: "x" }, finish_reason: "length" }] }),
    [
      { kind: "text", text: "x" },
      { kind: "finish", reason: "length" },
    ],
  ],
  ["text completions", sse({ choices: [{ text: "a", finish_reason: null }] }), [{ kind: "text", text: "a" }]],
  [
    "an error as an object",
    sse({ error: { message: "boom" } }),
    [{ kind: "error", error: { code: "upstream_failed", message: "boom", details: {} } }],
  ],
  [
    "an error as text",
    sse({ error: "boom" }),
    [{ kind: "error", error: { code: "upstream_failed", message: "boom", details: {} } }],
  ],
  [
    "errors in the words of several servers",
    sse({ error: { code: 429, message: "slow down" }, choices: [] }) +
      sse({ error: { code: "context_length_exceeded", message: "too long" } }) +
      sse({ error: { type: "overloaded_error", message: "busy" } }),
    [
      { kind: "error", error: { code: "upstream_rate_limited", message: "slow down", details: {} } },
      { kind: "error", error: { code: "context_too_long", message: "too long", details: {} } },
      { kind: "error", error: { code: "upstream_overloaded", message: "busy", details: {} } },
    ],
  ],
  ["comments and [DONE] hold nothing", ": ping\n\ndata: [DONE]\n\n", []],
];
for (const [name, input, expected] of cases)
  test(name, () => assert.deepEqual(decodeOpenAi(Buffer.from(input)), expected));

test("a frame that is not a chunk is an error, and nothing behind it counts", () => {
  const events = decodeOpenAi(Buffer.from(`data: {"choices":[{"del\n\n${sse(delta({ content: "late" }))}`));
  assert.deepEqual(
    events.map(({ kind }) => kind),
    ["error"],
  );
});
