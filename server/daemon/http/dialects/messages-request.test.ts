import assert from "node:assert/strict";
import { test } from "node:test";
import { GhostError } from "../../../base/errors.ts";
import { sealOpaque } from "../../../ghostllm/frames/opaque.ts";
import type { Message, Part } from "../../../ghostllm/stream.ts";
import { ownCallId, wireCallId } from "./messages-call-id.ts";
import { parseMessages } from "./messages-request.ts";
import { sealForCall } from "./messages-seal.ts";

const hello = { role: "user", content: "hi" };
const parse = (more: object = {}) =>
  parseMessages(Buffer.from(JSON.stringify({ model: "m", max_tokens: 100, messages: [hello], ...more })));
const facts = (more: object) => parse(more).facts;
const messages = (more: object) => parse(more).messages();
const parts = (message: Message | undefined): readonly Part[] => message?.parts ?? [];

const wrong: readonly [name: string, more: object, field: string][] = [
  ["no model", { model: undefined }, "model"],
  ["no messages", { messages: [] }, "messages"],
  ["a limit of 0", { max_tokens: 0 }, "max_tokens"],
  ["heat beyond the scale", { temperature: 1.5 }, "temperature"],
  ["a role nobody knows", { messages: [{ role: "tool", content: "x" }] }, "messages.0.role"],
  ["content of the wrong kind", { messages: [{ role: "user", content: 7 }] }, "messages.0.content"],
  [
    "a broken block deep inside",
    { messages: [hello, { role: "user", content: [{ type: "text", text: 1 }] }] },
    "messages.1.content.0.text",
  ],
  [
    "an image without its data",
    { messages: [{ role: "user", content: [{ type: "image", source: { type: "base64", media_type: "image/png" } }] }] },
    "messages.0.content.0.source.data",
  ],
  [
    "a result without its call",
    { messages: [{ role: "user", content: [{ type: "tool_result", content: "x" }] }] },
    "messages.0.content.0.tool_use_id",
  ],
  ["a tool without a schema", { tools: [{ name: "read" }] }, "tools.0.input_schema"],
  ["a choice nobody knows", { tool_choice: { type: "some" } }, "tool_choice.type"],
  ["thinking without its budget", { thinking: { type: "enabled" } }, "thinking.budget_tokens"],
  ["a system of another kind", { system: 3 }, "system"],
  ["stop as one word", { stop_sequences: "x" }, "stop_sequences"],
];
for (const [name, more, field] of wrong) {
  test(`${name} is refused, naming the field`, () => {
    assert.throws(
      () => parse(more),
      (error) => {
        assert.ok(error instanceof GhostError);
        assert.deepEqual([error.code, error.details["field"]], ["invalid_params", field]);
        return true;
      },
    );
  });
}

test("system blocks become one text without the line for Anthropic's accounts, which is named as lost", () => {
  const system = [
    { type: "text", text: "x-anthropic-billing-header: cc_version=2; cch=1f" },
    { type: "text", text: "You help.", cache_control: { type: "ephemeral" } },
    { type: "text", text: "Be brief." },
  ];
  assert.deepEqual(messages({ system })[0], {
    role: "system",
    parts: [{ kind: "text", text: "You help.\n\nBe brief." }],
  });
  assert.deepEqual(facts({ system }).extras, { cache_control: true, "x-anthropic-billing-header": true });
  assert.deepEqual(messages({ system: "plain" })[0], { role: "system", parts: [{ kind: "text", text: "plain" }] });
  assert.equal(messages({ system: [] })[0]?.role, "user");
});

test("a turn of the system stays in its place", () => {
  const turns = [hello, { role: "system", content: "today is Friday" }, { role: "assistant", content: "ok" }, hello];
  assert.deepEqual(
    messages({ messages: turns }).map(({ role }) => role),
    ["user", "system", "assistant", "user"],
  );
});

