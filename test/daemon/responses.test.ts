/** OpenAI's Responses API through the real daemon, over a server that speaks chat completions: every event, what is kept, what is refused. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { z } from "zod";
import { type OpenAiHost, startOpenAiHost } from "../fakes/openai-host.ts";
import type { Script } from "../fakes/openai-host-script.ts";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { testFolder } from "../support/folder.ts";
import { call, configFor, errorOf } from "../support/http.ts";
import { checkStream, eventsOf, type ReadResponse, responseOf, textOfResponse } from "../support/responses.ts";

let host: OpenAiHost;
let daemon: TestDaemon;
let client: OpenAI;

before(async () => {
  host = await startOpenAiHost({ models: ["m"] });
  daemon = await startTestDaemon({ config: configFor(host.baseUrl) });
  client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey, maxRetries: 0 });
});
after(async () => {
  await daemon[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  assert.deepEqual(host.violations, []);
});

const post = (body: object, path = "/v1/responses") => call(daemon, path, { body: { model: "up/m", ...body } });
const stream = (script: Script, body: object) => {
  host.playOnce(script);
  return post({ stream: true, ...body });
};
const answer = async (script: Script, body: object): Promise<ReadResponse> => {
  host.playOnce(script);
  const reply = await post(body);
  assert.equal(reply.status, 200, reply.text);
  return responseOf(reply.json);
};

const upstreamSchema = z.looseObject({
  messages: z.array(
    z.looseObject({
      role: z.string(),
      content: z.unknown(),
      tool_call_id: z.string().optional(),
      tool_calls: z
        .array(z.looseObject({ id: z.string(), function: z.object({ name: z.string(), arguments: z.string() }) }))
        .optional(),
    }),
  ),
  tools: z.array(z.looseObject({ function: z.looseObject({ name: z.string() }) })).optional(),
});
/** What the upstream was asked last. */
const asked = () => upstreamSchema.parse(JSON.parse(host.requests.at(-1)?.bodyText ?? "{}"));
const said = () => asked().messages.map(({ role, content }) => [role, content]);

const read = { type: "function", name: "read", parameters: { type: "object", properties: {} } } as const;
const calls = (...names: readonly string[]): Script => ({
  tokens: 0,
  toolCalls: names.map((name, index) => ({ id: `call_${index}`, name, arguments: ['{"a":', `${index}}`] })),
});

test("a stream keeps the rules of the dialect, from the first event to the last", async () => {
  const reply = await stream({ tokens: ["Grüße ", "🦊", "."] }, { input: "hello", store: false });
  const response = checkStream(eventsOf(reply.text));
  assert.deepEqual([reply.status, response.status, textOfResponse(response)], [200, "completed", "Grüße 🦊."]);
  assert.match(reply.headers.get("content-type") ?? "", /^text\/event-stream/);
  assert.equal(reply.headers.get("x-request-id")?.slice(4), response.id.slice(5));
  assert.equal(response["store"], false);
  assert.ok((response.usage?.input_tokens ?? 0) > 0);
});

test("a plain answer is the same response as one object", async () => {
  const response = await answer({ tokens: ["a", "b"] }, { input: "hello", metadata: { of: "mine" }, temperature: 0.5 });
  assert.deepEqual([response.status, textOfResponse(response)], ["completed", "ab"]);
  assert.deepEqual([response["metadata"], response["temperature"]], [{ of: "mine" }, 0.5]);
});

test("parallel calls are items of their own, and their results go back under the same ids", async () => {
  const reply = await stream(calls("read", "read"), { input: "look", tools: [read] });
  const response = checkStream(eventsOf(reply.text));
  assert.deepEqual(
    response.output.map(({ type, call_id, name, arguments: text }) => [type, call_id, name, text]),
    [
      ["function_call", "call_0", "read", '{"a":0}'],
      ["function_call", "call_1", "read", '{"a":1}'],
    ],
  );
  const outputs = ["call_0", "call_1"].map((call_id) => ({ type: "function_call_output", call_id, output: "x" }));
  await answer({ tokens: 1 }, { input: [{ role: "user", content: "look" }, ...response.output, ...outputs] });
  const { messages } = asked();
  assert.deepEqual(
    messages.map(({ role, tool_calls, tool_call_id }) => [role, tool_calls?.map(({ id }) => id) ?? tool_call_id]),
    [
      ["user", undefined],
      ["assistant", ["call_0", "call_1"]],
      ["tool", "call_0"],
      ["tool", "call_1"],
    ],
  );
});

