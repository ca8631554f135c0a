/** Claude behind the real daemon, for clients of OpenAI's API: answers, tool loops with thinking that the client cannot carry, failures, counts. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { type AnthropicHost, startAnthropicHost } from "../fakes/anthropic-host.ts";
import { type CloudScript, textScript } from "../fakes/cloud-script.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { ask, call, configFor, errorOf, sse, textOf } from "../support/http.ts";

const KEY = "sk-ant-api03-test-key-0123456789";
const NEWEST = "claude-opus-5-5";
const OLDER = "claude-haiku-4-5";
let host: AnthropicHost;
let spare: OpenAiHost;
let daemon: TestDaemon;
let client: OpenAI;

before(async () => {
  host = await startAnthropicHost({ models: [NEWEST, OLDER], apiKey: KEY });
  spare = await startOpenAiHost({ models: ["m"] });
  const more = `[providers.anthropic]
base_url = "${host.baseUrl}/v1"
[routing.aliases]
both = ["anthropic/${NEWEST}", "up/m"]
[log]
level = "debug"
`;
  daemon = await startTestDaemon({ config: configFor(spare.baseUrl, more), env: { ANTHROPIC_API_KEY: KEY } });
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
  assert.ok(ids.includes(`anthropic/${NEWEST}`) && ids.includes(`anthropic/${OLDER}`), String(ids));
  const usage = { inputTokens: 50, cachedTokens: 40, outputTokens: 9, reasoningTokens: 3 };
  const messages = [{ role: "user", content: "hello" }] as const;
  host.playOnce({ ...textScript("Grüße ", "🦊"), usage });
  const stream = client.chat.completions.stream({
    model: `anthropic/${NEWEST}`,
    messages: [...messages],
    stream_options: { include_usage: true },
  });
  const streamed = await stream.finalChatCompletion();
  host.playOnce({ ...textScript("Grüße ", "🦊"), usage });
  const whole = await client.chat.completions.create({ model: `anthropic/${NEWEST}`, messages: [...messages] });
  for (const answer of [streamed, whole]) {
    assert.deepEqual(
      [answer.choices[0]?.message.content, answer.choices[0]?.finish_reason, answer.model],
      ["Grüße 🦊", "stop", `anthropic/${NEWEST}`],
    );
    assert.deepEqual(
      [
        answer.usage?.prompt_tokens,
        answer.usage?.completion_tokens,
        answer.usage?.prompt_tokens_details?.cached_tokens,
      ],
      [50, 9, 40],
    );
  }
});

for (const [model, more] of [
  [NEWEST, {}],
  [OLDER, { reasoning_effort: "high" }],
] as const) {
  test(`a tool loop with ${model}: its thinking comes back to it though the client cannot carry it`, async () => {
    const refusals = host.refusals.length;
    const first: CloudScript = {
      blocks: [
        { kind: "reasoning", deltas: ["I should ", "look.\n"] },
        { kind: "text", deltas: ["Looking."] },
        { kind: "tool-call", name: "read", id: `toolu_${model}`, arguments: ['{"path"', ':"a"}'] },
      ],
    };
    const messages: OpenAI.ChatCompletionMessageParam[] = [
      { role: "system", content: "Be brief." },
      { role: "user", content: "What is in a?" },
    ];
    const request = { model: `anthropic/${model}`, tools, ...more };
    host.playOnce(first);
    const answer = await client.chat.completions.stream({ ...request, messages }).finalChatCompletion();
    const [choice] = answer.choices;
    assert.equal(choice?.finish_reason, "tool_calls");
    const [toolCall] = choice.message.tool_calls ?? [];
    assert.ok(toolCall?.type === "function");
    assert.deepEqual(
      [toolCall.id, toolCall.function.name, toolCall.function.arguments],
      [`toolu_${model}`, "read", '{"path":"a"}'],
    );
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
    assert.match(lastBody(), /"type":"thinking","thinking":"[^"]*","signature":"[^"]+"/);
    assert.equal(host.refusals.length, refusals);
  });
}

test("what it could not be told is named in a header", async () => {
  const reply = await call(daemon, "/v1/chat/completions", {
    body: ask(`anthropic/${NEWEST}`, { temperature: 0.2, seed: 3, user: "me", max_tokens: 20 }),
  });
  assert.equal(reply.status, 200, reply.text);
  assert.equal(reply.headers.get("x-ghost-dropped"), "seed, user, temperature");
  const taken = await call(daemon, "/v1/chat/completions", { body: ask(`anthropic/${OLDER}`, { temperature: 0.2 }) });
  assert.equal(taken.headers.get("x-ghost-dropped"), null);
  assert.match(lastBody(), /"temperature":0.2/);
});

const failures: readonly [name: string, script: CloudScript, status: number, code: string, says: RegExp][] = [
  ["a wrong key", { status: { code: 401, message: "invalid x-api-key" } }, 502, "upstream_auth", /invalid x-api-key/],
  ["no credit", { status: { code: 402 } }, 402, "insufficient_quota|upstream_quota", /billing/],
  ["a rate limit", { status: { code: 429, retryAfterS: 7 } }, 429, "rate_limit_exceeded", /429/],
  ["overload", { status: { code: 529 } }, 503, "upstream_overloaded|server_is_overloaded", /Overloaded/],
  [
    "a long prompt",
    { status: { code: 400, message: "prompt is too long: 9 > 8" } },
    400,
    "context_length_exceeded",
    /9 > 8/,
  ],
];
for (const [name, script, status, code, says] of failures) {
  test(`${name} reaches the client as what it is`, async () => {
    host.playOnce(script);
    const reply = await call(daemon, "/v1/chat/completions", { body: ask(`anthropic/${NEWEST}`, { stream: true }) });
    const error = errorOf(reply);
    assert.equal(reply.status, status, reply.text);
    assert.match(error.code, new RegExp(`^(?:${code})$`));
    assert.match(error.message, says);
    if (status === 429) assert.equal(reply.headers.get("retry-after"), "7");
  });
}

test("an alias goes on to the next model when Claude is overloaded, filtered or out of credit before its first word", async () => {
  for (const script of [
    { status: { code: 529 } },
    { status: { code: 402 } },
    { ...textScript("a"), fault: { kind: "error-in-band", afterTokens: 0, error: {} } },
    { blocks: [{ kind: "refusal", deltas: [], category: "bio" }] },
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
  [
    "a clean end without message_stop",
    { fault: { kind: "cut", afterTokens: 2, where: "between-frames", how: "clean" } },
  ],
  ["overload in band", { fault: { kind: "error-in-band", afterTokens: 2, error: {} } }],
  ["an end in a word that nobody knows", { finishReason: "new_in_2027" }],
];
for (const [name, script] of breaks) {
  test(`${name} never looks like an end`, async () => {
    host.playOnce({ ...textScript("one ", "two ", "thrée"), ...script });
    const reply = await call(daemon, "/v1/chat/completions", { body: ask(`anthropic/${NEWEST}`, { stream: true }) });
    const { chunks, isDone } = sse(reply.text);
    assert.match(textOf(chunks), /^one two /);
    assert.ok(
      chunks.some((chunk) => "error" in chunk),
      reply.text,
    );
    assert.deepEqual([isDone, reply.isCut], [false, true]);
  });
}

test("a client that leaves stops Claude at once", async () => {
  host.playOnce({ ...textScript("a", "b"), fault: { kind: "hang", afterTokens: 1 } });
  const controller = new AbortController();
  const stream = await client.chat.completions.create(
    { model: `anthropic/${NEWEST}`, messages: [{ role: "user", content: "hi" }], stream: true },
    { signal: controller.signal },
  );
  for await (const chunk of stream) {
    if (chunk.choices[0]?.delta.content === "a") break;
  }
  controller.abort();
  await host.until(() => host.openRequests === 0, "the upstream's end");
});

test("the transcript has what was said and thought, and the log has no key", async () => {
  host.playOnce(textScript("for the record"));
  await call(daemon, "/v1/chat/completions", {
    body: ask(`anthropic/${NEWEST}`, { messages: [{ role: "user", content: "note this down" }] }),
  });
  using face = await daemon.connect();
  const soon = AbortSignal.timeout(30_000);
  const { sessions } = await face.api.session.list({}, soon);
  const session = sessions.find(({ title }) => title.includes("note this down"));
  assert.ok(session !== undefined);
  const read = JSON.stringify(await face.api.session.get({ sessionId: session.id }, soon));
  assert.match(read, /for the record/);
  const { ok, detail } = await face.api.key.test({ provider: "anthropic" }, soon);
  assert.deepEqual([ok, detail], [true, "anthropic takes the key and lists 2 models"]);
  assert.ok(!JSON.stringify([daemon.logs(), daemon.stderr(), read]).includes(KEY));
});
