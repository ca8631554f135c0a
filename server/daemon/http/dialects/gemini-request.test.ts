import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../../../base/errors.ts";
import { OPAQUE_MARK } from "../../../ghostllm/frames/opaque.ts";
import { parseGemini } from "./gemini-request.ts";
import { PLACEHOLDER, toSignature } from "./gemini-seal.ts";

const HELLO = { role: "user", parts: [{ text: "hello" }] };
const parse = (body: object) => parseGemini(Buffer.from(JSON.stringify(body)));
const facts = (more: object) => parse({ contents: [HELLO], ...more }).facts;
const messages = (...contents: object[]) => parse({ contents }).messages();
const user = (...parts: object[]) => ({ role: "user", parts });
const model = (...parts: object[]) => ({ role: "model", parts });
const call = (name: string, more: object = {}, around: object = {}) => ({
  functionCall: { name, args: { a: 1 }, ...more },
  ...around,
});
const response = (name: string, more: object = {}) => ({
  functionResponse: { name, response: { output: `of ${name}` }, ...more },
});
const result = (callId: string, text: string) => ({ kind: "toolResult", callId, text });
const called = (callId: string, name: string) => ({ kind: "toolCall", callId, name, arguments: '{"a":1}' });

test("the simplest request: no model, no stream, since the address says both", () => {
  const { model: name, stream, tools, toolChoice, extras, isForeign, own, output, sampling } = facts({});
  assert.deepEqual([name, stream, tools, toolChoice, extras, isForeign], ["", false, [], "auto", {}, false]);
  assert.deepEqual(own, { showsThoughts: false, namesModel: false });
  assert.deepEqual(output, { stop: [], format: { kind: "text" } });
  assert.deepEqual(sampling, {});
  assert.deepEqual(messages({ parts: [{ text: "hello" }] }), [
    { role: "user", parts: [{ kind: "text", text: "hello" }] },
  ]);
});

test("all of generationConfig, under both of its names", () => {
  const config = {
    temperature: 0.5,
    top_p: 0.9,
    topK: 40,
    seed: 7,
    frequencyPenalty: 0.1,
    presence_penalty: -0.1,
    max_output_tokens: 99,
    stopSequences: ["END"],
  };
  const { output, sampling } = facts({ generation_config: config });
  assert.deepEqual(output, { maxTokens: 99, stop: ["END"], format: { kind: "text" } });
  const { temperature, topP, topK, seed, frequencyPenalty, presencePenalty } = sampling;
  assert.deepEqual([temperature, topP, topK, seed, frequencyPenalty, presencePenalty], [0.5, 0.9, 40, 7, 0.1, -0.1]);
  assert.deepEqual(facts({ generationConfig: { maxOutputTokens: 0, topK: 0 } }).output.maxTokens, undefined);
});

test("JSON answers: plain, with a schema of JSON's kind, with one of OpenAPI's kind", () => {
  const formatOf = (config: object) =>
    facts({ generationConfig: { responseMimeType: "application/json", ...config } }).output.format;
  const schema = { type: "object", properties: { a: { type: "string" } } };
  assert.deepEqual(formatOf({}), { kind: "json" });
  assert.deepEqual(formatOf({ responseJsonSchema: schema }), { kind: "schema", name: "answer", schema });
  assert.deepEqual(formatOf({ _responseJsonSchema: schema }), { kind: "schema", name: "answer", schema });
  const responseSchema = {
    type: "OBJECT",
    nullable: true,
    propertyOrdering: ["b", "a"],
    properties: {
      a: { type: "STRING", format: "enum", enum: ["x", "y"], nullable: true },
      b: { type: "ARRAY", min_items: "1", items: { any_of: [{ type: "INTEGER", format: "int32" }, { type: "NULL" }] } },
      nullable: { type: "STRING", example: "z" },
      any: { type: "TYPE_UNSPECIFIED" },
    },
    required: ["a"],
  };
  const expected = {
    type: ["object", "null"],
    properties: {
      b: { type: "array", minItems: 1, items: { anyOf: [{ type: "integer" }, { type: "null" }] } },
      a: { type: ["string", "null"], enum: ["x", "y", null] },
      nullable: { type: "string", examples: ["z"] },
      any: {},
    },
    required: ["a"],
  };
  const format = formatOf({ responseSchema });
  assert.deepEqual(format, { kind: "schema", name: "answer", schema: expected });
  assert.match(JSON.stringify(format), /"b":.*"a":/);
});

