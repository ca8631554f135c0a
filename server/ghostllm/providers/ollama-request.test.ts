import assert from "node:assert/strict";
import { test } from "node:test";
import { clientIdSchema, modelRefSchema, userIdSchema } from "../../../protocol/ids.ts";
import type { ModelInfo } from "../../../protocol/model.ts";
import { GhostError } from "../../base/errors.ts";
import type { ChatRequest, CompletionRequest, Message } from "../stream.ts";
import { refusalError } from "./ollama-refusal.ts";
import { type Body, chatBody as chatParts, completionBody } from "./ollama-request.ts";

const chatBody = async (...given: Parameters<typeof chatParts>): Promise<Body> => (await chatParts(...given)).body;

const settings = { numCtx: 1000, keepAlive: "10m" };
const model: ModelInfo = {
  ref: modelRefSchema.parse("ollama/coder@ws"),
  provider: "ollama",
  name: "coder:latest",
  host: "ws",
  locality: "lan",
  capabilities: {
    chat: true,
    complete: true,
    fim: true,
    embeddings: false,
    tools: true,
    vision: true,
    jsonSchema: true,
  },
};
const can = (more: Partial<ModelInfo["capabilities"]>): ModelInfo => ({
  ...model,
  capabilities: { ...model.capabilities, ...more },
});

const base = {
  target: "ollama/coder",
  output: { stop: [], format: { kind: "text" } },
  sampling: {},
  lane: "chat",
  actor: { userId: userIdSchema.parse("local"), client: clientIdSchema.parse("test"), via: { kind: "api", id: "1" } },
  stream: true,
} as const;
const text = (role: Message["role"], value: string): Message => ({ role, parts: [{ kind: "text", text: value }] });
const chat = (messages: readonly Message[], more: Partial<ChatRequest> = {}): ChatRequest => ({
  ...base,
  task: "chat",
  messages: async () => messages,
  tools: [],
  toolChoice: "auto",
  ...more,
});
const completion = (more: Partial<CompletionRequest> = {}): CompletionRequest => ({
  ...base,
  task: "completion",
  prefix: "const a = ",
  suffix: "",
  overflow: "error",
  ...more,
});
const failsWith = (code: string) => (error: unknown) => error instanceof GhostError && error.code === code;
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

test("every body carries the same window, keeps the model, and forbids silent truncation", async () => {
  const bodies: readonly Body[] = [
    await chatBody(chat([text("user", "hi")]), model, settings),
    completionBody(completion(), model, settings).body,
    completionBody(completion({ suffix: ";" }), model, settings).body,
  ];
  for (const body of bodies) {
    assert.deepEqual(
      [body["model"], body["stream"], body["truncate"], body["keep_alive"], body["options"]],
      ["coder:latest", true, false, "10m", { num_ctx: 1000 }],
    );
    assert.equal("shift" in body, false);
  }
});

test("a conversation with tools and images is put into Ollama's words", async () => {
  const messages: readonly Message[] = [
    text("developer", "be brief"),
    {
      role: "user",
      parts: [
        { kind: "text", text: "look" },
        { kind: "text", text: "here" },
        { kind: "image", url: "data:image/png;base64,QUJD" },
      ],
    },
    {
      role: "assistant",
      parts: [
        { kind: "text", text: "" },
        { kind: "toolCall", callId: "c1", name: "read", arguments: '{"path":"a"}' },
      ],
    },
    { role: "tool", parts: [{ kind: "toolResult", callId: "c1", text: "42" }] },
  ];
  const schema = { type: "object", properties: { path: { type: "string" } } };
  const body = await chatBody(
    chat(messages, { tools: [{ kind: "function" as const, name: "read", description: "reads", parameters: schema }] }),
    model,
    settings,
  );
  assert.deepEqual(plain(body["messages"]), [
    { role: "system", content: "be brief" },
    { role: "user", content: "look\nhere", images: ["QUJD"] },
    {
      role: "assistant",
      content: "",
      tool_calls: [{ id: "c1", function: { index: 0, name: "read", arguments: { path: "a" } } }],
    },
    { role: "tool", content: "42", tool_name: "read", tool_call_id: "c1" },
  ]);
  assert.deepEqual(plain(body["tools"]), [
    { type: "function", function: { name: "read", description: "reads", parameters: schema } },
  ]);
  assert.equal("think" in body, false);
});

