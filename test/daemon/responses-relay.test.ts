/**
 * The Responses API in front of OpenAI's own: what is relayed as it came, what is kept here and never there, and conversations that change their model.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { z } from "zod";
import { type AnthropicHost, startAnthropicHost } from "../fakes/anthropic-host.ts";
import type { CloudScript } from "../fakes/cloud-script.ts";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import { type ResponsesHost, startResponsesHost } from "../fakes/responses-host.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { call, configFor } from "../support/http.ts";
import { checkStream, eventsOf, type ReadResponse, responseOf, textOfResponse } from "../support/responses.ts";
import { Peer } from "../support/responses-peer.ts";

const GPT = "gpt-5.6-sol";
const CLAUDE = "claude-opus-5-5";
const KEY = "sk-test-key-of-nobody";
let gpt: ResponsesHost;
let claude: AnthropicHost;
let chat: OpenAiHost;
let daemon: TestDaemon;

before(async () => {
  gpt = await startResponsesHost({ models: [GPT], apiKey: KEY });
  claude = await startAnthropicHost({ models: [CLAUDE], apiKey: KEY });
  chat = await startOpenAiHost({ models: ["m"] });
  const clouds = `[providers.openai]\nbase_url = "${gpt.baseUrl}"\n[providers.anthropic]\nbase_url = "${claude.baseUrl}/v1"\n`;
  daemon = await startTestDaemon({
    config: configFor(chat.baseUrl, clouds),
    env: { OPENAI_API_KEY: KEY, ANTHROPIC_API_KEY: KEY },
  });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  for (const host of [gpt, claude, chat]) await host[Symbol.asyncDispose]();
  assert.deepEqual(
    [gpt.violations, gpt.refusals, claude.violations, claude.refusals, chat.violations],
    [[], [], [], [], []],
  );
});

const lastBody = () => gpt.requests.findLast(({ method }) => method === "POST")?.bodyText ?? "";
const lastJson = () =>
  z.looseObject({ input: z.unknown(), store: z.unknown(), include: z.unknown() }).parse(JSON.parse(lastBody()));
const post = async (body: object): Promise<ReadResponse> => {
  const reply = await call(daemon, "/v1/responses", { body });
  assert.equal(reply.status, 200, reply.text);
  return responseOf(reply.json);
};
const thinks: CloudScript = {
  blocks: [
    { kind: "reasoning", deltas: ["Let me ", "think."] },
    { kind: "text", deltas: ["I look."], phase: "commentary" },
    { kind: "tool-call", name: "read", arguments: ['{"path":', '"a"}'], id: "call_7" },
  ],
};
const READ = { type: "function" as const, name: "read", parameters: { type: "object", properties: {} }, strict: false };
const OUTPUT = { type: "function_call_output", call_id: "call_7", output: "found" } as const;
const asking = { tools: [READ], reasoning: { summary: "auto" as const, effort: "medium" as const } };

test("what nobody keeps reaches OpenAI as it came, but for the model's name, and its events come back as they were", async () => {
  gpt.playOnce(thinks);
  const rest = `"input":[{"role":"user","content":"h\\u00ef"}] , "store":false, "stream":true,"include":["reasoning.encrypted_content"],"reasoning":{"effort":"high"},"tools":[{"type":"web_search"},${JSON.stringify(READ)}]}`;
  const reply = await call(daemon, "/v1/responses", { rawBody: `{ "model" : "openai/${GPT}", ${rest}` });
  assert.equal(reply.status, 200, reply.text);
  assert.equal(lastBody(), `{ "model" : "${GPT}", ${rest}`);
  assert.equal(reply.headers.get("x-ghost-dropped"), null);
  const response = checkRelayed(reply.text);
  assert.deepEqual(
    response.output.map(({ type, phase }) => [type, phase]),
    [
      ["reasoning", undefined],
      ["message", "commentary"],
      ["function_call", undefined],
    ],
  );
  assert.ok(!response.output[0]?.encrypted_content?.startsWith("ghost1:"));
});

function checkRelayed(text: string): ReadResponse {
  const events = eventsOf(text);
  assert.deepEqual([events.at(0)?.type, events.at(-1)?.type], ["response.created", "response.completed"]);
  return z.custom<ReadResponse>().parse(events.at(-1)?.["response"]);
}

const kinds = (items: unknown) =>
  z
    .array(z.looseObject({ type: z.string() }))
    .parse(items)
    .map(({ type }) => type);
const all = ["message", "reasoning", "message", "function_call", "function_call_output"];

test("what is kept is kept here: OpenAI is told not to, gives its thinking back sealed, and gets it again", async () => {
  const model = `openai/${GPT}`;
  const client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey, maxRetries: 0 });
  gpt.playOnce(thinks);
  const stream = await client.responses.create({ model, input: "look", stream: true, metadata: { a: "b" }, ...asking });
  let id = "";
  for await (const event of stream) if (event.type === "response.completed") id = event.response.id;
  assert.deepEqual([lastJson().store, lastJson().include], [false, ["reasoning.encrypted_content"]]);
  const kept = await client.responses.retrieve(id);
  assert.deepEqual([kinds(kept.output), kept.metadata], [["reasoning", "message", "function_call"], { a: "b" }]);
  gpt.playOnce({ blocks: [{ kind: "text", deltas: ["Done."] }] });
  const next = await client.responses.create({ model, input: [OUTPUT], previous_response_id: id, ...asking });
  assert.deepEqual([next.output_text, next.previous_response_id], ["Done.", id]);
  assert.match(lastBody(), /"encrypted_content":"(?!ghost1:)/);
  assert.deepEqual(kinds(lastJson().input), all);
  assert.equal((await call(daemon, `/v1/responses/${id}?stream=true`)).status, 200);
});

const asItem = (item: string | object) =>
  typeof item === "string" ? { type: "message", role: "user", content: item } : item;

test("what only OpenAI can run is relayed, and kept here all the same", async () => {
  const tools = [READ, { type: "web_search" as const }];
  gpt.playOnce(thinks);
  const first = await post({ model: `openai/${GPT}`, input: "look", ...asking, tools });
  assert.match(lastBody(), /"web_search"/);
  assert.deepEqual([lastJson().store, lastJson().include], [false, ["reasoning.encrypted_content"]]);
  gpt.playOnce({ blocks: [{ kind: "text", deltas: ["Done."] }] });
  const body = { model: `openai/${GPT}`, input: [OUTPUT], previous_response_id: first.id, ...asking, tools };
  assert.equal(textOfResponse(await post(body)), "Done.");
  assert.deepEqual(kinds(lastJson().input), all);
  assert.match(lastBody(), /"encrypted_content":"(?!ghost1:)/);
  gpt.playOnce({ blocks: [{ kind: "text", deltas: ["Again."] }] });
  const named = first.output.map(({ id }) => ({ type: "item_reference", id }));
  await post({ model: `openai/${GPT}`, input: ["look", ...named, OUTPUT].map(asItem), ...asking, tools });
  assert.deepEqual(kinds(lastJson().input), all);
  const replay = await call(daemon, `/v1/responses/${first.id}?stream=true`);
  assert.equal(replay.status, 410, "the numbers of OpenAI's events are not kept");
});

test("the same over a WebSocket, which tells OpenAI nothing of itself", async () => {
  using peer = await Peer.open(daemon);
  const ask = async (body: object): Promise<ReadResponse> => {
    const include = ["reasoning.encrypted_content"];
    peer.create({ stream_id: "s", include, model: `openai/${GPT}`, ...asking, ...body });
    const last = (await peer.answer("s")).at(-1);
    assert.equal(last?.type, "response.completed", JSON.stringify(last));
    return z.custom<ReadResponse>().parse(last["response"]);
  };
  gpt.playOnce(thinks);
  const first = await ask({ input: "look" });
  assert.doesNotMatch(lastBody(), /stream_id|response\.create/);
  gpt.playOnce({ blocks: [{ kind: "text", deltas: ["Done."] }] });
  const second = await ask({ input: [OUTPUT], previous_response_id: first.id });
  assert.equal(textOfResponse(second), "Done.");
  assert.match(lastBody(), /"encrypted_content":"(?!ghost1:)/);
});

test("a conversation goes from one maker to another and back, and each gets its own thinking only", async () => {
  claude.playOnce({
    blocks: [
      { kind: "reasoning", deltas: ["Hmm, ", "files."] },
      { kind: "tool-call", name: "read", arguments: ['{"path":"a"}'], id: "toolu_1" },
    ],
  });
  const first = await post({ model: `anthropic/${CLAUDE}`, input: "look", ...asking });
  const [thought, called] = first.output;
  assert.deepEqual([thought?.type, thought?.summary?.[0]?.text], ["reasoning", "Hmm, files."]);
  assert.match(thought?.encrypted_content ?? "", /^ghost1:/);
  const output = { type: "function_call_output", call_id: called?.call_id, output: "found" };
  gpt.playOnce(thinks);
  const second = await post({ model: `openai/${GPT}`, input: [output], previous_response_id: first.id, ...asking });
  assert.doesNotMatch(lastBody(), /ghost1:|Hmm/);
  assert.match(second.output[0]?.encrypted_content ?? "", /^ghost1:/);
  assert.equal(second.output[1]?.phase, "commentary");
  gpt.playOnce({ blocks: [{ kind: "text", deltas: ["Done."] }] });
  const third = await post({ model: `openai/${GPT}`, input: [OUTPUT], previous_response_id: second.id, ...asking });
  assert.match(lastBody(), /"encrypted_content":"(?!ghost1:)/);
  assert.match(lastBody(), /"phase":"commentary"/);
  claude.playOnce({ blocks: [{ kind: "text", deltas: ["Fine."] }] });
  const fourth = await post({ model: `anthropic/${CLAUDE}`, input: "and?", previous_response_id: third.id, ...asking });
  assert.equal(textOfResponse(fourth), "Fine.");
  const sent = claude.requests.findLast(({ method }) => method === "POST")?.bodyText ?? "";
  assert.match(sent, /"signature":"(?!ghost1:)/);
  await post({ model: "up/m", input: "and you?", previous_response_id: fourth.id });
  assert.doesNotMatch(chat.requests.at(-1)?.bodyText ?? "", /ghost1:|signature|encrypted/);
});

test("Claude's answer keeps the rules of the dialect, event by event", async () => {
  claude.playOnce(thinks);
  const body = { model: `anthropic/${CLAUDE}`, input: "look", stream: true, ...asking };
  const reply = await call(daemon, "/v1/responses", { body });
  const response = checkStream(eventsOf(reply.text));
  assert.deepEqual(
    response.output.map(({ type }) => type),
    ["reasoning", "message", "function_call"],
  );
  const replay = await call(daemon, `/v1/responses/${response.id}?stream=true&starting_after=4`);
  assert.deepEqual(eventsOf(replay.text), eventsOf(reply.text).slice(5));
});

test("OpenAI's error before the first event has its status; one in its stream ends the stream and is not kept", async () => {
  gpt.playOnce({ status: { code: 429, body: "json", errorCode: "insufficient_quota", message: "no credit" } });
  const early = await call(daemon, "/v1/responses", { body: { model: `openai/${GPT}`, input: "x", stream: true } });
  assert.equal(early.status, 402, early.text);
  gpt.playOnce({
    blocks: [{ kind: "text", deltas: ["a", "b", "c"] }],
    fault: { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" },
  });
  const body = { model: `openai/${GPT}`, input: "x", stream: true, store: false };
  const cut = await call(daemon, "/v1/responses", { body });
  const events = eventsOf(cut.text);
  assert.deepEqual([cut.isCut, events.at(-1)?.type], [true, "error"]);
  assert.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, index) => index),
  );
});
