/** Bodies for Claude, held against the rules of the fake host, which are those of the real API. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { messagesBody } from "../../../test/fakes/anthropic-host-body.ts";
import { factsOf as hostFactsOf, modelInfo } from "../../../test/fakes/anthropic-host-models.ts";
import { brokenRule } from "../../../test/fakes/anthropic-host-rules.ts";
import { IssuedThinking } from "../../../test/fakes/anthropic-host-thinking.ts";
import { call, chat, READ, result, say } from "../../../test/support/anthropic.ts";
import { testRandom } from "../../../test/support/random.ts";
import { GhostError } from "../../base/errors.ts";
import type { ChatRequest, Message, Part, ReasoningEffort } from "../stream.ts";
import { messagesRequest, type MessagesRequest, withoutStrictTools } from "./anthropic-body.ts";
import { describeClaude, factsOf, familyOf, isUsable, modelPage } from "./anthropic-models.ts";

/** One of each family, an unknown one, and a dated name. */
const MODELS = [
  "claude-fable-5-2",
  "claude-fable-5-1",
  "claude-fable-5",
  "claude-mythos-5-2",
  "claude-opus-5-5",
  "claude-opus-5",
  "claude-opus-4-8",
  "claude-opus-4-7",
  "claude-opus-4-6",
  "claude-sonnet-4-6",
  "claude-sonnet-5-5",
  "claude-sonnet-5",
  "claude-haiku-5-5",
  "claude-haiku-4-5",
  "claude-opus-4-5-20251101",
  "claude-sonnet-4-5",
  "claude-epic-9",
];

const build = (request: ChatRequest, name: string) =>
  messagesRequest(request, { maker: "anthropic", name, facts: familyOf(name), isRefused: () => false });

/** The API's words against it; undefined where it would answer. */
function problemOf({ body, version }: MessagesRequest): string | undefined {
  const parsed = messagesBody.safeParse(JSON.parse(JSON.stringify(body)));
  if (!parsed.success) return parsed.error.message;
  return brokenRule({ body: parsed.data, version, betas: [], thinking: new IssuedThinking(), isCount: false });
}

async function accepted(request: ChatRequest, name = "claude-opus-4-8") {
  const message = await build(request, name);
  assert.equal(problemOf(message), undefined, `${name}: ${JSON.stringify(message.body)}`);
  return message;
}

/** The messages in short: role, then its blocks. */
async function turnsOf(messages: readonly Message[], name = "claude-opus-4-8", more: Partial<ChatRequest> = {}) {
  const { body } = await accepted(chat(messages, more), name);
  return body.messages.map(({ role, content }) => [
    role,
    ...content.map((block) => {
      if (block.type === "text") return block.text;
      if (block.type === "tool_result") return `${block.tool_use_id}=${JSON.stringify(block.content)}`;
      return block.type === "tool_use" ? `${block.id}:${block.name}` : block.type;
    }),
  ]);
}

test("what the list says of a model and what its family is known for are the same", () => {
  for (const name of MODELS) {
    const page = modelPage.parse({ data: [modelInfo(name)] });
    const [listed] = page.data;
    assert.ok(listed !== undefined);
    assert.deepEqual(factsOf(listed), familyOf(name), name);
    const { takesForcedTool, takesSystemTurns, takesSampling, takesPrefill, omitsThinking, thinksByDefault } =
      hostFactsOf(name);
    const { takesForcedChoice, ...family } = familyOf(name);
    const known = { takesForcedTool: takesForcedChoice, ...family };
    assert.deepEqual(
      { takesForcedTool, takesSystemTurns, takesSampling, takesPrefill, omitsThinking, thinksByDefault },
      {
        takesForcedTool: known.takesForcedTool,
        takesSystemTurns: known.takesSystemTurns,
        takesSampling: known.takesSampling,
        takesPrefill: known.takesPrefill,
        omitsThinking: known.omitsThinking,
        thinksByDefault: known.thinksByDefault,
      },
      name,
    );
  }
  const [thoughtless] = modelPage.parse({
    data: [{ id: "claude-opus-4-6", capabilities: { thinking: { supported: false } } }],
  }).data;
  assert.ok(thoughtless !== undefined);
  assert.deepEqual(factsOf(thoughtless).thinking, []);
  const [silent] = modelPage.parse({ data: [{ id: "claude-opus-4-6", capabilities: null }] }).data;
  assert.ok(silent !== undefined);
  assert.deepEqual(factsOf(silent), familyOf("claude-opus-4-6"));
});

