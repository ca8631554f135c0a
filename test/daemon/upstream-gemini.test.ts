/** Gemini behind the real daemon: answers, tool loops with signatures that the client cannot carry, long answers, failures, counts, embeddings. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { type CloudScript, textScript, toolThenText } from "../fakes/cloud-script.ts";
import { type GeminiHost, startGeminiHost } from "../fakes/gemini-host.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, configFor, errorOf, sse, textOf } from "../support/http.ts";

const KEY = "AIza-test-key-0123456789";
const NAME = "gemini-3.8-flash";
const MODEL = `gemini/${NAME}`;
const LONG = "gemini-4-argon";
let host: GeminiHost;
let spare: OpenAiHost;
let daemon: TestDaemon;
let client: OpenAI;

before(async () => {
  host = await startGeminiHost({ models: [NAME, LONG, "gemini-embedding-2"], apiKey: KEY });
  spare = await startOpenAiHost({ models: ["m"] });
  const more = `[providers.gemini]
base_url = "${host.baseUrl}/v1beta"
[routing.aliases]
both = ["${MODEL}", "up/m"]
[log]
level = "debug"
`;
  daemon = await startTestDaemon({ config: configFor(spare.baseUrl, more), env: { GEMINI_API_KEY: KEY } });
  client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey, maxRetries: 0 });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  await spare[Symbol.asyncDispose]();
  assert.deepEqual([host.violations, spare.violations], [[], []]);
});

const tools: OpenAI.ChatCompletionFunctionTool[] = [
  {
    type: "function",
    function: { name: "read", description: "Reads.", parameters: { type: "object", properties: {} } },
  },
];
const lastBody = () => host.requests.at(-1)?.bodyText ?? "";

test("its models are listed, and asked by OpenAI's own client, streamed and whole", async () => {
  const ids = [];
  for await (const { id } of client.models.list()) ids.push(id);
  assert.ok(ids.includes(MODEL) && ids.includes(`gemini/${LONG}`), String(ids));
  const usage = { inputTokens: 50, cachedTokens: 40, outputTokens: 9, reasoningTokens: 3 };
  const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: "user", content: "hello" }];
  host.playOnce({ ...textScript("Grüße ", "🦊"), usage });
  const options = { stream_options: { include_usage: true } };
  const streamed = await client.chat.completions.stream({ model: MODEL, messages, ...options }).finalChatCompletion();
  host.playOnce({ ...textScript("Grüße ", "🦊"), usage });
  const whole = await client.chat.completions.create({ model: MODEL, messages });
  for (const answer of [streamed, whole]) {
    const { usage: counted, choices } = answer;
    assert.deepEqual(
      [choices[0]?.message.content, choices[0]?.finish_reason, answer.model],
      ["Grüße 🦊", "stop", MODEL],
    );
    assert.deepEqual(
      [counted?.prompt_tokens, counted?.completion_tokens, counted?.prompt_tokens_details?.cached_tokens],
      [50, 9, 40],
    );
  }
});

test("a tool loop of chat completions: the signature comes back to Gemini though the client cannot carry it", async () => {
  const messages: OpenAI.ChatCompletionMessageParam[] = [
    { role: "system", content: "Be brief." },
    { role: "user", content: "What is in a?" },
  ];
  const request = { model: MODEL, tools };
  host.playOnce({
    blocks: [
      { kind: "text", deltas: ["Looking."] },
      { kind: "tool-call", name: "read", id: "call_of_gemini", arguments: ['{"path":"a"}'] },
    ],
  });
  const first = await client.chat.completions.stream({ ...request, messages }).finalChatCompletion();
  const [choice] = first.choices;
  assert.equal(choice?.finish_reason, "tool_calls");
  const [toolCall] = choice.message.tool_calls ?? [];
  assert.ok(toolCall?.type === "function" && toolCall.id === "call_of_gemini");
  host.playOnce(textScript("It is empty."));
  const { content, tool_calls } = choice.message;
  const last = await client.chat.completions.create({
    ...request,
    messages: [
      ...messages,
      { role: "assistant", content, ...(tool_calls === undefined ? {} : { tool_calls }) },
      { role: "tool", tool_call_id: toolCall.id, content: "" },
    ],
  });
  assert.equal(last.choices[0]?.message.content, "It is empty.");
  assert.match(lastBody(), /"thoughtSignature":"(?!skip)[^"]+"/);
  assert.match(lastBody(), /"functionResponse":\{"id":"call_of_gemini","name":"read"/);
  assert.deepEqual(host.refusals, []);
});

test("a tool loop of Anthropic's own client, with thoughts that are shown", async () => {
  const messages = new Anthropic({ baseURL: daemon.http, apiKey: daemon.modelKey, maxRetries: 0 }).messages;
  const request = {
    model: MODEL,
    max_tokens: 4_000,
    thinking: { type: "enabled", budget_tokens: 2_000 },
    tools: [{ name: "read", input_schema: { type: "object" } }],
  } satisfies Partial<Anthropic.MessageCreateParams>;
  const question: Anthropic.MessageParam = { role: "user", content: "What is in a?" };
  const play = toolThenText({ name: "read", arguments: { path: "a" } }, "Nothing.");
  const withThoughts = (script: CloudScript): CloudScript => ({
    ...script,
    blocks: [{ kind: "reasoning", deltas: ["Let me ", "see."] }, ...(script.blocks ?? [])],
  });
  for (let turn = 0; turn < 2; turn += 1) host.playOnce((asked) => withThoughts(play(asked)));
  const first = await messages.stream({ ...request, messages: [question] }).finalMessage();
  assert.equal(first.stop_reason, "tool_use");
  const thinking = first.content.find((block) => block.type === "thinking");
  assert.equal(thinking?.thinking, "Let me see.");
  const use = first.content.find((block) => block.type === "tool_use");
  assert.ok(use !== undefined);
  const result: Anthropic.MessageParam = {
    role: "user",
    content: [{ type: "tool_result", tool_use_id: use.id, content: "" }],
  };
  const turns = [question, { role: "assistant", content: first.content } as const, result];
  const last = await messages.create({ ...request, messages: turns });
  assert.equal(last.content.find((block) => block.type === "text")?.text, "Nothing.");
  assert.match(lastBody(), /"thoughtSignature":"(?!skip)[^"]+"/);
  assert.match(lastBody(), /"thinkingConfig":\{"includeThoughts":true,"thinkingLevel":"LOW"\}/);
  assert.deepEqual(host.refusals, []);
});

test("an answer of several parts is one for its client", async () => {
  host.playOnce({ ...textScript("One ", "two "), continuationToken: "t1" });
  host.playOnce(textScript("three."));
  const body = ask(`gemini/${LONG}`, { stream: true });
  const reply = await call(daemon, "/v1/chat/completions", { body });
  const { chunks, isDone } = sse(reply.text);
  assert.deepEqual([textOf(chunks), isDone], ["One two three.", true]);
  assert.match(lastBody(), /"continuationToken":"t1"/);
});

test("what it could not be told is named in a header", async () => {
  const body = ask(MODEL, { temperature: 0.2, user: "me", tools, parallel_tool_calls: false });
  const reply = await call(daemon, "/v1/chat/completions", { body });
  assert.equal(reply.status, 200, reply.text);
  assert.equal(reply.headers.get("x-ghost-dropped"), "parallel_tool_calls, user");
  assert.match(lastBody(), /"temperature":0.2/);
});

test("a picture behind an address is refused before a token is spent", async () => {
  const asked = host.requests.length;
  const content = [{ type: "image_url", image_url: { url: "http://127.0.0.1:1/a.png" } }];
  const body = ask(MODEL, { messages: [{ role: "user", content }] });
  const reply = await call(daemon, "/v1/chat/completions", { body });
  assert.deepEqual([reply.status, errorOf(reply).code], [400, "capability_missing"]);
  assert.equal(host.requests.length, asked);
});

const failures: readonly [name: string, script: CloudScript, status: number, code: string, says: RegExp][] = [
  ["a wrong key", { status: { code: 403 } }, 502, "upstream_auth", /permission/],
  ["a rate limit", { status: { code: 429, retryAfterS: 7 } }, 429, "rate_limit_exceeded", /429/],
  ["overload", { status: { code: 503 } }, 503, "upstream_overloaded|server_is_overloaded", /overloaded/],
  [
    "a long prompt",
    { status: { code: 400, message: "The input token count (9) exceeds the maximum number of tokens allowed (8)." } },
    400,
    "context_length_exceeded",
    /\(9\)/,
  ],
  [
    "a blocked prompt",
    { blocks: [{ kind: "refusal", deltas: [], category: "PROHIBITED_CONTENT" }] },
    400,
    "content_filter|upstream_filtered",
    /PROHIBITED_CONTENT/,
  ],
];
for (const [name, script, status, code, says] of failures) {
  test(`${name} reaches the client as what it is`, async () => {
    host.playOnce(script);
    const reply = await call(daemon, "/v1/chat/completions", { body: ask(MODEL, { stream: true }) });
    const error = errorOf(reply);
    assert.equal(reply.status, status, reply.text);
    assert.match(error.code, new RegExp(`^(?:${code})$`));
    assert.match(error.message, says);
    if (status === 429) assert.equal(reply.headers.get("retry-after"), "7");
  });
}

test("an alias goes on to the next model when Gemini is overloaded, filtered or broken before its first word", async () => {
  for (const script of [
    { status: { code: 503 } },
    { ...textScript("a"), fault: { kind: "error-in-band", afterTokens: 0, error: {} } },
    { blocks: [{ kind: "refusal", deltas: [], category: "SAFETY" }] },
    { ...textScript(), finishReason: "MALFORMED_FUNCTION_CALL" },
  ] satisfies CloudScript[]) {
    host.playOnce(script);
    spare.playOnce({ tokens: ["from the spare"] });
    const reply = await call(daemon, "/v1/chat/completions", { body: ask("both", { stream: true }) });
    assert.equal(textOf(sse(reply.text).chunks), "from the spare", reply.text);
    assert.equal(reply.headers.get("x-ghost-model"), "up/m");
  }
});

const breaks: readonly [name: string, script: CloudScript][] = [
  ["a cut", { fault: { kind: "cut", afterTokens: 2, where: "mid-utf8", how: "reset" } }],
  ["a clean end without a reason", { fault: { kind: "cut", afterTokens: 2, where: "between-frames", how: "clean" } }],
  ["overload in band", { fault: { kind: "error-in-band", afterTokens: 2, error: {} } }],
  ["overload as bare JSON", { fault: { kind: "error-in-band", as: "failed", afterTokens: 2, error: {} } }],
  ["an end in a word that nobody knows", { finishReason: "NEW_IN_2027" }],
];
for (const [name, script] of breaks) {
  test(`${name} never looks like an end`, async () => {
    host.playOnce({ ...textScript("one ", "two ", "thrée"), msPerToken: 20, ...script });
    const reply = await call(daemon, "/v1/chat/completions", { body: ask(MODEL, { stream: true }) });
    const { chunks, isDone } = sse(reply.text);
    assert.match(textOf(chunks), /^one two /);
    assert.ok(
      chunks.some((chunk) => "error" in chunk),
      reply.text,
    );
    assert.deepEqual([isDone, reply.isCut], [false, true]);
  });
}

test("a client that leaves stops Gemini at once", async () => {
  host.playOnce({ ...textScript("a", "b"), fault: { kind: "hang", afterTokens: 1 } });
  const controller = new AbortController();
  const stream = await client.chat.completions.create(
    { model: MODEL, messages: [{ role: "user", content: "hi" }], stream: true },
    { signal: controller.signal },
  );
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content === "a") break;
  controller.abort();
  await host.until(() => host.openRequests === 0, "the upstream's end");
});

test("tokens are counted and texts embedded by Gemini itself", async () => {
  host.playOnce(() => ({ usage: { inputTokens: 321 } }));
  const counted = await call(daemon, "/v1/messages/count_tokens", { body: ask(MODEL) });
  assert.deepEqual(counted.json, { input_tokens: 321 });
  const { data } = await client.embeddings.create({
    model: "gemini/gemini-embedding-2",
    input: ["a", "bb"],
    encoding_format: "float",
  });
  assert.deepEqual(
    data.map(({ embedding }) => embedding),
    [
      [1, 97],
      [2, 98],
    ],
  );
});

test("the transcript has what was said and thought, and the log has no key", async () => {
  host.playOnce({ blocks: [{ kind: "text", deltas: ["for the ", "record"], isSigned: true }] });
  const messages = [{ role: "user", content: "note this down" }];
  await call(daemon, "/v1/chat/completions", { body: ask(MODEL, { messages, stream: true }) });
  using face = await daemon.connect();
  const soon = AbortSignal.timeout(30_000);
  const { sessions } = await face.api.session.list({}, soon);
  const session = sessions.find(({ title }) => title.includes("note this down"));
  assert.ok(session !== undefined);
  const read = JSON.stringify(await face.api.session.get({ sessionId: session.id }, soon));
  assert.match(read, /for the record/);
  const { ok, detail } = await face.api.key.test({ provider: "gemini" }, soon);
  assert.deepEqual([ok, detail], [true, "gemini takes the key and lists 3 models"]);
  assert.ok(!JSON.stringify([daemon.logs(), daemon.stderr(), read]).includes(KEY));
});
