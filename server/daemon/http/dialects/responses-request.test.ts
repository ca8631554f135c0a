import assert from "node:assert/strict";
import { test } from "node:test";
import { GhostError } from "../../../base/errors.ts";
import { sealOpaque } from "../../../ghostllm/frames/opaque.ts";
import type { Message, Part } from "../../../ghostllm/stream.ts";
import { sealCall, sealCompaction } from "./responses-items.ts";
import { parseResponses } from "./responses-request.ts";

const parse = (body: object) => parseResponses(Buffer.from(JSON.stringify({ model: "m", ...body })));
const facts = (body: object) => parse({ input: "x", ...body }).facts;
const messages = (...input: readonly object[]) => parse({ input }).messages();
const text = (words: string): Part => ({ kind: "text", text: words });

const items: readonly [name: string, items: readonly object[], expected: readonly Message[]][] = [
  [
    "messages with and without a type, with texts and parts",
    [
      { role: "user", content: "a" },
      { type: "message", role: "developer", content: [{ type: "input_text", text: "b" }] },
      { role: "system", content: "" },
    ],
    [
      { role: "user", parts: [text("a")] },
      { role: "developer", parts: [text("b")] },
      { role: "system", parts: [] },
    ],
  ],
  [
    "an assistant's turn is one message: thinking, words, calls",
    [
      { type: "reasoning", id: "rs_1", summary: [{ type: "summary_text", text: "hm" }], encrypted_content: "gAAA" },
      { role: "assistant", content: [{ type: "output_text", text: "I look." }], phase: "commentary" },
      { type: "function_call", call_id: "c1", name: "read", namespace: "mcp", arguments: "{}" },
      { type: "custom_tool_call", call_id: "c2", name: "patch", input: 'a"b' },
      { type: "function_call_output", call_id: "c1", output: [{ type: "input_text", text: "x" }] },
    ],
    [
      {
        role: "assistant",
        parts: [
          {
            kind: "reasoning",
            text: "hm",
            opaque: { maker: "openai", data: '{"id":"rs_1","encrypted_content":"gAAA"}' },
          },
          { kind: "reasoning", text: "", opaque: { maker: "openai", data: '{"phase":"commentary"}' } },
          text("I look."),
          { kind: "toolCall", callId: "c1", name: "read", arguments: "{}", namespace: "mcp" },
          { kind: "toolCall", callId: "c2", name: "patch", arguments: '{"input":"a\\"b"}', isCustom: true },
        ],
      },
      { role: "tool", parts: [{ kind: "toolResult", callId: "c1", text: "x" }] },
    ],
  ],
  [
    "another maker's thinking, sealed by us, goes back under its maker",
    [
      { type: "reasoning", summary: [], encrypted_content: sealOpaque({ maker: "anthropic", data: '{"s":1}' }) },
      { role: "assistant", content: "a" },
    ],
    [
      {
        role: "assistant",
        parts: [{ kind: "reasoning", text: "", opaque: { maker: "anthropic", data: '{"s":1}' } }, text("a")],
      },
    ],
  ],
  [
    "what a call's maker wants back with it stands beside it",
    [
      { type: "function_call", call_id: "c1", name: "read", arguments: "{}" },
      { type: "reasoning", summary: [], encrypted_content: sealCall("gemini", "c1", "sig") },
    ],
    [
      {
        role: "assistant",
        parts: [
          {
            kind: "toolCall",
            callId: "c1",
            name: "read",
            arguments: "{}",
            opaque: { maker: "gemini", data: "sig" },
          },
        ],
      },
    ],
  ],
  [
    "a seal that a client damaged is left out",
    [
      { type: "reasoning", summary: [], encrypted_content: "ghost1:%%%" },
      { role: "user", content: "a" },
    ],
    [{ role: "user", parts: [text("a")] }],
  ],
  [
    "our compaction is a message of what was said before",
    [{ type: "compaction", encrypted_content: sealCompaction("foxes") }],
    [{ role: "user", parts: [text("What was said before, in short:\n\nfoxes")] }],
  ],
  [
    "images and files, also in a tool's result",
    [
      {
        role: "user",
        content: [
          { type: "input_image", image_url: "data:image/png;base64,AA==", detail: "auto" },
          { type: "input_file", file_data: "data:text/plain;base64,AA==", filename: "a.txt" },
        ],
      },
      { type: "function_call", call_id: "c", name: "n", arguments: "" },
      { type: "function_call_output", call_id: "c", output: [{ type: "input_image", image_url: "https://x/y.png" }] },
    ],
    [
      {
        role: "user",
        parts: [
          { kind: "image", url: "data:image/png;base64,AA==" },
          { kind: "file", url: "data:text/plain;base64,AA==", mediaType: "text/plain", name: "a.txt" },
        ],
      },
      { role: "assistant", parts: [{ kind: "toolCall", callId: "c", name: "n", arguments: "" }] },
      { role: "tool", parts: [{ kind: "toolResult", callId: "c", text: "", images: ["https://x/y.png"] }] },
    ],
  ],
];
for (const [name, input, expected] of items) {
  test(`items: ${name}`, () => assert.deepEqual(messages(...input), expected));
}

