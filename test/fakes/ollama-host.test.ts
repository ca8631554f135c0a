/** The fake host is checked through Ollama's own client, and where that hides what happens, by raw requests. */
import assert from "node:assert/strict";
import { request as rawRequest } from "node:http";
import { test } from "node:test";
import { clean, errorOf, GIB, post, start, user } from "./ollama-test-kit.ts";

test("a chat streams chunk by chunk and ends with counts and durations", async (context) => {
  const { host, client } = await start(context, { models: [{ name: "llama3", answer: () => "one two three" }] });
  const chunks = [];
  for await (const chunk of await client.chat({ model: "llama3", messages: user("hi"), stream: true }))
    chunks.push(chunk);
  assert.deepEqual(
    chunks.map((chunk) => chunk.message.content),
    ["one", " two", " three", ""],
  );
  const last = chunks.at(-1);
  assert.equal(last?.done, true);
  assert.equal(last?.done_reason, "stop");
  assert.equal(last?.eval_count, 3);
  assert.ok((last?.load_duration ?? 0) >= 900_000_000, "a load of 1 s is about 10^9 ns");
  assert.ok((last?.total_duration ?? 0) >= (last?.load_duration ?? 0));
  clean(host);
});

test("an answer that is not streamed is one object with the same text", async (context) => {
  const { host, client } = await start(context, { models: [{ name: "llama3", answer: () => "one two" }] });
  const chat = await client.chat({ model: "llama3", messages: user("hi") });
  assert.equal(chat.message.content, "one two");
  const generated = await client.generate({ model: "llama3", prompt: "hi" });
  assert.equal(generated.response, "one two");
  assert.ok(generated.context.length > 0);
  const raw = await client.generate({ model: "llama3", prompt: "hi", raw: true });
  assert.equal(raw.context, undefined);
  clean(host);
});

test("the same request gets the same answer", async (context) => {
  const { client } = await start(context, { models: [{ name: "llama3" }] });
  const ask = async (text: string) => (await client.generate({ model: "llama3", prompt: text })).response;
  assert.equal(await ask("a"), await ask("a"));
  assert.notEqual(await ask("a"), await ask("b"));
});

test("stop strings and num_predict end an answer with the right reason", async (context) => {
  const { client } = await start(context, { models: [{ name: "llama3", answer: () => "one two STOP three" }] });
  const stopped = await client.generate({ model: "llama3", prompt: "x", options: { stop: ["STOP"] } });
  assert.deepEqual([stopped.response, stopped.done_reason], ["one two ", "stop"]);
  const cut = await client.generate({ model: "llama3", prompt: "x", options: { num_predict: 1 } });
  assert.deepEqual([cut.response, cut.done_reason, cut.eval_count], ["one", "length", 1]);
});

test("tags, show, ps and version tell what is there", async (context) => {
  const { host, client } = await start(context, {
    models: [
      {
        name: "coder",
        family: "qwen2",
        contextLength: 4096,
        sizeBytes: 5 * GIB,
        capabilities: ["completion", "insert"],
      },
    ],
  });
  const { models } = await client.list();
  assert.deepEqual(
    models.map((model) => [model.name, model.size]),
    [["coder:latest", 5 * GIB]],
  );
  const shown = await client.show({ model: "coder" });
  assert.deepEqual(shown.capabilities, ["completion", "insert"]);
  assert.deepEqual(Object.entries(shown.model_info).slice(0, 2), [
    ["general.architecture", "qwen2"],
    ["qwen2.context_length", 4096],
  ]);
  assert.deepEqual((await client.ps()).models, []);
  await client.generate({ model: "coder", prompt: "", options: { num_ctx: 2048 } });
  const [running] = (await client.ps()).models;
  assert.equal(running?.name, "coder:latest");
  assert.equal(running?.size_vram, running?.size);
  assert.equal(Reflect.get(running ?? {}, "context_length"), 2048);
  assert.ok(Date.parse(String(running?.expires_at)) > Date.now());
  assert.match((await client.version()).version, /^\d/);
  const root = await fetch(host.url);
  assert.equal(await root.text(), "Ollama is running");
  assert.equal((await fetch(host.url, { method: "HEAD" })).status, 200);
  clean(host);
});

test("a model that does not fit spills, and ps shows it", async (context) => {
  const { client } = await start(context, { vramBytes: 8 * GIB, models: [{ name: "big", sizeBytes: 20 * GIB }] });
  await client.generate({ model: "big", prompt: "" });
  const [running] = (await client.ps()).models;
  assert.ok((running?.size_vram ?? 0) < (running?.size ?? 0));
});

test("embeddings are one vector a text, and loading needs no text", async (context) => {
  const { host, client } = await start(context, {
    models: [{ name: "embedder", capabilities: ["embedding"], embeddingLength: 5 }],
  });
  assert.deepEqual((await client.embed({ model: "embedder", input: "" })).embeddings, []);
  const { embeddings, prompt_eval_count: count } = await client.embed({ model: "embedder", input: ["a b", "c"] });
  assert.deepEqual(
    embeddings.map((vector) => vector.length),
    [5, 5],
  );
  assert.notDeepEqual(embeddings[0], embeddings[1]);
  assert.equal(count, 3);
  clean(host);
});

