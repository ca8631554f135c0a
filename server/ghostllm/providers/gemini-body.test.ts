/** Canonical requests as Gemini's bodies: every field, every generation, and what cannot be told. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { call, chat, READ, result, say } from "../../../test/support/anthropic.ts";
import { GhostError } from "../../base/errors.ts";
import type { ChatRequest, Message, Part } from "../stream.ts";
import { cureFor, countBody, type GenerateBody, geminiRequest } from "./gemini-body.ts";
import { familyOf } from "./gemini-models.ts";
import { PLACEHOLDER } from "./gemini-turns.ts";

const NEW = "gemini-3.8-flash";
const OLD = "gemini-2.5-flash";
const make = (messages: readonly Message[] | string, more: Partial<ChatRequest> = {}, name = NEW) =>
  geminiRequest(chat(messages, more), {
    maker: "gemini",
    ref: `gemini/${name}`,
    facts: familyOf(name),
    maxOutputTokens: 65_536,
  });
const contentsOf = async (messages: readonly Message[], name = NEW) => (await make(messages, {}, name)).body.contents;
const configOf = async (more: Partial<ChatRequest>, name = NEW) =>
  (await make("hi", more, name)).body.generationConfig ?? {};
const refusedFor = (field: RegExp) => (error: unknown) => {
  assert.ok(error instanceof GhostError && error.code === "capability_missing", String(error));
  assert.match(error.message, field);
  return true;
};
const model = (...parts: readonly Part[]): Message => ({ role: "assistant", parts });
const user = (...parts: readonly Part[]): Message => ({ role: "user", parts });
const own = (signature: string, on: string) => ({ maker: "gemini", data: JSON.stringify({ signature, on }) });
const thought = (text: string, opaque?: { readonly maker: string; readonly data: string }): Part => ({
  kind: "reasoning",
  text,
  ...(opaque === undefined ? {} : { opaque }),
});
const text = (said: string): Part => ({ kind: "text", text: said });
const IMAGE = "data:image/png;base64,iVBORw0KGgo=";
const inline = { inlineData: { mimeType: "image/png", data: "iVBORw0KGgo=" } };

test("the simplest request holds what was said, and nothing else", async () => {
  const { body, dropped } = await make([say("system", "Be brief."), say("developer", "Now."), say("user", "hi")]);
  assert.deepEqual(body, {
    systemInstruction: { parts: [{ text: "Be brief." }, { text: "Now." }] },
    contents: [{ role: "user", parts: [{ text: "hi" }] }],
  });
  assert.deepEqual(dropped, []);
});

test("a later instruction is told apart from the user's words, an only one is the question", async () => {
  assert.deepEqual(await contentsOf([say("user", "a"), say("system", "b")]), [
    { role: "user", parts: [{ text: "a" }, { text: "<system>\nb\n</system>" }] },
  ]);
  const { body } = await make([say("system", "a"), say("system", "b")]);
  assert.deepEqual(body["systemInstruction"], { parts: [{ text: "a" }] });
  assert.deepEqual(body.contents, [{ role: "user", parts: [{ text: "b" }] }]);
});

test("results stand behind their calls, with the call's id and its real name, one for each", async () => {
  const contents = await contentsOf([
    say("user", "go"),
    model(text("Looking."), call("c1", "read", { arguments: '{"path":"a"}' }), call("c2", "list", { arguments: "" })),
    { role: "tool", parts: [{ kind: "toolResult", callId: "c2", text: "no", isError: true }] },
    result("c1", "A"),
    say("user", "and?"),
    model(call("c3", "read", { arguments: "{cut" })),
    result("nobody", "lost"),
  ]);
  assert.deepEqual(contents, [
    { role: "user", parts: [{ text: "go" }] },
    {
      role: "model",
      parts: [
        { text: "Looking." },
        { functionCall: { id: "c1", name: "read", args: { path: "a" } }, thoughtSignature: PLACEHOLDER },
        { functionCall: { id: "c2", name: "list", args: {} } },
      ],
    },
    {
      role: "user",
      parts: [
        { functionResponse: { id: "c2", name: "list", response: { error: "no" } } },
        { functionResponse: { id: "c1", name: "read", response: { output: "A" } } },
        { text: "and?" },
      ],
    },
    {
      role: "model",
      parts: [{ functionCall: { id: "c3", name: "read", args: { input: "{cut" } }, thoughtSignature: PLACEHOLDER }],
    },
    {
      role: "user",
      parts: [
        {
          functionResponse: { id: "c3", name: "read", response: { error: "It was broken off: there is no result." } },
        },
        { text: "<tool_result>\nlost\n</tool_result>" },
      ],
    },
  ]);
});

test("signatures go back to the part on which they came; those of others do not", async () => {
  const contents = await contentsOf([
    say("user", "go"),
    model(
      thought("Hm.", own("s1", "thought")),
      thought("unsigned"),
      thought("Claude's", { maker: "anthropic", data: '{"signature":"x"}' }),
      text("One."),
      thought("", own("s2", "text")),
      text("Two."),
      thought("", own("s3", "end")),
      call("c1", "read", { opaque: own("s4", "call") }),
      call("c2", "read", { opaque: { maker: "anthropic", data: '{"signature":"x"}' } }),
    ),
    result("c1", "A"),
    result("c2", "B"),
  ]);
  assert.deepEqual(contents[1]?.parts, [
    { text: "Hm.", thought: true, thoughtSignature: "s1" },
    { text: "One.", thoughtSignature: "s2" },
    { text: "Two." },
    { text: "", thoughtSignature: "s3" },
    { functionCall: { id: "c1", name: "read", args: {} }, thoughtSignature: "s4" },
    { functionCall: { id: "c2", name: "read", args: {} } },
  ]);
});

test("an older generation gets no placeholder", async () => {
  const [, turn] = await contentsOf([say("user", "go"), model(call("c1")), result("c1", "A")], OLD);
  assert.deepEqual(turn?.parts, [{ functionCall: { id: "c1", name: "read", args: {} } }]);
});

test("a conversation begins and ends with the user", async () => {
  const contents = await contentsOf([model(text("Once upon a time there was a fox in a hole in the ground"))]);
  assert.deepEqual(
    contents.map(({ role }) => role),
    ["user", "model", "user"],
  );
  assert.match(JSON.stringify(contents[2]), /interrupted and ended with ` there was a fox in a hole in the ground`/);
});

test("pictures and files are shown by their data; nothing is fetched", async () => {
  const file = (url: string, mediaType: string, name?: string): Part => ({
    kind: "file",
    url,
    mediaType,
    ...(name === undefined ? {} : { name }),
  });
  const contents = await contentsOf([
    user(
      { kind: "image", url: IMAGE },
      file("data:application/pdf;base64,JVBERg==", "application/pdf"),
      file("data:;base64,R3LDvMOfZQ==", "text/plain", "a.txt"),
      file("data:application/json,%7B%7D", "application/json"),
    ),
  ]);
  assert.deepEqual(contents[0]?.parts, [
    inline,
    { inlineData: { mimeType: "application/pdf", data: "JVBERg==" } },
    { text: '<file name="a.txt">\nGrüße\n</file>' },
    { text: "<file>\n{}\n</file>" },
  ]);
  for (const part of [
    { kind: "image", url: "https://example.com/a.png" },
    file("https://example.com/a.pdf", "application/pdf"),
    file("data:application/zip;base64,AAAA", "application/zip"),
  ] satisfies Part[]) {
    await assert.rejects(make([user(part)]), refusedFor(/nothing is fetched|not application\/zip/));
  }
  const drawn = await make([say("user", "a"), model({ kind: "image", url: IMAGE }, text("b")), say("user", "c")]);
  assert.deepEqual(drawn.dropped, ["images of the assistant"]);
});

test("pictures of a tool stand in its result, or behind it for older models", async () => {
  const part = { kind: "toolResult", callId: "c1", text: "see", images: [IMAGE] } as const;
  const messages: readonly Message[] = [say("user", "go"), model(call("c1")), { role: "tool", parts: [part] }];
  const response = { id: "c1", name: "read", response: { output: "see" } };
  assert.deepEqual((await contentsOf(messages))[2]?.parts, [{ functionResponse: { ...response, parts: [inline] } }]);
  assert.deepEqual((await contentsOf(messages, OLD))[2]?.parts, [{ functionResponse: response }, inline]);
});

test("tools, their choice, and names that Gemini takes", async () => {
  const strict = { ...READ, strict: true };
  const tools = [READ, { ...READ, name: "mcp.list", namespace: "files" }, { ...READ, name: "größe" }] as const;
  const choose = async (toolChoice: ChatRequest["toolChoice"], list: ChatRequest["tools"] = [READ], name = NEW) =>
    (await make("hi", { tools: list, toolChoice }, name)).body["toolConfig"];
  const named = await make("hi", { tools });
  const names = JSON.stringify(named.body["tools"]).match(/"name":"[^"]+"/g) ?? [];
  assert.deepEqual(names.slice(0, 2), ['"name":"read"', '"name":"files__mcp.list"']);
  assert.match(String(names[2]), /^"name":"gr__e_[0-9a-f]{8}"$/);
  const mode = (word: string, more: object = {}) => ({ functionCallingConfig: { mode: word, ...more } });
  assert.equal(await choose("auto"), undefined);
  assert.deepEqual(await choose("none"), mode("NONE"));
  assert.deepEqual(await choose("required"), mode("ANY"));
  assert.deepEqual(await choose({ name: "read" }), mode("ANY", { allowedFunctionNames: ["read"] }));
  assert.deepEqual(await choose("auto", [strict]), mode("VALIDATED"));
  assert.equal(await choose("auto", [strict, { ...READ, name: "list" }]), undefined);
  assert.equal(await choose("auto", [strict], OLD), undefined);
  assert.equal(await choose("required", []), undefined);
});

test("sampling, limits and stop strings", async () => {
  const sampling = { temperature: 0.5, topP: 0.9, topK: 3, seed: 5, frequencyPenalty: 0.1, presencePenalty: 0.2 };
  const output = { stop: ["a", "b"], maxTokens: 90_000, format: { kind: "text" } } as const;
  assert.deepEqual(await configOf({ sampling, output }), {
    ...sampling,
    maxOutputTokens: 65_536,
    stopSequences: ["a", "b"],
  });
  assert.equal((await configOf({ output }, "gemini-4-argon"))["maxOutputTokens"], 90_000);
  const many = { ...output, stop: ["1", "2", "3", "4", "5", "6"] };
  const cutHere = await make("hi", { output: many });
  assert.deepEqual([cutHere.ownStops, cutHere.body.generationConfig?.["stopSequences"]], [many.stop, undefined]);
});

test("JSON and schemas, with tools where the model takes both", async () => {
  const schema = { type: "object", properties: { a: { const: "x" } } };
  const format = { kind: "schema", name: "answer", schema } as const;
  const reduced = { type: "object", properties: { a: { enum: ["x"] } } };
  const asSchema = { responseMimeType: "application/json", responseJsonSchema: reduced };
  assert.deepEqual(await configOf({ output: { stop: [], format } }, OLD), asSchema);
  assert.deepEqual(await configOf({ output: { stop: [], format }, tools: [READ] }), asSchema);
  await assert.rejects(make("hi", { output: { stop: [], format }, tools: [READ] }, OLD), refusedFor(/json_schema/));
  const json = { stop: [], format: { kind: "json" } } as const;
  assert.deepEqual(await configOf({ output: json }, OLD), { responseMimeType: "application/json" });
  const worded = await make("hi", { output: json, tools: [READ] }, OLD);
  assert.match(JSON.stringify(worded.body.contents), /one JSON object/);
  assert.equal(worded.body.generationConfig, undefined);
});

type Wish = NonNullable<ChatRequest["reasoning"]>;
const thinking: readonly [name: string, wish: Wish, config: object | undefined][] = [
  ["gemini-2.5-flash", { effort: "none" }, { thinkingBudget: 0 }],
  ["gemini-2.5-flash", { effort: "low" }, { thinkingBudget: 1_024 }],
  ["gemini-2.5-flash", { effort: "max" }, { thinkingBudget: 24_576 }],
  ["gemini-2.5-flash", { budgetTokens: 5_000, isShown: true }, { includeThoughts: true, thinkingBudget: 5_000 }],
  ["gemini-2.5-flash-lite", { budgetTokens: 5 }, { thinkingBudget: 512 }],
  ["gemini-2.5-pro", { effort: "none" }, { thinkingBudget: 128 }],
  ["gemini-2.5-pro", { effort: "max" }, { thinkingBudget: 32_768 }],
  ["gemini-2.0-flash", { effort: "none" }, undefined],
  ["gemini-3-pro-preview", { effort: "medium" }, { thinkingLevel: "LOW" }],
  ["gemini-3-flash-preview", { effort: "none" }, { thinkingLevel: "MINIMAL" }],
  ["gemini-3.1-pro-preview", { effort: "minimal" }, { thinkingLevel: "LOW" }],
  ["gemini-3.1-flash-lite", { effort: "minimal" }, { thinkingLevel: "MINIMAL" }],
  ["gemini-3.7-flash", { budgetTokens: 0 }, { thinkingLevel: "LOW" }],
  ["gemini-3.8-flash", { effort: "medium" }, { thinkingLevel: "MEDIUM" }],
  ["gemini-3.8-flash", { budgetTokens: 20_000 }, { thinkingLevel: "HIGH" }],
  ["gemini-3.8-flash", { isShown: true }, { includeThoughts: true }],
  ["gemini-4-argon", { effort: "xhigh" }, { thinkingLevel: "HIGH" }],
  ["gemini-4-argon", { budgetTokens: 9_000 }, { thinkingLevel: "MEDIUM" }],
  ["gemini-flash-latest", { effort: "none" }, { thinkingLevel: "LOW" }],
];
test("thinking by generation: in tokens, in levels, and not at all", async () => {
  for (const [name, reasoning, config] of thinking) {
    const { body, dropped } = await make("hi", { reasoning }, name);
    assert.deepEqual(body.generationConfig?.["thinkingConfig"], config, `${name} ${JSON.stringify(reasoning)}`);
    assert.deepEqual(dropped, []);
  }
  const lost = await make("hi", { reasoning: { effort: "high" } }, "gemini-2.0-flash");
  assert.deepEqual([lost.dropped, lost.body.generationConfig], [["reasoning"], undefined]);
});

test("a model without a system's place is told in the user's turn, and calls no tools", async () => {
  const { body } = await make([say("system", "a"), say("user", "b")], {}, "gemma-3-27b-it");
  assert.deepEqual(body, { contents: [{ role: "user", parts: [{ text: "<system>\na\n</system>" }, { text: "b" }] }] });
  await assert.rejects(make("hi", { tools: [READ] }, "gemma-3-27b-it"), refusedFor(/tools/));
});

test("what is counted is the prompt", async () => {
  const asked = await make([say("system", "a"), say("user", "b")], { sampling: { temperature: 1 }, tools: [READ] });
  assert.deepEqual(Object.keys(countBody(asked, NEW)), ["generateContentRequest"]);
  assert.doesNotMatch(JSON.stringify(countBody(asked, NEW)), /generationConfig/);
});

test("what was refused is left out of a second try, and named", () => {
  const body: GenerateBody = {
    contents: [
      {
        role: "model",
        parts: [
          { text: "a", thoughtSignature: "x" },
          { text: "", thoughtSignature: "y" },
          { text: "t", thought: true, thoughtSignature: "z" },
          { functionCall: { name: "f", args: {} }, thoughtSignature: "w" },
          { functionCall: { name: "g", args: {} } },
        ],
      },
      { role: "model", parts: [{ text: "", thoughtSignature: "y" }] },
    ],
    generationConfig: { temperature: 1, presencePenalty: 1, thinkingConfig: { thinkingLevel: "HIGH" } },
  };
  const seals = cureFor("Corrupted thought signature.", body);
  assert.deepEqual(seals?.names, ["earlier thinking"]);
  assert.deepEqual(seals?.body.contents, [
    {
      role: "model",
      parts: [
        { text: "a" },
        { functionCall: { name: "f", args: {} }, thoughtSignature: PLACEHOLDER },
        { functionCall: { name: "g", args: {} } },
      ],
    },
    { role: "model", parts: [{ text: " " }] },
  ]);
  const penalties = cureFor("Penalty is not enabled for this model", body);
  assert.deepEqual(
    [penalties?.names, penalties?.body.generationConfig?.["presencePenalty"]],
    [["presence_penalty"], undefined],
  );
  const quiet = cureFor("Thinking level is not supported for this model.", body);
  assert.deepEqual(
    [quiet?.names, quiet?.body.generationConfig],
    [["reasoning"], { temperature: 1, presencePenalty: 1 }],
  );
  assert.equal(cureFor("Invalid argument", body), undefined);
  assert.equal(cureFor("thinking budget", { contents: [] }), undefined);
});