test("instructions lead, and a text is the user's message", () => {
  assert.deepEqual(parse({ input: "hi", instructions: "Be brief." }).messages(), [
    { role: "system", parts: [text("Be brief.")] },
    { role: "user", parts: [text("hi")] },
  ]);
});

test("thinking that nobody sealed, and what we sealed, keeps a body from being relayed", () => {
  const foreign = (...input: readonly object[]) => parse({ input }).facts.isForeign;
  assert.equal(foreign({ role: "user", content: "x" }), false);
  assert.equal(foreign({ type: "reasoning", id: "rs", summary: [], encrypted_content: "gAAA" }), false);
  assert.equal(foreign({ type: "reasoning", id: "rs", summary: [], encrypted_content: null }), true);
  const sealed = sealOpaque({ maker: "anthropic", data: "{}" });
  assert.equal(foreign({ type: "reasoning", summary: [], encrypted_content: sealed }), true);
  assert.equal(foreign({ type: "compaction", encrypted_content: sealed }), true);
  // Who only talks of it is relayed as everybody is.
  assert.equal(foreign({ role: "user", content: `What is ${sealed}?` }), false);
});

test("results are paired by call_id, whatever the items' own ids", () => {
  const output = { type: "function_call_output", id: "fco_1", call_id: "c", output: "x" };
  const call = { type: "function_call", id: "fc_9", call_id: "c", name: "n", arguments: "{}" };
  assert.equal(parse({ input: [call, output] }).facts.own.unmatched, undefined);
  assert.equal(parse({ input: [output] }).facts.own.unmatched, "c");
});

const read = { type: "function", name: "read", parameters: { type: "object" }, strict: false };
test("tools of every kind, and which of them may be called", () => {
  const tools = [
    read,
    { type: "namespace", name: "mcp", description: "Files.", tools: [read, { type: "custom", name: "free" }] },
    { type: "web_search", external_web_access: true },
  ];
  const parameters = { type: "object" };
  const functions = [
    { kind: "function", name: "read", description: undefined, parameters, strict: false },
    { kind: "function", name: "read", description: "(mcp: Files.)", parameters, strict: false, namespace: "mcp" },
    { kind: "custom", name: "free", description: undefined, namespace: "mcp" },
  ] as const;
  const hosted = { kind: "hosted", name: "web_search", spec: tools[2] } as const;
  assert.deepEqual(facts({ tools }).tools, [...functions, hosted]);
  const choose = (choice: unknown) => facts({ tools, tool_choice: choice });
  assert.equal(choose("required").toolChoice, "required");
  assert.deepEqual(choose({ type: "function", name: "read" }).toolChoice, { name: "read" });
  assert.deepEqual(choose({ type: "web_search" }).toolChoice, { name: "web_search" });
  const allowed = choose({
    type: "allowed_tools",
    mode: "required",
    tools: [{ type: "function", name: "read", namespace: "mcp" }, { type: "web_search" }],
  });
  assert.deepEqual([allowed.toolChoice, allowed.tools], ["required", [functions[1], hosted]]);
});

