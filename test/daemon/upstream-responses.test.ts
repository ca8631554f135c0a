/** OpenAI, Azure and xAI behind the real daemon, for clients of every dialect: their official SDKs, on fakes that refuse what the real hosts do. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { type CloudScript, textScript } from "../fakes/cloud-script.ts";
import { type ResponsesHost, startResponsesHost } from "../fakes/responses-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, errorOf, sse, textOf } from "../support/http.ts";
import { readStored } from "../support/stored-answers.ts";

const KEYS = { openai: "sk-openai-0123456789abcd", azure: "az-0123456789abcdefgh", xai: "xai-0123456789abcdefgh" };
let openai: ResponsesHost;
let azure: ResponsesHost;
let xai: ResponsesHost;
let daemon: TestDaemon;
let client: OpenAI;
let claude: Anthropic;

before(async () => {
  openai = await startResponsesHost({ apiKey: KEYS.openai, models: ["gpt-6.1-sol", "text-embedding-3-small"] });
  azure = await startResponsesHost({
    flavour: "azure",
    apiKey: KEYS.azure,
    models: ["mine"],
    deployments: { mine: "gpt-5.6-sol" },
  });
  xai = await startResponsesHost({ flavour: "xai", apiKey: KEYS.xai });
  const config = `[providers.ollama]
discover = false
[providers.embedded]
enabled = false
[providers.openai]
base_url = "${openai.baseUrl}"
[providers.azure]
base_url = "${azure.baseUrl}"
[providers.azure.deployments]
mine = "gpt-5.6-sol"
[providers.xai]
base_url = "${xai.baseUrl}"
models = ["grok-4.7"]
[routing.aliases]
either = ["openai/gpt-6.1-sol", "xai/grok-4.7"]
`;
  daemon = await startTestDaemon({
    config,
    env: { OPENAI_API_KEY: KEYS.openai, AZURE_OPENAI_API_KEY: KEYS.azure, XAI_API_KEY: KEYS.xai },
  });
  client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey, maxRetries: 0 });
  claude = new Anthropic({ baseURL: daemon.http, apiKey: daemon.modelKey, maxRetries: 0 });
});
after(async () => {
  const everything = JSON.stringify(daemon.logs()) + daemon.stderr();
  for (const key of Object.values(KEYS)) assert.ok(!everything.includes(key), "a key is in the log");
  await daemon[Symbol.asyncDispose]();
  for (const host of [openai, azure, xai]) {
    await host[Symbol.asyncDispose]();
    assert.deepEqual([host.violations, host.refusals], [[], []]);
  }
});

const tools = [
  {
    type: "function" as const,
    function: {
      name: "read",
      description: "Reads.",
      parameters: { type: "object", properties: { path: { type: "string" } } },
    },
  },
];
/** Thinks, says something, and asks for two files; then answers. */
const twoReads: CloudScript = {
  blocks: [
    { kind: "reasoning", deltas: ["I must ", "look."] },
    { kind: "text", deltas: ["Let me ", "look."], phase: "commentary" },
    { kind: "tool-call", name: "read", arguments: ['{"path"', ':"a"}'] },
    { kind: "tool-call", name: "read", arguments: ['{"path":"b"}'] },
  ],
  usage: { inputTokens: 100, cachedTokens: 60, outputTokens: 40, reasoningTokens: 10 },
  wire: { interleaveCalls: true },
};
const lastItems = (host: ResponsesHost) => {
  const body = Object.assign({ input: [] }, host.requests.at(-1)?.body);
  return body.input.map((item: Record<string, unknown>) => item["type"] ?? item["role"]);
};

test("the models of all three accounts are there", async () => {
  const listed = await call(daemon, "/v1/models");
  for (const ref of ["openai/gpt-6.1-sol", "openai/text-embedding-3-small", "azure/mine", "xai/grok-4.7"])
    assert.ok(listed.text.includes(`"${ref}"`), ref);
  assert.ok(!listed.text.includes("grok-4.3"));
  using face = await daemon.connect();
  const { findings } = await face.api.daemon.doctor({}, AbortSignal.timeout(60_000));
  const about = (id: string) => findings.find(({ subject }) => subject.startsWith(`${id} (`))?.message;
  assert.match(about("openai") ?? "", /^2 models/);
  assert.equal(about("anthropic"), "no key (optional): ghost keys set anthropic");
});