test("what the list says counts more than the name", () => {
  const can = (supported: boolean) => ({ supported });
  const [listed] = modelPage.parse({
    data: [
      {
        id: "claude-opus-4-6",
        max_tokens: 9_000,
        capabilities: {
          image_input: can(false),
          structured_outputs: can(false),
          effort: { supported: true, low: can(true), high: can(true), xhigh: null },
          thinking: { supported: true, types: { adaptive: can(false), disabled: can(true) } },
        },
      },
    ],
  }).data;
  assert.ok(listed !== undefined);
  const { maxOutputTokens, takesImages, takesSchemas, efforts, thinking } = factsOf(listed);
  assert.deepEqual(
    [maxOutputTokens, takesImages, takesSchemas, efforts, thinking],
    [9_000, false, false, ["low", "high"], ["disabled"]],
  );
});

test("a model that is retired is left out; one that will be says so", () => {
  const { data } = modelPage.parse({
    data: [
      { id: "a", lifecycle: "retired" },
      { id: "b", lifecycle: "deprecated", retires_at: "2026-11-30T00:00:00Z" },
      { id: "c", lifecycle: "deprecated" },
      { id: "d", lifecycle: "new_in_2027" },
      { id: "e" },
    ],
  });
  const notes = data.filter(isUsable).map((model) => {
    const { name, note, locality } = describeClaude(model, { provider: "anthropic", locality: "cloud" });
    return [name, note, locality];
  });
  assert.deepEqual(notes, [
    ["b", "Anthropic retires this model on 2026-11-30.", "cloud"],
    ["c", "Anthropic retires this model.", "cloud"],
    ["d", undefined, "cloud"],
    ["e", undefined, "cloud"],
  ]);
});

test("leading instructions are the system, later ones stand in their place, as the model takes them", async () => {
  const messages = [
    say("system", "One."),
    say("developer", "Two."),
    say("user", "a"),
    say("system", "Three."),
    say("assistant", "b"),
    say("system", "Four."),
    say("user", "c"),
  ];
  const { body } = await accepted(chat(messages));
  assert.deepEqual(body["system"], [
    { type: "text", text: "One." },
    { type: "text", text: "Two." },
  ]);
  assert.deepEqual(await turnsOf(messages), [
    ["user", "a"],
    ["system", "Three."],
    ["assistant", "b"],
    ["user", "<system>\nFour.\n</system>", "c"],
  ]);
  assert.deepEqual(await turnsOf(messages, "claude-sonnet-4-6"), [
    ["user", "a", "<system>\nThree.\n</system>"],
    ["assistant", "b"],
    ["user", "<system>\nFour.\n</system>", "c"],
  ]);
});

test("instructions alone are what is asked", async () => {
  assert.deepEqual(await turnsOf([say("system", "Rules."), say("system", "Write a poem.")]), [
    ["user", "Write a poem."],
  ]);
});

test("all results of one turn stand in one user's turn, before its text, wherever they were", async () => {
  const calls: Message = { role: "assistant", parts: [{ kind: "text", text: "I look." }, call("a"), call("b")] };
  const expected = [
    ["user", "x"],
    ["assistant", "I look.", "a:read", "b:read"],
    ["user", 'b="2"', 'a="1"', "and?"],
  ];
  assert.deepEqual(
    await turnsOf([say("user", "x"), calls, result("b", "2"), result("a", "1"), say("user", "and?")]),
    expected,
  );
  assert.deepEqual(
    await turnsOf([say("user", "x"), calls, say("user", "and?"), result("b", "2"), result("a", "1")]),
    expected,
  );
  assert.deepEqual(
    await turnsOf([say("user", "x"), calls, say("system", "Note."), result("a", "1"), result("b", "2")]),
    [
      ["user", "x"],
      ["assistant", "I look.", "a:read", "b:read"],
      ["user", 'a="1"', 'b="2"'],
      ["system", "Note."],
    ],
  );
});

test("a call that was broken off has a result that says so, and a result without its call is text", async () => {
  const broken: Message = { role: "assistant", parts: [call("a"), call("b")] };
  assert.deepEqual(
    await turnsOf([say("user", "x"), broken, result("b", "2"), say("user", "stop"), result("z", "old")]),
    [
      ["user", "x"],
      ["assistant", "a:read", "b:read"],
      ["user", 'b="2"', 'a="It was broken off: there is no result."', "stop", "<tool_result>\nold\n</tool_result>"],
    ],
  );
});

