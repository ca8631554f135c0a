/** Gemini behind its provider, against a fake host that holds requests against the real API's rules. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type CloudScript, textScript } from "../../../test/fakes/cloud-script.ts";
import { call, chat, eventsOf, framesOf, never, READ, result, say } from "../../../test/support/anthropic.ts";
import { KEY, setUpGemini } from "../../../test/support/gemini.ts";
import { GhostError } from "../../base/errors.ts";
import { AnswerFold } from "../frames/answer-fold.ts";
import { BlockSequence } from "../frames/block-sequence.ts";
import type { Attempt, ChatRequest, Message } from "../stream.ts";

const MODEL = "gemini-3.8-flash";
const LONG = "gemini-4-argon";
const failsWith =
  (code: string, message = /./, retryAfterMs?: number) =>
  (error: unknown) => {
    assert.ok(error instanceof GhostError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    assert.ok(!error.message.includes(KEY));
    assert.equal("retryAfterMs" in error ? error.retryAfterMs : undefined, retryAfterMs);
    return true;
  };

async function answer(context: TestContext, script: CloudScript, more: Partial<ChatRequest> = {}, name = MODEL) {
  const setup = await setUpGemini(context);
  const model = await setup.model(name);
  setup.host.playOnce(script);
  const attempt = await setup.provider.chat(chat("hi", more), model, never);
  return { ...setup, attempt, fold: new AnswerFold().addAll(await eventsOf(attempt)) };
}

/** What came before the answer broke, and the error. */
async function broken(attempt: Attempt) {
  const fold = new AnswerFold();
  try {
    for await (const frame of attempt.frames) fold.addAll(frame.events());
  } catch (thrown) {
    return { fold, thrown };
  }
  return { fold, thrown: undefined };
}

const textOf = (fold: AnswerFold) => fold.blocks.map((block) => (block.kind === "text" ? block.text : "")).join("");

test("models come page by page: those that chat or embed, with their limits", async (context) => {
  const models = [MODEL, "gemini-2.5-flash", "gemini-2.5-flash-image", LONG, "gemini-embedding-2", "gemini-3-tts"];
  const { provider, host } = await setUpGemini(context, { host: { models, maxPageSize: 2 } });
  const listed = await provider.models(never);
  assert.deepEqual(
    listed.map(({ ref, capabilities }) => [ref, capabilities.chat, capabilities.embeddings, capabilities.tools]),
    [
      ["gemini/gemini-3.8-flash", true, false, true],
      ["gemini/gemini-2.5-flash", true, false, true],
      ["gemini/gemini-4-argon", true, false, true],
      ["gemini/gemini-embedding-2", false, true, false],
    ],
  );
  const [first] = listed;
  assert.deepEqual(
    [first?.contextWindow, first?.maxOutputTokens, first?.continuation, first?.capabilities.reasoning],
    [1_048_576, 65_536, "anchored", true],
  );
  assert.deepEqual(
    host.requests.map(({ path, headers }) => [path.split("pageToken")[0], headers["x-goog-api-key"]]),
    [
      ["/v1beta/models?pageSize=1000", KEY],
      ["/v1beta/models?pageSize=1000&", KEY],
      ["/v1beta/models?pageSize=1000&", KEY],
    ],
  );
  assert.deepEqual(
    provider.status().map(({ id, kind, state, models: count }) => [id, kind, state, count]),
    [["gemini", "gemini", "ok", 4]],
  );
});

test("patterns choose models by name, and a name that is written out needs no list", async (context) => {
  const { provider } = await setUpGemini(context, { config: { models: ["*-flash", "gemini-next"] } });
  assert.deepEqual(
    (await provider.models(never)).map(({ name }) => name),
    ["gemini-3.8-flash", "gemini-next"],
  );
});

test("without a key nobody is asked; a wrong one and a server that is away are said", async (context) => {
  const none = await setUpGemini(context, { key: "" });
  assert.deepEqual(await none.provider.models(never), []);
  assert.deepEqual([none.provider.status()[0]?.state, none.host.requests.length], ["absent", 0]);
  await assert.rejects(none.provider.testKey(never), failsWith("key_missing"));
  const wrong = await setUpGemini(context, { key: "AIza-wrong-0123456789" });
  assert.deepEqual(await wrong.provider.models(never), []);
  assert.equal(wrong.provider.status()[0]?.state, "refused");
  await assert.rejects(wrong.provider.testKey(never), failsWith("upstream_auth", /API key not valid/));
  const right = await setUpGemini(context);
  assert.deepEqual(await right.provider.testKey(never), {
    ok: true,
    detail: "gemini takes the key and lists 4 models",
  });
  await right.host.refuse();
  assert.deepEqual(await right.provider.models(never), []);
  assert.equal(right.provider.status()[0]?.state, "unreachable");
});

