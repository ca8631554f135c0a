/** The fake of the Responses API is driven by OpenAI's official client, so that it is known to speak as the real ones do. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import OpenAI, { AzureOpenAI } from "openai";
import { type CloudScript, textScript, toolThenText } from "./cloud-script.ts";
import { rawPost } from "./raw-post.ts";
import { type ResponsesHost, startResponsesHost } from "./responses-host.ts";

type Create = OpenAI.Responses.ResponseCreateParamsNonStreaming;
type Asked = Omit<Partial<Create>, "include"> & Readonly<Record<string, unknown>>;
type Item = OpenAI.Responses.ResponseInputItem;
type ErrorKind = abstract new (...args: never) => unknown;

const MODEL = "gpt-5.6-sol";
const READ_FILE: OpenAI.Responses.FunctionTool = {
  type: "function",
  name: "read_file",
  parameters: { type: "object", properties: { path: { type: "string" } } },
  strict: false,
};
const LIST: OpenAI.Responses.FunctionTool = { type: "function", name: "list", parameters: {}, strict: null };
const ENCRYPTED = { store: false, include: ["reasoning.encrypted_content"], reasoning: { summary: "auto" } } as const;

function client(host: ResponsesHost, apiKey = "none"): OpenAI {
  return new OpenAI({ baseURL: host.baseUrl, apiKey, maxRetries: 0 });
}

function ask(host: ResponsesHost, body: Asked = {}): Promise<OpenAI.Responses.Response> {
  return client(host).responses.create({ model: MODEL, input: "Say hello", ...body });
}

async function events(host: ResponsesHost, body: Asked = {}): Promise<OpenAI.Responses.ResponseStreamEvent[]> {
  const { stream: _, ...rest } = body;
  const all: OpenAI.Responses.ResponseStreamEvent[] = [];
  const stream = await client(host).responses.create({ model: MODEL, input: "Say hello", ...rest, stream: true });
  for await (const event of stream) all.push(event);
  return all;
}

/** What the last event of the same question streamed holds. */
async function stream(host: ResponsesHost, body: Asked = {}): Promise<OpenAI.Responses.Response> {
  const last = (await events(host, body)).at(-1);
  assert.ok(last?.type === "response.completed" || last?.type === "response.incomplete");
  return last.response;
}

/** What is the same in a streamed and a whole answer. */
function gist(response: OpenAI.Responses.Response): object {
  const output = response.output.map((item) => {
    if (item.type === "message") return { content: item.content, status: item.status };
    if (item.type === "function_call") return { name: item.name, arguments: item.arguments };
    if (item.type === "reasoning") return { summary: item.summary, encrypted: item.encrypted_content !== undefined };
    return item.type;
  });
  return { output, status: response.status, incomplete: response.incomplete_details, usage: response.usage };
}

const PARALLEL: CloudScript = {
  blocks: [
    { kind: "reasoning", deltas: ["Let me ", "look."] },
    { kind: "text", deltas: ["Grüße ", "🦀"], phase: "commentary" },
    { kind: "tool-call", name: "read_file", arguments: ['{"pa', 'th":"a.ts"}'], id: "call_a" },
    { kind: "tool-call", name: "list", arguments: [] },
  ],
};

