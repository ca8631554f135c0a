/**
 * What the official SDKs' types call required, null or not, is in every answer that the daemon writes itself. The types are those that are installed: when
 * an SDK asks for more, this says so.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { type CannedHost, startCannedHost } from "../fakes/canned-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { call, configFor } from "../support/http.ts";

const typesAt = (path: string) =>
  readFileSync(fileURLToPath(new URL(`../../node_modules/${path}`, import.meta.url)), "utf8");
const CHAT = typesAt("openai/resources/chat/completions/completions.d.ts");
const COMPLETIONS = typesAt("openai/resources/completions.d.ts");
const RESPONSES = typesAt("openai/resources/responses/responses.d.ts");
const MESSAGES = typesAt("@anthropic-ai/sdk/resources/messages/messages.d.ts");

/** The required members of an interface; `path` are the lines that open it, from the outside in. */
function required(types: string, ...path: readonly string[]): readonly string[] {
  let at = 0;
  for (const line of path) {
    at = types.indexOf(`${line} {`, at);
    assert.notEqual(at, -1, `the SDK has no ${path.join(" > ")}`);
    at += line.length;
  }
  const indent = /[ ]*$/.exec(types.slice(0, at - (path.at(-1)?.length ?? 0)))?.[0] ?? "";
  const body = types.slice(at, types.indexOf(`\n${indent}}`, at));
  const members = [...body.matchAll(new RegExp(`^${indent}    ([a-z_]+): `, "gm"))].flatMap(([, name]) => name ?? []);
  assert.ok(members.length > 0, `${path.join(" > ")} requires nothing`);
  return members;
}

const record = z.looseObject({});
type Json = z.infer<typeof record>;

function assertHas(value: unknown, members: readonly string[], what: string): Json {
  const json = record.parse(value);
  for (const name of members)
    assert.ok(json[name] !== undefined, `${what} has no \`${name}\`: ${JSON.stringify(json)}`);
  return json;
}

const list = (value: unknown): readonly unknown[] => z.array(z.unknown()).parse(value);

let host: CannedHost;
let daemon: TestDaemon;

before(async () => {
  host = await startCannedHost({ data: [{ id: "m" }] });
  daemon = await startTestDaemon({ config: configFor(`${host.origin}/v1`) });
  const functionCall = { id: "c", type: "function", function: { name: "f", arguments: '{"a":1}' } };
  const message = { role: "assistant", reasoning_content: "hm", content: "Hi", tool_calls: [functionCall] };
  const usage = { prompt_tokens: 1, completion_tokens: 2 };
  const chunk = (more: object) => `data: ${JSON.stringify({ id: "x", choices: [], ...more })}\n\n`;
  const choice = (more: object) => chunk({ choices: [{ index: 0, ...more }] });
  streamed = [
    choice({ delta: { role: "assistant", reasoning_content: "hm" } }),
    choice({ delta: { content: "Hi" } }),
    choice({ delta: { tool_calls: [{ index: 0, ...functionCall }] } }),
    choice({ delta: {}, finish_reason: "tool_calls" }),
    chunk({ usage }),
    "data: [DONE]\n\n",
  ];
  plain = JSON.stringify({ id: "x", choices: [{ index: 0, message, finish_reason: "tool_calls" }], usage });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});
let streamed: readonly string[];
let plain: string;