test("ids that are not allowed, or used twice, are made anew, and always the same", async () => {
  const turn = (callId: string): readonly Message[] => [
    { role: "assistant", parts: [call(callId)] },
    result(callId, callId),
  ];
  const messages = [say("user", "x"), ...turn("functions.read:0"), ...turn("call_0"), ...turn("call_0"), ...turn("")];
  const turns = await turnsOf(messages);
  assert.match(JSON.stringify(turns[1]), /^\["assistant","call_[0-9a-f]{32}:read"\]$/);
  assert.deepEqual(turns[3], ["assistant", "call_0:read"]);
  assert.match(JSON.stringify(turns[5]), /^\["assistant","call_[0-9a-f]{32}:read"\]$/);
  const longer = await turnsOf([...messages, say("user", "more")]);
  assert.deepEqual(longer.slice(0, 8), turns.slice(0, 8));
});

test("errors and images stay in their results", async () => {
  const image = "data:image/png;base64,AAAA";
  const withImage: Part = { kind: "toolResult", callId: "a", text: "see", images: [image] };
  const failed: Part = { kind: "toolResult", callId: "b", text: "no", isError: true, images: [image] };
  const { body } = await accepted(
    chat([
      say("user", "x"),
      { role: "assistant", parts: [call("a"), call("b")] },
      { role: "tool", parts: [withImage, failed] },
    ]),
  );
  const block = { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } };
  assert.deepEqual(body.messages.at(-1)?.content, [
    { type: "tool_result", tool_use_id: "a", content: [{ type: "text", text: "see" }, block] },
    { type: "tool_result", tool_use_id: "b", content: "no", is_error: true },
    block,
  ]);
});

test("a result that says nothing has no content; one that failed says so much", async () => {
  const silent = (callId: string, isError: boolean): Part => ({ kind: "toolResult", callId, text: " \n", isError });
  const parts = [silent("a", false), silent("b", true)];
  const { body } = await accepted(
    chat([say("user", "x"), { role: "assistant", parts: [call("a"), call("b")] }, { role: "tool", parts }]),
  );
  assert.deepEqual(body.messages.at(-1)?.content, [
    { type: "tool_result", tool_use_id: "a" },
    { type: "tool_result", tool_use_id: "b", content: "It failed, and said nothing.", is_error: true },
  ]);
});

test("images and files go as what they are", async () => {
  const parts: readonly Part[] = [
    { kind: "image", url: "https://example.org/a.png" },
    { kind: "image", url: "data:image/jpg;base64,AAAA" },
    { kind: "file", url: "data:application/pdf;base64,AAAA", mediaType: "application/pdf", name: "a.pdf" },
    { kind: "file", url: "data:text/markdown,%23%20hi", mediaType: "text/markdown" },
    { kind: "file", url: "https://example.org/b.pdf", mediaType: "application/pdf" },
  ];
  const { body } = await accepted(chat([{ role: "user", parts }]));
  const source = (type: string, value: object) => ({ type, source: value });
  assert.deepEqual(body.messages[0]?.content, [
    source("image", { type: "url", url: "https://example.org/a.png" }),
    source("image", { type: "base64", media_type: "image/jpeg", data: "AAAA" }),
    { ...source("document", { type: "base64", media_type: "application/pdf", data: "AAAA" }), title: "a.pdf" },
    source("document", { type: "text", media_type: "text/plain", data: "# hi" }),
    source("document", { type: "url", url: "https://example.org/b.pdf" }),
  ]);
  for (const [part, code] of [
    [{ kind: "file", url: "data:application/zip;base64,AAAA", mediaType: "application/zip" }, "capability_missing"],
    [{ kind: "file", url: "data:text/plain,100%", mediaType: "text/plain" }, "invalid_params"],
    [{ kind: "image", url: "file:///etc/passwd" }, "invalid_params"],
  ] as const) {
    await assert.rejects(
      build(chat([{ role: "user", parts: [part] }]), "claude-opus-4-8"),
      (error: unknown) => error instanceof GhostError && error.code === code,
    );
  }
});

