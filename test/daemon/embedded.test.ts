/** The embedded engine through the daemon's HTTP front: the real child process, the weights that come along, and the official client. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";
import { z } from "zod";
import { startTestDaemon, type TestDaemon } from "../support/daemon.ts";
import { CODE, SOURCE } from "../support/embedded.ts";
import { call, errorOf, sse, textOf } from "../support/http.ts";

const model = "embedded/tiny-code-fim";
const NOTE = /demonstration weights.*cannot chat/;
/** The model goes on with such a list for as long as it may. */
const ENDLESS = Array.from({ length: 8 }, (_, n) => `const value${n} = ${n};\n`).join("");
const soon = () => AbortSignal.timeout(30_000);

let daemon: TestDaemon;
let client: OpenAI;
before(async () => {
  daemon = await startTestDaemon();
  client = new OpenAI({ baseURL: `${daemon.http}/v1`, apiKey: daemon.modelKey, maxRetries: 0 });
});
after(() => daemon[Symbol.asyncDispose]());

const messages = [{ role: "user" as const, content: "const a = " }];

test("nothing runs before the first request; afterwards the engine is a child of the daemon", async () => {
  using face = await daemon.connect();
  assert.equal((await face.api.daemon.status({}, soon())).engine.state, "idle");
  await client.completions.create({ model, prompt: CODE, max_tokens: 2 });
  const { engine } = await face.api.daemon.status({}, soon());
  assert.equal(engine.state, "ready");
  const parent = /^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${engine.pid}/status`, "utf8"))?.[1];
  assert.equal(Number(parent), daemon.pid);
});

test("a chat streams piece by piece, and says the same as one that is asked whole", async () => {
  const options = { model, messages, max_tokens: 24, temperature: 0, seed: 7 };
  const chunks: OpenAI.ChatCompletionChunk[] = [];
  const stream = await client.chat.completions.create({
    ...options,
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of stream) chunks.push(chunk);
  const pieces = chunks.flatMap(({ choices }) => choices[0]?.delta.content ?? []).filter((piece) => piece !== "");
  assert.ok(pieces.length > 2, JSON.stringify(pieces));
  assert.equal(chunks[0]?.choices[0]?.delta.role, "assistant");
  assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
  const whole = await client.chat.completions.create(options);
  assert.equal(whole.choices[0]?.message.content, pieces.join(""));
  const reasons = chunks.flatMap(({ choices }) => choices[0]?.finish_reason ?? []);
  assert.deepEqual(reasons, [whole.choices[0]?.finish_reason]);
  const usage = chunks.at(-1)?.usage;
  assert.deepEqual(
    [usage?.prompt_tokens, usage?.completion_tokens],
    [whole.usage?.prompt_tokens, whole.usage?.completion_tokens],
  );
});

test("usage is counted in tokens and agrees with what was asked", async () => {
  const { usage, choices } = await client.completions.create({ model, prompt: ENDLESS, max_tokens: 9, temperature: 0 });
  assert.ok(usage !== undefined && usage.prompt_tokens > 30);
  assert.deepEqual([usage.completion_tokens, choices[0]?.finish_reason], [9, "length"]);
  assert.equal(usage.total_tokens, usage.prompt_tokens + 9);
});

test("max_tokens is 16 where a completion does not say, and a stop string ends it before itself", async () => {
  const unlimited = await client.completions.create({ model, prompt: ENDLESS, temperature: 0 });
  assert.equal(unlimited.usage?.completion_tokens, 16);
  const stopped = await client.completions.create({
    model,
    prompt: ENDLESS,
    temperature: 0,
    stop: [";"],
    max_tokens: 64,
  });
  assert.deepEqual([stopped.choices[0]?.finish_reason, stopped.choices[0]?.text.includes(";")], ["stop", false]);
});

test("a suffix is part of the prompt, and what is filled in before it depends on it", async () => {
  const complete = async (suffix: string) => {
    const options = { model, prompt: "const list = [", suffix, max_tokens: 16, temperature: 0 };
    const { choices, usage } = await client.completions.create(options);
    return { text: choices[0]?.text, promptTokens: usage?.prompt_tokens ?? 0 };
  };
  const answers = await Promise.all(["", "];\n", " }, { name: 'b' }];\n"].map(complete));
  assert.equal(new Set(answers.map(({ text }) => text)).size > 1, true, JSON.stringify(answers));
  assert.deepEqual(
    answers,
    answers.toSorted((a, b) => a.promptTokens - b.promptTokens),
  );
});

test("a completion streams, and ends with [DONE]", async () => {
  const body = { model, prompt: ENDLESS, max_tokens: 24, temperature: 0, stream: true };
  const { text } = await call(daemon, "/v1/completions", { body });
  const { chunks, isDone } = sse(text);
  const whole = await client.completions.create({ model, prompt: ENDLESS, max_tokens: 24, temperature: 0 });
  assert.deepEqual([textOf(chunks), isDone], [whole.choices[0]?.text, true]);
  assert.ok(chunks.every((chunk) => chunk["object"] === "text_completion"));
});

test("embeddings come as numbers or as base64, one for each text, and mean the same", async () => {
  const input = ["const a = 1;", "const b = 2;", "class Tree {}"];
  const numbers = await client.embeddings.create({ model, input, encoding_format: "float" });
  const packed = await client.embeddings.create({ model, input, encoding_format: "base64" });
  assert.deepEqual(
    numbers.data.map(({ index }) => index),
    [0, 1, 2],
  );
  assert.ok(numbers.usage.prompt_tokens > 3);
  const length = numbers.data[0]?.embedding.length ?? 0;
  assert.ok(length > 8);
  for (const [index, { embedding }] of numbers.data.entries()) {
    assert.equal(embedding.length, length);
    const base64 = z.string().parse(packed.data[index]?.embedding);
    const bytes = Buffer.from(base64, "base64");
    const floats = Array.from({ length }, (_, at) => bytes.readFloatLE(at * 4));
    assert.deepEqual(floats, embedding.map(Math.fround));
  }
  // The official client asks for base64 by itself and unpacks it.
  const unpacked = await client.embeddings.create({ model, input });
  assert.deepEqual(unpacked.data[0]?.embedding.map(Math.fround), numbers.data[0]?.embedding.map(Math.fround));
  const alike = cosine(numbers.data[0]?.embedding, numbers.data[1]?.embedding);
  const apart = cosine(numbers.data[0]?.embedding, numbers.data[2]?.embedding);
  assert.ok(alike > apart, `${alike} is not more than ${apart}`);
});

function cosine(a: readonly number[] = [], b: readonly number[] = []): number {
  const dot = (left: readonly number[], right: readonly number[]) =>
    left.reduce((sum, value, at) => sum + value * (right[at] ?? 0), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

const SHAPE = z.strictObject({ ok: z.boolean(), kind: z.enum(["file", "folder"]), flags: z.array(z.boolean()).max(2) });

test("under a JSON schema the answer is JSON of that schema, whatever the model would rather say", async () => {
  const { $schema: _unused, ...schema } = z.toJSONSchema(SHAPE);
  for (let seed = 0; seed < 4; seed += 1) {
    const answer = await client.chat.completions.create({
      model,
      messages,
      max_tokens: 200,
      seed,
      temperature: 1,
      response_format: { type: "json_schema", json_schema: { name: "entry", strict: true, schema } },
    });
    assert.equal(answer.choices[0]?.finish_reason, "stop");
    SHAPE.parse(JSON.parse(answer.choices[0]?.message.content ?? ""));
  }
});

test("a schema that the engine cannot hold to is refused by name, not ignored", async () => {
  const schema = {
    type: "object",
    properties: { a: { type: "string", pattern: "^x" } },
    required: ["a"],
    additionalProperties: false,
  };
  const body = { model, messages, response_format: { type: "json_schema", json_schema: { name: "x", schema } } };
  const reply = await call(daemon, "/v1/chat/completions", { body });
  assert.equal(reply.status, 400, reply.text);
  assert.match(errorOf(reply).message, /pattern/);
});

const LONG: readonly [name: string, path: string, body: object][] = [
  ["completion", "/v1/completions", { prompt: SOURCE }],
  ["streamed completion", "/v1/completions", { prompt: SOURCE, stream: true }],
  ["chat", "/v1/chat/completions", { messages: [{ role: "user", content: SOURCE }] }],
  ["list of texts to embed", "/v1/embeddings", { input: ["short", SOURCE] }],
  ["completion of a hundred thousand characters", "/v1/completions", { prompt: "x".repeat(100_000) }],
];
for (const [name, path, body] of LONG) {
  test(`an over-long ${name} is context_length_exceeded, with the numbers`, async () => {
    const reply = await call(daemon, path, { body: { model, ...body } });
    const error = errorOf(reply);
    assert.deepEqual([reply.status, error.code], [400, "context_length_exceeded"], reply.text);
    assert.match(error.message, /\b512\b/);
    assert.ok((error.message.match(/\d+/g) ?? []).length >= 2, error.message);
  });
}

test("an answer that fills the window ends there, with the reason", async () => {
  const { choices, usage } = await client.completions.create({
    model,
    prompt: "const a =",
    max_tokens: 600,
    temperature: 0,
  });
  assert.equal(choices[0]?.finish_reason, "length");
  assert.ok((usage?.total_tokens ?? 0) <= 512 && (usage?.completion_tokens ?? 0) > 100, JSON.stringify(usage));
});

test("tools are refused: the model cannot call any", async () => {
  const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }];
  const reply = await call(daemon, "/v1/chat/completions", { body: { model, messages, tools } });
  assert.deepEqual([reply.status, errorOf(reply).code], [400, "capability_missing"]);
});

test("every answer says that these weights only demonstrate", async () => {
  for (const stream of [true, false]) {
    for (const [path, body] of [
      ["/v1/chat/completions", { messages }],
      ["/v1/completions", { prompt: CODE }],
    ] as const) {
      const reply = await call(daemon, path, { body: { model, ...body, stream, max_tokens: 2 } });
      assert.match(reply.headers.get("x-ghost-note") ?? "", NOTE, path);
      assert.equal(reply.headers.get("x-ghost-model"), model);
    }
  }
  using face = await daemon.connect();
  const { models } = await face.api.model.list({}, soon());
  assert.match(models.find(({ ref }) => ref === model)?.note ?? "", NOTE);
});

test("clients that leave free the engine: it stops computing, and the same process answers the next request", async () => {
  using face = await daemon.connect();
  const state = async () => (await face.api.daemon.status({}, soon())).engine;
  const { pid = 0 } = await state();
  const body = { model, prompt: ENDLESS, max_tokens: 400, temperature: 0 };
  // What one of them costs when nobody leaves, in processor time: that of a busy machine as well.
  const start = processorTicks(pid);
  await client.completions.create(body);
  const ticksOfOne = processorTicks(pid) - start;

  const leave = new AbortController();
  const began = Array.from({ length: 12 }, () => Promise.withResolvers<void>());
  const streams = began.map(async ({ resolve }) => {
    try {
      const stream = await client.completions.create({ ...body, stream: true }, { signal: leave.signal });
      for await (const _chunk of stream) resolve();
    } catch {
      // Its own abort.
    }
  });
  // Some stream, the others wait in line.
  await Promise.race(began.map(({ promise }) => promise));
  const left = processorTicks(pid);
  leave.abort();
  await Promise.all(streams);
  await client.completions.create({ model, prompt: CODE, max_tokens: 2 });
  const ticks = processorTicks(pid) - left;
  assert.ok(ticks < ticksOfOne, `${ticks} ticks after the last client had left; one answer takes ${ticksOfOne}`);
  assert.deepEqual(await state(), { state: "ready", pid });
  for (const limit = soon(); (await face.api.daemon.status({}, soon())).openAnswers > 0; await sleep(10))
    limit.throwIfAborted();
});

/** The processor time that a process has used, of all its threads. */
function processorTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return Number(fields[11]) + Number(fields[12]);
}