test("sampling, limits and formats are passed on, and what is not asked for is absent", async () => {
  const asked = chat([text("user", "x")], {
    sampling: { temperature: 0, topP: 0.5, seed: 7 },
    output: { maxTokens: 9, stop: ["\n"], format: { kind: "schema", name: "n", schema: { type: "object" } } },
  });
  const body = await chatBody(asked, model, settings);
  assert.deepEqual(body["options"], {
    num_ctx: 1000,
    temperature: 0,
    top_p: 0.5,
    seed: 7,
    num_predict: 9,
    stop: ["\n"],
  });
  assert.deepEqual(body["format"], { type: "object" });
  const json = await chatBody(
    chat([text("user", "x")], { output: { stop: [], format: { kind: "json" } } }),
    model,
    settings,
  );
  assert.equal(json["format"], "json");
});

test("tools are left out where they are forbidden, and forcing one is refused", async () => {
  const tools = [{ kind: "function" as const, name: "read", description: undefined, parameters: undefined }];
  const none = await chatBody(chat([text("user", "x")], { tools, toolChoice: "none" }), model, settings);
  assert.equal("tools" in none, false);
  for (const toolChoice of ["required", { name: "read" }] as const) {
    await assert.rejects(
      chatBody(chat([text("user", "x")], { tools, toolChoice }), model, settings),
      failsWith("capability_missing"),
    );
  }
  await assert.rejects(
    chatBody(chat([text("user", "x")], { tools }), can({ tools: false }), settings),
    failsWith("capability_missing"),
  );
});

const bad: readonly [name: string, request: ChatRequest, model: ModelInfo, code: string][] = [
  ["no messages", chat([]), model, "invalid_params"],
  [
    "an image for a model without vision",
    chat([{ role: "user", parts: [{ kind: "image", url: "data:image/png;base64,QUJD" }] }]),
    can({ vision: false }),
    "capability_missing",
  ],
  [
    "an image by address",
    chat([{ role: "user", parts: [{ kind: "image", url: "https://example.com/a.png" }] }]),
    model,
    "invalid_params",
  ],
  ["a prompt that surely does not fit", chat([text("user", "x".repeat(16_001))]), model, "context_too_long"],
];
for (const [name, request, forModel, code] of bad) {
  test(`${name} is refused with ${code}`, async () => {
    await assert.rejects(chatBody(request, forModel, settings), failsWith(code));
  });
}

test("a call whose arguments were cut, or are no object, is shown as it is: its conversation goes on", async () => {
  const shown: readonly [text: string, value: object][] = [
    ["{", { input: "{" }],
    ["[1]", { input: "[1]" }],
    [" \n", {}],
    ["", {}],
  ];
  for (const [given, value] of shown) {
    const call = { kind: "toolCall", callId: "c", name: "f", arguments: given } as const;
    const body = await chatBody(chat([{ role: "assistant", parts: [call] }]), model, settings);
    const called = { id: "c", function: { index: 0, name: "f", arguments: value } };
    assert.deepEqual(plain(body["messages"]), [{ role: "assistant", content: "", tool_calls: [called] }]);
  }
});

test("plain continuation is raw; infill passes prefix and suffix to the model's template; neither thinks", () => {
  const { body: continued } = completionBody(completion(), model, settings);
  assert.deepEqual(
    [continued["prompt"], continued["raw"], continued["suffix"], continued["think"]],
    ["const a = ", true, undefined, false],
  );
  const { body: infill } = completionBody(completion({ suffix: ";\n" }), model, settings);
  assert.deepEqual([infill["prompt"], infill["raw"], infill["suffix"]], ["const a = ", undefined, ";\n"]);
  assert.throws(
    () => completionBody(completion({ suffix: ";" }), can({ fim: false }), settings),
    failsWith("capability_missing"),
  );
  assert.throws(() => completionBody(completion({ prefix: "" }), model, settings), failsWith("invalid_params"));
});