describe("healthy answers", () => {
  test("whole and streamed answers are the same: text, reasoning, parallel calls, calls without arguments", async () => {
    await using host = await startResponsesHost({ script: PARALLEL });
    const body = { tools: [READ_FILE, LIST], ...ENCRYPTED };
    const whole = await ask(host, body);
    assert.deepEqual(gist(whole), gist(await stream(host, body)));
    const part = { type: "output_text", annotations: [], logprobs: [], text: "Grüße 🦀" };
    assert.deepEqual(Object.values(gist(whole)).slice(0, 3), [
      [
        { summary: [{ type: "summary_text", text: "Let me look." }], encrypted: true },
        { content: [part], status: "completed" },
        { name: "read_file", arguments: '{"path":"a.ts"}' },
        { name: "list", arguments: "{}" },
      ],
      "completed",
      null,
    ]);
    assert.equal(whole.output_text, "Grüße 🦀");
    const [, , call] = whole.output;
    assert.ok(call?.type === "function_call" && call.call_id === "call_a" && call.id?.startsWith("fc_"));
    const accumulated = client(host).responses.stream({ model: MODEL, input: "Say hello" }).finalResponse();
    assert.equal((await accumulated).output_text, "Grüße 🦀");
    assert.deepEqual(host.violations, []);
    assert.deepEqual(host.refusals, []);
    assert.equal(host.requests[1]?.tokensSent, 6);
  });

  test("events come in the API's order, numbered from 0, with the ids and places of their items", async () => {
    await using host = await startResponsesHost({ script: PARALLEL });
    const all = await events(host, { tools: [READ_FILE, LIST], ...ENCRYPTED });
    assert.deepEqual(
      all.map((event) => event.sequence_number),
      all.map((_, index) => index),
    );
    const item = (...inner: string[]) => ["output_item.added", ...inner, "output_item.done"];
    const summary = "reasoning_summary";
    assert.deepEqual(
      all.map((event) => event.type.replace(/^response\./, "")),
      [
        "created",
        "in_progress",
        ...item(
          `${summary}_part.added`,
          `${summary}_text.delta`,
          `${summary}_text.delta`,
          `${summary}_text.done`,
          `${summary}_part.done`,
        ),
        ...item(
          "content_part.added",
          "output_text.delta",
          "output_text.delta",
          "output_text.done",
          "content_part.done",
        ),
        ...item("function_call_arguments.delta", "function_call_arguments.delta", "function_call_arguments.done"),
        ...item("function_call_arguments.done"),
        "completed",
      ],
    );
    const last = all.at(-1);
    assert.ok(last?.type === "response.completed");
    for (const event of all) {
      if ("item_id" in event) assert.equal(last.response.output[event.output_index]?.id, event.item_id, event.type);
    }
    const added = all.find((event) => event.type === "response.output_item.added" && event.output_index === 1);
    assert.ok(added?.type === "response.output_item.added" && added.item.type === "message");
    assert.deepEqual([added.item.status, added.item.content, added.item.phase], ["in_progress", [], "commentary"]);
    const padded = all.filter((event) => "obfuscation" in event);
    assert.equal(padded.length, 6);
    const bare = await events(host, { stream_options: { include_obfuscation: false } });
    assert.ok(bare.every((event) => !("obfuscation" in event)));
  });

  test("odd but legal streams keep their meaning: interleaved calls, events left out, nothing in the last output", async () => {
    await using host = await startResponsesHost();
    host.play({ ...PARALLEL, wire: { interleaveCalls: true } });
    const order = (await events(host, { tools: [READ_FILE, LIST] })).flatMap((event) =>
      event.type === "response.output_item.added" || event.type === "response.output_item.done"
        ? [`${event.type.slice(21)} ${event.output_index}`]
        : [],
    );
    assert.deepEqual(order.slice(-5), ["done 1", "added 2", "added 3", "done 3", "done 2"]);
    host.play({ ...textScript("a"), wire: { omitEvents: ["response.output_item.done"], emptyFinalOutput: true } });
    const left = await events(host);
    assert.ok(left.every((event) => event.type !== "response.output_item.done"));
    const last = left.at(-1);
    assert.ok(last?.type === "response.completed" && last.response.output.length === 0);
    host.play({ ...textScript("Grüße ", "aus ", "Köln 🏙") });
    const wires = [
      { lineEnd: "\r\n" },
      { commentEvery: 1 },
      { multiLineData: true },
      { writeBytes: 3 },
      { unknownEventEvery: 2 },
    ] as const;
    for (const wire of wires) {
      host.play({ ...textScript("Grüße ", "aus ", "Köln 🏙"), wire });
      const text = (await events(host)).flatMap((event) =>
        event.type === "response.output_text.delta" ? [event.delta] : [],
      );
      assert.equal(text.join(""), "Grüße aus Köln 🏙", JSON.stringify(wire));
    }
  });

  test("usage, limits, refusals and the script's words are in the last event", async () => {
    const usage = {
      inputTokens: 1000,
      cachedTokens: 700,
      cacheWriteTokens: 200,
      outputTokens: 50,
      reasoningTokens: 30,
    };
    await using host = await startResponsesHost({ script: { ...textScript("a"), usage } });
    assert.deepEqual((await stream(host)).usage, {
      input_tokens: 1000,
      input_tokens_details: { cached_tokens: 700, cache_write_tokens: 200 },
      output_tokens: 50,
      output_tokens_details: { reasoning_tokens: 30 },
      total_tokens: 1050,
    });
    host.play(textScript(...Array.from({ length: 20 }, (_, index) => `${index} `)));
    const cut = await stream(host, { max_output_tokens: 16 });
    assert.deepEqual([cut.status, cut.incomplete_details?.reason], ["incomplete", "max_output_tokens"]);
    assert.match(JSON.stringify(cut.output), /15 "/);
    host.play({ ...textScript("x"), finishReason: "content_filter", usage: "never", serviceTier: "flex" });
    const filtered = await stream(host);
    assert.deepEqual(
      [filtered.incomplete_details?.reason, filtered.usage, filtered.service_tier],
      ["content_filter", null, "flex"],
    );
    host.play({ blocks: [{ kind: "refusal", deltas: ["I can", "not."] }] });
    const [message] = (await stream(host)).output;
    assert.ok(message?.type === "message");
    assert.deepEqual(message.content, [{ type: "refusal", refusal: "I cannot." }]);
    host.play({ usage: { inputTokens: 77 } });
    assert.equal((await client(host).responses.inputTokens.count({ model: MODEL, input: "x" })).input_tokens, 77);
    assert.deepEqual(host.violations, []);
  });

  test("a script can ask for a tool once and then answer; free-form and namespaced tools are called in their way", async () => {
    await using host = await startResponsesHost();
    host.play(toolThenText({ name: "read_file", arguments: { path: "a.ts" } }, "It is empty."));
    const first = await stream(host, { tools: [READ_FILE], store: false });
    const [call] = first.output;
    assert.ok(call?.type === "function_call");
    const output = { type: "function_call_output", call_id: call.call_id, output: "" } as const;
    const input: Item[] = [{ role: "user", content: "Say hello" }, { ...call, status: "completed" }, output];
    assert.match(JSON.stringify(await stream(host, { tools: [READ_FILE], store: false, input })), /"It is empty\."/);
    const inside = { type: "function", name: "run", parameters: {}, strict: null } as const;
    const tools: OpenAI.Responses.Tool[] = [
      { type: "custom", name: "apply_patch" },
      { type: "namespace", name: "shell", description: "x", tools: [inside] },
      { type: "web_search" },
    ];
    host.play({
      blocks: [
        { kind: "tool-call", name: "apply_patch", arguments: ["*** ", "Begin"] },
        { kind: "tool-call", name: "run", arguments: ["{}"] },
      ],
    });
    const all = await events(host, { tools });
    const deltas = all.flatMap((event) =>
      event.type === "response.custom_tool_call_input.delta" ? [event.delta] : [],
    );
    assert.deepEqual(deltas, ["*** ", "Begin"]);
    const done = all.at(-1);
    assert.ok(done?.type === "response.completed");
    const [patch, run] = done.response.output;
    assert.ok(patch?.type === "custom_tool_call" && patch.input === "*** Begin");
    assert.ok(run?.type === "function_call" && run.namespace === "shell");
    assert.deepEqual(host.violations, []);
  });

  test("models are listed, texts are embedded in both encodings", async () => {
    await using host = await startResponsesHost();
    const models: string[] = [];
    for await (const model of client(host).models.list()) models.push(model.id);
    assert.deepEqual(models, host.models);
    assert.equal((await client(host).models.retrieve("gpt-5.5")).id, "gpt-5.5");
    const embed = (format?: "float") =>
      client(host).embeddings.create({
        model: "text-embedding-3-small",
        input: ["one", "two", "one"],
        dimensions: 16,
        ...(format === undefined ? {} : { encoding_format: format }),
      });
    const [first, second, third] = (await embed()).data;
    assert.equal(first?.embedding.length, 16);
    assert.deepEqual(first?.embedding, third?.embedding);
    assert.notDeepEqual(first?.embedding, second?.embedding);
    assert.deepEqual((await embed("float")).data[0]?.embedding, first?.embedding);
    assert.deepEqual(host.violations, []);
  });
});

describe("reasoning and stored responses", () => {
  test("reasoning is shown as it is asked for, and not where the model does not reason", async () => {
    await using host = await startResponsesHost({ script: PARALLEL });
    const shown = async (body: Asked) => {
      const [item] = (await stream(host, body)).output;
      if (item?.type !== "reasoning") return item?.type;
      return `${item.summary.map(({ text }) => text).join("")}:${item.encrypted_content !== undefined}`;
    };
    assert.equal(await shown(ENCRYPTED), "Let me look.:true");
    assert.equal(await shown({}), ":false");
    assert.equal(await shown({ reasoning: { effort: "none", summary: "auto" } }), "message");
    assert.equal(await shown({ model: "gpt-4.1" }), "message");
  });

  test("encrypted reasoning comes back only as it was given out, and before what it led to", async () => {
    await using host = await startResponsesHost({ script: PARALLEL });
    const { output } = await stream(host, { tools: [READ_FILE, LIST], ...ENCRYPTED });
    const [reasoning, ...rest] = output;
    assert.ok(reasoning?.type === "reasoning");
    const results: Item[] = output.flatMap((item) =>
      item.type === "function_call"
        ? [{ type: "function_call_output", call_id: item.call_id, output: "x" } as const]
        : [],
    );
    const hello: Item = { role: "user", content: "Say hello" };
    const replay = (first: readonly object[], others: readonly object[] = rest) =>
      ask(host, { tools: [READ_FILE, LIST], ...ENCRYPTED, input: asItems([hello, ...first, ...others, ...results]) });
    await replay([reasoning]);
    await replay([]);
    await assert.rejects(replay([{ ...reasoning, encrypted_content: "gAAAAforeign" }]), /could not be verified/);
    await assert.rejects(replay([{ ...reasoning, id: "rs_other" }]), /item_id did not match/);
    await assert.rejects(replay([{ ...reasoning, encrypted_content: null }]), /not persisted when `store`/);
    const alone = ask(host, { ...ENCRYPTED, input: asItems([hello, reasoning, hello]) });
    await assert.rejects(alone, /without its required following item/);
    assert.deepEqual(host.violations, []);
  });

  test("what was stored can be continued, referred to, read and deleted; what was not is unknown", async () => {
    await using host = await startResponsesHost();
    host.play(toolThenText({ name: "read_file", arguments: {} }, "done"));
    const first = await stream(host, { tools: [READ_FILE] });
    const [call] = first.output;
    assert.ok(call?.type === "function_call");
    const output = { type: "function_call_output", call_id: call.call_id, output: "" } as const;
    const next = { tools: [READ_FILE], previous_response_id: first.id, input: [output] };
    assert.match(JSON.stringify((await stream(host, next)).output), /"done"/);
    const byReference = asItems([{ role: "user", content: "x" }, { type: "item_reference", id: call.id }, output]);
    assert.equal((await ask(host, { tools: [READ_FILE], input: byReference })).output_text, "done");
    assert.equal((await client(host).responses.retrieve(first.id)).id, first.id);
    await client(host).responses.delete(first.id);
    await assert.rejects(ask(host, next), /Previous response with id/);
    await assert.rejects(client(host).responses.retrieve(first.id), OpenAI.NotFoundError);
    const unstored = await ask(host, { store: false });
    const error: unknown = await ask(host, { previous_response_id: unstored.id }).catch((thrown: unknown) => thrown);
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.code, error.param], ["previous_response_not_found", "previous_response_id"]);
    assert.deepEqual(host.violations, []);
  });
});