test("a last turn of its own is gone on from, natively or by words", async () => {
  const messages = [say("user", "x"), say("assistant", "Once upon  \n")];
  assert.deepEqual((await turnsOf(messages, "claude-haiku-4-5")).at(-1), ["assistant", "Once upon"]);
  const asked = await turnsOf(messages, "claude-opus-5-5");
  assert.match(String(asked.at(-1)?.[1]), /interrupted and ended with `Once upon {2}\n`/);
  const thinking = await turnsOf(messages, "claude-haiku-4-5", { reasoning: { effort: "high" } });
  assert.equal(thinking.at(-1)?.[0], "user");
});

test("other makers' thinking is left out", async () => {
  const parts: readonly Part[] = [
    { kind: "reasoning", text: "gpt", opaque: { maker: "openai", data: '{"signature":"x"}' } },
    { kind: "reasoning", text: "unsigned" },
    { kind: "reasoning", text: "odd", opaque: { maker: "anthropic", data: '{"other":1}' } },
    { kind: "text", text: "b" },
  ];
  assert.deepEqual(await turnsOf([say("user", "a"), { role: "assistant", parts }, say("user", "c")]), [
    ["user", "a"],
    ["assistant", "b"],
    ["user", "c"],
  ]);
});

const efforts: readonly (readonly [
  name: string,
  reasoning: ChatRequest["reasoning"],
  thinking: object | undefined,
  effort?: string,
])[] = [
  ["claude-opus-5-5", undefined, undefined],
  ["claude-opus-5-5", { isShown: true }, { type: "adaptive", display: "summarized" }],
  ["claude-opus-4-8", { isShown: true }, undefined],
  ["claude-opus-4-8", { effort: "xhigh", isShown: true }, { type: "adaptive", display: "summarized" }, "xhigh"],
  ["claude-opus-4-6", { effort: "xhigh", isShown: true }, { type: "adaptive" }, "high"],
  ["claude-opus-4-6", { effort: "max" }, { type: "adaptive" }, "max"],
  ["claude-fable-5", { effort: "minimal" }, { type: "adaptive" }, "low"],
  ["claude-fable-5", { effort: "none" }, undefined, "low"],
  ["claude-sonnet-5-5", { effort: "none" }, { type: "between_tools" }],
  ["claude-haiku-5-5", { effort: "none" }, { type: "disabled" }],
  ["claude-opus-4-8", { effort: "none" }, undefined],
  ["claude-opus-5-5", { budgetTokens: 1_000 }, { type: "adaptive" }, "low"],
  ["claude-opus-5-5", { budgetTokens: 10_000 }, { type: "adaptive" }, "medium"],
  ["claude-opus-5-5", { budgetTokens: 31_999 }, { type: "adaptive" }, "high"],
  ["claude-opus-5", { budgetTokens: 0 }, { type: "disabled" }],
  ["claude-haiku-4-5", { budgetTokens: 7_000, isShown: true }, { type: "enabled", budget_tokens: 7_000 }],
  ["claude-haiku-4-5", { budgetTokens: 1 }, { type: "enabled", budget_tokens: 1_024 }],
  ["claude-haiku-4-5", { effort: "medium" }, { type: "enabled", budget_tokens: 10_240 }],
  ["claude-opus-4-5", { effort: "max" }, { type: "enabled", budget_tokens: 26_624 }, "high"],
];
for (const [name, reasoning, thinking, effort] of efforts) {
  test(`${name} with ${JSON.stringify(reasoning)}`, async () => {
    const more = reasoning === undefined ? {} : { reasoning };
    const { body, dropped } = await accepted(chat("hi", more), name);
    assert.deepEqual(
      [body["thinking"], body["output_config"]],
      [thinking, effort === undefined ? undefined : { effort }],
    );
    assert.deepEqual(dropped, []);
  });
}

test("thinking by a budget that has no room is left out, and named", async () => {
  const reasoning = { effort: "high" } as const;
  const output = (maxTokens: number) => ({ maxTokens, stop: [], format: { kind: "text" } }) as const;
  const small = await accepted(chat("hi", { reasoning, output: output(2_000) }), "claude-haiku-4-5");
  assert.deepEqual([small.body["thinking"], small.dropped], [undefined, ["reasoning"]]);
  const tight = await accepted(chat("hi", { reasoning, output: output(3_000) }), "claude-haiku-4-5");
  assert.deepEqual(tight.body["thinking"], { type: "enabled", budget_tokens: 1_976 });
  const messages: readonly Message[] = [say("user", "x"), { role: "assistant", parts: [call("a")] }, result("a", "1")];
  const foreign = await accepted(chat(messages, { reasoning, tools: [READ] }), "claude-haiku-4-5");
  assert.deepEqual([foreign.body["thinking"], foreign.dropped], [undefined, ["reasoning"]]);
  const forced = await accepted(chat("x", { reasoning, tools: [READ], toolChoice: "required" }), "claude-haiku-4-5");
  assert.deepEqual([forced.body["thinking"], forced.dropped], [undefined, ["reasoning"]]);
});

