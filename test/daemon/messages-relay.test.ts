/** Anthropic's API in front of Anthropic: what is relayed as it came, and what is written anew because another model's thinking is in it. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { z } from "zod";
import { type AnthropicHost, startAnthropicHost } from "../fakes/anthropic-host.ts";
import { toolThenText } from "../fakes/cloud-script.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { call, configFor } from "../support/http.ts";

const CLAUDE = "claude-opus-5-5";
/** Also what was started before something failed: a host that listens would keep the test's process alive. */
const stack = new AsyncDisposableStack();
let claude: AnthropicHost;
let other: OpenAiHost;
let daemon: TestDaemon;
let client: Anthropic;

before(async () => {
  claude = stack.use(await startAnthropicHost({ models: [CLAUDE], apiKey: "sk-test-anthropic-key" }));
  other = stack.use(await startOpenAiHost({ models: ["m"] }));
  const more = `[providers.anthropic]\nbase_url = "${claude.baseUrl}/v1"\n`;
  daemon = stack.use(
    await startTestDaemon({
      config: configFor(other.baseUrl, more),
      env: { ANTHROPIC_API_KEY: "sk-test-anthropic-key" },
    }),
  );
  client = new Anthropic({ baseURL: daemon.http, apiKey: daemon.modelKey, maxRetries: 0 });
});
after(async () => {
  await stack.disposeAsync();
  assert.deepEqual([claude.violations, claude.refusals, other.violations], [[], [], []]);
});

const VERSION = { "anthropic-version": "2023-06-01" };
const READ = { name: "read", description: "d", input_schema: { type: "object" as const, properties: {} } };
const REQUEST: Omit<Anthropic.MessageCreateParamsNonStreaming, "messages"> = {
  model: `anthropic/${CLAUDE}`,
  max_tokens: 5_000,
  thinking: { type: "adaptive", display: "summarized" },
  tools: [READ],
};
const thinking = { kind: "reasoning", deltas: ["Let me ", "think."] } as const;
const lastBody = () => claude.requests.at(-1)?.bodyText ?? "";

test("a body reaches Anthropic as it came, but for the model's name; so do version and beta flags, and no key of ours", async () => {
  const rawBody = `{ "max_tokens": 50, "model" : "anthropic/${CLAUDE}", "messages":[{"role":"user","content":"h\\u00ef"}] , "metadata":{"user_id":"u"}}`;
  const beta = "interleaved-thinking-2025-05-14,other-2026-01-01";
  const headers = { ...VERSION, "anthropic-beta": beta };
  const reply = await call(daemon, "/v1/messages?beta=true", { rawBody, headers });
  assert.equal(reply.status, 200, reply.text);
  assert.equal(lastBody(), rawBody.replace(`anthropic/${CLAUDE}`, CLAUDE));
  const asked = claude.requests.at(-1)?.headers ?? {};
  assert.deepEqual([asked["anthropic-version"], asked["anthropic-beta"]], ["2023-06-01", beta]);
  assert.equal(asked["x-api-key"], "sk-test-anthropic-key");
  assert.equal(asked.authorization, undefined);
  assert.equal(reply.headers.get("x-ghost-dropped"), null);
});

test("Claude Code's first request is relayed with all that only Anthropic knows", async () => {
  const file = new URL("../fixtures/clients/claude-code-request.json", import.meta.url);
  const { messages, ...rest } = z
    .looseObject({ messages: z.array(z.unknown()) })
    .parse(JSON.parse(readFileSync(file, "utf8")));
  const body = { ...rest, model: `anthropic/${CLAUDE}`, messages: messages.slice(0, 1) };
  claude.playOnce({ blocks: [thinking, { kind: "text", deltas: ["ok"] }] });
  const headers = { ...VERSION, "anthropic-beta": "context-management-2025-06-27" };
  const reply = await call(daemon, "/v1/messages?beta=true", { body, headers });
  assert.equal(reply.status, 200, reply.text);
  assert.equal(lastBody(), JSON.stringify({ ...body, model: CLAUDE }));
  assert.equal(reply.text.split("event: message_stop").length, 2);
  assert.equal(reply.text.split("event: message_start").length, 2);
});