for (const toolStyle of ["chunk", "final"] as const) {
  test(`tool calls come whole, in the ${toolStyle === "chunk" ? "chunk before the last" : "last line"}`, async (context) => {
    const { client } = await start(context, {
      models: [
        {
          name: "agent",
          toolStyle,
          capabilities: ["completion", "tools"],
          answer: () => ({ toolCalls: [{ name: "read", arguments: { path: "a" } }] }),
        },
      ],
    });
    const tools = [
      { type: "function", function: { name: "read", description: "", parameters: { type: "object", properties: {} } } },
    ];
    const chunks = [];
    for await (const chunk of await client.chat({ model: "agent", messages: user("go"), tools, stream: true }))
      chunks.push(chunk);
    const at = chunks.findIndex((chunk) => chunk.message.tool_calls !== undefined);
    assert.equal(chunks[at]?.done, toolStyle === "final");
    assert.deepEqual(chunks[at]?.message.tool_calls?.[0]?.function, {
      index: 0,
      name: "read",
      arguments: { path: "a" },
    });
    assert.equal(chunks.at(-1)?.done_reason, "stop");
  });
}

test("a thinking model thinks unless it is told not to", async (context) => {
  const { client } = await start(context, {
    models: [
      {
        name: "thinker",
        capabilities: ["completion", "thinking"],
        answer: () => ({ thinking: "let me see", text: "42" }),
      },
      { name: "plain" },
    ],
  });
  const absent = await client.chat({ model: "thinker", messages: user("?") });
  assert.deepEqual([absent.message.thinking, absent.message.content], ["let me see", "42"]);
  const off = await client.chat({ model: "thinker", messages: user("?"), think: false });
  assert.equal(off.message.thinking, undefined);
  await assert.rejects(client.chat({ model: "plain", messages: user("?"), think: true }), /does not support thinking/);
});

test("a format is kept to", async (context) => {
  const { client } = await start(context, { models: [{ name: "llama3" }] });
  const schema = {
    type: "object",
    properties: { name: { type: "string" }, tags: { type: "array", items: { type: "integer" } } },
  };
  assert.deepEqual(
    JSON.parse((await client.chat({ model: "llama3", messages: user("x"), format: schema })).message.content),
    { name: "text", tags: [1] },
  );
  JSON.parse((await client.chat({ model: "llama3", messages: user("x"), format: "json" })).message.content);
});

const refusals: readonly [name: string, path: string, body: unknown, status: number, error: RegExp][] = [
  ["a body that is not JSON", "/api/chat", "{", 400, /invalid/],
  [
    "content in parts",
    "/api/chat",
    { model: "llama3", messages: [{ role: "user", content: [{ type: "text" }] }] },
    400,
    /cannot unmarshal array/,
  ],
  [
    "a model that is not there, in a chat",
    "/api/chat",
    { model: "no", messages: user("x") },
    404,
    /^model 'no' not found$/,
  ],
  [
    "a model that is not there, in an embedding",
    "/api/embed",
    { model: "no", input: "x" },
    404,
    /^model "no" not found, try pulling it first$/,
  ],
  [
    "chat with an embedding model",
    "/api/chat",
    { model: "embedder", messages: user("x") },
    400,
    /"embedder" does not support chat/,
  ],
  [
    "a suffix without insert",
    "/api/generate",
    { model: "llama3", prompt: "a", suffix: "b" },
    400,
    /does not support insert/,
  ],
  [
    "tools without the capability",
    "/api/chat",
    { model: "llama3", messages: user("x"), tools: [{}] },
    400,
    /does not support tools/,
  ],
  [
    "raw with a system prompt",
    "/api/generate",
    { model: "llama3", prompt: "a", raw: true, system: "s" },
    400,
    /raw mode/,
  ],
  [
    "an option of the wrong type",
    "/api/generate",
    { model: "llama3", prompt: "a", options: { num_ctx: "1" } },
    500,
    /must be of type integer/,
  ],
  [
    "stop as a string",
    "/api/generate",
    { model: "llama3", prompt: "a", options: { stop: "x" } },
    500,
    /must be of type array/,
  ],
  [
    "keep_alive as a bare number in a string",
    "/api/generate",
    { model: "llama3", prompt: "a", keep_alive: "10" },
    400,
    /missing unit/,
  ],
  [
    "keep_alive as nonsense",
    "/api/generate",
    { model: "llama3", prompt: "a", keep_alive: "soon" },
    400,
    /invalid duration/,
  ],
  [
    "arguments of a call as text",
    "/api/chat",
    {
      model: "llama3",
      messages: [{ role: "assistant", content: "", tool_calls: [{ function: { name: "f", arguments: "{}" } }] }],
    },
    400,
    /cannot unmarshal string/,
  ],
  [
    "a prompt too long that may not be cut",
    "/api/generate",
    { model: "llama3", prompt: "a ".repeat(100), truncate: false, options: { num_ctx: 64 } },
    400,
    /exceeds the available context size/,
  ],
];
for (const [name, path, body, status, error] of refusals) {
  test(`${name} is refused with ${status}`, async (context) => {
    const { host } = await start(context, {
      models: [{ name: "llama3" }, { name: "embedder", capabilities: ["embedding"] }],
    });
    const answer = await post(host, path, body);
    assert.equal(answer.status, status, answer.text);
    assert.match(errorOf(answer), error);
    clean(host);
  });
}