const thinking: readonly [config: object, reasoning: object][] = [
  [{ thinkingBudget: 0 }, { effort: "none" }],
  [{ thinkingBudget: -1, includeThoughts: true }, { isShown: true }],
  [{ thinkingBudget: 2048 }, { budgetTokens: 2048 }],
  [{ thinkingLevel: "HIGH" }, { effort: "high" }],
  [
    { thinking_level: "low", include_thoughts: false },
    { effort: "low", isShown: false },
  ],
  [{ thinkingLevel: "THINKING_LEVEL_UNSPECIFIED" }, {}],
];

test("thinking by budget and by level", () => {
  for (const [thinkingConfig, reasoning] of thinking)
    assert.deepEqual(facts({ generationConfig: { thinkingConfig } }).reasoning, reasoning);
  assert.equal(facts({ generationConfig: { thinkingConfig: { includeThoughts: true } } }).own.showsThoughts, true);
});

const read = { name: "read", description: "Reads.", parametersJsonSchema: { type: "object", properties: {} } };
const list = { name: "list", parameters: { type: "OBJECT", properties: { path: { type: "STRING" } } } };
const isRead = {
  kind: "function",
  name: "read",
  description: "Reads.",
  parameters: { type: "object", properties: {} },
};
const isList = {
  kind: "function",
  name: "list",
  description: undefined,
  parameters: { type: "object", properties: { path: { type: "string" } } },
};

test("functions with either kind of schema, and Google's own tools beside them", () => {
  const { tools } = facts({
    tools: [{ function_declarations: [read, list] }, { googleSearch: {} }, { codeExecution: {}, urlContext: {} }],
  });
  assert.deepEqual(tools, [
    isRead,
    isList,
    { kind: "hosted", name: "googleSearch", spec: { googleSearch: {} } },
    { kind: "hosted", name: "codeExecution", spec: { codeExecution: {} } },
    { kind: "hosted", name: "urlContext", spec: { urlContext: {} } },
  ]);
});

test("modes of calling: where only some functions are allowed, only those are offered", () => {
  const choose = (functionCallingConfig: object) => {
    const { tools, toolChoice, extras } = facts({
      tools: [{ functionDeclarations: [read, list] }],
      toolConfig: { functionCallingConfig },
    });
    return [tools.map((tool) => tool.name), toolChoice, Object.keys(extras)];
  };
  const both = ["read", "list"];
  assert.deepEqual(choose({ mode: "AUTO" }), [both, "auto", []]);
  assert.deepEqual(choose({ mode: "ANY" }), [both, "required", []]);
  assert.deepEqual(choose({ mode: "NONE" }), [both, "none", []]);
  assert.deepEqual(choose({ mode: "ANY", allowedFunctionNames: ["list"] }), [["list"], { name: "list" }, []]);
  assert.deepEqual(choose({ mode: "ANY", allowed_function_names: both }), [both, "required", []]);
  assert.deepEqual(choose({ mode: "VALIDATED" }), [both, "auto", ["functionCallingConfig.mode VALIDATED"]]);
});

test("what has no canonical form is named, and what says nothing is not", () => {
  const config = {
    candidateCount: 2,
    responseModalities: ["TEXT", "IMAGE"],
    responseLogprobs: true,
    logprobs: 3,
    speechConfig: {},
    responseMimeType: "text/x.enum",
  };
  const { extras } = facts({
    generationConfig: config,
    safetySettings: [{ category: "HARM_CATEGORY_HARASSMENT", threshold: "BLOCK_NONE" }],
    cachedContent: "cachedContents/1",
    labels: { a: "b" },
    toolConfig: { retrievalConfig: {} },
  });
  assert.deepEqual(Object.keys(extras).toSorted(), [
    "cachedContent",
    "candidateCount",
    "generationConfig.speechConfig",
    "labels",
    "logprobs",
    "responseLogprobs",
    "responseMimeType",
    "responseModalities",
    "safetySettings",
    "toolConfig.retrievalConfig",
  ]);
  const ordinary = { candidateCount: 1, responseModalities: ["TEXT"], responseLogprobs: false };
  assert.deepEqual(facts({ generationConfig: ordinary, safetySettings: [] }).extras, {});
});

test("parts that other models cannot be shown are named", () => {
  const inline = (mimeType: string) => ({ inlineData: { mimeType, data: "AAAA" } });
  const extrasOf = (...parts: object[]) => parse({ contents: [user(...parts)] }).facts;
  const { hasImages, hasFiles, extras } = extrasOf(inline("image/png"), inline("application/pdf"));
  assert.deepEqual([hasImages, hasFiles, extras], [true, true, {}]);
  assert.deepEqual(extrasOf(inline("audio/wav"), inline("video/mp4")).extras, { audio: true, video: true });
  assert.deepEqual(extrasOf({ file_data: { file_uri: "files/1" } }).extras, { fileData: true });
  assert.deepEqual(extrasOf({ text: "a", videoMetadata: { fps: 1 } }).extras, { "parts.videoMetadata": true });
  assert.deepEqual(extrasOf({ toolCall: { id: "1" } }).extras, { "parts of other kinds": "toolCall" });
  const inside = response("read", { parts: [{ fileData: { fileUri: "x" } }, inline("image/png")] });
  assert.deepEqual(extrasOf(inside).extras, { fileData: true });
  assert.equal(extrasOf(inside).hasImages, true);
  const document = response("read", { parts: [inline("application/pdf")] });
  assert.deepEqual(extrasOf(document).extras, { "files in tool results": true });
  assert.equal(extrasOf(document).hasFiles, false);
});