test("the official client thinks, calls a tool and goes on, and Anthropic knows its thinking again", async () => {
  claude.play((request) => {
    const script = toolThenText({ name: "read", arguments: { path: "a" } }, "done")(request);
    return { ...script, blocks: [thinking, ...(script.blocks ?? [])] };
  });
  const messages: Anthropic.MessageParam[] = [{ role: "user", content: "read it" }];
  const first = await client.messages.stream({ ...REQUEST, messages }).finalMessage();
  assert.deepEqual([first.stop_reason, first.content.map(({ type }) => type)], ["tool_use", ["thinking", "tool_use"]]);
  const use = first.content.find((block) => block.type === "tool_use");
  assert.deepEqual(use?.input, { path: "a" });
  messages.push(
    { role: "assistant", content: first.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: use?.id ?? "", content: "text" }] },
  );
  const second = await client.messages.create({ ...REQUEST, messages });
  claude.play({});
  assert.deepEqual(second.content.at(-1), { type: "text", text: "done", citations: null });
});

test("a conversation with another model's calls and thinking goes on at Claude, which then keeps its own", async () => {
  const seal = `ghost1:${Buffer.from(JSON.stringify({ maker: "up", data: "" })).toString("base64")}`;
  const messages: Anthropic.MessageParam[] = [
    { role: "user", content: "read it" },
    {
      role: "assistant",
      content: [
        { type: "thinking", thinking: "another's", signature: seal },
        { type: "tool_use", id: "ghost_ZnVuY3Rpb25zLnJlYWQ6MA", name: "read", input: {} },
      ],
    },
    { role: "user", content: [{ type: "tool_result", tool_use_id: "ghost_ZnVuY3Rpb25zLnJlYWQ6MA", content: "text" }] },
  ];
  claude.playOnce({ blocks: [thinking, { kind: "text", deltas: ["Cla", "ude."] }] });
  const answer = await client.messages.stream({ ...REQUEST, messages }).finalMessage();
  assert.ok(!lastBody().includes("another's") && !lastBody().includes("ghost1:"));
  assert.deepEqual(
    answer.content.map(({ type }) => type),
    ["thinking", "text"],
  );
  messages.push({ role: "assistant", content: answer.content }, { role: "user", content: "and?" });
  claude.playOnce({ blocks: [{ kind: "text", deltas: ["yes"] }] });
  const next = await client.messages.create({ ...REQUEST, messages });
  assert.equal(next.stop_reason, "end_turn");
  const signature = answer.content[0]?.type === "thinking" ? answer.content[0].signature : "";
  assert.ok(signature !== "" && lastBody().includes(JSON.stringify(signature)));
});

test("Anthropic counts tokens itself, and then nothing is said to be an estimate", async () => {
  const body = { model: `anthropic/${CLAUDE}`, messages: [{ role: "user", content: "hello" }] };
  claude.playOnce({ usage: { inputTokens: 321 } });
  const reply = await call(daemon, "/v1/messages/count_tokens", { body, headers: VERSION });
  assert.deepEqual([reply.json, reply.headers.get("x-ghost-estimated")], [{ input_tokens: 321 }, null]);
});

test("an overload before and in the answer keeps its name", async () => {
  const body = {
    model: `anthropic/${CLAUDE}`,
    max_tokens: 50,
    stream: true,
    messages: [{ role: "user", content: "x" }],
  };
  claude.playOnce({ status: { code: 529 } });
  const before = await call(daemon, "/v1/messages", { body, headers: VERSION });
  assert.equal(before.status, 503);
  assert.match(before.text, /^\{"type":"error","error":\{"type":"overloaded_error"/);
  claude.playOnce({
    blocks: [{ kind: "text", deltas: ["one ", "two ", "three"] }],
    fault: { kind: "error-in-band", afterTokens: 2, error: { type: "overloaded_error", message: "Overloaded" } },
  });
  const inBand = await call(daemon, "/v1/messages", { body, headers: VERSION });
  assert.match(
    inBand.text,
    /"text":"one "[^]*event: error\ndata: \{"type":"error","error":\{"type":"overloaded_error"/,
  );
  assert.equal(inBand.isCut, true);
  assert.ok(!inBand.text.includes("message_stop"));
});

test("models of Anthropic are listed with what is known of them", async () => {
  const model = await client.models.retrieve(`anthropic/${CLAUDE}`);
  assert.ok((model.max_input_tokens ?? 0) > 0 && (model.max_tokens ?? 0) > 0);
});