test("an answer, streamed and whole: thoughts, text, calls with their ids, counts", async (context) => {
  const script: CloudScript = {
    blocks: [
      { kind: "reasoning", deltas: ["Let me ", "look."] },
      { kind: "text", deltas: ["Grüße ", "🦊"], isSigned: true },
      { kind: "tool-call", name: "read", arguments: ['{"path"', ':"a"}'], id: "fc-1" },
      { kind: "tool-call", name: "read", arguments: [], id: "" },
    ],
    usage: { inputTokens: 50, cachedTokens: 40, outputTokens: 9, reasoningTokens: 3 },
  };
  for (const stream of [true, false]) {
    const { fold, attempt } = await answer(context, script, { stream, tools: [READ], reasoning: { isShown: true } });
    const [thought, text, textSeal, one, two] = fold.blocks;
    assert.deepEqual(thought, { kind: "reasoning", block: 0, text: "Let me look." });
    assert.deepEqual(text, { kind: "text", text: "Grüße 🦊" });
    assert.ok(textSeal?.kind === "reasoning" && textSeal.block === 1 && textSeal.opaque !== undefined);
    assert.ok(one?.kind === "toolCall" && two?.kind === "toolCall");
    assert.deepEqual([one.callId, one.arguments, two.arguments], ["fc-1", '{"path":"a"}', "{}"]);
    assert.match(two.callId, /^call_\w+/);
    assert.deepEqual([one.index, two.index, one.opaque !== undefined, two.opaque], [0, 1, true, undefined]);
    assert.equal(fold.reason, "toolCalls");
    assert.deepEqual(fold.usage, { promptTokens: 50, completionTokens: 9, cachedTokens: 40, reasoningTokens: 3 });
    assert.deepEqual(attempt.dropped, []);
  }
});

test("calls of one answer are told apart though they come in frames of their own", async (context) => {
  const calls = ["a", "b", "c"].map(
    (id) => ({ kind: "tool-call", name: "read", arguments: [`{"x":"${id}"}`], id }) as const,
  );
  const { fold, attempt } = await answer(context, { blocks: calls, wire: { writeBytes: 7 } }, { tools: [READ] });
  assert.ok(attempt.model === `gemini/${MODEL}`);
  const sequence = new BlockSequence();
  const found = fold.blocks.flatMap((block) => (block.kind === "toolCall" ? [[block.index, block.callId]] : []));
  assert.deepEqual(found, [
    [0, "a"],
    [1, "b"],
    [2, "c"],
  ]);
  assert.deepEqual(sequence.end(), []);
});

test("a turn comes back as it was signed: the host takes it, streamed or whole", async (context) => {
  const setup = await setUpGemini(context);
  const model = await setup.model(MODEL);
  for (const stream of [true, false]) {
    setup.host.playOnce({
      blocks: [
        { kind: "text", deltas: ["Let ", "me."], isSigned: true },
        { kind: "tool-call", name: "read", arguments: ['{"path":"a"}'] },
        { kind: "tool-call", name: "read", arguments: ['{"path":"b"}'] },
      ],
    });
    const more = { tools: [READ], stream };
    const attempt = await setup.provider.chat(chat("hi", more), model, never);
    const parts = new AnswerFold().addAll(await eventsOf(attempt)).parts("gemini");
    const ids = parts.flatMap((part) => (part.kind === "toolCall" ? [part.callId] : []));
    assert.equal(ids.length, 2);
    const messages: readonly Message[] = [
      say("user", "hi"),
      { role: "assistant", parts },
      ...ids.map((id) => result(id, "A")),
    ];
    await eventsOf(await setup.provider.chat(chat(messages, more), model, never));
    const turn = setup.sent().at(-1)?.contents?.[1];
    const signed = (turn?.parts ?? []).filter(({ thoughtSignature }) => thoughtSignature !== undefined);
    assert.equal(signed.length, 2);
    assert.ok(signed.every(({ thoughtSignature }) => !thoughtSignature?.startsWith("skip")));
  }
  assert.deepEqual(setup.host.refusals, []);
});