test("namespaced and free-form tools are plain functions upstream, and themselves again for the client", async () => {
  const tools = [
    { type: "namespace", name: "mcp__files", description: "Files.", tools: [{ ...read, name: "list" }] },
    { type: "custom", name: "apply_patch", description: "Patches." },
  ];
  const toolCalls = [
    { id: "c1", name: "mcp__files__list", arguments: ["{}"] },
    { id: "c2", name: "apply_patch", arguments: ['{"input":"*** Beg', 'in\\n"}'] },
  ];
  const reply = await stream({ tokens: 0, toolCalls }, { input: "x", tools });
  const { output } = checkStream(eventsOf(reply.text));
  assert.deepEqual(
    output.map(({ type, name, namespace, input }) => [type, name, namespace, input]),
    [
      ["function_call", "list", "mcp__files", undefined],
      ["custom_tool_call", "apply_patch", undefined, "*** Begin\n"],
    ],
  );
  assert.deepEqual(
    asked().tools?.map(({ function: { name } }) => name),
    ["mcp__files__list", "apply_patch"],
  );
});

test("codex's request reaches a chat server whole, and what cannot is named", async () => {
  const body = z.looseObject({}).parse(JSON.parse(readFileSync("test/fixtures/clients/codex-request.json", "utf8")));
  const reply = await stream({ tokens: ["The cart."] }, body);
  assert.equal(reply.status, 200, reply.text);
  assert.equal(textOfResponse(checkStream(eventsOf(reply.text))), "The cart.");
  const { messages, tools } = asked();
  assert.deepEqual(
    messages.map(({ role }) => role),
    ["system", "user", "user", "assistant", "tool", "tool"],
  );
  assert.deepEqual(
    messages[3]?.tool_calls?.map(({ function: { name } }) => name),
    ["exec_command", "mcp__files__list"],
  );
  assert.deepEqual(
    tools?.map(({ function: { name } }) => name),
    ["exec_command", "apply_patch", "mcp__files__list"],
  );
  const dropped = reply.headers.get("x-ghost-dropped") ?? "";
  assert.match(dropped, /hosted tools/);
  assert.match(dropped, /text\.verbosity/);
  assert.doesNotMatch(dropped, /client_metadata|include|prompt_cache_key/);
});

test("a response goes on from an earlier one with all that was said, and without its instructions", async () => {
  const first = await answer({ tokens: ["one"] }, { input: "first", instructions: "Be brief." });
  assert.deepEqual(said().at(0), ["system", "Be brief."]);
  const second = await answer({ tokens: ["two"] }, { input: "second", previous_response_id: first.id });
  assert.equal(second.previous_response_id, first.id);
  await answer({ tokens: ["three"] }, { input: [{ role: "user", content: "third" }], previous_response_id: second.id });
  assert.deepEqual(said(), [
    ["user", "first"],
    ["assistant", "one"],
    ["user", "second"],
    ["assistant", "two"],
    ["user", "third"],
  ]);
  const { sessions } = await listSessions();
  assert.equal(sessions.filter(({ title }) => title === "first").length, 2, "with instructions, and without them");
});

async function listSessions() {
  using face = await daemon.connect();
  return await face.api.session.list({}, AbortSignal.timeout(10_000));
}