/** The whole body, and the data of all events. */
async function both(
  path: string,
  body: object,
): Promise<{ readonly whole: unknown; readonly events: readonly Json[] }> {
  const headers = { "anthropic-version": "2023-06-01" };
  host.play({ contentType: "application/json", pieces: [plain] });
  const whole = await call(daemon, path, { body: { model: "up/m", ...body, stream: false }, headers });
  assert.equal(whole.status, 200, whole.text);
  host.play({ contentType: "text/event-stream", pieces: streamed });
  const { status, text } = await call(daemon, path, { body: { model: "up/m", ...body, stream: true }, headers });
  assert.equal(status, 200, text);
  const events = [...text.matchAll(/^data: (\{.*)$/gm)].map(([, json = "{}"]) => record.parse(JSON.parse(json)));
  return { whole: whole.json, events };
}

test("Responses: every field that OpenAI's SDK requires is there", async () => {
  const tools = [{ type: "function", name: "f", parameters: { type: "object" }, strict: false }];
  const { whole, events } = await both("/v1/responses", { input: "hi", tools, store: false });
  // The SDK adds the text by itself.
  const response = required(RESPONSES, "export interface Response").filter((name) => name !== "output_text");
  const items: Readonly<Record<string, readonly string[]>> = {
    message: required(RESPONSES, "export interface ResponseOutputMessage"),
    // The published schema asks for these two, too.
    function_call: [...required(RESPONSES, "export interface ResponseFunctionToolCall"), "id", "status"],
    reasoning: required(RESPONSES, "export interface ResponseReasoningItem"),
  };
  const seen = new Set<string>();
  const assertItem = (value: unknown) => {
    const item = record.parse(value);
    const type = String(item["type"]);
    seen.add(type);
    assertHas(item, items[type] ?? [], type);
    const text = [...required(RESPONSES, "export interface ResponseOutputText"), "logprobs"];
    for (const part of type === "message" ? list(item["content"]) : []) assertHas(part, text, "a part");
  };
  const assertResponse = (value: unknown) => {
    const { output, usage } = assertHas(value, response, "the response");
    for (const item of list(output)) assertItem(item);
    if (usage !== null) assertHas(usage, required(RESPONSES, "export interface ResponseUsage"), "usage");
  };
  assertResponse(whole);
  assert.equal(record.parse(record.parse(whole)["usage"])["output_tokens"], 2);
  for (const event of events) {
    const type = String(event["type"]);
    const name = /^export interface (\w+)(?: extends [^{]+)? \{(?:(?!^\}).)*?^ {4}type: '([^']+)';$/gms;
    const found = [...RESPONSES.matchAll(name)].find(([, , told]) => told === type)?.[1];
    assert.ok(found !== undefined, `the SDK knows no event ${type}`);
    assertHas(event, required(RESPONSES, `export interface ${found}`), type);
    if (event["response"] !== undefined) assertResponse(event["response"]);
    if (event["item"] !== undefined) assertItem(event["item"]);
  }
  assert.deepEqual([...seen].toSorted(), ["function_call", "message", "reasoning"]);
});

test("Messages: every field that Anthropic's SDK requires is there", async () => {
  const tools = [{ name: "f", input_schema: { type: "object" } }];
  const thinking = { type: "adaptive" };
  const body = { max_tokens: 99, messages: [{ role: "user", content: "hi" }], tools, thinking };
  const { whole, events } = await both("/v1/messages", body);
  const blocks: Readonly<Record<string, readonly string[]>> = {
    text: required(MESSAGES, "export interface TextBlock"),
    tool_use: required(MESSAGES, "export interface ToolUseBlock"),
    thinking: required(MESSAGES, "export interface ThinkingBlock"),
  };
  const seen = new Set<string>();
  const assertBlock = (value: unknown) => {
    const type = String(record.parse(value)["type"]);
    seen.add(type);
    assertHas(value, blocks[type] ?? [], type);
  };
  const assertMessage = (value: unknown) => {
    const { content, usage } = assertHas(value, required(MESSAGES, "export interface Message"), "the message");
    for (const block of list(content)) assertBlock(block);
    assertHas(usage, required(MESSAGES, "export interface Usage"), "usage");
  };
  assertMessage(whole);
  const delta = required(MESSAGES, "export declare namespace RawMessageDeltaEvent", "interface Delta");
  for (const event of events) {
    if (event["message"] !== undefined) assertMessage(event["message"]);
    if (event["content_block"] !== undefined) assertBlock(event["content_block"]);
    if (event["type"] !== "message_delta") continue;
    assertHas(event["delta"], delta, "the last delta");
    assertHas(event["usage"], required(MESSAGES, "export interface MessageDeltaUsage"), "the last usage");
  }
  assert.deepEqual([...seen].toSorted(), ["text", "thinking", "tool_use"]);
});

test("chat completions: every field that OpenAI's SDK requires is there", async () => {
  // A model of another dialect, so that nothing is relayed: here, the embedded engine's.
  const body = { model: "embedded/tiny-code-fim", max_tokens: 4, messages: [{ role: "user", content: "hi" }] };
  const { whole, events } = await both("/v1/chat/completions", { ...body, stream_options: { include_usage: true } });
  const { choices, usage } = assertHas(whole, required(CHAT, "export interface ChatCompletion"), "the completion");
  const choice = required(CHAT, "export declare namespace ChatCompletion", "interface Choice");
  const { message } = assertHas(list(choices)[0], choice, "the choice");
  assertHas(message, required(CHAT, "export interface ChatCompletionMessage"), "the message");
  const counts = required(COMPLETIONS, "export interface CompletionUsage");
  assertHas(usage, counts, "usage");
  assert.ok(events.length > 2);
  const chunk = required(CHAT, "export interface ChatCompletionChunk");
  const part = required(CHAT, "export declare namespace ChatCompletionChunk", "interface Choice");
  for (const event of events) {
    for (const one of list(assertHas(event, chunk, "the chunk")["choices"])) assertHas(one, part, "a choice");
  }
  assertHas(events.at(-1)?.["usage"], counts, "usage");
});