test("instructions, images, files and text", () => {
  const { messages: build } = parse({
    system_instruction: { parts: [{ text: "Be brief." }, { text: "" }, { text: "Be kind." }] },
    contents: [
      user(
        { text: "see" },
        { inline_data: { mime_type: "image/png", data: "A-_A" } },
        { inlineData: { mimeType: "application/pdf", data: "BBBB", displayName: "a.pdf" } },
      ),
    ],
  });
  assert.deepEqual(build(), [
    { role: "system", parts: [{ kind: "text", text: "Be brief.\n\nBe kind." }] },
    {
      role: "user",
      parts: [
        { kind: "text", text: "see" },
        { kind: "image", url: "data:image/png;base64,A+/A" },
        { kind: "file", url: "data:application/pdf;base64,BBBB", mediaType: "application/pdf", name: "a.pdf" },
      ],
    },
  ]);
});

test("results find their calls by id, by name and by order", () => {
  assert.deepEqual(
    messages(
      HELLO,
      model(call("a", { id: "x" }), call("b"), call("b"), call("c")),
      user({ text: "and" }, response("b"), response("b"), response("a", { id: "x" }), response("other")),
    ),
    [
      { role: "user", parts: [{ kind: "text", text: "hello" }] },
      {
        role: "assistant",
        parts: [
          called("x", "a"),
          called("call_gemini_1", "b"),
          called("call_gemini_2", "b"),
          called("call_gemini_3", "c"),
        ],
      },
      {
        role: "tool",
        parts: [
          result("call_gemini_1", "of b"),
          result("call_gemini_2", "of b"),
          result("x", "of a"),
          result("call_gemini_3", "of other"),
        ],
      },
      { role: "user", parts: [{ kind: "text", text: "and" }] },
    ],
  );
});

test("a result belongs to a call of the turn before it, and ids go before names", () => {
  const built = messages(
    HELLO,
    model(call("a")),
    user({ text: "never mind" }),
    model(call("a", { id: "x" }), call("a", { id: "y" })),
    user(response("a", { id: "y" }), response("a")),
  );
  assert.deepEqual(built.at(-1), { role: "tool", parts: [result("y", "of a"), result("x", "of a")] });
});

test("a result with an id that no call has keeps it, and takes no other call's place", () => {
  const [, , tool] = messages(HELLO, model(call("a", { id: "x" })), user(response("zzz", { id: "unknown" })));
  assert.deepEqual(tool?.parts, [result("unknown", "of zzz")]);
});

const results: readonly [response: object, text: string, isError: boolean][] = [
  [{ output: "plain" }, "plain", false],
  [{ output: { a: 1 } }, '{"a":1}', false],
  [{ error: "no such file" }, "no such file", true],
  [{ result: 42, unit: "m" }, '{"result":42,"unit":"m"}', false],
  [{ output: "a", error: "b" }, '{"output":"a","error":"b"}', false],
  [{}, "", false],
];

test("what a tool gave back, as text", () => {
  for (const [given, text, isError] of results) {
    const [, , tool] = messages(HELLO, model(call("a")), user(response("a", { response: given })));
    const expected = { ...result("call_gemini_0", text), ...(isError ? { isError } : {}) };
    assert.deepEqual(tool?.parts, [expected]);
  }
  const parts = [
    { inlineData: { mimeType: "image/png", data: "AAAA" } },
    { inlineData: { mimeType: "application/pdf", data: "AAAA" } },
  ];
  const [, , tool] = messages(HELLO, model(call("a")), user(response("a", { parts })));
  assert.deepEqual(tool?.parts, [
    {
      ...result("call_gemini_0", "of a\n[a document that cannot be shown here]"),
      images: ["data:image/png;base64,AAAA"],
    },
  ]);
});

test("turns of the model that follow each other are one, with their pieces put together", () => {
  const [, turn] = messages(
    HELLO,
    model({ text: "let ", thought: true }),
    model({ text: "me", thought: true }, { text: "Grüße " }),
    model({ text: "🦊" }),
    model(call("a"), { text: "" }),
  );
  assert.deepEqual(turn, {
    role: "assistant",
    parts: [{ kind: "reasoning", text: "let me" }, { kind: "text", text: "Grüße 🦊" }, called("call_gemini_0", "a")],
  });
});

