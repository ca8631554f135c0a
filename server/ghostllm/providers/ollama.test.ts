/** The provider against the fake host, over real sockets. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  chat,
  completion,
  eventsOf,
  failsWith,
  framesOf,
  isFree,
  never,
  setUp,
  textOf,
} from "../../../test/fakes/ollama-provider-kit.ts";
import { GhostError } from "../../base/errors.ts";
import { decodeOllama } from "../frames/ollama.ts";
import type { StreamEvent } from "../stream.ts";

test("a chat streams text, usage and a finish, in frames of Ollama's dialect that decode to the same again", async (context) => {
  const { provider, model } = await setUp(context, [{ name: "coder", answer: () => "one two three" }]);
  const attempt = await provider.chat(
    chat("hi", { output: { maxTokens: 50, stop: [], format: { kind: "text" } } }),
    await model("coder"),
    never,
  );
  const frames = await framesOf(attempt);
  const events = frames.flatMap((frame) => frame.events());
  assert.equal(textOf(events), "one two three");
  assert.deepEqual(events.at(-1), { kind: "finish", reason: "stop" });
  assert.deepEqual(events.at(-2), { kind: "usage", usage: { promptTokens: 2, completionTokens: 3 } });
  assert.ok(frames.every((frame) => frame.dialect === "ollama"));
  assert.deepEqual(
    frames.flatMap((frame) => decodeOllama(frame.bytes)),
    events,
  );
});

test("bytes cut anywhere, also inside characters, lose nothing", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder", answer: () => "grüße 東京 🦉" }]);
  for (const pieceBytes of [1, 2, 3, 7]) {
    host.inject({ kind: "chop", pieceBytes });
    assert.equal(textOf(await eventsOf(await provider.chat(chat(), await model("coder"), never))), "grüße 東京 🦉");
  }
});

for (const toolStyle of ["chunk", "final"] as const) {
  test(`tool calls in ${toolStyle === "chunk" ? "a chunk of their own" : "the last line"} arrive whole, with ids, and the finish says so`, async (context) => {
    const answer = () => ({
      toolCalls: [
        { name: "read", arguments: { path: "a" } },
        { name: "list", arguments: {} },
      ],
    });
    const { provider, model } = await setUp(context, [
      { name: "agent", toolStyle, capabilities: ["completion", "tools"], answer },
    ]);
    const tools = [{ kind: "function" as const, name: "read", description: undefined, parameters: undefined }];
    const events = await eventsOf(await provider.chat(chat("go", { tools }), await model("agent"), never));
    const calls = events.flatMap((event) => (event.kind === "toolCall" ? [event] : []));
    assert.deepEqual(
      calls.map((call) => [call.index, call.name, call.arguments]),
      [
        [0, "read", '{"path":"a"}'],
        [1, "list", "{}"],
      ],
    );
    assert.equal(new Set(calls.map((call) => call.callId)).size, 2);
    assert.deepEqual(events.at(-1), { kind: "finish", reason: "toolCalls" });
  });
}

test("thinking is told apart from text", async (context) => {
  const { provider, model } = await setUp(context, [
    {
      name: "thinker",
      capabilities: ["completion", "thinking"],
      answer: () => ({ thinking: "let me see", text: "42" }),
    },
  ]);
  const events = await eventsOf(await provider.chat(chat(), await model("thinker"), never));
  assert.equal(events.map((event) => (event.kind === "reasoning" ? event.text : "")).join(""), "let me see");
  assert.equal(textOf(events), "42");
});

test("completions continue raw text, and fill in where the model can", async (context) => {
  const { provider, host, model } = await setUp(context, [
    { name: "coder", capabilities: ["completion", "insert"], answer: () => " 1;" },
    { name: "plain" },
  ]);
  assert.equal(textOf(await eventsOf(await provider.complete(completion(), await model("coder"), never))), " 1;");
  assert.equal(
    textOf(await eventsOf(await provider.complete(completion({ suffix: "\n" }), await model("coder"), never))),
    " 1;",
  );
  assert.deepEqual(
    host.requests.map((request) => [request.raw, request.suffix]),
    [
      [true, ""],
      [false, "\n"],
    ],
  );
  await assert.rejects(
    provider.complete(completion({ suffix: "\n" }), await model("plain"), never),
    failsWith("capability_missing"),
  );
});

test("embeddings keep their order over several requests, and add up their tokens", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "embedder", capabilities: ["embedding"] }]);
  const embedder = await model("embedder");
  const texts = Array.from({ length: 11 }, (_, index) => `text ${index}`);
  const all = await provider.embed(texts, embedder, never);
  assert.equal(all.vectors.length, 11);
  assert.equal(all.promptTokens, 22);
  const [alone] = (await provider.embed(["text 9"], embedder, never)).vectors;
  assert.deepEqual(all.vectors[9], alone);
  assert.equal(host.count("loaded"), 1);
  await assert.rejects(provider.embed(["x ".repeat(40_000)], embedder, never), failsWith("context_too_long"));
  await assert.rejects(provider.chat(chat(), embedder, never), failsWith("capability_missing"));
});

test("a prompt that is too long is refused by the host's own count, and not cut", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }], { config: { default_num_ctx: 64 } });
  await assert.rejects(
    provider.chat(chat("a ".repeat(100)), await model("coder"), never),
    failsWith("context_too_long", /exceeds the available context size/),
  );
  assert.equal(host.count("truncated"), 0);
});

test("an error before the first content is thrown, whatever its shape", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }]);
  const coder = await model("coder");
  const ask = () => provider.chat(chat(), coder, never);
  host.inject({ kind: "errorLine", afterTokens: 0, text: "CUDA error" });
  await assert.rejects(ask(), failsWith("upstream_failed", /CUDA error/));
  host.inject({ kind: "end", afterTokens: 0 });
  await assert.rejects(ask(), failsWith("upstream_failed"));
  host.inject({ kind: "reset", afterTokens: 0 });
  await assert.rejects(ask(), failsWith("upstream_failed"));
  host.inject({ kind: "garbage", afterTokens: 0 });
  await assert.rejects(ask(), failsWith("upstream_failed", /not JSON/));
  host.inject({ kind: "html", status: 502, on: "chat" });
  await assert.rejects(ask(), failsWith("upstream_failed", /answers 502$/));
  host.inject({ kind: "status", status: 503, body: "{}", headers: { "retry-after": "3" }, on: "chat" });
  await assert.rejects(
    ask(),
    (error) => error instanceof GhostError && error.code === "upstream_rate_limited" && error.retryAfterMs === 3000,
  );
  await assert.rejects(provider.chat(chat(), { ...coder, name: "gone" }, never), failsWith("model_not_found"));
  await assert.rejects(provider.chat(chat(), { ...coder, host: "gone" }, never), failsWith("model_not_found"));
  assert.equal(textOf(await eventsOf(await ask())).length > 0, true, "and no slot was lost on the way");
});

test("a runner that dies while it loads is upstream_failed", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }]);
  host.inject({ kind: "dieWhileLoading" });
  await assert.rejects(provider.chat(chat(), await model("coder"), never), failsWith("upstream_failed", /terminated/));
});

for (const kind of ["errorLine", "garbage", "invalidUtf8"] as const) {
  test(`${kind} in mid-answer is an error event after all the text before it, and nothing follows`, async (context) => {
    const { provider, host, model } = await setUp(context, [{ name: "coder", answer: () => "one two three four" }]);
    host.inject({ kind, afterTokens: 2 });
    const events = await eventsOf(await provider.chat(chat(), await model("coder"), never));
    assert.equal(textOf(events), "one two");
    assert.equal(events.at(-1)?.kind, "error");
    await host.until("its slot is free", () => isFree(host));
  });
}

for (const kind of ["end", "halfLine"] as const) {
  test(`${kind} in mid-answer throws after all the text before it`, async (context) => {
    const { provider, host, model } = await setUp(context, [{ name: "coder", answer: () => "one two three four" }]);
    host.inject({ kind, afterTokens: 2 });
    const attempt = await provider.chat(chat(), await model("coder"), never);
    const seen: StreamEvent[] = [];
    await assert.rejects(async () => {
      for await (const frame of attempt.frames) seen.push(...frame.events());
    }, failsWith("upstream_failed"));
    assert.equal(textOf(seen), "one two");
    await eventsOf(await provider.chat(chat(), await model("coder"), never));
  });
}

test("a reset in mid-answer throws, and what came before is a beginning of the answer", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder", answer: () => "one two three four" }]);
  const coder = await model("coder");
  host.inject({ kind: "reset", afterTokens: 2 });
  const seen: StreamEvent[] = [];
  // A reset throws away what the kernel still held, so nobody can say how much arrives.
  await assert.rejects(async () => {
    for await (const frame of (await provider.chat(chat(), coder, never)).frames) seen.push(...frame.events());
  }, failsWith("upstream_failed"));
  assert.ok("one two".startsWith(textOf(seen)));
  await eventsOf(await provider.chat(chat(), coder, never));
});

test("a model that repeats itself until Ollama stops without a word has failed, not finished", async (context) => {
  const { provider, model } = await setUp(context, [{ name: "loop", answer: () => "na ".repeat(50) }]);
  const attempt = await provider.chat(chat(), await model("loop"), never);
  await assert.rejects(framesOf(attempt), failsWith("upstream_failed", /repeats itself/));
});

test("our own queue keeps at most `parallel` requests at the host, and completions go first", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }], {
    host: { parallel: 4 },
    config: { parallel: 1 },
  });
  const coder = await model("coder");
  host.inject({ kind: "hang", afterTokens: 1 });
  const first = await provider.chat(chat("first"), coder, never);
  const rest = ["second", "third"].map(async (text) => eventsOf(await provider.chat(chat(text), coder, never)));
  await assert.rejects(provider.complete(completion(), coder, never), failsWith("overloaded", /50 ms/));
  assert.equal(host.requests.length, 1);
  host.resume();
  await eventsOf(first);
  await Promise.all(rest);
  assert.deepEqual(
    host.requests.map((request) => request.messages[0]?.content),
    ["first", "second", "third"],
  );
  assert.equal(host.count("slotWait"), 0);
});

test("aborting while queued here takes nothing from the host", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }]);
  const coder = await model("coder");
  host.inject({ kind: "hang", afterTokens: 1 });
  const first = await provider.chat(chat("first"), coder, never);
  const controller = new AbortController();
  const second = provider.chat(chat("second"), coder, controller.signal);
  controller.abort();
  await assert.rejects(second, failsWith("cancelled"));
  host.resume();
  await eventsOf(first);
  assert.equal(host.requests.length, 1);
});

test("aborting while the request is pending at the host, or its model loads, ends it there", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "a", loadMs: 600_000 }, { name: "b" }]);
  const [a, b] = [await model("a"), await model("b")];
  const loading = new AbortController();
  const first = provider.chat(chat(), a, loading.signal);
  await host.until("a loads", () => host.count("loading") === 1);
  const pending = new AbortController();
  const second = provider.chat(chat(), b, pending.signal);
  await host.until("b is pending", () => host.snapshot().pending === 1);
  pending.abort();
  await assert.rejects(second, failsWith("cancelled"));
  await host.until("the host knows", () => host.count("cancelled", "b") === 1);
  loading.abort();
  await assert.rejects(first, failsWith("cancelled"));
  await host.until("the load is given up", () => host.count("loadAborted", "a") === 1);
  await eventsOf(await provider.chat(chat(), b, never));
  assert.equal(host.count("skipped", "b"), 1);
});

test("aborting while it waits for a slot of the host frees its place there", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }], { config: { parallel: 2 } });
  const coder = await model("coder");
  host.inject({ kind: "hang", afterTokens: 1 });
  await provider.chat(chat("first"), coder, never);
  const controller = new AbortController();
  const second = provider.complete(completion(), coder, controller.signal);
  await host.until("the second waits there", () => host.snapshot().runners[0]?.waiting === 1);
  controller.abort();
  await assert.rejects(second, failsWith("cancelled"));
  await host.until("its place is free", () => host.snapshot().runners[0]?.waiting === 0);
});

test("aborting in mid-answer frees both slots, although nobody reads on", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }]);
  const coder = await model("coder");
  host.inject({ kind: "hang", afterTokens: 2 });
  const controller = new AbortController();
  const attempt = await provider.chat(chat(), coder, controller.signal);
  await host.until("it hangs", () => host.count("fault") === 1);
  controller.abort();
  await host.until("the host's slot is free", () => isFree(host));
  await eventsOf(await provider.chat(chat(), coder, never));
  await assert.rejects(framesOf(attempt), failsWith("cancelled"));
});

test("a reader that waits when the abort comes is told at once", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }]);
  host.inject({ kind: "hang", afterTokens: 1 });
  const controller = new AbortController();
  const reading = framesOf(await provider.chat(chat(), await model("coder"), controller.signal));
  await host.until("it hangs", () => host.count("fault") === 1);
  controller.abort();
  await assert.rejects(reading, failsWith("cancelled"));
});

test("leaving the loop early stops the host and frees our slot", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder", answer: () => "word ".repeat(10).trim() }]);
  const coder = await model("coder");
  host.inject({ kind: "hang", afterTokens: 2 });
  for await (const _frame of (await provider.chat(chat(), coder, never)).frames) break;
  await host.until("the host's slot is free", () => isFree(host));
  await eventsOf(await provider.chat(chat(), coder, never));
});

test("an attempt whose frames are dropped before they were read gives its slot back", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }]);
  host.inject({ kind: "hang", afterTokens: 1 });
  const attempt = await provider.chat(chat(), await model("coder"), never);
  await attempt.frames[Symbol.asyncIterator]().return?.();
  await host.until("the host's slot is free", () => isFree(host));
});

test("closing the provider ends what is under way", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder", loadMs: 600_000 }]);
  const pending = provider.chat(chat(), await model("coder"), never);
  const failed = assert.rejects(pending, failsWith("cancelled", /shutting down/));
  await host.until("it loads", () => host.count("loading") === 1);
  await provider[Symbol.asyncDispose]();
  await failed;
  await host.until("the load is given up", () => host.count("loadAborted") === 1);
});

test("connections are used again for answer after answer", async (context) => {
  const { provider, host, model } = await setUp(context, [{ name: "coder" }]);
  const coder = await model("coder");
  const before = host.connections;
  for (let round = 0; round < 8; round += 1) await eventsOf(await provider.chat(chat(), coder, never));
  // The list above has left some open; one more may be made while the last one is being given back.
  assert.ok(host.connections - before <= 1, `${host.connections - before} new connections`);
});
