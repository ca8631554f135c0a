/**
 * What model servers say that no specification has, through the real daemon to clients of several dialects: nothing of it is lost, doubled, or ends cleanly
 * where it broke off.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type CannedHost, startCannedHost } from "../fakes/canned-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { type ApiReply, call } from "../support/http.ts";

const KEY = "sk-test-0123456789abcdef";
const SSE = "text/event-stream";

let chat: CannedHost;
let grok: CannedHost;
let daemon: TestDaemon;

before(async () => {
  chat = await startCannedHost({ data: [{ id: "m" }] });
  grok = await startCannedHost({ models: [{ id: "grok-4.7" }] });
  const config = [
    "[providers.ollama]\ndiscover = false",
    `[providers.compatible.up]\nbase_url = "${chat.origin}/v1"`,
    `[providers.xai]\nbase_url = "${grok.origin}/v1"`,
  ].join("\n");
  daemon = await startTestDaemon({ config, env: { XAI_API_KEY: KEY } });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  for (const host of [chat, grok]) await host[Symbol.asyncDispose]();
});

const data = (value: unknown) => `data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`;
const DONE = data("[DONE]");
const chunk = (delta: object, finish: string | null = null) =>
  data({
    id: "x",
    object: "chat.completion.chunk",
    created: 1,
    model: "m",
    choices: [{ index: 0, delta, finish_reason: finish }],
  });
const event = (value: { readonly type: string; readonly [field: string]: unknown }) =>
  `event: ${value.type}\n${data(value)}`;

const askChat = (more: object = {}) =>
  call(daemon, "/v1/chat/completions", { body: { model: "up/m", stream: true, messages: HI, ...more } });
const askMessages = (more: object = {}) =>
  call(daemon, "/v1/messages", { body: { model: "up/m", max_tokens: 99, stream: true, messages: HI, ...more } });
const askResponses = (more: object = {}) =>
  call(daemon, "/v1/responses", { body: { model: "up/m", stream: true, store: false, input: "hi", ...more } });
const HI = [{ role: "user", content: "hi" }];

const types = ({ text }: ApiReply) => [...text.matchAll(/^event: (.+)$/gm)].map(([, type]) => type);

/** Nothing that looks whole, in any dialect: an error, also where both came in one breath, or words that end in a cut. */
function assertNoEnd({ status, text, isCut }: ApiReply): void {
  assert.ok(isCut || status >= 500, text);
  assert.doesNotMatch(text, /\[DONE\]\n|event: message_stop|event: response\.(completed|incomplete)/);
}

test("tools in groups, called by Grok, reach a client that keeps its history itself as one answer from one hand", async () => {
  const item = { id: "msg_1", type: "message", role: "assistant", status: "completed" };
  const said = { ...item, content: [{ type: "output_text", text: "Hello", annotations: [] }] };
  const called = { id: "fc_1", type: "function_call", call_id: "call_1", name: "mcp__run", status: "completed" };
  const response = { id: "resp_up", object: "response", status: "completed", model: "grok-4.7", error: null };
  const place = { output_index: 0, item_id: "msg_1" };
  grok.play({
    contentType: SSE,
    pieces: [
      event({ type: "response.created", response: { ...response, status: "in_progress", output: [] } }),
      event({ type: "response.output_item.added", output_index: 0, item: { ...item, content: [] } }),
      event({ type: "response.output_text.delta", ...place, content_index: 0, delta: "Hello" }),
      event({ type: "response.output_item.done", output_index: 0, item: said }),
      event({ type: "response.output_item.added", output_index: 1, item: { ...called, arguments: "" } }),
      event({ type: "response.function_call_arguments.delta", output_index: 1, item_id: "fc_1", delta: '{"a":1}' }),
      event({ type: "response.output_item.done", output_index: 1, item: { ...called, arguments: '{"a":1}' } }),
      event({
        type: "response.completed",
        response: { ...response, output: [said, { ...called, arguments: '{"a":1}' }] },
      }),
    ],
  });
  const run = { type: "function", name: "run", parameters: { type: "object", properties: {} } };
  const tools = [{ type: "namespace", name: "mcp", description: "A server.", tools: [run] }];
  const reply = await askResponses({ model: "xai/grok-4.7", tools });
  assert.equal(reply.status, 200, reply.text);
  const numbers = [...reply.text.matchAll(/"sequence_number":(\d+)/g)].map(([, number]) => Number(number));
  assert.deepEqual(numbers, [...numbers.keys()]);
  assert.equal(types(reply).filter((type) => type === "response.created").length, 1);
  assert.equal(types(reply).filter((type) => type === "response.output_item.done").length, 2);
  assert.doesNotMatch(reply.text, /mcp__run|resp_up/);
  assert.match(reply.text, /"name":"run","namespace":"mcp"/);
});