test("tools that an item offers are offered as the others are", () => {
  const item = { type: "additional_tools", role: "developer", tools: [{ type: "custom", name: "exec" }] };
  const { tools, extras } = facts({ tools: [read], input: [item, { role: "user", content: "x" }] });
  assert.deepEqual(
    tools.map(({ kind, name }) => [kind, name]),
    [
      ["function", "read"],
      ["custom", "exec"],
    ],
  );
  assert.deepEqual(extras, {});
});

test("formats, effort and limits are canonical", () => {
  const schema = { type: "object" };
  const asked = facts({
    text: { format: { type: "json_schema", name: "n", schema, strict: true } },
    reasoning: { effort: "xhigh", summary: "auto" },
    max_output_tokens: 9,
    parallel_tool_calls: false,
    prompt_cache_key: "k",
  });
  assert.deepEqual(asked.output, {
    maxTokens: 9,
    stop: [],
    format: { kind: "schema", name: "n", schema, strict: true },
  });
  assert.deepEqual(asked.reasoning, { effort: "xhigh", isShown: true });
  assert.deepEqual([asked.parallelToolCalls, asked.cacheKey], [false, "k"]);
  assert.deepEqual(facts({ text: { format: { type: "json_object" } } }).output.format, { kind: "json" });
});

const extras: readonly [body: object, expected: Readonly<Record<string, unknown>>][] = [
  [{ metadata: { a: "b" }, client_metadata: { c: 1 }, store: false, service_tier: "auto", background: false }, {}],
  [{ truncation: "disabled", include: ["reasoning.encrypted_content"], stream_options: {}, user: null }, {}],
  [
    { truncation: "auto", service_tier: "flex", safety_identifier: "me" },
    { truncation: "auto", service_tier: "flex", safety_identifier: "me" },
  ],
  [
    { text: { verbosity: "low" }, reasoning: { context: "auto" } },
    { "text.verbosity": "low", "reasoning.context": "auto" },
  ],
  [
    { include: ["message.output_text.logprobs", "web_search_call.results"] },
    { logprobs: true, include: ["web_search_call.results"] },
  ],
  [{ input: [{ type: "web_search_call", id: "ws_1" }] }, { web_search_call: true }],
  [{ input: [{ type: "local_shell_call", call_id: "c" }] }, { "items of other tools": "local_shell_call" }],
  [{ input: [{ type: "compaction", encrypted_content: "gAAA" }] }, { compaction: true }],
  [{ input: [{ role: "user", content: [{ type: "input_file", file_id: "f" }] }] }, { file_id: true }],
];
for (const [body, expected] of extras) {
  test(`what has no canonical form of ${JSON.stringify(body).slice(0, 80)}`, () => {
    assert.deepEqual(facts(body).extras, expected);
  });
}

const refusals: readonly [body: object, field: string][] = [
  [{ background: true }, "background"],
  [{ conversation: { id: "c" } }, "conversation"],
  [{ prompt: { id: "p" } }, "prompt"],
  [{ input: ["x"] }, "input.0"],
  [
    {
      input: [
        { role: "user", content: "a" },
        { role: "user", content: [{ text: "no type" }] },
      ],
    },
    "input.1.content.0.type",
  ],
  [{ tools: [{ type: "function" }] }, "tools.0.name"],
  [{ tools: [{ type: "namespace", name: "n", tools: [{ type: "web_search", name: "x" }] }] }, "tools.0.tools.0.type"],
  [{ reasoning: { effort: "huge" } }, "reasoning.effort"],
];
for (const [body, field] of refusals) {
  test(`${JSON.stringify(body).slice(0, 80)} is refused at ${field}`, () => {
    assert.throws(
      () => facts(body),
      (error) => error instanceof GhostError && error.code === "invalid_params" && error.details["field"] === field,
    );
  });
}