test("calls that another maker's model made are taken with the placeholder", async (context) => {
  const setup = await setUpGemini(context);
  const opaque = { maker: "anthropic", data: '{"signature":"x"}' };
  const messages: readonly Message[] = [
    say("user", "hi"),
    { role: "assistant", parts: [{ kind: "reasoning", text: "Hm.", opaque }, call("toolu_1"), call("toolu_2")] },
    result("toolu_1", "A"),
    result("toolu_2", "B"),
  ];
  await eventsOf(await setup.provider.chat(chat(messages, { tools: [READ] }), await setup.model(MODEL), never));
  assert.deepEqual(setup.host.refusals, []);
});

test("signatures that Google refuses are left out of a second try, and that is said", async (context) => {
  const setup = await setUpGemini(context);
  const opaque = { maker: "gemini", data: '{"signature":"forgotten","on":"call"}' };
  const messages: readonly Message[] = [
    say("user", "hi"),
    { role: "assistant", parts: [call("c1", "read", { opaque })] },
    result("c1", "A"),
  ];
  const attempt = await setup.provider.chat(chat(messages, { tools: [READ] }), await setup.model(MODEL), never);
  await eventsOf(attempt);
  assert.deepEqual([attempt.dropped, setup.host.refusals], [["earlier thinking"], ["Corrupted thought signature."]]);
});

test("a refusal for the same thing twice is told", async (context) => {
  const setup = await setUpGemini(context);
  const refused = { status: { code: 400, message: "Penalty is not enabled for this model" } };
  setup.host.playOnce(refused);
  setup.host.playOnce(refused);
  const request = chat("hi", { sampling: { presencePenalty: 1 } });
  await assert.rejects(setup.provider.chat(request, await setup.model(MODEL), never), failsWith("upstream_rejected"));
  assert.equal(setup.sent().length, 2);
});

test("what the request cannot be told is named", async (context) => {
  const { attempt } = await answer(
    context,
    {},
    {
      tools: [READ],
      parallelToolCalls: false,
      extras: { user: "me" },
    },
  );
  assert.deepEqual(attempt.dropped, ["parallel_tool_calls", "user"]);
});

test("a long answer goes on with the same body and a token, and reads as one", async (context) => {
  for (const stream of [true, false]) {
    const setup = await setUpGemini(context);
    const model = await setup.model(LONG);
    const usage = { inputTokens: 10, outputTokens: 4, cachedTokens: 2 };
    const tool = (id: string) => ({ kind: "tool-call", name: "read", arguments: ["{}"], id }) as const;
    setup.host.playOnce({
      blocks: [{ kind: "text", deltas: ["One ", "two "] }, tool("a")],
      continuationToken: "t1",
      usage,
    });
    setup.host.playOnce({
      ...textScript("three "),
      continuationToken: "t2",
      usage: { inputTokens: 12, outputTokens: 1 },
    });
    setup.host.playOnce({ blocks: [{ kind: "text", deltas: ["four"] }, tool("b")], usage });
    const request = chat("hi", {
      stream,
      tools: [READ],
      output: { stop: [], maxTokens: 99, format: { kind: "text" } },
    });
    const fold = new AnswerFold().addAll(await eventsOf(await setup.provider.chat(request, model, never)));
    assert.equal(textOf(fold), "One two three four");
    assert.deepEqual(
      fold.blocks.flatMap((block) => (block.kind === "toolCall" ? [[block.index, block.callId]] : [])),
      [
        [0, "a"],
        [1, "b"],
      ],
    );
    assert.equal(fold.reason, "toolCalls");
    assert.deepEqual(fold.usage, { promptTokens: 32, completionTokens: 9, cachedTokens: 4 });
    assert.deepEqual(
      setup.sent().map(({ continuationToken }) => continuationToken),
      [undefined, "t1", "t2"],
    );
  }
});

test("counts that one part does not say make the sum unknown", async (context) => {
  const setup = await setUpGemini(context);
  const model = await setup.model(LONG);
  setup.host.playOnce({ ...textScript("a"), continuationToken: "t", usage: "never" });
  setup.host.playOnce({ ...textScript("b"), usage: { inputTokens: 5, outputTokens: 1 } });
  const fold = new AnswerFold().addAll(await eventsOf(await setup.provider.chat(chat("hi"), model, never)));
  assert.deepEqual([textOf(fold), fold.usage], ["ab", undefined]);
});