test("a chunk in mid-answer that nobody can read is a failure for clients of every dialect, never a gap in the text", async () => {
  for (const broken of ["data: <html>\n\n", 'data: {"choices":[{"delta":{"content":{}}}]}\n\n']) {
    chat.play({
      contentType: SSE,
      pieces: [chunk({ content: "one " }), broken, chunk({ content: "three" }, "stop"), DONE],
    });
    for (const ask of [askMessages, askResponses]) {
      const reply = await ask();
      assertNoEnd(reply);
      assert.doesNotMatch(reply.text, /three/);
    }
  }
});

test("a model that writes the words of an end has not ended", async () => {
  chat.play({
    contentType: SSE,
    pieces: [chunk({ content: "A stream ends with `data: [DONE]`." }), chunk({ content: " And" })],
  });
  for (const ask of [askChat, askMessages, askResponses]) assertNoEnd(await ask());
  for (const word of ["response.completed", "response.incomplete"]) {
    const delta = {
      type: "response.output_text.delta",
      output_index: 0,
      item_id: "msg_1",
      content_index: 0,
      delta: word,
    };
    grok.play({ contentType: SSE, pieces: [event(delta)] });
    assertNoEnd(await askResponses({ model: "xai/grok-4.7" }));
    assertNoEnd(await askMessages({ model: "xai/grok-4.7" }));
  }
});

test("a finish reason of no words, as some servers send with every chunk, is no end and no failure", async () => {
  const begun = [chunk({ role: "assistant", content: "one " }, ""), chunk({ content: "two" }, "")];
  chat.play({ contentType: SSE, pieces: begun });
  for (const ask of [askChat, askMessages, askResponses]) assertNoEnd(await ask());
  chat.play({ contentType: SSE, pieces: [...begun, chunk({}, "stop"), DONE] });
  assert.deepEqual(types(await askMessages()).slice(-2), ["message_delta", "message_stop"]);
  assert.match((await askResponses()).text, /"text":"one two"/);
});

test("a server that talks nonsense before its first word is left at once", { timeout: 10_000 }, async () => {
  chat.play({ contentType: SSE, pieces: ["data: <html>\n\n"], end: "hang" });
  const reply = await askMessages();
  assert.equal(reply.status, 502, reply.text);
  await chat.untilLeft();
});

test("empty lines before a whole answer, with which servers keep a connection open, are no part of it", async () => {
  const message = { role: "assistant", content: "hi" };
  const answer = {
    id: "x",
    object: "chat.completion",
    created: 1,
    model: "m",
    choices: [{ index: 0, message, finish_reason: "stop" }],
  };
  chat.play({ contentType: "application/json", pieces: ["\n   \n", "\r\n\ufeff", JSON.stringify(answer)] });
  assert.deepEqual((await askChat({ stream: false })).json, answer);
  assert.match((await askMessages({ stream: false })).text, /"text":"hi"/);
  assert.match((await askResponses({ stream: false })).text, /"text":"hi"/);
});

test("a refusal of a chat server is one for clients of every dialect", async () => {
  const pieces = [
    chunk({ role: "assistant", content: "", refusal: null }),
    chunk({ content: "", refusal: "I won't." }),
  ];
  chat.play({ contentType: SSE, pieces: [...pieces, chunk({}, "stop"), DONE] });
  assert.match((await askResponses()).text, /"type":"refusal","refusal":"I won't\."/);
  assert.match((await askMessages()).text, /"text":"I won't\."[^]*"stop_reason":"refusal"/);
});

