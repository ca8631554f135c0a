import assert from "node:assert/strict";
import { test } from "node:test";
import { GhostError } from "../../../base/errors.ts";
import { parseChat, parseCompletion, parseEmbedding } from "./openai-request.ts";

const chat = (value: unknown) => parseChat(Buffer.from(JSON.stringify(value)));
const ask = { role: "user", content: "hi" };

const wrong: readonly [name: string, body: string, code: string, field: string | undefined][] = [
  ["not JSON", "{", "invalid_json", undefined],
  ["not UTF-8", Buffer.from([0x7b, 0xff, 0x7d]).toString("latin1"), "invalid_json", undefined],
  ["an array", "[]", "invalid_params", ""],
  ["no model", JSON.stringify({ messages: [ask] }), "invalid_params", "model"],
  ["a model of the wrong kind", JSON.stringify({ model: 3, messages: [ask] }), "invalid_params", "model"],
  ["no messages", JSON.stringify({ model: "m", messages: [] }), "invalid_params", "messages"],
  [
    "a role nobody knows",
    JSON.stringify({ model: "m", messages: [ask, { role: "wizard", content: "x" }] }),
    "invalid_params",
    "messages.1.role",
  ],
  [
    "content of the wrong kind",
    JSON.stringify({ model: "m", messages: [{ role: "user", content: 7 }] }),
    "invalid_params",
    "messages.0.content",
  ],
  [
    "a broken part deep inside",
    JSON.stringify({ model: "m", messages: [{ role: "user", content: [{ type: "text", text: 1 }] }] }),
    "invalid_params",
    "messages.0.content.0.text",
  ],
  ["stream as a word", JSON.stringify({ model: "m", messages: [ask], stream: "yes" }), "invalid_params", "stream"],
  [
    "heat beyond the scale",
    JSON.stringify({ model: "m", messages: [ask], temperature: 9 }),
    "invalid_params",
    "temperature",
  ],
  ["no choice at all", JSON.stringify({ model: "m", messages: [ask], n: 0 }), "invalid_params", "n"],
  ["a negative limit", JSON.stringify({ model: "m", messages: [ask], max_tokens: -1 }), "invalid_params", "max_tokens"],
];
for (const [name, body, code, field] of wrong) {
  test(`${name} is refused, naming the field`, () => {
    assert.throws(
      () => parseChat(Buffer.from(body, name === "not UTF-8" ? "latin1" : "utf8")),
      (error) =>
        error instanceof GhostError && error.code === code && (field === undefined || error.details["field"] === field),
    );
  });
}

test("every kind of message becomes canonical", () => {
  const { messages } = chat({
    model: "m",
    messages: [
      { role: "developer", content: "be brief" },
      {
        role: "user",
        content: [
          { type: "text", text: "a" },
          { type: "image_url", image_url: { url: "data:," } },
        ],
      },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: "c1", type: "function", function: { name: "f", arguments: "{}" } }],
      },
      { role: "tool", tool_call_id: "c1", content: [{ type: "text", text: "ok" }] },
    ],
  });
  assert.deepEqual(messages(), [
    { role: "developer", parts: [{ kind: "text", text: "be brief" }] },
    {
      role: "user",
      parts: [
        { kind: "text", text: "a" },
        { kind: "image", url: "data:," },
      ],
    },
    { role: "assistant", parts: [{ kind: "toolCall", callId: "c1", name: "f", arguments: "{}" }] },
    { role: "tool", parts: [{ kind: "toolResult", callId: "c1", text: "ok" }] },
  ]);
});

test("options are read in all their spellings", () => {
  const { facts } = chat({
    model: "m",
    messages: [ask],
    stream: true,
    stream_options: { include_usage: true, other: 1 },
    max_completion_tokens: 9,
    max_tokens: 5,
    stop: "END",
    seed: 3,
    tool_choice: { type: "function", function: { name: "f" } },
    response_format: { type: "json_schema", json_schema: { name: "n", schema: { type: "object" } } },
  });
  assert.deepEqual(facts.output, {
    maxTokens: 9,
    stop: ["END"],
    format: { kind: "schema", name: "n", schema: { type: "object" } },
  });
  assert.deepEqual(
    [facts.stream, facts.own.includeUsage, facts.own.streamOptions, facts.sampling, facts.toolChoice],
    [true, true, { include_usage: true, other: 1 }, { seed: 3 }, { name: "f" }],
  );
});

