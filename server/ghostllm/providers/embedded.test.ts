/** What the embedded engine answers. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import {
  CODE,
  chat,
  code,
  completeWith,
  completion,
  MODELS,
  never,
  type Overrides,
  read,
  SOURCE,
  says,
  until,
  world,
} from "../../../test/support/embedded.ts";
import { testFolder } from "../../../test/support/folder.ts";
import type { CompletionRequest, Message } from "../stream.ts";

/** Most tests share one engine: each start costs a second on a busy machine. */
const shared = await world();
after(() => shared[Symbol.asyncDispose]());

const complete = (prefix: string, overrides: Overrides<CompletionRequest> = {}) =>
  completeWith(shared, prefix, overrides);

test("greedy answers are the same each time, and counts are the tokens' own", async () => {
  const first = await complete(CODE);
  assert.ok(first.text.length > 10, first.text);
  assert.equal(first.reason, "length");
  assert.equal(first.usage.completionTokens, 24);
  for (let run = 0; run < 2; run += 1) {
    const again = await complete(CODE);
    assert.equal(again.text, first.text);
    assert.equal(again.usage.promptTokens, first.usage.promptTokens);
  }
  assert.equal(shared.provider.engineState().state, "ready");
});

test("an answer arrives while it is being written", async () => {
  const { provider, model } = shared;
  const attempt = await provider.complete(completion(CODE, { output: { maxTokens: 450 } }), model, never);
  const lengths: number[] = [];
  for await (const frame of attempt.frames) {
    for (const event of frame.events()) if (event.kind === "text") lengths.push(event.text.length);
  }
  const total = lengths.reduce((sum, length) => sum + length, 0);
  assert.ok((lengths[0] ?? total) < total / 2, lengths.join(" "));
});

test("sampling obeys its seed", async () => {
  const sampled = (seed: number) => complete(CODE, { sampling: { temperature: 1.2, seed } });
  assert.equal((await sampled(7)).text, (await sampled(7)).text);
  const others = await Promise.all([1, 2, 3, 4].map(async (seed) => (await sampled(seed)).text));
  assert.ok(new Set(others).size > 1, others.join("\n"));
});

test("prompt tokens are those of the library's own tokeniser and the beginning token", async () => {
  const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
  const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1 });
  const model = await llama.loadModel({ modelPath: `${MODELS}/tiny-code-fim.gguf`, vocabOnly: true });
  const [plain, infill] = [
    model.tokenize(SOURCE.slice(0, 600)).length,
    model.tokenize(CODE).length + model.tokenize(";\n}\n").length,
  ];
  await llama.dispose();
  assert.equal((await complete(SOURCE.slice(0, 600))).usage.promptTokens, plain + 1);
  // Beginning, suffix and prefix tokens.
  assert.equal((await complete(CODE, { suffix: ";\n}\n" })).usage.promptTokens, infill + 3);
});

test("an answer that is continued from its cut goes on as the uncut one", async () => {
  const whole = (await complete(CODE, { output: { maxTokens: 48 } })).text;
  for (const cutAt of [1, 9, 25]) {
    const partial = (await complete(CODE, { output: { maxTokens: cutAt } })).text;
    const rest = (await complete(CODE + partial, { output: { maxTokens: 48 - cutAt } })).text;
    assert.equal(partial + rest, whole, `cut after ${cutAt} tokens`);
  }
});

test("a chat goes through the template, and an assistant's last message is continued", async () => {
  const { provider, model } = shared;
  const conversation = [says("system", "Short."), says("user", "write a function add")];
  const whole = await read(await provider.chat(chat(conversation), model, never));
  assert.ok(whole.text.length > 5, whole.text);
  const partial = (await read(await provider.chat(chat(conversation, { output: { maxTokens: 9 } }), model, never)))
    .text;
  const rest = await read(
    await provider.chat(
      chat([...conversation, says("assistant", partial)], { output: { maxTokens: 15 } }),
      model,
      never,
    ),
  );
  assert.equal(partial + rest.text, whole.text);
});

test("what a user writes cannot open another role", async () => {
  const { provider, model } = shared;
  const count = async (text: string) =>
    (await read(await provider.chat(chat([says("user", text)]), model, never))).usage.promptTokens ?? 0;
  // As special tokens these would be 2; as the text that they are, they need many.
  assert.ok((await count("<|im_end|><|im_start|>")) - (await count("")) > 8);
});

test("infill uses the text after the cursor", async () => {
  const withSuffix = await complete(CODE, { suffix: ";\n}\n" });
  const without = await complete(CODE);
  assert.notEqual(withSuffix.usage.promptTokens, without.usage.promptTokens);
  assert.equal(withSuffix.reason, "length");
});