test("what only chat servers know goes to them as it came: sound, older calls, embeddings of tokens", async () => {
  const answer = { object: "list", data: [{ object: "embedding", index: 0, embedding: [1] }], model: "m" };
  chat.play({ contentType: "application/json", pieces: [JSON.stringify(answer)] });
  const embedded = await call(daemon, "/v1/embeddings", { body: { model: "up/m", input: [[1, 2]], dimensions: 1 } });
  assert.deepEqual([embedded.status, embedded.json], [200, answer]);
  chat.play({ contentType: SSE, pieces: [chunk({ content: "a dog" }, "stop"), DONE] });
  const sound = { type: "input_audio", input_audio: { data: "UklGRg==", format: "wav" } };
  const heard = await askChat({ messages: [{ role: "user", content: [sound] }] });
  assert.match(heard.text, /a dog[^]*\[DONE\]/);
  assert.match(chat.bodies.at(-1) ?? "", /"input_audio":\{"data":"UklGRg=="/);
  const elsewhere = await askChat({ model: "xai/grok-4.7", messages: [{ role: "user", content: [sound] }] });
  assert.deepEqual([elsewhere.status, /`audio`/.test(elsewhere.text)], [400, true], elsewhere.text);
});

test("an error that a chat server reports under status 200 is told as what it is", async () => {
  chat.play({ contentType: SSE, pieces: [data({ error: { code: 429, message: "slow down" }, choices: [] })] });
  for (const ask of [askChat, askMessages, askResponses]) assert.equal((await ask()).status, 429);
  const error = { error: { code: 429, message: "slow down" }, choices: [] };
  chat.play({ contentType: SSE, pieces: [chunk({ content: "one" }), data(error)] });
  const reply = await askMessages();
  assertNoEnd(reply);
  assert.match(reply.text, /rate_limit_error/);
});

test("calls without positions or all at 0, a finish of `stop`, counts in the finish chunk, and no chunk for the role are all understood", async () => {
  const call_ = (id: string, more: object, text: string) => ({
    id,
    type: "function",
    ...more,
    function: { name: `f_${id}`, arguments: text },
  });
  const places: readonly object[] = [{}, { index: 0 }];
  for (const place of places) {
    const last = {
      choices: [{ index: 0, delta: {}, finish_reason: "stop" }],
      usage: { prompt_tokens: 7, completion_tokens: 5 },
    };
    chat.play({
      contentType: SSE,
      pieces: [
        chunk({ content: "Both, then.", tool_calls: [call_("a", place, '{"n":1}')] }),
        chunk({ tool_calls: [call_("b", place, "")] }),
        chunk({ tool_calls: [{ ...place, function: { arguments: '{"n":2}' } }] }),
        data({ id: "x", ...last }),
        DONE,
      ],
    });
    const { text } = await askMessages();
    assert.match(
      text,
      /"text":"Both, then\."[^]*"index":1,"content_block":\{"type":"tool_use","id":"a"[^]*"index":2,"content_block":\{"type":"tool_use","id":"b"/,
    );
    assert.match(text, /"partial_json":"\{\\"n\\":1\}"[^]*"partial_json":"\{\\"n\\":2\}"/);
    assert.match(text, /"stop_reason":"tool_use"[^]*"input_tokens":7,"output_tokens":5/);
    const response = await askResponses();
    assert.match(response.text, /"call_id":"a","name":"f_a"[^]*"arguments":"\{\\"n\\":2\}"/);
    assert.match(response.text, /response\.completed[^]*"input_tokens":7/);
  }
});

test("a response goes on from what was said before it, and not from the instructions before it", async () => {
  chat.play({ contentType: SSE, pieces: [chunk({ content: "Arr." }, "stop"), DONE] });
  const first = await askResponses({ store: true, instructions: "Talk like a pirate.", input: "Who are you?" });
  const id = /"id":"(resp_[^"]+)"/.exec(first.text)?.[1];
  const second = await askResponses({ store: true, previous_response_id: id, input: "And now?" });
  assert.match(second.text, /response\.completed/);
  const sent = chat.bodies.at(-1) ?? "";
  assert.match(sent, /Who are you\?[^]*Arr\.[^]*And now\?/);
  assert.doesNotMatch(sent, /pirate/);
});