/** What the client's types cannot say, being sent on purpose. */
function asItems(items: readonly object[]): Item[] {
  return JSON.parse(JSON.stringify(items));
}

describe("rules of the API", () => {
  test("each broken rule is answered in the API's shape, and is no violation", async () => {
    await using host = await startResponsesHost();
    const call = { type: "function_call", call_id: "c", name: "list", arguments: "{}" };
    const output = { type: "function_call_output", call_id: "c", output: "x" };
    const user = { role: "user", content: "x" };
    const strict = { ...READ_FILE, strict: true };
    const input = (...items: readonly object[]) => ({ input: asItems([user, ...items]) });
    const cases: readonly (readonly [Asked, RegExp, string | null, string | null])[] = [
      [{ temperature: 1 }, /'temperature' is not supported/, "temperature", null],
      [{ model: "gpt-6.1-sol", top_p: 1 }, /'top_p' is not supported/, "top_p", null],
      [
        { model: "gpt-6.1-sol", reasoning: { effort: "none" } },
        /Supported values are/,
        "reasoning.effort",
        "unsupported_value",
      ],
      [{ model: "gpt-4.1", reasoning: { effort: "low" } }, /not supported/, "reasoning.effort", null],
      [{ max_output_tokens: 15 }, /Expected a value >= 16/, "max_output_tokens", "integer_below_min_value"],
      [{ prompt_cache_key: "x".repeat(65) }, /length 65/, "prompt_cache_key", "string_above_max_length"],
      [{ model: "gpt-6-astra", prompt_cache_retention: "24h" }, /not supported/, "prompt_cache_retention", null],
      [{ stream_options: {} }, /only allowed when 'stream'/, "stream_options", null],
      [{ tools: [{ ...LIST, name: "a.b" }] }, /does not match pattern/, "tools[0].name", "invalid_value"],
      [{ tools: [strict] }, /additionalProperties/, "tools[0].parameters", "invalid_function_parameters"],
      [{ tool_choice: "required" }, /must be specified with 'tools'/, "tool_choice", null],
      [{ tools: [LIST], tool_choice: { type: "function", name: "x" } }, /not found in 'tools'/, "tool_choice", null],
      [input(output), /No tool call found for function call output with call_id c/, "input", null],
      [input(call), /No tool output found for function call c/, "input", null],
      [input(call, output, output), /No tool call found/, "input", null],
      [input({ ...call, id: "c" }, output), /begins with 'fc'/, "input[1].id", "invalid_value"],
      [
        input({ role: "assistant", content: [{ type: "input_text", text: "x" }] }),
        /'output_text' and/,
        "input[1].content[0]",
        "invalid_value",
      ],
      [
        input({ role: "user", content: [{ type: "output_text", text: "x" }] }),
        /'input_text'/,
        "input[1].content[0]",
        "invalid_value",
      ],
    ];
    for (const [body, expected, param, code] of cases) {
      const error: unknown = await ask(host, body).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof OpenAI.BadRequestError, `${expected}: ${JSON.stringify(error)}`);
      assert.match(error.message, expected);
      assert.deepEqual([error.param, error.code, error.type], [param, code, "invalid_request_error"]);
    }
    await assert.rejects(ask(host, input({ type: "item_reference", id: "msg_x" })), OpenAI.NotFoundError);
    assert.deepEqual(host.violations, []);
    assert.equal(host.refusals.length, cases.length + 1);
  });

  test("what these rules are next to is answered", async () => {
    await using host = await startResponsesHost();
    const closed = {
      type: "object",
      properties: { path: { type: "string" } },
      required: ["path"],
      additionalProperties: false,
    };
    await ask(host, { reasoning: { effort: "none" }, temperature: 0.5 });
    await ask(host, { model: "gpt-4.1", temperature: 0.5 });
    await ask(host, { tools: [{ ...READ_FILE, strict: true, parameters: closed }], tool_choice: "required" });
    await ask(host, { input: asItems([{ role: "developer", content: [{ type: "input_text", text: "x" }] }]) });
    await ask(host, { max_output_tokens: 16, prompt_cache_key: "x".repeat(64), client_metadata: { a: "b" } });
    assert.deepEqual([host.violations, host.refusals], [[], []]);
  });

  test("unknown fields and shapes are answered 400 and kept as violations; so are unknown routes", async () => {
    await using host = await startResponsesHost();
    const bad: readonly (readonly [object, string])[] = [
      [{ stop: ["x"] }, "Unknown parameter: 'stop'."],
      [{ max_tokens: 5 }, "Unknown parameter: 'max_tokens'."],
      [{ input: [{ role: "user", content: "x", extra: 1 }] }, "Unknown parameter: 'input[0].extra'."],
      [
        { input: [{ type: "function_call", name: "x", arguments: "" }] },
        "Missing required parameter: 'input[0].call_id'.",
      ],
      [{ tools: [{ type: "function", function: { name: "x" } }] }, "Missing required parameter: 'tools[0].name'."],
      [{ background: true }, "Invalid value for 'background'"],
    ];
    for (const [fields, message] of bad) {
      const { bytes } = await rawPost(host.port, "/v1/responses", { model: MODEL, input: "x", ...fields });
      assert.match(bytes.toString(), /^HTTP\/1.1 400 /);
      assert.ok(bytes.includes(message), `${message}: ${bytes.toString()}`);
      assert.ok(host.violations.at(-1)?.includes(message));
    }
    await assert.rejects(client(host).chat.completions.create({ model: MODEL, messages: [] }), /501/);
    assert.equal(host.violations.length, bad.length + 1);
  });

  test("keys and models are checked", async () => {
    await using host = await startResponsesHost({ apiKey: "right" });
    const asking = (key: string, body: Asked = {}) =>
      client(host, key).responses.create({ model: MODEL, input: "x", ...body });
    const wrong: unknown = await asking("wrong").catch((thrown: unknown) => thrown);
    assert.ok(wrong instanceof OpenAI.AuthenticationError);
    assert.equal(wrong.code, "invalid_api_key");
    const absent: unknown = await asking("right", { model: "absent" }).catch((thrown: unknown) => thrown);
    assert.ok(absent instanceof OpenAI.NotFoundError);
    assert.equal(absent.code, "model_not_found");
    assert.equal((await asking("right")).status, "completed");
    assert.deepEqual(host.violations, []);
  });
});