test("trimming drops whole far lines, keeps the cursor's surroundings, and counts what it dropped", () => {
  const lines = (letter: string) => Array.from({ length: 400 }, (_, index) => `${letter}${index}`).join("\n");
  const request = completion({ prefix: lines("p"), suffix: lines("s"), overflow: "trim" });
  const { body, trimmedCharacters } = completionBody(request, model, settings);
  const { prompt, suffix } = body;
  assert.ok(typeof prompt === "string" && typeof suffix === "string");
  assert.ok(request.prefix.endsWith(`\n${prompt}`));
  assert.match(prompt, /^p\d+\n/);
  assert.ok(request.suffix.startsWith(suffix));
  assert.match(suffix, /\n$/);
  assert.ok(prompt.length + suffix.length <= 1500);
  assert.equal(trimmedCharacters, request.prefix.length + request.suffix.length - prompt.length - suffix.length);
  assert.throws(
    () => completionBody({ ...request, prefix: "p".repeat(20_000), overflow: "error" }, model, settings),
    failsWith("context_too_long"),
  );
});

test("a single endless line is cut inside, but never inside a character", () => {
  for (const pad of ["", "x"]) {
    const request = completion({
      prefix: `${pad}${"🦉".repeat(2000)}`,
      suffix: `${pad}${"🦉".repeat(2000)}`,
      overflow: "trim",
    });
    const { body } = completionBody(request, model, settings);
    assert.ok(String(body["prompt"]).isWellFormed() && String(body["suffix"]).isWellFormed());
    assert.ok(String(body["prompt"]).length > 900);
  }
});

test("what fits is not trimmed", () => {
  const { body, trimmedCharacters } = completionBody(completion({ suffix: "b", overflow: "trim" }), model, settings);
  assert.deepEqual([body["prompt"], body["suffix"], trimmedCharacters], ["const a = ", "b", 0]);
});

const said = (error: unknown) => JSON.stringify({ error });
const refusals: readonly [status: number, body: string, code: string][] = [
  [404, said("model 'x' not found"), "model_not_found"],
  [404, "404 page not found", "upstream_failed"],
  [400, said("invalid character"), "upstream_rejected"],
  [400, said("registry.ollama.ai/library/x does not support tools"), "capability_missing"],
  [400, said("the input length exceeds the context length"), "context_too_long"],
  [
    400,
    said(said({ code: 400, message: "request (9 tokens) exceeds the available context size (8 tokens)" })),
    "context_too_long",
  ],
  [401, said("unauthorized"), "upstream_auth"],
  [403, "", "upstream_auth"],
  [429, said("slow down"), "upstream_rate_limited"],
  [503, said("server busy, please try again.  maximum pending requests exceeded"), "upstream_rate_limited"],
  [413, "", "upstream_rejected"],
  [499, said("request canceled"), "upstream_failed"],
  [500, said("llama runner process has terminated"), "upstream_failed"],
  [502, "<html><body><h1>502 Bad Gateway</h1></body></html>", "upstream_failed"],
  [301, "", "upstream_failed"],
];
for (const [status, body, code] of refusals) {
  test(`status ${status} with ${body.slice(0, 40) || "no body"} is ${code}`, () => {
    const error = refusalError({ status, body, retryAfter: undefined }, "ws", "coder");
    assert.equal(error.code, code);
    assert.doesNotMatch(error.message, /<html>/);
    assert.ok(error.message.length < 400);
  });
}

test("retry-after in seconds is passed on within reason", () => {
  const after = (retryAfter: string | undefined) =>
    refusalError({ status: 503, body: "", retryAfter }, "ws", "x").retryAfterMs;
  assert.deepEqual(
    [after("7"), after("99999999"), after("tomorrow"), after(undefined)],
    [7000, 3_600_000, undefined, undefined],
  );
});