test("thinking that has its seal is not added to", () => {
  const [, turn] = messages(
    HELLO,
    model({ text: "one", thought: true, thoughtSignature: "AA==" }, { text: "two", thought: true }),
  );
  assert.deepEqual(
    turn?.parts.map((part) => (part.kind === "reasoning" ? part.text : part.kind)),
    ["one", "two"],
  );
});

test("code that Google ran in earlier turns is told in words", () => {
  const [, turn] = messages(
    HELLO,
    model(
      { executableCode: { language: "PYTHON", code: "print(1)" } },
      { codeExecutionResult: { outcome: "OUTCOME_OK", output: "1" } },
    ),
  );
  assert.deepEqual(turn?.parts, [{ kind: "text", text: "\n```python\nprint(1)\n```\n\n```\n1\n```\n" }]);
});

const gemini = (signature: string, on: string) => ({ maker: "gemini", data: JSON.stringify({ signature, on }) });

test("Gemini's own signatures stand on the parts on which they came", () => {
  const { facts: read_, messages: build } = parse({
    contents: [
      HELLO,
      model(
        { text: "hm", thought: true, thoughtSignature: "AA==" },
        { text: "yes", thoughtSignature: "BB==" },
        call("a", {}, { thoughtSignature: "CC==" }),
        call("b", {}, { thoughtSignature: PLACEHOLDER }),
        { text: "", thoughtSignature: "DD==" },
      ),
    ],
  });
  assert.equal(read_.isForeign, false);
  assert.deepEqual(build()[1]?.parts, [
    { kind: "reasoning", text: "hm", opaque: gemini("AA==", "thought") },
    { kind: "text", text: "yes" },
    { kind: "reasoning", text: "", opaque: gemini("BB==", "text") },
    { ...called("call_gemini_0", "a"), opaque: gemini("CC==", "call") },
    called("call_gemini_1", "b"),
    { kind: "reasoning", text: "", opaque: gemini("DD==", "end") },
  ]);
});

test("seals of other makers come back to them, shown or hidden, and make the body one that is not relayed", () => {
  const shown = toSignature("anthropic", '{"signature":"s"}');
  const hidden = toSignature("openai", '{"id":"1"}', "secret thoughts");
  assert.ok(shown.startsWith(OPAQUE_MARK));
  const { facts: read_, messages: build } = parse({
    contents: [
      HELLO,
      model(
        { text: "let ", thought: true },
        { text: "me", thought: true, thoughtSignature: shown },
        { text: "", thoughtSignature: hidden },
        call("a", { id: "x" }, { thoughtSignature: toSignature("other", "data") }),
        call("b", { id: "y" }, { thoughtSignature: `${OPAQUE_MARK}damaged` }),
      ),
    ],
  });
  assert.equal(read_.isForeign, true);
  assert.deepEqual(build()[1]?.parts, [
    { kind: "reasoning", text: "let me", opaque: { maker: "anthropic", data: '{"signature":"s"}' } },
    { kind: "reasoning", text: "secret thoughts", opaque: { maker: "openai", data: '{"id":"1"}' } },
    { ...called("x", "a"), opaque: { maker: "other", data: "data" } },
    called("y", "b"),
  ]);
});

test("a request whose tokens are counted may stand inside", () => {
  for (const key of ["generateContentRequest", "generate_content_request"]) {
    const { facts: read_, messages: build } = parse({
      [key]: { model: "models/up/m", contents: [HELLO], tools: [{ functionDeclarations: [read] }] },
    });
    assert.deepEqual(
      read_.tools.map((tool) => tool.name),
      ["read"],
    );
    assert.deepEqual(build()[0]?.parts, [{ kind: "text", text: "hello" }]);
  }
});

const broken: readonly [body: object, field: string][] = [
  [{}, "contents"],
  [{ contents: [] }, "contents"],
  [{ contents: [{ role: "assistant", parts: [] }] }, "contents.0.role"],
  [{ contents: [user({ functionCall: { name: "" } })] }, "contents.0.parts.0.functionCall.name"],
  [{ contents: [HELLO], generationConfig: { temperature: 3 } }, "generationConfig.temperature"],
  [
    { contents: [HELLO], toolConfig: { functionCallingConfig: { mode: "SOME" } } },
    "toolConfig.functionCallingConfig.mode",
  ],
];

test("a field of the wrong kind is refused with its path", () => {
  for (const [body, field] of broken) {
    assert.throws(
      () => parse(body),
      (error) => error instanceof UserError && error.code === "invalid_params" && error.details["field"] === field,
      field,
    );
  }
});