for (const [model, host] of [
  ["openai/gpt-6.1-sol", () => openai],
  ["azure/mine", () => azure],
  ["xai/grok-4.7", () => xai],
] as const) {
  test(`a chat client uses tools with ${model}, and its reasoning goes back though the client cannot carry it`, async () => {
    host().playOnce(twoReads);
    const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: "user", content: `${model} read both` }];
    const request = { model, messages, tools, stream_options: { include_usage: true } };
    const answer = await client.chat.completions.stream(request).finalChatCompletion();
    const [choice] = answer.choices;
    assert.ok(choice);
    assert.equal(choice.finish_reason, "tool_calls");
    assert.equal(choice.message.content, "Let me look.");
    const calls = choice.message.tool_calls ?? [];
    assert.deepEqual(
      calls.map((each) => each.type === "function" && each.function.arguments),
      ['{"path":"a"}', '{"path":"b"}'],
    );
    assert.equal(answer.usage?.prompt_tokens_details?.cached_tokens, 60);
    host().playOnce(textScript("Both ", "read."));
    const results = calls.map(({ id }) => ({ role: "tool" as const, tool_call_id: id, content: "text" }));
    messages.push({ role: "assistant", content: choice.message.content, tool_calls: calls }, ...results);
    const last = await client.chat.completions.create({ model, messages, tools });
    assert.equal(last.choices[0]?.message.content, "Both read.");
    assert.deepEqual(lastItems(host()), [
      "message",
      "reasoning",
      "message",
      "function_call",
      "function_call",
      "function_call_output",
      "function_call_output",
    ]);
  });

  test(`a client of Anthropic's dialect carries the reasoning of ${model} itself`, async () => {
    host().playOnce(twoReads);
    const input_schema = { type: "object" as const, properties: { path: { type: "string" } } };
    const messages: Anthropic.MessageParam[] = [{ role: "user", content: `${model} for an Anthropic client` }];
    const request = {
      model,
      max_tokens: 4000,
      thinking: { type: "adaptive" as const, display: "summarized" as const },
      tools: [{ name: "read", description: "Reads.", input_schema }],
      messages,
    };
    const answer = await claude.messages.stream(request).finalMessage();
    assert.equal(answer.stop_reason, "tool_use");
    const uses = answer.content.flatMap((block) => (block.type === "tool_use" ? [block] : []));
    assert.deepEqual(
      uses.map(({ input }) => input),
      [{ path: "a" }, { path: "b" }],
    );
    host().playOnce(textScript("Both read."));
    const content = uses.map(({ id }) => ({ type: "tool_result" as const, tool_use_id: id, content: "text" }));
    messages.push({ role: "assistant", content: answer.content }, { role: "user", content });
    const last = await claude.messages.create(request);
    assert.deepEqual(
      last.content.map((block) => block.type === "text" && block.text),
      ["Both read."],
    );
    assert.ok(lastItems(host()).includes("reasoning"));
  });
}

test("a Responses client is relayed, and its answer passes as it came", async () => {
  openai.playOnce(textScript("Hal", "lo"));
  const body = { model: "openai/gpt-6.1-sol", input: "hi there", store: false, stream: true, top_logprobs: null };
  const reply = await call(daemon, "/v1/responses", { body });
  assert.equal(reply.status, 200, reply.text);
  assert.match(reply.text, /event: response\.completed\n/);
  assert.match(reply.text, /"delta":"Hal"/);
  assert.match(openai.requests.at(-1)?.bodyText ?? "", /"input":"hi there"/);
});

test("what a model cannot be told is named in a header", async () => {
  openai.playOnce(textScript("ok"));
  const reply = await call(daemon, "/v1/chat/completions", {
    body: ask("openai/gpt-6.1-sol", { tools, temperature: 0.5, seed: 1, logit_bias: { 5: 1 } }),
  });
  assert.equal(reply.status, 200, reply.text);
  assert.equal(reply.headers.get("x-ghost-dropped"), "seed, logit_bias, temperature");
});

test("embeddings are relayed", async () => {
  const { data } = await client.embeddings.create({ model: "openai/text-embedding-3-small", input: ["a", "b"] });
  assert.equal(data.length, 2);
});

const stream = (model: string, more: object = {}) =>
  call(daemon, "/v1/chat/completions", { body: ask(model, { stream: true, tools, ...more }) });

for (const [name, fault] of [
  ["a cut", { kind: "cut", afterTokens: 2, where: "mid-frame", how: "reset" }],
  ["an end without the terminal event", { kind: "cut", afterTokens: 2, where: "between-frames", how: "clean" }],
  ["an error event", { kind: "error-in-band", afterTokens: 2, error: { message: "fell over" } }],
  ["a failed response", { kind: "error-in-band", afterTokens: 2, error: { message: "fell over" }, as: "failed" }],
] as const) {
  test(`${name} never looks like an end`, async () => {
    xai.playOnce({ ...textScript("one ", "two ", "thrée"), fault });
    const reply = await stream("xai/grok-4.7");
    const { chunks, isDone } = sse(reply.text);
    assert.equal(textOf(chunks), "one two ");
    assert.ok(chunks.some((chunk) => "error" in chunk));
    assert.deepEqual([isDone, reply.isCut], [false, true]);
  });
}

test("a busy provider is left for the next of the plan at once; a limit keeps its wait, an empty account says so", async () => {
  openai.playOnce({ status: { code: 503 } });
  xai.playOnce(textScript("from xAI"));
  const moved = await stream("either");
  assert.deepEqual([textOf(sse(moved.text).chunks), moved.headers.get("x-ghost-model")], ["from xAI", "xai/grok-4.7"]);
  openai.playOnce({ status: { code: 429, retryAfterS: 7 } });
  const limited = await stream("openai/gpt-6.1-sol");
  assert.deepEqual([limited.status, limited.headers.get("retry-after")], [429, "7"]);
  openai.playOnce({ status: { code: 429, errorCode: "insufficient_quota", message: "no money" } });
  const empty = await stream("openai/gpt-6.1-sol");
  assert.equal(empty.status, 402);
  assert.match(errorOf(empty).message, /no money/);
});

test("an answer of a relay and of our own words is stored with what it cost", async () => {
  openai.playOnce(textScript("kept ", "by relay"));
  const relayed = { model: "openai/gpt-6.1-sol", input: "relayed question", store: false, stream: true };
  await call(daemon, "/v1/responses", { body: relayed });
  azure.playOnce({ ...textScript("kept ", "by us"), usage: { inputTokens: 11, outputTokens: 4 } });
  await call(daemon, "/v1/chat/completions", {
    body: { model: "azure/mine", stream: true, tools, messages: [{ role: "user", content: "translated question" }] },
  });
  using face = await daemon.connect();
  const { byMarker } = await readStored(face.api, daemon.dataDir);
  assert.deepEqual(
    byMarker.get("relayed")?.map(({ text, state }) => [text, state]),
    [["kept by relay", "complete"]],
  );
  const [own] = byMarker.get("translated") ?? [];
  assert.deepEqual([own?.text, own?.usage.promptTokens], ["kept by us", 11]);
});