test("stop strings cut exactly, also across tokens", async () => {
  const whole = (await complete(CODE, { output: { maxTokens: 48 } })).text;
  for (const stop of ["\n", "}\n\nexp", "add(a", whole.slice(20, 33)]) {
    const stopped = await complete(CODE, { output: { maxTokens: 48, stop: [stop] } });
    assert.equal(stopped.text, whole.slice(0, whole.indexOf(stop)), JSON.stringify(stop));
    assert.equal(stopped.reason, "stop");
  }
  const held = await complete(CODE, { output: { maxTokens: 48, stop: [`${whole.slice(-4)}§`] } });
  assert.equal(held.text, whole);
});

test("a prompt with the same beginning is not read again", async () => {
  await using w = await world();
  const text = SOURCE.slice(0, 900);
  const cold = await completeWith(w, text, { output: { maxTokens: 4 } });
  assert.equal(cold.usage.cachedTokens, 0);
  const longer = await completeWith(w, `${text}${cold.text}`, { output: { maxTokens: 4 } });
  assert.ok((longer.usage.cachedTokens ?? 0) >= (cold.usage.promptTokens ?? 0), JSON.stringify(longer.usage));
  // Another conversation takes another sequence, so that the first one is still remembered.
  assert.equal(
    (await completeWith(w, "class Other {\n  private readonly things = new Map();\n")).usage.cachedTokens,
    0,
  );
  const back = await completeWith(w, text, { output: { maxTokens: 4 } });
  assert.equal(back.usage.cachedTokens, (back.usage.promptTokens ?? 0) - 1);
  assert.equal(back.text, cold.text);
});

test("an over-long prompt is refused with its numbers; trimming drops whole lines from the far ends", async () => {
  const long = `${SOURCE}${SOURCE}`;
  await assert.rejects(complete(long), code("context_too_long", /the prompt has \d+ tokens.*window has 512/));
  await assert.rejects(complete("x = 1;\n".repeat(20_000)), code("context_too_long", /140000 characters/));
  const conversation = [says("user", long)];
  await assert.rejects(shared.provider.chat(chat(conversation), shared.model, never), code("context_too_long", /512/));
  for (const suffix of ["", SOURCE]) {
    const trimmed = await complete(long, { suffix, overflow: "trim" });
    assert.ok(trimmed.trimmedCharacters > 0 && (trimmed.usage.promptTokens ?? 0) > 300, JSON.stringify(trimmed));
    assert.ok((trimmed.usage.promptTokens ?? 0) + 24 <= 512);
    assert.ok((trimmed.usage.completionTokens ?? 0) > 0);
  }
  const fits = await complete(CODE, { overflow: "trim" });
  assert.equal(fits.trimmedCharacters, 0);
  // What is left is the end of the prefix: the same as asking with it alone.
  const megabytes = await complete("x = 1;\n".repeat(600_000), { overflow: "trim", output: { maxTokens: 4 } });
  assert.ok(megabytes.trimmedCharacters > 4_000_000 && (megabytes.usage.promptTokens ?? 0) > 300);
});

test("an answer ends with length where the window is full, and not before", async () => {
  // Greedy, this one repeats itself for ever.
  const answer = await complete(CODE, { output: { maxTokens: 100_000 } });
  assert.equal(answer.reason, "length");
  assert.equal((answer.usage.promptTokens ?? 0) + (answer.usage.completionTokens ?? 0), 512);
});

test("a schema holds the answer, json mode gives JSON", async () => {
  const { provider, model } = shared;
  const schema = {
    type: "object",
    properties: { kind: { enum: ["bug", "feature"] }, urgent: { type: "boolean" }, count: { type: "integer" } },
    required: ["kind", "urgent", "count"],
  };
  for (const lane of ["chat", "background"] as const) {
    const output = { maxTokens: 200, format: { kind: "schema", name: "issue", schema } as const };
    const answer = await read(await provider.chat(chat([says("user", "classify")], { lane, output }), model, never));
    assert.equal(answer.reason, "stop", answer.text);
    const value: unknown = JSON.parse(answer.text);
    assert.ok(typeof value === "object" && value !== null);
    assert.deepEqual(Object.keys(value).toSorted(), ["count", "kind", "urgent"]);
    assert.ok("kind" in value && (value.kind === "bug" || value.kind === "feature"));
    assert.ok("count" in value && Number.isInteger(value.count));
  }
  const json = await complete("const config = ", { output: { maxTokens: 400, format: { kind: "json" } } });
  assert.ok(json.text.startsWith("{"), json.text);
  if (json.reason === "stop") JSON.parse(json.text);
  await assert.rejects(
    complete(CODE, { output: { format: { kind: "schema", name: "x", schema: { type: "string", pattern: "a" } } } }),
    code("capability_missing", /pattern/),
  );
});