test("a stream that is cut right behind a checkpoint is taken up there; cut elsewhere it is broken", async (context) => {
  for (const [after, text] of [
    [2, "one two three"],
    [3, undefined],
  ] as const) {
    const setup = await setUpGemini(context);
    const model = await setup.model(LONG);
    setup.host.playOnce({
      ...textScript("one ", "two ", "lost "),
      checkpoints: [{ afterTokens: 2, token: "t" }],
      fault: { kind: "cut", afterTokens: after, where: "between-frames", how: "reset" },
    });
    setup.host.playOnce(textScript("three"));
    const { fold, thrown } = await broken(await setup.provider.chat(chat("hi"), model, never));
    assert.equal(thrown === undefined, text !== undefined, String(thrown));
    assert.equal(textOf(fold), text ?? "one two lost ");
  }
});

test("a server that never gets on from its checkpoint is given up", async (context) => {
  const setup = await setUpGemini(context);
  const cut = { kind: "cut", afterTokens: 1, where: "between-frames", how: "clean" } as const;
  setup.host.playOnce({ ...textScript("a", "b"), checkpoints: [{ afterTokens: 1, token: "t" }], fault: cut });
  setup.host.play({ ...textScript("a", "b"), fault: { ...cut, afterTokens: 0 } });
  const { fold, thrown } = await broken(await setup.provider.chat(chat("hi"), await setup.model(LONG), never));
  assert.ok(failsWith("upstream_failed")(thrown));
  assert.equal(textOf(fold), "a");
  assert.equal(setup.sent().length, 4);
});

const ends: readonly [name: string, script: CloudScript, code: string][] = [
  ["a blocked prompt", { blocks: [{ kind: "refusal", deltas: [], category: "OTHER" }] }, "upstream_filtered"],
  ["a filtered answer without a word", { ...textScript(), finishReason: "RECITATION" }, "upstream_filtered"],
  ["a malformed call", { ...textScript(), finishReason: "MALFORMED_FUNCTION_CALL" }, "upstream_failed"],
  ["a word of later years", { ...textScript(), finishReason: "NEW_IN_2027" }, "upstream_failed"],
  ["CONTINUATION without a token", { ...textScript("a"), finishReason: "CONTINUATION" }, "upstream_failed"],
  [
    "overload in band",
    { ...textScript("a"), fault: { kind: "error-in-band", afterTokens: 0, error: {} } },
    "upstream_overloaded",
  ],
  [
    "overload in band, outside any event",
    { ...textScript("a"), fault: { kind: "error-in-band", as: "failed", afterTokens: 0, error: {} } },
    "upstream_overloaded",
  ],
];
for (const [name, script, code] of ends) {
  test(`${name} is an error, streamed and whole`, async (context) => {
    for (const stream of [true, false]) {
      const setup = await setUpGemini(context);
      const model = await setup.model(MODEL);
      setup.host.playOnce(script);
      const opened = setup.provider.chat(chat("hi", { stream }), model, never);
      const failing = opened.then(async (attempt) => {
        const { fold, thrown } = await broken(attempt);
        assert.ok(fold.error === undefined, "an error that the first frames hold is thrown");
        throw thrown instanceof Error ? thrown : new Error("the answer looks whole");
      });
      await assert.rejects(failing, failsWith(code));
    }
  });
}

test("an answer that is filtered behind its first word says so at its end", async (context) => {
  const { fold } = await answer(context, { ...textScript("a"), finishReason: "SAFETY" });
  assert.deepEqual([textOf(fold), fold.reason], ["a", "contentFilter"]);
});

test("thinking that ate the whole answer leaves an empty one that was cut short", async (context) => {
  const { fold } = await answer(context, { ...textScript(), finishReason: "MAX_TOKENS" });
  assert.deepEqual([fold.blocks, fold.reason], [[], "length"]);
});

test("an error behind the first words is in the stream, with all that came before it", async (context) => {
  const fault = { kind: "error-in-band", afterTokens: 2, error: {} } as const;
  const script = { ...textScript("a", "b"), msPerToken: 20, fault };
  const setup = await setUpGemini(context);
  setup.host.playOnce(script);
  const { fold, thrown } = await broken(await setup.provider.chat(chat("hi"), await setup.model(MODEL), never));
  assert.equal(textOf(fold), "ab");
  assert.equal(fold.error?.code ?? (thrown instanceof GhostError ? thrown.code : ""), "upstream_overloaded");
});

