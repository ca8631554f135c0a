import assert from "node:assert/strict";
import { test } from "node:test";
import { clientIdSchema, userIdSchema } from "../../protocol/ids.ts";
import { GhostError } from "../base/errors.ts";
import { carry, carryCompletion, FEATURES, REFUSED_EXTRAS, UPSTREAM_KINDS } from "./carriage.ts";
import type { ChatRequest } from "./stream.ts";

const base: ChatRequest = {
  task: "chat",
  target: "m",
  messages: async () => [],
  tools: [],
  toolChoice: "auto",
  output: { stop: [], format: { kind: "text" } },
  sampling: {},
  lane: "chat",
  stream: true,
  actor: {
    userId: userIdSchema.parse("local"),
    client: clientIdSchema.parse("test"),
    via: { kind: "api", id: "test" },
  },
};
const tool = { kind: "function", name: "f", description: undefined, parameters: {} } as const;

function outcome(request: ChatRequest, upstream: (typeof UPSTREAM_KINDS)[number]): string {
  try {
    return carry(request, upstream, "p/m").join(", ");
  } catch (error) {
    assert.ok(error instanceof GhostError);
    assert.equal(error.code, "capability_missing");
    return `refused: ${String(error.details["field"])}`;
  }
}

test("a plain question loses nothing anywhere", () => {
  for (const upstream of UPSTREAM_KINDS) assert.equal(outcome(base, upstream), "");
});

const cases: readonly [
  name: string,
  more: Partial<ChatRequest>,
  upstream: (typeof UPSTREAM_KINDS)[number],
  expected: string,
][] = [
  ["a seed that Claude has no field for", { sampling: { seed: 1 } }, "anthropic-messages", "seed"],
  ["tools that a text-only program cannot have", { tools: [tool] }, "text-only", "refused: tools"],
  ["tools that Copilot's model calls", { tools: [tool], parallelToolCalls: false }, "copilot", "parallel_tool_calls"],
  [
    "a choice of tools that its runtime cannot make",
    { tools: [tool], toolChoice: "required" },
    "copilot",
    "refused: tool_choice",
  ],
  ["tools that are forbidden are no loss", { tools: [tool], toolChoice: "none" }, "text-only", ""],
  ["log probabilities that cannot be had", { extras: { logprobs: true } }, "gemini", "refused: logprobs"],
  [
    "log probabilities that nobody wants",
    { extras: { logprobs: false, top_logprobs: 0 } },
    "gemini",
    "logprobs, top_logprobs",
  ],
  ["two answers", { extras: { n: 2 } }, "ollama", "refused: n"],
  [
    "fields that only name things",
    { extras: { metadata: { a: "b" }, service_tier: "auto" } },
    "gemini",
    "metadata, service_tier",
  ],
  [
    "the same dialect passes its own fields on",
    { extras: { n: 2, logit_bias: {} }, origin: { dialect: "openai-chat", bodyFor: () => Buffer.alloc(0) } },
    "openai-chat",
    "",
  ],
  [
    "web search beside other tools",
    { tools: [tool, { kind: "hosted", name: "web_search", spec: {} }] },
    "anthropic-messages",
    "hosted tools",
  ],
  [
    "web search that is forced",
    { tools: [{ kind: "hosted", name: "web_search", spec: {} }], toolChoice: { name: "web_search" } },
    "anthropic-messages",
    "refused: tool_choice",
  ],
  [
    "a forced call where web search is the only tool",
    { tools: [{ kind: "hosted", name: "web_search", spec: {} }], toolChoice: "required" },
    "openai-responses",
    "refused: tool_choice",
  ],
];
for (const [name, more, upstream, expected] of cases)
  test(name, () => assert.equal(outcome({ ...base, ...more }, upstream), expected));

test("every feature says for every upstream what becomes of it", () => {
  assert.ok(FEATURES.length > 15);
  assert.ok(Object.keys(REFUSED_EXTRAS).length > 5);
  for (const { by, name } of FEATURES) {
    for (const upstream of UPSTREAM_KINDS) assert.match(by[upstream], /^(carried|mapped|dropped|refused)$/, name);
  }
});

test("of a text completion that is not relayed, what would change its meaning is refused, the rest is named", () => {
  const { messages: _messages, tools: _tools, toolChoice: _choice, ...rest } = base;
  const ask = (extras: Readonly<Record<string, unknown>>) =>
    carryCompletion({ ...rest, task: "completion", prefix: "a", suffix: "", overflow: "error", extras }, "p/m");
  assert.deepEqual(ask({ logit_bias: {}, best_of: 1, echo: false }), ["logit_bias", "best_of", "echo"]);
  for (const extras of [{ echo: true }, { logprobs: 3 }, { best_of: 2 }])
    assert.throws(
      () => ask(extras),
      (error) => error instanceof GhostError && error.code === "capability_missing",
    );
});