describe("Azure and xAI", () => {
  test("Azure takes a key as `api-key` or a token, names deployments, and answers with the model behind them", async () => {
    await using host = await startResponsesHost({
      flavour: "azure",
      models: ["prod-chat"],
      deployments: { "prod-chat": "gpt-4.1" },
      apiKey: "key",
      entraToken: "token",
    });
    const azure = (apiKey: string) =>
      new AzureOpenAI({ baseURL: host.baseUrl, apiKey, apiVersion: "preview", maxRetries: 0 });
    const answer = await azure("key").responses.create({ model: "prod-chat", input: "x", temperature: 1 });
    assert.equal(answer.model, "gpt-4.1");
    const byToken = client(host, "token").responses.create({ model: "prod-chat", input: "x" });
    assert.equal((await byToken).model, "gpt-4.1");
    await assert.rejects(azure("bad").responses.create({ model: "prod-chat", input: "x" }), OpenAI.AuthenticationError);
    await assert.rejects(client(host, "key").models.list(), OpenAI.AuthenticationError);
    const missing: unknown = await azure("key")
      .responses.create({ model: "gpt-4.1", input: "x" })
      .catch((thrown: unknown) => thrown);
    assert.ok(missing instanceof OpenAI.NotFoundError);
    assert.equal(missing.code, "DeploymentNotFound");
    const models = (await client(host, "token").models.list()).data.map(({ id }) => id);
    assert.deepEqual(models, ["gpt-4.1", "gpt-5.6-sol"]);
    assert.deepEqual(host.violations, []);
  });

  test("xAI says what an answer cost, encrypts reasoning unasked, takes sampling, has three shapes of errors", async () => {
    await using host = await startResponsesHost({ flavour: "xai", apiKey: "xai-key" });
    const grok = client(host, "xai-key");
    host.play({ ...PARALLEL, usage: { inputTokens: 100, outputTokens: 10, costUsdTicks: 42 } });
    const answer = await grok.responses.create({ model: "grok-4.7", input: "x", temperature: 0.7 });
    assert.ok(answer.usage !== undefined && "cost_in_usd_ticks" in answer.usage);
    assert.equal(answer.usage.cost_in_usd_ticks, 42);
    const [reasoning] = answer.output;
    assert.ok(reasoning?.type === "reasoning" && reasoning.encrypted_content);
    const shapes = [
      ["nested", '{"error":{"message":"no","type":"tokens","code":"rate_limit_exceeded"}}'],
      ["code-and-text", '{"code":"Some resource has been exhausted","error":"no"}'],
      ["text", '{"error":"no"}'],
    ] as const;
    for (const [shape, expected] of shapes) {
      host.playOnce({ status: { code: 429, message: "no", shape } });
      const body = { model: "grok-4.7", input: "x" };
      const { bytes } = await rawPost(host.port, "/v1/responses", body, { authorization: "Bearer xai-key" });
      assert.ok(bytes.toString().endsWith(expected), bytes.toString());
    }
    await assert.rejects(client(host, "wrong").models.list(), OpenAI.BadRequestError);
    const prices: unknown = await grok.get("/language-models");
    assert.match(JSON.stringify(prices), /"id":"grok-4\.7".*"prompt_text_token_price":20000/);
    assert.deepEqual(host.violations, []);
  });
});