test("a result may answer a call of the response before; one without any call is refused", async () => {
  const first = await answer(calls("read"), { input: "look", tools: [read] });
  const output = { type: "function_call_output", call_id: "call_0", output: "found" };
  await answer({ tokens: ["fine"] }, { input: [output], previous_response_id: first.id, tools: [read] });
  assert.deepEqual(said().at(-1), ["tool", "found"]);
  const before = host.requests.length;
  const alone = await post({ input: [output] });
  assert.deepEqual([alone.status, errorOf(alone).param], [400, "input"]);
  assert.match(errorOf(alone).message, /No tool call found .* call_0/);
  assert.equal(host.requests.length, before, "no model heard of it");
});

test("what is not kept is not known: store false, an unknown id, a deleted one, a chain with a gap", async () => {
  const unkept = await answer({ tokens: 1 }, { input: "x", store: false });
  const kept = await answer({ tokens: 1 }, { input: "x" });
  const next = await answer({ tokens: 1 }, { input: "y", previous_response_id: kept.id });
  await client.responses.delete(kept.id);
  for (const id of [unkept.id, "resp_nobody", kept.id, next.id]) {
    const reply = await post({ input: "z", previous_response_id: id });
    const error = errorOf(reply);
    assert.deepEqual(
      [reply.status, error.code, error.param, error.type],
      [400, "previous_response_not_found", "previous_response_id", "invalid_request_error"],
    );
  }
  await assert.rejects(client.responses.retrieve(kept.id), { status: 404, code: "response_not_found" });
  await assert.rejects(client.responses.delete(kept.id), { status: 404 });
});

test("items of kept responses may be named instead of sent", async () => {
  const first = await answer({ ...calls("read"), tokens: ["I look."] }, { input: "look", tools: [read] });
  const named = first.output.map(({ id, type }) => (type === "message" ? { id } : { type: "item_reference", id }));
  const output = { type: "function_call_output", call_id: "call_0", output: "found" };
  const second = await answer({ tokens: ["ok"] }, { input: [{ role: "user", content: "look" }, ...named, output] });
  const { messages } = asked();
  assert.deepEqual(
    messages.map(({ role, content, tool_calls }) => [role, content, tool_calls?.length]),
    [
      ["user", "look", undefined],
      ["assistant", "I look.", 1],
      ["tool", "found", undefined],
    ],
  );
  await client.responses.delete(first.id);
  await answer({ tokens: 1 }, { input: "and?", previous_response_id: second.id });
  assert.equal(asked().messages.length, 5, "what was named is kept with the response that it was named for");
  const gone = await post({ input: named });
  assert.deepEqual([gone.status, errorOf(gone).code, errorOf(gone).param], [404, "response_not_found", "input"]);
});

test("OpenAI's SDK streams, parses, reads again, lists items", async () => {
  host.playOnce({ tokens: ["Hel", "lo"] });
  const streamed = client.responses.stream({ model: "up/m", input: "hi", instructions: "Answer." });
  const types: string[] = [];
  for await (const event of streamed) types.push(event.type);
  const final = await streamed.finalResponse();
  assert.deepEqual([final.output_text, types.at(0), types.at(-1)], ["Hello", "response.created", "response.completed"]);
  const again = await client.responses.retrieve(final.id);
  assert.deepEqual([again.output_text, again.instructions], ["Hello", "Answer."]);
  const items = await client.responses.inputItems.list(final.id);
  assert.deepEqual(
    items.data.map((item) => [item.type, "role" in item ? item.role : ""]),
    [["message", "user"]],
  );
  host.playOnce({ tokens: ['{"n":', "1}"] });
  const text = { format: { type: "json_schema", name: "n", schema: { type: "object" } } } as const;
  const parsed = await client.responses.parse({ model: "up/m", input: "n?", text });
  assert.deepEqual(parsed.output_parsed, { n: 1 });
  await assert.rejects(client.responses.create({ model: "nobody/has-this", input: "x" }), {
    status: 404,
    code: "model_not_found",
  });
});