const cuts = [
  { kind: "cut", afterTokens: 2, where: "mid-utf8", how: "reset" },
  { kind: "cut", afterTokens: 2, where: "between-frames", how: "clean" },
] as const;
for (const fault of cuts) {
  test(`an answer that is cut ${fault.where} is broken`, async (context) => {
    const setup = await setUpGemini(context);
    setup.host.playOnce({ ...textScript("öne ", "two ", "thrée"), fault });
    const { fold, thrown } = await broken(await setup.provider.chat(chat("hi"), await setup.model(MODEL), never));
    assert.ok(thrown instanceof GhostError, "it looks whole");
    assert.match(textOf(fold), /^öne two /);
    assert.equal(fold.reason, undefined);
  });
}

const statuses: readonly [status: NonNullable<CloudScript["status"]>, code: string, retryAfterMs?: number][] = [
  [{ code: 429, retryAfterS: 7 }, "upstream_rate_limited", 7_000],
  [{ code: 503 }, "upstream_overloaded"],
  [{ code: 500 }, "upstream_failed"],
  [{ code: 504 }, "upstream_timeout"],
  [{ code: 403 }, "upstream_auth"],
  [{ code: 404 }, "model_not_found"],
  [
    { code: 400, message: "The input token count (9) exceeds the maximum number of tokens allowed (8)." },
    "context_too_long",
  ],
  [{ code: 502, body: "html" }, "upstream_failed"],
  [{ code: 413, body: "empty" }, "upstream_rejected"],
];
test("refusals mean what they say, and say how long to wait", async (context) => {
  const setup = await setUpGemini(context);
  const model = await setup.model(MODEL);
  for (const [status, code, retryAfterMs] of statuses) {
    setup.host.playOnce({ status });
    const asked = setup.provider.chat(chat("hi"), model, never);
    await assert.rejects(asked, failsWith(code, new RegExp(`gemini answered ${status.code}`), retryAfterMs));
  }
});

test("a key that the server echoes does not leave here", async (context) => {
  const setup = await setUpGemini(context);
  const model = await setup.model(MODEL);
  setup.host.playOnce({ status: { code: 400, message: `the key ${KEY} is odd` } });
  await assert.rejects(setup.provider.chat(chat("hi"), model, never), failsWith("upstream_rejected", /\[secret\]/));
  const error = { message: `the key ${KEY} is odd` };
  const fault = { kind: "error-in-band", afterTokens: 2, error } as const;
  setup.host.playOnce({ ...textScript("a", "b"), msPerToken: 20, fault });
  const { fold, thrown } = await broken(await setup.provider.chat(chat("hi"), model, never));
  assert.match(`${fold.error?.message} ${String(thrown)}`, /\[secret\]/);
  assert.ok(!`${fold.error?.message} ${String(thrown)}`.includes(KEY));
});

test("stop strings beyond what Gemini takes cut the text here", async (context) => {
  const output = { stop: ["1", "2", "3", "4", "5", "END"], format: { kind: "text" } } as const;
  const { fold } = await answer(context, textScript("before E", "ND after"), { output });
  assert.deepEqual([textOf(fold), fold.reason], ["before ", "stop"]);
});

test("names of tools come back as the client wrote them", async (context) => {
  const tools = [{ ...READ, name: "read", namespace: "mcp" }] as const;
  const { fold } = await answer(
    context,
    { blocks: [{ kind: "tool-call", name: "mcp__read", arguments: ["{}"] }] },
    { tools },
  );
  const [block] = fold.blocks;
  assert.ok(block?.kind === "toolCall");
  assert.deepEqual([block.name, block.namespace], ["read", "mcp"]);
});

test("tokens are counted by the server, and texts embedded a hundred at a time", async (context) => {
  const models = [MODEL, "gemini-embedding-2"];
  const { provider, model, host } = await setUpGemini(context, { host: { models } });
  host.playOnce({ usage: { inputTokens: 321 } });
  assert.equal(await provider.countTokens(chat("hi", { tools: [READ] }), await model(MODEL), never), 321);
  host.playOnce(() => ({ status: { code: 503 } }));
  const counted = provider.countTokens(chat("hi"), await model(MODEL), never);
  await assert.rejects(counted, failsWith("upstream_overloaded"));
  const texts = Array.from({ length: 130 }, (_, index) => "x".repeat(index + 1));
  const { vectors, promptTokens } = await provider.embed(texts, await model("gemini-embedding-2"), never);
  assert.deepEqual([vectors.length, vectors[0], vectors[129], promptTokens], [130, [1, 120], [130, 120], undefined]);
  assert.equal(host.requests.filter(({ path }) => path.endsWith(":batchEmbedContents")).length, 2);
  await assert.rejects(provider.embed(["a"], await model(MODEL), never), failsWith("capability_missing"));
});