describe("faults", () => {
  test("statuses become the client's error classes, with codes and retry-after", async () => {
    await using host = await startResponsesHost();
    const cases: readonly (readonly [NonNullable<CloudScript["status"]>, ErrorKind, string | null | undefined])[] = [
      [
        { code: 400, errorCode: "context_length_exceeded", message: "too long" },
        OpenAI.BadRequestError,
        "context_length_exceeded",
      ],
      [{ code: 403 }, OpenAI.PermissionDeniedError, "unsupported_country_region_territory"],
      [{ code: 429, retryAfterS: 7 }, OpenAI.RateLimitError, "rate_limit_exceeded"],
      [
        { code: 429, type: "insufficient_quota", errorCode: "insufficient_quota" },
        OpenAI.RateLimitError,
        "insufficient_quota",
      ],
      [{ code: 503 }, OpenAI.InternalServerError, "server_is_overloaded"],
      [{ code: 502, body: "html" }, OpenAI.InternalServerError, undefined],
      [{ code: 413, body: "empty" }, OpenAI.APIError, undefined],
    ];
    for (const [status, kind, code] of cases) {
      host.playOnce({ status });
      const error: unknown = await ask(host).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof kind, JSON.stringify(status));
      assert.ok(error instanceof OpenAI.APIError);
      assert.deepEqual([error.status, error.code], [status.code, code]);
      if (status.retryAfterS !== undefined) assert.equal(error.headers?.get("retry-after"), "7");
      assert.match(error.requestID ?? "", /^req_fake_/);
    }
    assert.deepEqual(host.refusals, []);
  });

  test("an error event or a failed response follows what was sent before it", async () => {
    await using host = await startResponsesHost();
    const error = { errorCode: "server_is_overloaded", message: "busy" };
    const script = textScript("a", "b", "c");
    host.play({ ...script, fault: { kind: "error-in-band", afterTokens: 2, error } });
    await assert.rejects(events(host), /busy/);
    assert.equal(host.requests[0]?.tokensSent, 2);
    assert.equal(host.requests[0]?.state, "faulted");
    const body = { model: MODEL, input: "x", stream: true };
    const text = (await rawPost(host.port, "/v1/responses", body)).bytes.toString();
    assert.match(
      text,
      /event: error\ndata: \{"type":"error","code":"server_is_overloaded","message":"busy","param":null,"sequence_number":6\}/,
    );
    assert.doesNotMatch(text, /response\.completed/);
    host.play({ ...script, fault: { kind: "error-in-band", afterTokens: 2, error, as: "failed" } });
    const failed = (await events(host)).at(-1);
    assert.ok(failed?.type === "response.failed");
    assert.deepEqual(
      [failed.response.status, failed.response.error?.code, failed.sequence_number],
      ["failed", "server_is_overloaded", 6],
    );
    assert.equal((await ask(host)).status, "failed");
  });

  test("each cut sends exactly what it says and ends as it says; a faulted answer is not stored", async () => {
    await using host = await startResponsesHost();
    const body = { model: MODEL, input: "x", stream: true };
    for (const how of ["reset", "close", "clean"] as const) {
      for (const where of ["between-frames", "mid-frame", "mid-utf8"] as const) {
        host.play({ ...textScript("a1", "b2", "ü3"), fault: { kind: "cut", afterTokens: 2, where, how } });
        const { bytes, isReset } = await rawPost(host.port, "/v1/responses", body);
        const name = `${how} ${where}`;
        assert.equal(isReset, how === "reset", name);
        assert.equal(bytes.subarray(-5).equals(Buffer.from("0\r\n\r\n")), how === "clean", name);
        assert.ok(bytes.includes('"delta":"b2"') && !bytes.includes("ü"), name);
        assert.equal(bytes.includes(0xc3), where === "mid-utf8", name);
      }
    }
    await assert.rejects(client(host).responses.retrieve("resp_fake_1"), OpenAI.NotFoundError);
    host.play({ ...textScript("one", "two"), fault: { kind: "invalid-utf8", afterTokens: 1 } });
    const { bytes } = await rawPost(host.port, "/v1/responses", body);
    assert.equal(bytes.subarray(bytes.indexOf(0xff) + 1, bytes.indexOf(0xff) + 3).toString(), "wo");
    assert.deepEqual(host.violations, []);
  });
});