test("a kept stream can be read again from any event, with the numbers that it had", async () => {
  const script = { ...calls("read"), tokens: ["Let ", "me ", "look."] };
  const original = eventsOf((await stream(script, { input: "look", tools: [read] })).text);
  const { id } = checkStream(original);
  for (const after of [undefined, 0, 6, original.length - 2]) {
    const query = after === undefined ? "" : `&starting_after=${after}`;
    const reply = await call(daemon, `/v1/responses/${id}?stream=true${query}`);
    assert.deepEqual(eventsOf(reply.text), original.slice((after ?? -1) + 1), `after ${after}`);
  }
});

test("no more tokens ends it as incomplete, and a call that was cut off is not called done", async () => {
  const reply = await stream({ tokens: ["a"], finishReason: "length" }, { input: "x", max_output_tokens: 16 });
  const response = checkStream(eventsOf(reply.text));
  assert.deepEqual([response.status, response.incomplete_details], ["incomplete", { reason: "max_output_tokens" }]);
  const filtered = await answer({ tokens: ["a"], finishReason: "content_filter" }, { input: "x" });
  assert.deepEqual(filtered.incomplete_details, { reason: "content_filter" });
});

test("a broken answer says so, is cut, and is not kept", async () => {
  const fault = { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" } as const;
  const reply = await stream({ tokens: ["a", "b", "c"], fault }, { input: "x" });
  const events = eventsOf(reply.text);
  assert.deepEqual([reply.isCut, events.at(-2)?.type, events.at(-1)?.type], [true, "error", "response.failed"]);
  assert.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, index) => index),
  );
  const failed = responseOf(events.at(-1)?.["response"]);
  assert.deepEqual([failed.status, failed.error?.code, textOfResponse(failed)], ["failed", "server_error", "ab"]);
  assert.ok(!events.some(({ type }) => type === "response.output_item.done"));
  assert.equal((await call(daemon, `/v1/responses/${failed.id}`)).status, 404);
  const early = await stream({ status: { code: 503, body: "json" } }, { input: "x" });
  assert.ok(early.status >= 500 && errorOf(early).type === "server_error", early.text);
});

test("what only a provider could keep is refused, field by field, before any model is asked", async () => {
  const before = host.requests.length;
  const cases: readonly [body: object, field: string][] = [
    [{ input: "x", background: true }, "background"],
    [{ input: "x", conversation: "conv_1" }, "conversation"],
    [{ input: "x", prompt: { id: "pmpt_1" } }, "prompt"],
    [{ input: [{ role: "robot", content: "x" }] }, "input.0.role"],
    [{ input: [{ type: "function_call", call_id: "c", name: "n" }] }, "input.0.arguments"],
    [{ input: "x", temperature: 3 }, "temperature"],
    [{ input: "x", model: undefined }, "model"],
    [{ input: [{ type: "local_shell_call", call_id: "c", action: {} }] }, "items of other tools"],
    [{ input: [{ type: "compaction", encrypted_content: "gAAAA" }] }, "compaction"],
    [{ input: [{ role: "user", content: [{ type: "input_image", file_id: "file_1" }] }] }, "file_id"],
  ];
  for (const [body, field] of cases) {
    const reply = await post(body);
    assert.deepEqual([reply.status, errorOf(reply).param], [400, field], reply.text);
  }
  const broken = await call(daemon, "/v1/responses", { rawBody: '{"model":"up/m","input":' });
  assert.deepEqual([broken.status, errorOf(broken).code], [400, "invalid_json"]);
  assert.equal(host.requests.length, before);
});

test("a conversation is compacted by its own model, and any model goes on from the summary", async () => {
  host.playOnce({ tokens: ["The user likes ", "foxes."] });
  const input = [
    { role: "user" as const, content: "I like foxes." },
    { role: "assistant" as const, content: "Noted." },
  ];
  const compacted = await client.responses.compact({ model: "up/m", input });
  assert.equal(compacted.object, "response.compaction");
  assert.deepEqual([compacted.output.length, compacted.output[0]?.type], [1, "compaction"]);
  assert.ok(compacted.usage.input_tokens > 0);
  assert.match(JSON.stringify(said()), /I like foxes\..*Noted\./);
  const [item] = z.array(z.looseObject({ encrypted_content: z.string() })).parse(compacted.output);
  assert.ok(!item?.encrypted_content.includes("foxes"));
  await answer({ tokens: 1 }, { input: [item, { role: "user", content: "What do I like?" }] });
  assert.match(String(said()[0]?.[1]), /The user likes foxes\./);
  const withoutModel = await call(daemon, "/v1/responses/compact", { body: { input: "x" } });
  assert.deepEqual([withoutModel.status, errorOf(withoutModel).param], [400, "model"]);
});