test("calls and their results: ids, order, errors, images, nested texts", () => {
  const turns = [
    hello,
    {
      role: "assistant",
      content: [
        { type: "text", text: "I look." },
        {
          type: "tool_use",
          id: "toolu_1",
          name: "read",
          input: { path: "a.ts" },
          cache_control: { type: "ephemeral" },
        },
        { type: "tool_use", id: wireCallId("functions.ls:1"), name: "ls", input: {} },
      ],
    },
    {
      role: "user",
      content: [
        { type: "text", text: "<reminder>" },
        { type: "tool_result", tool_use_id: "toolu_1", content: "gone", is_error: true },
        {
          type: "tool_result",
          tool_use_id: wireCallId("functions.ls:1"),
          content: [
            { type: "text", text: "one" },
            { type: "text", text: "two" },
            { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
          ],
        },
        { type: "text", text: "" },
      ],
    },
  ];
  const [, assistant, results, rest, ...none] = messages({ messages: turns });
  assert.deepEqual(parts(assistant), [
    { kind: "text", text: "I look." },
    { kind: "toolCall", callId: "toolu_1", name: "read", arguments: '{"path":"a.ts"}' },
    { kind: "toolCall", callId: "functions.ls:1", name: "ls", arguments: "{}" },
  ]);
  assert.deepEqual(results, {
    role: "tool",
    parts: [
      { kind: "toolResult", callId: "toolu_1", text: "gone", isError: true },
      { kind: "toolResult", callId: "functions.ls:1", text: "one\ntwo", images: ["data:image/png;base64,AAAA"] },
    ],
  });
  assert.deepEqual(rest, { role: "user", parts: [{ kind: "text", text: "<reminder>" }] });
  assert.deepEqual(none, []);
  assert.equal(facts({ messages: turns }).hasImages, true);
});

test("images and documents in all their forms", () => {
  const content = [
    { type: "image", source: { type: "url", url: "https://x/y.png" } },
    { type: "document", title: "T", source: { type: "text", media_type: "text/plain", data: "words" } },
    { type: "document", title: "P", source: { type: "base64", media_type: "application/pdf", data: "JVBE" } },
    { type: "document", source: { type: "content", content: [{ type: "text", text: "inner" }] } },
    { type: "search_result", title: "S", source: "https://s", content: [{ type: "text", text: "found" }] },
  ];
  const turns = [{ role: "user", content }];
  assert.deepEqual(parts(messages({ messages: turns })[0]), [
    { kind: "image", url: "https://x/y.png" },
    { kind: "text", text: "T\nwords" },
    { kind: "file", url: "data:application/pdf;base64,JVBE", mediaType: "application/pdf", name: "P" },
    { kind: "text", text: "inner" },
    { kind: "text", text: "S (https://s)\nfound" },
  ]);
  const { hasImages, hasFiles } = facts({ messages: turns });
  assert.deepEqual([hasImages, hasFiles], [true, true]);
});

test("what no other provider can be shown is named, and what changes the meaning by a name that is refused", () => {
  const turn = (...content: object[]) => ({ messages: [hello, { role: "user", content }] });
  assert.deepEqual(facts(turn({ type: "web_search_tool_result", tool_use_id: "s", content: [] })).extras, {
    web_search_tool_result: "web_search_tool_result",
  });
  assert.deepEqual(facts(turn({ type: "txt", text: "?" })).extras, { content_block: "txt" });
  assert.deepEqual(facts(turn({ type: "image", source: { type: "file", file_id: "file_1" } })).extras, {
    file_id: "file_1",
  });
  const more = {
    mcp_servers: [],
    container: null,
    context_management: { edits: [] },
    output_config: { effort: "low", x: 1 },
  };
  assert.deepEqual(facts(more).extras, { context_management: { edits: [] }, "output_config.x": 1 });
  assert.deepEqual(Object.keys(facts({ mcp_servers: [{ url: "https://x" }] }).extras), ["mcp_servers"]);
});

test("Anthropic's thinking keeps its seal for Anthropic; one of ours finds its maker, and makes the body foreign", () => {
  const turn = (...content: object[]) => ({ messages: [hello, { role: "assistant", content }] });
  const own = turn({ type: "thinking", thinking: "hm", signature: "EqQB" }, { type: "redacted_thinking", data: "xx" });
  assert.deepEqual(parts(messages(own)[1]), [
    { kind: "reasoning", text: "hm", opaque: { maker: "anthropic", data: '{"signature":"EqQB"}' } },
    { kind: "reasoning", text: "", opaque: { maker: "anthropic", data: '{"redacted":"xx"}' } },
  ]);
  assert.equal(facts(own).isForeign, false);
  const foreign = turn(
    { type: "thinking", thinking: "a", signature: sealOpaque({ maker: "openai", data: '{"e":1}' }) },
    { type: "thinking", thinking: "b", signature: sealOpaque({ maker: "up", data: "" }) },
    { type: "thinking", thinking: "c", signature: "ghost1:damaged" },
    { type: "redacted_thinking", data: sealOpaque({ maker: "gemini", data: sealForCall("c1", '"s"') }) },
    { type: "tool_use", id: "c1", name: "read", input: {} },
  );
  assert.deepEqual(parts(messages(foreign)[1]), [
    { kind: "reasoning", text: "a", opaque: { maker: "openai", data: '{"e":1}' } },
    { kind: "reasoning", text: "b" },
    { kind: "reasoning", text: "c" },
    { kind: "toolCall", callId: "c1", name: "read", arguments: "{}", opaque: { maker: "gemini", data: '"s"' } },
  ]);
  for (const sealed of foreign.messages.flatMap(({ content }) => (Array.isArray(content) ? content.slice(0, 4) : []))) {
    assert.equal(facts(turn(sealed)).isForeign, true, JSON.stringify(sealed));
  }
});

test("who only talks of our seals is relayed as everybody is", () => {
  const text = `What is ${sealOpaque({ maker: "openai", data: "" })}?`;
  assert.equal(facts({ messages: [{ role: "user", content: text }] }).isForeign, false);
});

test("tools: the client's are functions, Anthropic's own are hosted", () => {
  const schema = { type: "object", $schema: "https://json-schema.org/draft/2020-12/schema", propertyNames: {} };
  const tools = [
    { name: "read", description: "d", input_schema: schema, cache_control: { type: "ephemeral" }, strict: true },
    { type: "custom", name: "ls", input_schema: {} },
    { type: "web_search_20260318", name: "web_search", max_uses: 3 },
  ];
  assert.deepEqual(facts({ tools }).tools, [
    { kind: "function", name: "read", description: "d", parameters: schema, strict: true },
    { kind: "function", name: "ls", description: undefined, parameters: {} },
    { kind: "hosted", name: "web_search", spec: tools[2] },
  ]);
});

test("a deferred tool is offered from where the conversation names it, and a removed one no more", () => {
  const tool = (name: string, defer_loading?: boolean) => ({ name, input_schema: {}, defer_loading });
  const names = (more: object, tools: readonly object[] = [tool("search"), tool("a", true), tool("b", true)]) =>
    facts({ tools, ...more }).tools.map(({ name }) => name);
  assert.deepEqual(names({}), ["search"]);
  const turns = [
    hello,
    { role: "assistant", content: [{ type: "tool_use", id: "s1", name: "search", input: {} }] },
    {
      role: "user",
      content: [{ type: "tool_result", tool_use_id: "s1", content: [{ type: "tool_reference", tool_name: "b" }] }],
    },
  ];
  assert.deepEqual(names({ messages: turns }), ["search", "b"]);
  const [part] = parts(messages({ messages: turns })[2]);
  assert.deepEqual(part, { kind: "toolResult", callId: "s1", text: "The tool b can be called now." });
  const change = (type: string, tool: object) => ({ role: "system", content: [{ type, tool }] });
  const changed = [
    hello,
    change("tool_addition", { type: "tool_reference", name: "a" }),
    change("tool_addition", { type: "tool_definition", definition: tool("new") }),
    change("tool_addition", { type: "mcp_toolset_reference", mcp_server_name: "x" }),
    change("tool_removal", { type: "tool_reference", name: "search" }),
  ];
  assert.deepEqual(names({ messages: changed }), ["a", "new"]);
  assert.equal(messages({ messages: changed }).length, 1);
  const hosted = [{ type: "tool_search_tool_bm25_20251119", name: "find" }, tool("a", true)];
  assert.deepEqual(names({}, hosted), ["find", "a"]);
});

test("a turn of the system sets the effort, and says what holds for one answer only", () => {
  const turns = [
    hello,
    { role: "system", content: "for now", clear_at: "next_user_message", output_config: { effort: "low" } },
    { role: "assistant", content: "ok" },
  ];
  assert.deepEqual(facts({ messages: turns, output_config: { effort: "high" } }).reasoning, { effort: "low" });
  assert.equal(messages({ messages: turns }).length, 3);
  assert.deepEqual(
    messages({ messages: [...turns, hello] }).map(({ role }) => role),
    ["user", "assistant", "user"],
  );
});

test("what is said to Anthropic about its user is told to nobody else, by a name that no other dialect has", () => {
  const more = { metadata: { user_id: "u" }, service_tier: "standard_only" };
  assert.deepEqual(facts(more).extras, { "metadata.user_id": true, "service_tier standard_only": true });
  assert.deepEqual(facts({ service_tier: "auto" }).extras, {});
});

test("sampling: 0 as top_k asks for nothing", () => {
  const more = { temperature: 0.5, top_p: 0.9, top_k: 0, stop_sequences: ["END"] };
  const { sampling, output } = facts(more);
  assert.deepEqual([sampling, output.stop], [{ temperature: 0.5, topP: 0.9 }, ["END"]]);
  assert.deepEqual(facts({ top_k: 7 }).sampling, { topK: 7 });
});

test("choices of tools", () => {
  const choice = (tool_choice: object) => {
    const { toolChoice, parallelToolCalls } = facts({ tool_choice });
    return [toolChoice, parallelToolCalls];
  };
  assert.deepEqual(choice({ type: "auto", disable_parallel_tool_use: true }), ["auto", false]);
  assert.deepEqual(choice({ type: "any", disable_parallel_tool_use: false }), ["required", undefined]);
  assert.deepEqual(choice({ type: "none" }), ["none", undefined]);
  assert.deepEqual(choice({ type: "tool", name: "read" }), [{ name: "read" }, undefined]);
});

test("thinking, effort and format in their newer and older forms", () => {
  const format = { type: "json_schema", schema: { type: "object" } };
  const canonical = { kind: "schema", name: "answer", schema: { type: "object" } };
  assert.deepEqual(facts({ output_config: { effort: "xhigh", format } }).output.format, canonical);
  assert.deepEqual(facts({ output_format: format }).output.format, canonical);
  const cases: readonly [more: object, reasoning: unknown, view: string][] = [
    [{}, undefined, "hidden"],
    [{ output_config: { effort: "low" } }, { effort: "low" }, "hidden"],
    [{ thinking: { type: "disabled" }, output_config: { effort: "low" } }, { effort: "none" }, "hidden"],
    [{ thinking: { type: "adaptive" }, output_config: { effort: "max" } }, { effort: "max" }, "shown"],
    [{ thinking: { type: "adaptive", display: "summarized" } }, { isShown: true }, "shown"],
    [{ thinking: { type: "adaptive", display: "omitted" } }, { isShown: false }, "sealed"],
    [{ thinking: { type: "enabled", budget_tokens: 2000 } }, { budgetTokens: 2000, isShown: true }, "shown"],
  ];
  for (const [more, reasoning, view] of cases) {
    const { reasoning: found, own } = facts(more);
    assert.deepEqual([found, own.thinking], [reasoning, view], JSON.stringify(more));
  }
  assert.deepEqual(facts({ thinking: { type: "between_tools" } }).extras, { "thinking between_tools": true });
});

test("a session keeps its cache, a person's id goes nowhere", () => {
  const key = (user_id: string) => facts({ metadata: { user_id } }).cacheKey;
  assert.equal(key('{"device_id":"d","session_id":"5e55-10"}'), "5e55-10");
  assert.equal(key("user_ab_account__session_5e55-10"), "5e55-10");
  assert.equal(key("alice@example.org"), undefined);
  assert.equal(key("{broken"), undefined);
});

test("ids of calls that Anthropic would refuse travel encoded and come back", () => {
  for (const id of ["call_1", "toolu_01A-b", "functions.read:0", "ghost_x", "ghost_YSBi", "ä", "a b"]) {
    assert.match(wireCallId(id), /^[A-Za-z0-9_-]+$/);
    assert.equal(ownCallId(wireCallId(id)), id);
  }
  assert.equal(wireCallId("call_1"), "call_1");
  assert.equal(ownCallId("ghost_!"), "ghost_!");
});