test("what is not modelled fails loudly and is written down", async (context) => {
  const { host } = await start(context, { models: [{ name: "llama3" }] });
  assert.equal((await post(host, "/api/pull", { model: "x" })).status, 501);
  assert.equal((await post(host, "/api/chat", { model: "llama3", messages: user("x"), logprobs: true })).status, 501);
  await post(host, "/api/generate", { model: "llama3", prompt: "a", options: { numctx: 1 } });
  assert.equal(host.violations.length, 3);
});

test("a foreign Host header gets an empty 403", async (context) => {
  const { host } = await start(context, { models: [] });
  const status = (name: string) =>
    new Promise<[number | undefined, string]>((resolve, reject) => {
      const sent = rawRequest(`${host.url}/api/version`, { headers: { host: name } }, (response) => {
        let body = "";
        response.on("data", (chunk) => {
          body += String(chunk);
        });
        response.on("end", () => resolve([response.statusCode, body]));
      });
      sent.on("error", reject);
      sent.end();
    });
  assert.deepEqual(await status("evil.example.com"), [403, ""]);
  for (const name of ["localhost:1", "127.0.0.1", "[::1]:5", "ws.local", "x.internal", "192.168.1.9"])
    assert.equal((await status(name))[0], 200, name);
});

test("a prompt too long is cut without a word unless truncate is false", async (context) => {
  const { host, client } = await start(context, { models: [{ name: "llama3" }] });
  const answer = await client.generate({ model: "llama3", prompt: "a ".repeat(100), options: { num_ctx: 64 } });
  assert.equal(answer.prompt_eval_count, 64);
  assert.equal(host.count("truncated"), 1);
});

test("an error in mid-answer is a last line under status 200", async (context) => {
  const { host, client } = await start(context, { models: [{ name: "a" }] });
  host.inject({ kind: "errorLine", afterTokens: 2, text: "CUDA error" });
  const answer = await post(host, "/api/chat", { model: "a", messages: user("x") });
  assert.equal(answer.status, 200);
  const lines = answer.text.trim().split("\n");
  assert.equal(lines.length, 3);
  assert.deepEqual(JSON.parse(lines[2] ?? ""), { error: "CUDA error" });
  host.inject({ kind: "errorLine", afterTokens: 0, text: "CUDA error" });
  const stream = await client.chat({ model: "a", messages: user("x"), stream: true });
  await assert.rejects(async () => {
    for await (const _chunk of stream);
  }, /CUDA error/);
});

test("an end without done, and the silent end of a model that repeats itself", async (context) => {
  const { host, client } = await start(context, {
    models: [{ name: "a" }, { name: "loop", answer: () => "na ".repeat(100) }],
  });
  host.inject({ kind: "end", afterTokens: 1 });
  for (const model of ["a", "loop"]) {
    const stream = await client.chat({ model, messages: user("x"), stream: true });
    await assert.rejects(async () => {
      for await (const _chunk of stream);
    }, /Did not receive done/);
  }
});

test("a runner that dies while it loads is a 500, and the next request loads again", async (context) => {
  const { host, client } = await start(context, { models: [{ name: "a" }] });
  host.inject({ kind: "dieWhileLoading" });
  const failed = await post(host, "/api/generate", { model: "a", prompt: "x" });
  assert.equal(failed.status, 500);
  assert.match(errorOf(failed), /llama runner process has terminated/);
  assert.equal((await client.generate({ model: "a", prompt: "x" })).done, true);
});

test("a proxy's page, a hang and chopped bytes can be injected", async (context) => {
  const { host, client } = await start(context, { models: [{ name: "a", answer: () => "grüße 東京" }] });
  host.inject({ kind: "html", status: 502, on: "chat" });
  const page = await post(host, "/api/chat", { model: "a", messages: user("x") });
  assert.equal(page.status, 502);
  assert.match(page.text, /^<html>/);
  host.inject({ kind: "silent", on: "tags" });
  await assert.rejects(fetch(`${host.url}/api/tags`, { signal: AbortSignal.timeout(50) }));
  host.inject({ kind: "chop", pieceBytes: 1 });
  let text = "";
  for await (const chunk of await client.chat({ model: "a", messages: user("x"), stream: true }))
    text += chunk.message.content;
  assert.equal(text, "grüße 東京");
  clean(host);
});