test("a trigger at the end of the input compacts in place, and the next response goes on from that alone", async () => {
  host.playOnce({ tokens: ["Short."] });
  const input = [{ role: "user", content: "A long story." }, { type: "compaction_trigger" }];
  const reply = await post({ input, stream: true });
  const response = checkStream(eventsOf(reply.text));
  assert.deepEqual(
    response.output.map(({ type }) => type),
    ["compaction"],
  );
  await answer({ tokens: 1 }, { input: "And?", previous_response_id: response.id });
  assert.equal(said().length, 2);
  assert.match(String(said()[0]?.[1]), /Short\.$/);
});

test("tokens are counted, or estimated and marked as such", async () => {
  const reply = await post({ input: "four words are here" }, "/v1/responses/input_tokens");
  const { input_tokens } = z
    .object({ object: z.literal("response.input_tokens"), input_tokens: z.int() })
    .parse(reply.json);
  assert.ok(input_tokens > 0);
  assert.equal(reply.headers.get("x-ghost-estimated"), "true");
});

test("a response under way can be seen and cancelled", async () => {
  host.playOnce({ tokens: ["a", "b"], fault: { kind: "hang", afterTokens: 1 } });
  const events = await client.responses.create({ model: "up/m", input: "x", stream: true });
  const iterator = events[Symbol.asyncIterator]();
  const first = await iterator.next();
  assert.ok(first.done !== true && first.value.type === "response.created");
  const { id } = first.value.response;
  const seen = responseOf((await call(daemon, `/v1/responses/${id}`)).json);
  assert.deepEqual([seen.id, seen.status], [id, "in_progress"]);
  const cancelled = await client.responses.cancel(id);
  assert.equal(cancelled.status, "cancelled");
  await assert.rejects(async () => {
    for (;;) if ((await iterator.next()).done === true) return;
  });
});

test("a conversation of megabytes is read beside the main loop, and goes on like any other", async () => {
  const long = "Grüße 🦊 ".repeat(60_000);
  const first = await answer({ tokens: ["noted"] }, { input: [{ role: "user", content: long }] });
  await answer({ tokens: 1 }, { input: "and?", previous_response_id: first.id, tools: [read] });
  assert.deepEqual(said(), [
    ["user", long],
    ["assistant", "noted"],
    ["user", "and?"],
  ]);
  const refused = await post({
    input: [
      { role: "user", content: long },
      { type: "item_reference", id: "msg_1" },
    ],
  });
  assert.equal(refused.status, 404);
});

test("what a client was told is complete is there after the daemon was killed", async () => {
  using folder = testFolder();
  const config = configFor(host.baseUrl);
  await using killed = await startTestDaemon({ folder, config });
  host.playOnce({ tokens: ["one"] });
  const told = await call(killed, "/v1/responses", { body: { model: "up/m", input: "first", stream: true } });
  await killed.kill();
  const { id } = checkStream(eventsOf(told.text));
  await using next = await startTestDaemon({ folder, config });
  const body = { model: "up/m", input: "second", previous_response_id: id };
  assert.equal((await call(next, "/v1/responses", { body })).status, 200);
  assert.deepEqual(
    said().map(([, content]) => content),
    ["first", "one", "second"],
  );
});

test("GET on the collection without an upgrade says how to ask", async () => {
  const reply = await call(daemon, "/v1/responses");
  assert.deepEqual([reply.status, errorOf(reply).code], [404, "method_unknown"]);
});