test("who leaves stops Gemini at once, before its first word and in the middle", async (context) => {
  const setup = await setUpGemini(context);
  const model = await setup.model(MODEL);
  setup.host.playOnce({ ...textScript("a"), fault: { kind: "hang-before-headers" } });
  const before = new AbortController();
  const asked = setup.provider.chat(chat("hi"), model, before.signal);
  await setup.host.until(() => setup.host.openRequests === 1, "the request");
  before.abort();
  await assert.rejects(asked);
  await setup.host.until(() => setup.host.openRequests === 0, "the upstream's end");
  setup.host.playOnce({ ...textScript("a", "b"), fault: { kind: "hang", afterTokens: 1 } });
  const attempt = await setup.provider.chat(chat("hi"), model, never);
  for await (const frame of attempt.frames) if (frame.events().length > 0) break;
  await setup.host.until(() => setup.host.openRequests === 0, "the upstream's end");
});

const relayed = (body: object): Partial<ChatRequest> => ({
  origin: { dialect: "gemini", bodyFor: () => Buffer.from(JSON.stringify(body)) },
});

test("a client of the same dialect is relayed byte for byte, both ways", async (context) => {
  const setup = await setUpGemini(context);
  const model = await setup.model(LONG);
  const body = { contents: [{ role: "user", parts: [{ text: "h\u00ef" }] }], generationConfig: { temperature: 0.5 } };
  for (const stream of [true, false]) {
    setup.host.playOnce({
      blocks: [
        { kind: "text", deltas: ["a", "b"] },
        { kind: "tool-call", name: "read", id: "c1", arguments: ["{}"] },
        { kind: "tool-call", name: "read", id: "c2", arguments: ["{}"] },
      ],
      continuationToken: "t",
    });
    const attempt = await setup.provider.chat(chat("unused", { ...relayed(body), stream }), model, never);
    const frames = await framesOf(attempt);
    assert.equal(setup.host.requests.at(-1)?.bodyText, JSON.stringify(body));
    assert.ok(frames.every(({ dialect }) => dialect === "gemini"));
    const text = Buffer.concat(frames.map(({ bytes }) => bytes)).toString();
    assert.match(text, /"finishReason":"CONTINUATION"/);
    assert.equal(text.includes("data: "), stream);
    assert.equal(attempt.dropped, undefined);
    const ids = new AnswerFold()
      .addAll(frames.flatMap((frame) => frame.events()))
      .blocks.flatMap((block) => (block.kind === "toolCall" ? block.callId : []));
    assert.deepEqual(ids, ["c1", "c2"]);
  }
  assert.equal(setup.sent().length, 2);
});

test("a relay passes on every end, and breaks at an error or a cut", async (context) => {
  const setup = await setUpGemini(context);
  const model = await setup.model(MODEL);
  const request = chat("unused", relayed({ contents: [{ role: "user", parts: [{ text: "hi" }] }] }));
  setup.host.playOnce({ ...textScript("a"), finishReason: "MALFORMED_FUNCTION_CALL" });
  const frames = await framesOf(await setup.provider.chat(request, model, never));
  assert.match(Buffer.concat(frames.map(({ bytes }) => bytes)).toString(), /MALFORMED_FUNCTION_CALL/);
  const faults = [
    [{ kind: "error-in-band", afterTokens: 1, error: {} }, "upstream_overloaded"],
    [{ kind: "cut", afterTokens: 1, where: "between-frames", how: "clean" }, "upstream_failed"],
  ] as const;
  for (const [fault, code] of faults) {
    setup.host.playOnce({ ...textScript("a", "b"), msPerToken: 20, fault });
    const { fold, thrown } = await broken(await setup.provider.chat(request, model, never));
    assert.ok(failsWith(code)(thrown));
    assert.equal(textOf(fold), "a");
  }
  setup.host.playOnce({ status: { code: 429, retryAfterS: 7 } });
  await assert.rejects(setup.provider.chat(request, model, never), failsWith("upstream_rate_limited", /429/, 7_000));
});

test("frames are of events: nothing of Google's bytes reaches a client", async (context) => {
  const setup = await setUpGemini(context);
  setup.host.playOnce(textScript("a", "b"));
  const frames = await framesOf(await setup.provider.chat(chat("hi"), await setup.model(MODEL), never));
  assert.ok(frames.length > 0 && frames.every(({ dialect, bytes }) => dialect === "events" && bytes.length === 0));
});