test("max_tokens is always there, and never above what the model takes", async () => {
  const limit = async (name: string, maxTokens?: number, effort?: ReasoningEffort) => {
    const output = { stop: [], format: { kind: "text" } as const, ...(maxTokens === undefined ? {} : { maxTokens }) };
    return (await accepted(chat("hi", { output, ...(effort === undefined ? {} : { reasoning: { effort } }) }), name))
      .body.max_tokens;
  };
  assert.deepEqual(
    [
      await limit("claude-opus-5-5"),
      await limit("claude-opus-5-5", undefined, "max"),
      await limit("claude-opus-5-5", 7),
      await limit("claude-haiku-4-5", 999_999),
      await limit("claude-3-haiku-20240307"),
    ].map(Number),
    [32_000, 64_000, 7, 64_000, 4_096],
  );
});

const choices: readonly (readonly [
  name: string,
  more: Partial<ChatRequest>,
  field: object | undefined,
  words?: string,
])[] = [
  ["claude-opus-4-8", {}, undefined],
  ["claude-opus-4-8", { toolChoice: "none" }, { type: "none" }],
  ["claude-opus-4-8", { toolChoice: "required" }, { type: "any" }],
  ["claude-opus-4-8", { toolChoice: { name: "read" } }, { type: "tool", name: "read" }],
  ["claude-opus-4-8", { parallelToolCalls: false }, { type: "auto", disable_parallel_tool_use: true }],
  [
    "claude-opus-4-8",
    { toolChoice: "required", parallelToolCalls: false },
    { type: "any", disable_parallel_tool_use: true },
  ],
  ["claude-opus-5-5", { toolChoice: "required" }, undefined, "Call one of your tools now"],
  ["claude-opus-5-5", { toolChoice: { name: "read" } }, undefined, "Call the tool `read` now"],
  ["claude-opus-5-5", { tools: [], toolChoice: "required" }, undefined],
];
for (const [name, more, field, words] of choices) {
  test(`${name} with tool choice ${JSON.stringify(more)}`, async () => {
    const { body } = await accepted(chat("hi", { tools: [READ], ...more }), name);
    assert.deepEqual(body["tool_choice"], field);
    assert.equal(body.messages.length, words === undefined ? 1 : 2);
    if (words !== undefined) assert.ok(JSON.stringify(body.messages[1]).includes(words), JSON.stringify(body.messages));
  });
}

const samplings: readonly (readonly [
  name: string,
  sampling: ChatRequest["sampling"],
  fields: object,
  dropped: readonly string[],
])[] = [
  ["claude-haiku-4-5", { temperature: 0.3 }, { temperature: 0.3 }, []],
  ["claude-haiku-4-5", { temperature: 1.7 }, {}, []],
  ["claude-haiku-4-5", { topP: 0.9, topK: 3 }, { top_p: 0.9, top_k: 3 }, []],
  ["claude-haiku-4-5", { temperature: 0, topP: 0.9 }, { temperature: 0 }, ["top_p"]],
  ["claude-opus-5-5", { temperature: 0.3, topP: 0.9, topK: 3 }, {}, ["temperature", "top_p", "top_k"]],
  ["claude-opus-5-5", { temperature: 1, topP: 1 }, {}, []],
];
for (const [name, sampling, fields, dropped] of samplings) {
  test(`${name} with ${JSON.stringify(sampling)}`, async () => {
    const message = await accepted(chat("hi", { sampling }), name);
    const { temperature, top_p, top_k } = message.body;
    assert.deepEqual(JSON.parse(JSON.stringify({ temperature, top_p, top_k })), fields);
    assert.deepEqual(message.dropped, dropped);
    assert.equal(message.version, Object.keys(fields).length === 0 ? "2026-10-21" : "2023-06-01");
  });
}

