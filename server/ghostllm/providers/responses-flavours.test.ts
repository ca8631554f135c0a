/** What is different at Azure and xAI, and when a chat client of OpenAI's models is relayed. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request as forward } from "node:http";
import { test, type TestContext } from "node:test";
import { textScript } from "../../../test/fakes/cloud-script.ts";
import { chat, failsWith, framesOf, never } from "../../../test/fakes/ollama-provider-kit.ts";
import { type OpenAiHost, startOpenAiHost } from "../../../test/fakes/openai-host.ts";
import { portOf } from "../../../test/fakes/openai-host-fast.ts";
import { foldOf, KEY, originOf, responsesWorld as world } from "../../../test/fakes/responses-provider-kit.ts";
import type { ResponsesHost } from "../../../test/fakes/responses-host.ts";
import type { ChatRequest, ReasoningEffort, ToolSpec } from "../stream.ts";
import { openAiFamily } from "./openai.ts";
import { effortFor } from "./responses-family.ts";

const read: ToolSpec = { kind: "function", name: "read", description: undefined, parameters: { type: "object" } };
const patch: ToolSpec = { kind: "custom", name: "patch", description: "Patches." };
const find: ToolSpec = { ...read, name: "find", namespace: "files" };

test("Azure is asked for a deployment, with its own header, and answers by the family of the model behind it", async (context) => {
  const { provider, host, model, lastBody } = await world(context, {
    flavour: "azure",
    models: ["mine", "old", "open"],
    deployments: { mine: "gpt-5.4", old: "gpt-4.1", open: "Llama-4" },
  });
  const listed = await provider.models(never);
  assert.deepEqual(
    listed.map(({ ref, contextWindow, capabilities }) => [ref, contextWindow, capabilities.reasoning]),
    [
      ["azure/mine", 1_050_000, true],
      ["azure/old", 1_047_576, false],
      ["azure/open", undefined, false],
    ],
  );
  assert.deepEqual([host.requests.length, provider.status()[0]?.state], [0, "ok"]);
  const request = chat("hi", { sampling: { temperature: 0.2 }, tools: [read, patch] });
  const attempt = await provider.chat(request, await model("mine"), never);
  await foldOf(attempt);
  assert.deepEqual(
    [host.requests.at(-1)?.headers["api-key"], host.requests.at(-1)?.headers.authorization],
    [KEY, undefined],
  );
  assert.deepEqual([lastBody()["model"], attempt.dropped], ["mine", ["temperature"]]);
  await foldOf(await provider.chat(request, await model("old"), never));
  const { tools } = lastBody();
  assert.ok(Array.isArray(tools));
  assert.deepEqual([lastBody()["temperature"], lastBody()["include"], tools[1].type], [0.2, undefined, "function"]);
  assert.deepEqual(await provider.testKey?.(never), {
    ok: true,
    detail: "azure takes the key; 3 deployments are set up",
  });
  host.playOnce({ status: { code: 404, errorCode: "DeploymentNotFound" } });
  await assert.rejects(provider.chat(request, await model("mine"), never), failsWith("model_not_found"));
  host.playOnce({ status: { code: 400, errorCode: "content_filter", message: "The prompt was filtered." } });
  await assert.rejects(provider.chat(request, await model("mine"), never), failsWith("upstream_filtered"));
});

test("xAI lists its prices, and its cost comes with the answer", async (context) => {
  const { provider, host, model, lastBody } = await world(context, { flavour: "xai" });
  const target = await model("grok-4.7");
  assert.deepEqual(
    [target.prices, target.capabilities.vision, target.contextWindow],
    [{ input: 2, cachedInput: 0.5, output: 6 }, true, 500_000],
  );
  host.playOnce({ ...textScript("a"), usage: { inputTokens: 10, outputTokens: 5, costUsdTicks: 12_340_000 } });
  const request = chat("hi", {
    messages: async () => [
      { role: "developer", parts: [{ kind: "text", text: "Be brief." }] },
      { role: "user", parts: [{ kind: "text", text: "hi" }] },
    ],
    sampling: { temperature: 0.7 },
    reasoning: { effort: "none" },
    tools: [read, patch],
    toolChoice: { name: "patch" },
    extras: { metadata: { a: "b" }, user: "u" },
  });
  const attempt = await provider.chat(request, target, never);
  assert.equal((await foldOf(attempt)).usage?.costUsdMicros, 1234);
  const { input, tools, ...body } = lastBody();
  assert.ok(Array.isArray(input) && Array.isArray(tools));
  assert.deepEqual([input[0].role, tools.map(({ type }) => type)], ["system", ["function", "function"]]);
  assert.deepEqual(body, {
    model: "grok-4.7",
    tool_choice: { type: "function", name: "patch" },
    reasoning: { effort: "low" },
    store: false,
    stream: true,
    include: ["reasoning.encrypted_content"],
    temperature: 0.7,
    user: "u",
  });
  assert.deepEqual(attempt.dropped, ["metadata"]);
  assert.equal(await provider.countTokens?.(request, target, never), undefined);
});

test("xAI's errors are understood in each of its shapes", async (context) => {
  const { provider, host, model } = await world(context, { flavour: "xai" });
  const target = await model("grok-4.7");
  const cases = [
    [
      { code: 400, message: "This model's maximum prompt length is 131072 but the request contains 140000 tokens." },
      "context_too_long",
    ],
    [{ code: 400, message: "Incorrect API key provided: xa***." }, "upstream_auth"],
    [
      {
        code: 429,
        message: "Your team x has either used all available credits or reached its monthly spending limit.",
      },
      "upstream_quota",
    ],
    [{ code: 403, message: "Your newly created team doesn't have any credits yet." }, "upstream_quota"],
    [{ code: 429, message: "Too many requests" }, "upstream_rate_limited"],
    [
      { code: 404, message: "The model grok-9 does not exist or your team does not have access to it." },
      "model_not_found",
    ],
    [{ code: 503, message: "later" }, "upstream_overloaded"],
  ] as const;
  for (const shape of ["nested", "code-and-text", "text"] as const) {
    for (const [status, code] of cases) {
      host.playOnce({ status: { ...status, shape } });
      await assert.rejects(provider.chat(chat(), target, never), failsWith(code, /xai answered/));
    }
  }
});

test("a Responses client with tools that xAI does not know is asked for in our words, others are relayed", async (context) => {
  const { provider, host, model, lastBody } = await world(context, { flavour: "xai", expectsRefusals: true });
  const target = await model("grok-4.7");
  const origin = originOf("openai-responses", { input: "hi", store: false, stream: true });
  await foldOf(await provider.chat(chat("hi", { origin, tools: [read] }), target, never));
  assert.equal(lastBody()["input"], "hi");
  await foldOf(await provider.chat(chat("hi", { origin, tools: [read, find] }), target, never));
  const { tools } = lastBody();
  assert.ok(Array.isArray(tools));
  assert.deepEqual(
    tools.map(({ name }) => name),
    ["read", "files__find"],
  );
  // What it refuses of a relay without a reason of ours is asked again; what it refuses of that stands.
  host.playOnce({ status: { code: 422, message: "Failed to deserialize the JSON body" } });
  host.playOnce({ status: { code: 422, message: "Failed to deserialize the JSON body" } });
  await assert.rejects(provider.chat(chat("hi", { origin }), target, never), failsWith("upstream_rejected"));
  assert.equal(host.requests.filter(({ method }) => method === "POST").length, 4);
});

test("what OpenAI refuses of a Responses relay stands: the client asked for it", async (context) => {
  const { provider, host, model } = await world(context);
  host.playOnce({ status: { code: 400, errorCode: "unsupported_parameter", message: "Unsupported parameter: 'x'" } });
  const origin = originOf("openai-responses", { input: "hi", store: false, stream: true });
  await assert.rejects(
    provider.chat(chat("hi", { origin }), await model("gpt-5.5"), never),
    failsWith("upstream_rejected"),
  );
  assert.equal(host.requests.filter(({ method }) => method === "POST").length, 1);
});

/** One address for both of OpenAI's APIs, as OpenAI has it. */
async function bothApis(
  context: TestContext,
): Promise<{ baseUrl: string; chats: OpenAiHost; point(host: ResponsesHost): void }> {
  const chats = await startOpenAiHost({ models: ["gpt-5.6-sol", "gpt-5.5", "gpt-6.1-sol", "gpt-5-pro"] });
  let responses: ResponsesHost | undefined;
  const server = createServer((incoming, outgoing) => {
    const port = incoming.url?.startsWith("/v1/chat/") ? chats.port : responses?.port;
    const passed = forward(
      { port, host: "127.0.0.1", path: incoming.url, method: incoming.method, headers: incoming.headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      },
    );
    incoming.pipe(passed);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  context.after(async () => {
    server.closeAllConnections();
    server.close();
    await chats[Symbol.asyncDispose]();
    assert.deepEqual(chats.violations, []);
  });
  return {
    baseUrl: `http://127.0.0.1:${portOf(server)}/v1`,
    chats,
    point: (host) => {
      responses = host;
    },
  };
}

const ways: readonly (readonly [name: string, model: string, more: Partial<ChatRequest>, isRelayed: boolean])[] = [
  ["no tools", "gpt-5.6-sol", {}, true],
  ["tools, where reasoning needs Responses", "gpt-5.6-sol", { tools: [read] }, false],
  ["tools without reasoning", "gpt-5.6-sol", { tools: [read], reasoning: { effort: "none" } }, true],
  ["tools for a model that always reasons", "gpt-6.1-sol", { tools: [read], reasoning: { effort: "none" } }, false],
  ["tools for an older family", "gpt-5.5", { tools: [read] }, true],
  ["a model that is in Responses only", "gpt-5-pro", {}, false],
];
test("a chat client is relayed byte for byte, unless the family needs Responses for what it asks", async (context) => {
  const { baseUrl, chats, point } = await bothApis(context);
  const { host, provider, model } = await world(context, { baseUrl, models: [...chats.models] });
  point(host);
  for (const [name, of, more, isRelayed] of ways) {
    const origin = originOf("openai-chat", {
      messages: [{ role: "user", content: "hi" }],
      stream: true,
      stream_options: { include_usage: true },
    });
    const before = [chats.requests.length, host.requests.length];
    const target = await model(of);
    const frames = await framesOf(await provider.chat(chat("hi", { ...more, origin }), target, never));
    assert.deepEqual([chats.requests.length - (before[0] ?? 0)], [isRelayed ? 1 : 0], name);
    assert.equal(frames[0]?.dialect, isRelayed ? "openai-chat" : "events", name);
    if (isRelayed) assert.equal(chats.requests.at(-1)?.bodyText, origin.bodyFor(of).toString(), name);
  }
});

test("what chat completions refuse and Responses can do is asked there, once", async (context) => {
  const { baseUrl, chats, point } = await bothApis(context);
  const { host, provider, model, lastBody } = await world(context, { baseUrl, models: [...chats.models] });
  point(host);
  const target = await model("gpt-5.5");
  const origin = originOf("openai-chat", { messages: [{ role: "user", content: "hi" }], stream: true, max_tokens: 5 });
  const request = chat("hi", { origin, output: { maxTokens: 5, stop: ["X"], format: { kind: "text" } } });
  const refusals = [
    { code: 400, body: "json", errorCode: "unsupported_parameter", message: "Unsupported parameter: 'max_tokens'" },
    { code: 400, body: "json", message: "Function tools with reasoning_effort are not supported. Use /v1/responses." },
    { code: 404, body: "json", message: "This is not a chat model." },
  ] as const;
  for (const status of refusals) {
    chats.playOnce({ status });
    host.playOnce(textScript("aXb"));
    const fold = await foldOf(await provider.chat(request, target, never));
    assert.deepEqual([fold.blocks, fold.reason], [[{ kind: "text", text: "a" }], "stop"]);
    assert.equal(lastBody()["max_output_tokens"], 16);
  }
  chats.playOnce({ status: { code: 400, body: "json", message: "no such thing" } });
  await assert.rejects(provider.chat(request, target, never), failsWith("upstream_rejected", /no such thing/));
  chats.playOnce({ status: { code: 429, body: "json", message: "slow down", retryAfterS: 3 } });
  await assert.rejects(provider.chat(request, target, never), failsWith("upstream_rate_limited"));
});

test("what nothing of Responses could carry is refused before a token is spent", async (context) => {
  const { host, provider, model } = await world(context);
  const request = chat("hi", { extras: { n: 2 } });
  await assert.rejects(provider.chat(request, await model("gpt-5.5"), never), failsWith("capability_missing", /`n`/));
  assert.equal(host.requests.filter(({ method }) => method === "POST").length, 0);
});

test("an effort is the nearest that the family takes; a budget stands for one", () => {
  const levels: readonly (readonly [model: string, wish: ReasoningEffort, level: ReasoningEffort | undefined])[] = [
    ["gpt-6-astra", "none", "low"],
    ["gpt-6-astra", "max", "max"],
    ["gpt-6-luna", "none", "none"],
    ["gpt-5.6-terra", "minimal", "low"],
    ["gpt-5.5", "max", "xhigh"],
    ["gpt-5.1", "xhigh", "high"],
    ["gpt-5-mini", "none", "minimal"],
    ["gpt-5-pro", "low", "high"],
    ["gpt-5.2-pro", "low", "medium"],
    ["gpt-5.3-codex", "xhigh", "xhigh"],
    ["gpt-5-codex", "max", "high"],
    ["o3", "minimal", "low"],
    ["ft:gpt-4.1:me::1", "high", undefined],
    ["gpt-5-chat-latest", "high", undefined],
    ["something-new", "max", "max"],
  ];
  for (const [model, effort, level] of levels)
    assert.equal(effortFor({ effort }, openAiFamily(model)), level, `${model} ${effort}`);
  const budgets = [0, 1024, 8_000, 60_000].map((budgetTokens) => effortFor({ budgetTokens }, openAiFamily("gpt-5.5")));
  assert.deepEqual(budgets, ["none", "low", "medium", "high"]);
  assert.equal(effortFor({ isShown: true }, openAiFamily("gpt-5.5")), undefined);
});