test("embeddings are unit vectors, the same each time, and over-long texts are refused", async () => {
  const { provider, model } = shared;
  const { vectors, promptTokens } = await provider.embed([CODE, "class A {}", CODE], model, never);
  assert.equal(vectors.length, 3);
  assert.ok(promptTokens !== undefined && promptTokens > 30);
  for (const vector of vectors) {
    assert.equal(vector.length, 192);
    assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-6);
  }
  assert.deepEqual(vectors[0], vectors[2]);
  assert.notDeepEqual(vectors[0], vectors[1]);
  await assert.rejects(provider.embed(["ok", SOURCE], model, never), code("context_too_long", /text 1/));
});

test("what the model cannot do is said", async () => {
  const { provider, model } = shared;
  const tool = { kind: "function" as const, name: "f", description: undefined, parameters: {} };
  await assert.rejects(
    provider.chat(chat([says("user", "x")], { tools: [tool] }), model, never),
    code("capability_missing", /tools/),
  );
  const image: Message = { role: "user", parts: [{ kind: "image", url: "data:image/png;base64,AA==" }] };
  await assert.rejects(provider.chat(chat([image]), model, never), code("capability_missing", /images/));
});

test("parallel answers are each what they are alone, and none waits for another's end", async () => {
  // Greedy, these repeat themselves for ever.
  const prompts = [1, 2, 3, 4].map((n) => `${CODE}/* ${n} */ `);
  const output = { maxTokens: 150 };
  const alone: string[] = [];
  for (const prompt of prompts) alone.push((await complete(prompt, { output })).text);
  const order: number[] = [];
  const together = await Promise.all(
    prompts.map(async (prompt, index) => {
      const attempt = await shared.provider.complete(completion(prompt, { output }), shared.model, never);
      let text = "";
      for await (const frame of attempt.frames) {
        for (const event of frame.events()) {
          if (event.kind !== "text") continue;
          order.push(index);
          text += event.text;
        }
      }
      return text;
    }),
  );
  assert.deepEqual(together, alone);
  // Each had said something before any had said all.
  const firstEnd = Math.min(...prompts.map((_, index) => order.lastIndexOf(index)));
  for (const index of prompts.keys()) assert.ok(order.indexOf(index) < firstEnd, order.join(""));
});

test("a completion does not wait for chats, even when they fill their places and every sequence remembers something", async () => {
  const { provider, model } = shared;
  const starts = [1, 2, 3, 4].map((n) => `const x${n} = compute(${n});\nfunction f${n}(`);
  await Promise.all(starts.map((start) => complete(start, { output: { maxTokens: 40 } })));
  // Greedy, these repeat themselves for ever. Three of the five answer at once.
  const begin = (n: number) =>
    provider.complete(completion(`${CODE}/* ${n} */ `, { lane: "chat", output: { maxTokens: 400 } }), model, never);
  const finished: string[] = [];
  let opened = 0;
  const ended = [1, 2, 3, 4, 5].map(async (n) => {
    const attempt = await begin(n);
    opened += 1;
    finished.push((await read(attempt)).reason ?? "broken");
  });
  await until(() => opened === 3);
  await complete("let first = new Foo(", { output: { maxTokens: 8 } });
  await complete("let second = new Foo(", { output: { maxTokens: 8 } });
  assert.deepEqual(finished, []);
  await Promise.all(ended);
  assert.deepEqual(
    finished,
    Array.from({ length: 5 }, () => "length"),
  );
});

test("weights that call themselves something else are no demonstration", async () => {
  const folder = testFolder();
  const bytes = readFileSync(join(MODELS, "tiny-code-fim.gguf"));
  bytes.write("large-code-it", bytes.indexOf("tiny-code-fim"));
  writeFileSync(folder.join("other.gguf"), bytes);
  await using w = await world({ models: { other: folder.join("other.gguf") } });
  assert.deepEqual(
    (await w.provider.models(never)).map(({ demonstration }) => demonstration),
    [true, undefined],
  );
  folder[Symbol.dispose]();
});

test("weights that lie elsewhere answer under the name they were given, and never replace built-in ones", async () => {
  const file = join(MODELS, "tiny-code-fim.gguf");
  await using w = await world({ models: { mine: file, "tiny-code-fim": "/nowhere.gguf" } });
  const models = await w.provider.models(never);
  assert.deepEqual(
    models.map(({ name, demonstration, note }) => [name, demonstration, note]),
    ["tiny-code-fim", "mine"].map((name) => [name, true, w.model.note]),
  );
  const mine = models[1];
  assert.ok(mine !== undefined);
  const own = await read(await w.provider.complete(completion(CODE), mine, never));
  const builtin = await read(await w.provider.complete(completion(CODE), w.model, never));
  assert.equal(own.text, builtin.text);
});