test("a conversation is marked for the cache where it will go on; a single question is not", async () => {
  const mark = async (more: Partial<ChatRequest>) => (await accepted(chat("hi", more))).body["cache_control"];
  assert.deepEqual(await mark({ tools: [READ] }), { type: "ephemeral" });
  assert.deepEqual(await mark({ cacheKey: "s" }), { type: "ephemeral" });
  assert.equal(await mark({}), undefined);
});

test("JSON of any shape is asked for in words", async () => {
  const { body } = await accepted(chat("hi", { output: { stop: [], format: { kind: "json" } } }));
  assert.deepEqual(body.messages.at(-1), {
    role: "system",
    content: [{ type: "text", text: "Answer with one JSON object and nothing else." }],
  });
});

test("strict tools are strict, until they are too many", async () => {
  const { body } = await accepted(chat("hi", { tools: [{ ...READ, strict: true }] }));
  assert.match(JSON.stringify(body["tools"]), /"strict":true/);
  assert.doesNotMatch(JSON.stringify(withoutStrictTools(body)["tools"]), /strict/);
});

test("a tool's schema is an object's, and alternatives at its top are told in words", async () => {
  const properties = { a: { type: "string" } };
  const schemaOf = async (parameters: unknown) =>
    (await accepted(chat("hi", { tools: [{ ...READ, parameters }] }))).body["tools"];
  assert.deepEqual(await schemaOf({ properties }), [
    { name: "read", description: "Reads.", input_schema: { properties, type: "object" } },
  ]);
  assert.deepEqual(await schemaOf(null), [
    { name: "read", description: "Reads.", input_schema: { properties: {}, type: "object" } },
  ]);
  const anyOf = [{ required: ["a"] }, { required: ["b"] }];
  assert.deepEqual(await schemaOf({ type: "object", properties, anyOf }), [
    {
      name: "read",
      description: `Reads.\nThe input must also fit this schema: ${JSON.stringify({ anyOf })}`,
      input_schema: { type: "object", properties },
    },
  ]);
});

test("no user id is invented", async () => {
  assert.equal((await accepted(chat("hi", { cacheKey: "session" }))).body["metadata"], undefined);
});

test("whatever a conversation looks like, every model takes what is made of it", async () => {
  const random = testRandom();
  const { below } = random;
  const pick = <Value>(values: readonly Value[]): Value => {
    const value = values[below(values.length)];
    assert.ok(value !== undefined);
    return value;
  };
  const parts = (role: Message["role"]): readonly Part[] =>
    Array.from({ length: below(4) }, (): Part => {
      const text = { kind: "text", text: pick(["a", "b\n", " ", "", "Grüße 🦊"]) } as const;
      const image = { kind: "image", url: "https://example.org/a.png" } as const;
      const id = pick(["a", "b", "c:1", ""]);
      if (role === "assistant") return pick([text, call(id), call(id, "odd name", { namespace: "x" }), image]);
      if (role !== "user" && role !== "tool") return text;
      return pick([
        text,
        image,
        {
          kind: "toolResult",
          callId: id,
          text: pick(["", " ", "r"]),
          isError: below(2) === 1,
          images: pick([[], [image.url]]),
        },
      ]);
    });
  let checked = 0;
  for (let round = 0; round < 1_500; round += 1) {
    const messages = Array.from({ length: 1 + below(8) }, (): Message => {
      const role = pick(["user", "assistant", "tool", "system", "developer"] as const);
      return { role, parts: parts(role) };
    });
    const request = chat([...messages, say("user", "end")].slice(0, 1 + below(messages.length + 1)), {
      tools: pick([[], [READ]]),
      toolChoice: pick(["auto", "none", "required", { name: "read" }] as const),
      reasoning: pick([
        {},
        { isShown: true },
        { effort: "none" },
        { effort: "xhigh" },
        { budgetTokens: 5_000 },
      ] as const),
      sampling: pick([{}, { temperature: 0.2, topP: 0.5 }, { topK: 4 }]),
      output: { stop: [], format: { kind: "text" }, ...pick([{}, { maxTokens: 50 }, { maxTokens: 900_000 }]) },
    });
    const name = pick(MODELS);
    const message = await build(request, name);
    if (message.body.messages.length === 0) continue;
    assert.equal(problemOf(message), undefined, `seed ${random.seed}, ${name}: ${JSON.stringify(message.body)}`);
    checked += 1;
  }
  assert.ok(checked > 1_000, String(checked));
});