test("null means absent, as clients send it", () => {
  const { facts } = chat({
    model: "m",
    messages: [ask],
    stream: null,
    stop: null,
    tools: null,
    temperature: null,
    max_tokens: null,
  });
  assert.deepEqual(
    [facts.stream, facts.output, facts.sampling, facts.tools],
    [false, { stop: [], format: { kind: "text" } }, {}, []],
  );
});

test("completions take a prompt as text or as a list of one", () => {
  assert.deepEqual(
    parseCompletion(Buffer.from(JSON.stringify({ model: "m", prompt: ["a"], suffix: "b" }))).prefix,
    "a",
  );
  assert.throws(() => parseCompletion(Buffer.from(JSON.stringify({ model: "m", prompt: ["a", "b"] }))), /prompt/);
});

test("embeddings take one text or many", () => {
  assert.deepEqual(parseEmbedding(Buffer.from(JSON.stringify({ model: "m", input: "a", encoding_format: "base64" }))), {
    model: "m",
    texts: ["a"],
    isBase64: true,
  });
});

const says = (parts: readonly object[], more: object = {}) =>
  chat({ model: "m", messages: [{ role: "user", content: parts, ...more }] });

test("parts that only a relay carries are no fault of the request, and are named for everybody else", () => {
  assert.deepEqual(says([{ type: "input_audio", input_audio: { data: "x", format: "wav" } }]).facts.extras, {
    audio: "input_audio",
  });
  assert.deepEqual(says([{ type: "video_url", video_url: { url: "x" } }]).facts.extras, { video: "video_url" });
  assert.deepEqual(says([{ type: "hologram" }]).facts.extras, { "parts of other kinds": "hologram" });
  assert.deepEqual(says([{ type: "file", file: { file_id: "file-1" } }]).facts.extras, { file_id: true });
  assert.deepEqual(says([{ type: "text", text: "x" }], { name: "Ada" }).facts.extras, { "messages.name": true });
  const older = chat({
    model: "m",
    messages: [
      ask,
      { role: "assistant", content: null, function_call: { name: "f", arguments: "{}" } },
      { role: "function", name: "f", content: "1" },
    ],
  });
  assert.deepEqual(older.facts.extras, { functions: true });
});

test("a file in a tool's result is named as lost", () => {
  const { facts } = chat({
    model: "m",
    messages: [
      ask,
      { role: "assistant", tool_calls: [{ id: "c", type: "function", function: { name: "f", arguments: "{}" } }] },
      {
        role: "tool",
        tool_call_id: "c",
        content: [{ type: "file", file: { file_data: "data:application/pdf;base64,AA" } }],
      },
    ],
  });
  assert.deepEqual(facts.extras, { "files in tool results": true });
});

test("the tools that a choice allows are those that are offered", () => {
  const tools = ["a", "b", "c"].map((name) => ({ type: "function", function: { name } }));
  const allowed = ["a", "c"].map((name) => ({ type: "function", function: { name } }));
  const choice = { type: "allowed_tools", allowed_tools: { mode: "required", tools: allowed } };
  const { facts } = chat({ model: "m", messages: [ask], tools, tool_choice: choice });
  assert.deepEqual([facts.tools.map(({ name }) => name), facts.toolChoice], [["a", "c"], "required"]);
  assert.throws(() => chat({ model: "m", messages: [ask], tools, tool_choice: { type: "function" } }), /tool_choice/);
});

test("embeddings of tokens, or of a given length, are for a relay only", () => {
  const embedding = (value: object) => parseEmbedding(Buffer.from(JSON.stringify({ model: "m", ...value })));
  assert.equal(embedding({ input: ["a"] }).relayOnly, undefined);
  assert.equal(embedding({ input: [1, 2] }).relayOnly?.field, "input");
  assert.equal(embedding({ input: [[1], [2]] }).relayOnly?.field, "input");
  assert.equal(embedding({ input: "a", dimensions: 256 }).relayOnly?.field, "dimensions");
  assert.throws(() => embedding({ input: [] }), /input/);
  assert.throws(() => embedding({ input: [["a"]] }), /input/);
});

test("a chat that talks of our seals is relayed as every other", () => {
  assert.equal(
    chat({ model: "m", messages: [{ role: "user", content: "What begins with ghost1: here?" }] }).facts.isForeign,
    false,
  );
});
