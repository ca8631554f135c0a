/** Claude behind its provider, against a fake host that holds requests against the real API's rules. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import {
  chat,
  eventsOf,
  framesOf,
  KEY,
  never,
  READ,
  result,
  say,
  setUpAnthropic,
} from "../../../test/support/anthropic.ts";
import { type CloudScript, textScript } from "../../../test/fakes/cloud-script.ts";
import { GhostError } from "../../base/errors.ts";
import { AnswerFold } from "../frames/answer-fold.ts";
import { BlockSequence } from "../frames/block-sequence.ts";
import type { ChatRequest, Message } from "../stream.ts";

const MODEL = "claude-opus-4-8";
const failsWith =
  (code: string, message = /./) =>
  (error: unknown) => {
    assert.ok(error instanceof GhostError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    assert.ok(!error.message.includes(KEY));
    return true;
  };
const relayed = (body: object, headers: Readonly<Record<string, string>> = {}): Partial<ChatRequest> => ({
  origin: {
    dialect: "anthropic-messages",
    headers,
    bodyFor: (model) => Buffer.from(JSON.stringify({ ...body, model })),
  },
});

async function answer(context: TestContext, script: CloudScript, more: Partial<ChatRequest> = {}, name = MODEL) {
  const setup = await setUpAnthropic(context);
  const model = await setup.model(name);
  setup.host.playOnce(script);
  const attempt = await setup.provider.chat(chat("hi", more), model, never);
  return { ...setup, attempt, fold: new AnswerFold().addAll(await eventsOf(attempt)) };
}

test("models come page by page, with what their own list says of them", async (context) => {
  const models = ["claude-opus-4-8", "claude-haiku-4-5", "claude-fable-9", "claude-sonnet-5-5"];
  const { provider, host } = await setUpAnthropic(context, { host: { models, maxPageSize: 2 } });
  const listed = await provider.models(never);
  assert.deepEqual(
    listed.map(({ ref, contextWindow, maxOutputTokens, continuation }) => [
      ref,
      contextWindow,
      maxOutputTokens,
      continuation,
    ]),
    [
      ["anthropic/claude-opus-4-8", 1_000_000, 128_000, "anchored"],
      ["anthropic/claude-haiku-4-5", 200_000, 64_000, "native"],
      ["anthropic/claude-fable-9", 1_000_000, 128_000, "anchored"],
      ["anthropic/claude-sonnet-5-5", 1_000_000, 128_000, "anchored"],
    ],
  );
  assert.deepEqual(listed[0]?.capabilities, {
    chat: true,
    complete: false,
    fim: false,
    embeddings: false,
    tools: true,
    vision: true,
    jsonSchema: true,
    reasoning: true,
  });
  assert.equal(host.requests.length, 2);
  assert.deepEqual(
    provider.status().map(({ id, kind, state, models: count }) => [id, kind, state, count]),
    [["anthropic", "anthropic", "ok", 4]],
  );
});

test("patterns choose models by name", async (context) => {
  const { provider } = await setUpAnthropic(context, { config: { models: ["claude-opus-*", "CLAUDE-haiku-4-5"] } });
  assert.deepEqual(
    (await provider.models(never)).map(({ name }) => name),
    ["claude-opus-5-5", "claude-opus-4-8", "claude-haiku-4-5"],
  );
});

test("without a key there are no models, and nobody is asked", async (context) => {
  const { provider, host } = await setUpAnthropic(context, { key: "" });
  assert.deepEqual(await provider.models(never), []);
  assert.deepEqual([provider.status()[0]?.state, host.requests.length], ["absent", 0]);
});

test("a wrong key, a token of a plan, a page that is no list, a server that is away: each is said", async (context) => {
  const wrong = await setUpAnthropic(context, { key: "sk-ant-api03-wrong" });
  assert.deepEqual(await wrong.provider.models(never), []);
  assert.equal(wrong.provider.status()[0]?.state, "refused");
  await assert.rejects(wrong.provider.testKey(never), failsWith("upstream_auth"));
  const plan = await setUpAnthropic(context, { key: "sk-ant-oat01-0123456789" });
  await assert.rejects(plan.provider.testKey(never), failsWith("upstream_auth", /API key/));
  assert.equal(plan.host.requests.length, 0);
  const right = await setUpAnthropic(context);
  assert.deepEqual(await right.provider.testKey(never), {
    ok: true,
    detail: "anthropic takes the key and lists 5 models",
  });
  await right.host.refuse();
  assert.deepEqual(await right.provider.models(never), []);
  assert.equal(right.provider.status()[0]?.state, "unreachable");
});

test("a client of the same dialect is relayed byte for byte, with its version and its betas", async (context) => {
  const setup = await setUpAnthropic(context);
  const body = { max_tokens: 9, messages: [{ role: "user", content: "h\u00ef" }], stream: true, temperature: 0.5 };
  const headers = { "anthropic-version": "2023-06-01", "anthropic-beta": "one,two" };
  setup.host.playOnce(textScript("a", "b"));
  const model = await setup.model("claude-haiku-4-5");
  const attempt = await setup.provider.chat(chat("unused", relayed(body, headers)), model, never);
  const frames = await framesOf(attempt);
  const request = setup.host.requests.at(-1);
  assert.equal(request?.bodyText, JSON.stringify({ ...body, model: "claude-haiku-4-5" }));
  assert.deepEqual(
    [request?.headers["anthropic-version"], request?.headers["anthropic-beta"], request?.headers["x-api-key"]],
    ["2023-06-01", "one,two", KEY],
  );
  const text = Buffer.concat(frames.map(({ bytes }) => bytes)).toString();
  assert.ok(frames.every(({ dialect }) => dialect === "anthropic-messages"));
  assert.ok(text.startsWith("event: message_start") && text.includes("event: ping"), text);
  assert.ok(!text.includes("message_stop"), "who writes to the client says the end");
  assert.equal(attempt.dropped, undefined);
});

test("a relay passes on words for the end that nobody here knows; everybody else gets an error", async (context) => {
  const setup = await setUpAnthropic(context);
  const model = await setup.model(MODEL);
  const script = { ...textScript("a"), finishReason: "new_in_2027" };
  setup.host.playOnce(script);
  const body = { max_tokens: 9, messages: [{ role: "user", content: "hi" }], stream: true };
  const relay = await setup.provider.chat(chat("hi", relayed(body)), model, never);
  assert.match(Buffer.concat((await framesOf(relay)).map(({ bytes }) => bytes)).toString(), /new_in_2027/);
  for (const finishReason of ["new_in_2027", "pause_turn"]) {
    setup.host.playOnce({ ...script, finishReason });
    const attempt = await setup.provider.chat(chat("hi"), model, never);
    await assert.rejects(eventsOf(attempt), failsWith("upstream_failed", /word/));
    setup.host.playOnce({ ...script, finishReason });
    await assert.rejects(
      setup.provider.chat(chat("hi", { stream: false }), model, never),
      failsWith("upstream_failed"),
    );
  }
});

test("a stream becomes text, thinking with its seal, calls and usage", async (context) => {
  const script: CloudScript = {
    blocks: [
      { kind: "reasoning", deltas: ["hm ", "hm"] },
      { kind: "text", deltas: ["Grüße ", "🦊"] },
      { kind: "tool-call", name: "read", arguments: ['{"a"', ":1}"], id: "toolu_1" },
      { kind: "tool-call", name: "read", arguments: [], id: "toolu_2" },
    ],
    usage: { inputTokens: 100, cachedTokens: 60, cacheWriteTokens: 30, outputTokens: 20, reasoningTokens: 5 },
  };
  const more = { tools: [READ], reasoning: { effort: "high", isShown: true } } as const;
  const { attempt, fold, sent } = await answer(context, script, more);
  const [thinking, ...rest] = fold.parts("anthropic");
  assert.ok(thinking?.kind === "reasoning" && /^\{"signature":"[^"]+"\}$/.test(thinking.opaque?.data ?? ""));
  assert.equal(thinking.text, "hm hm");
  assert.deepEqual(rest, [
    { kind: "text", text: "Grüße 🦊" },
    { kind: "toolCall", callId: "toolu_1", name: "read", arguments: '{"a":1}' },
    { kind: "toolCall", callId: "toolu_2", name: "read", arguments: "" },
  ]);
  assert.equal(fold.reason, "toolCalls");
  assert.deepEqual(fold.usage, {
    promptTokens: 100,
    cachedTokens: 60,
    cacheWriteTokens: 30,
    completionTokens: 20,
    reasoningTokens: 5,
  });
  assert.deepEqual([attempt.dropped, sent()["stream"]], [[], true]);
});

test("a plain answer says the same as a stream", async (context) => {
  const script: CloudScript = {
    blocks: [
      { kind: "text", deltas: ["a", "b"] },
      { kind: "tool-call", name: "read", arguments: ['{"a":1}'], id: "toolu_1" },
    ],
    usage: { inputTokens: 7, outputTokens: 3 },
  };
  const more = { tools: [READ] };
  const streamed = await answer(context, script, more);
  const plain = await answer(context, script, { ...more, stream: false });
  assert.deepEqual(plain.fold.parts("anthropic"), streamed.fold.parts("anthropic"));
  assert.deepEqual([plain.fold.reason, plain.fold.usage], [streamed.fold.reason, streamed.fold.usage]);
});

test("thinking whose text is withheld is told at once, so that nobody waits in the dark", async (context) => {
  const script: CloudScript = {
    blocks: [
      { kind: "reasoning", deltas: ["secret"] },
      { kind: "text", deltas: ["yes"] },
    ],
  };
  const { attempt, fold } = await answer(context, script, { reasoning: { effort: "low" } });
  assert.deepEqual(
    fold.blocks.map((block) => [block.kind, block.kind === "toolCall" ? "" : block.text]),
    [
      ["reasoning", ""],
      ["text", "yes"],
    ],
  );
  assert.equal(attempt.trimmedCharacters, 0);
});

/** What the conversation of a tool loop looks like on its second round, with thinking put back. */
async function loop(context: TestContext, name: string, reasoning: ChatRequest["reasoning"]) {
  const setup = await setUpAnthropic(context);
  const model = await setup.model(name);
  setup.host.playOnce({
    blocks: [
      { kind: "reasoning", deltas: ["first “thought”\n"] },
      { kind: "reasoning", deltas: ["x"], isRedacted: true },
      { kind: "tool-call", name: "read", arguments: ["{}"], id: "toolu_1" },
    ],
  });
  const request = { tools: [READ], ...(reasoning === undefined ? {} : { reasoning }) };
  const start = [say("system", "Be brief."), say("user", "Look.")];
  const attempt = await setup.provider.chat(chat(start, request), model, never);
  const parts = new AnswerFold().addAll(await eventsOf(attempt)).parts("anthropic");
  const messages: readonly Message[] = [...start, { role: "assistant", parts }, result("toolu_1", "seen")];
  return { ...setup, model, request, messages, parts };
}

test("thinking goes back unchanged in its place, redacted thinking too", async (context) => {
  for (const [name, reasoning] of [
    ["claude-opus-5-5", { effort: "high", isShown: true }],
    ["claude-haiku-4-5", { effort: "high" }],
  ] as const) {
    const { provider, host, model, request, messages, sent, parts } = await loop(context, name, reasoning);
    assert.deepEqual(
      parts.map(({ kind }) => kind),
      ["reasoning", "reasoning", "toolCall"],
    );
    host.playOnce(textScript("done"));
    const attempt = await provider.chat(chat(messages, request), model, never);
    assert.equal(new AnswerFold().addAll(await eventsOf(attempt)).reason, "stop");
    assert.deepEqual([host.refusals, attempt.dropped], [[], []]);
    assert.match(
      JSON.stringify(sent()["messages"]),
      /"type":"thinking","thinking":"first “thought”\\n","signature":"[^"]+"\}/,
    );
    assert.match(JSON.stringify(sent()["messages"]), /"type":"redacted_thinking","data":"[^"]+"\}/);
  }
});

test("thinking that is bound to another conversation is left out once, and that is said", async (context) => {
  for (const [name, reasoning] of [
    ["claude-opus-5-5", { effort: "high" }],
    ["claude-haiku-4-5", { effort: "high" }],
  ] as const) {
    const { provider, host, model, request, messages, sent } = await loop(context, name, reasoning);
    const before = host.requests.length;
    // A model that binds nothing still refuses a text that it did not write.
    const changed = messages.map((message) =>
      message.role === "system"
        ? say("system", "Be long.")
        : {
            ...message,
            parts: message.parts.map((part) =>
              part.kind === "reasoning" && part.text !== "" && name === "claude-haiku-4-5"
                ? { ...part, text: "changed" }
                : part,
            ),
          },
    );
    host.playOnce(textScript("never sent: the rules refuse it first"));
    host.playOnce(textScript("done"));
    const attempt = await provider.chat(chat(changed, request), model, never);
    assert.equal(new AnswerFold().addAll(await eventsOf(attempt)).parts("x").length, 1);
    assert.equal(host.requests.length, before + 2);
    assert.match(host.refusals[0] ?? "", /Invalid `signature` in `thinking`/);
    assert.deepEqual(attempt.dropped, ["earlier thinking"]);
    assert.ok(!JSON.stringify(sent()["messages"]).includes("thinking"));
    // From then on it stays out by itself, and what is thought after it is valid.
    host.playOnce({
      blocks: [
        { kind: "reasoning", deltas: ["second"] },
        { kind: "tool-call", name: "read", arguments: [], id: "toolu_2" },
      ],
    });
    const next = [...changed, say("assistant", "done"), say("user", "And now?")];
    const again = await provider.chat(chat(next, request), model, never);
    const parts = new AnswerFold().addAll(await eventsOf(again)).parts("anthropic");
    host.playOnce(textScript("done again"));
    const last = [...next, { role: "assistant", parts } as const, result("toolu_2", "")];
    const end = await provider.chat(chat(last, request), model, never);
    assert.equal(new AnswerFold().addAll(await eventsOf(end)).reason, "stop");
    assert.deepEqual(
      [again.dropped, end.dropped, host.refusals.length],
      [["earlier thinking"], ["earlier thinking"], 1],
    );
    assert.equal(JSON.stringify(sent()["messages"]).split('"type":"thinking"').length, 2);
  }
});

test("a schema holds the answer natively, or by a tool whose input becomes the text", async (context) => {
  const schema = { type: "object", properties: { a: { type: "integer", minimum: 3 } }, required: ["a"] };
  const format = { kind: "schema", name: "x", schema } as const;
  const native = await answer(context, textScript('{"a":3}'), { output: { stop: [], format } });
  assert.deepEqual(native.sent()["output_config"], {
    format: {
      type: "json_schema",
      schema: {
        ...schema,
        properties: { a: { type: "integer", description: "minimum: 3" } },
        additionalProperties: false,
      },
    },
  });
  const open = {
    kind: "schema",
    name: "x",
    schema: { type: "object", additionalProperties: { type: "string" } },
  } as const;
  const script: CloudScript = { blocks: [{ kind: "tool-call", name: "answer", arguments: ['{"k"', ':"v"}'] }] };
  for (const stream of [true, false]) {
    const { fold, sent } = await answer(context, script, { stream, output: { stop: [], format: open } });
    assert.deepEqual(fold.parts("x"), [{ kind: "text", text: '{"k":"v"}' }]);
    assert.equal(fold.reason, "stop");
    assert.deepEqual(sent()["tool_choice"], { type: "tool", name: "answer" });
  }
  const setup = await setUpAnthropic(context);
  const asked = setup.provider.chat(
    chat("hi", { output: { stop: [], format: open } }),
    await setup.model("claude-opus-5-5"),
    never,
  );
  await assert.rejects(asked, failsWith("capability_missing", /json_schema/));
});

test("a schema that only a forced tool could hold is refused where there are other tools", async (context) => {
  const { provider, model } = await setUpAnthropic(context);
  const format = { kind: "schema", name: "x", schema: { type: "object" } } as const;
  const asked = provider.chat(chat("hi", { tools: [READ], output: { stop: [], format } }), await model(MODEL), never);
  await assert.rejects(asked, failsWith("capability_missing", /tools at once/));
});

test("thinking is left out once: what is refused then is refused", async (context) => {
  const { provider, host, model, request, messages } = await loop(context, "claude-opus-5-5", { effort: "high" });
  const refusal = (block: number): CloudScript => ({
    status: { code: 400, message: `messages.1.content.${block}: Invalid \`signature\` in \`thinking\` block` },
  });
  const before = host.requests.length;
  host.playOnce(refusal(1));
  host.playOnce(refusal(0));
  await assert.rejects(
    provider.chat(chat(messages, request), model, never),
    failsWith("upstream_rejected", /content\.0/),
  );
  assert.equal(host.requests.length, before + 2);
  host.playOnce(refusal(0));
  await assert.rejects(provider.chat(chat("nothing was thought"), model, never), failsWith("upstream_rejected"));
  assert.equal(host.requests.length, before + 3);
});

test("a server without a list has the models that the settings name", async (context) => {
  const { provider, host } = await setUpAnthropic(context, { config: { models: ["claude-opus-4-8", "claude-*"] } });
  host.play(() => ({ status: { code: 404 } }));
  assert.deepEqual(
    (await provider.models(never)).map(({ name }) => name),
    ["claude-opus-4-8"],
  );
  const all = await setUpAnthropic(context, { config: { models: ["claude-*"] } });
  all.host.play(() => ({ status: { code: 404 } }));
  assert.deepEqual(await all.provider.models(never), []);
  assert.equal(all.provider.status()[0]?.state, "unreachable");
});

test("odd and namespaced tools come back by the names that the client knows", async (context) => {
  const tools = [
    { ...READ, name: "read file", namespace: "fs" },
    { kind: "custom", name: "patch", description: undefined },
  ] as const;
  const setup = await setUpAnthropic(context);
  setup.host.playOnce((request) => {
    const names = [...request.bodyText.matchAll(/"name":"([^"]+)"/g)].map((match) => match[1] ?? "");
    return { blocks: names.map((name) => ({ kind: "tool-call", name, arguments: ['{"input":"x"}'] })) };
  });
  const attempt = await setup.provider.chat(chat("hi", { tools }), await setup.model(MODEL), never);
  const parts = new AnswerFold().addAll(await eventsOf(attempt)).parts("x");
  assert.deepEqual(
    parts.map((part) => (part.kind === "toolCall" ? [part.namespace, part.name, part.isCustom] : [])),
    [
      ["fs", "read file", undefined],
      [undefined, "patch", true],
    ],
  );
});

const refusals: readonly [name: string, script: CloudScript, code: string, retryAfterMs?: number][] = [
  ["a wrong key", { status: { code: 401 } }, "upstream_auth"],
  ["no permission", { status: { code: 403 } }, "upstream_auth"],
  ["no money", { status: { code: 402 } }, "upstream_quota"],
  [
    "no credit",
    { status: { code: 400, message: "Your credit balance is too low to access the API." } },
    "upstream_quota",
  ],
  ["an unknown model", { status: { code: 404 } }, "model_not_found"],
  ["a bad request", { status: { code: 400, message: "no such thing" } }, "upstream_rejected"],
  ["a long prompt", { status: { code: 400, message: "prompt is too long: 9 tokens > 8 maximum" } }, "context_too_long"],
  ["a filter", { status: { code: 400, message: "Output blocked by content filtering policy" } }, "upstream_filtered"],
  ["a rate limit", { status: { code: 429, retryAfterS: 7 } }, "upstream_rate_limited", 7000],
  ["a spend limit", { status: { code: 429, errorCode: "enforced_spend_limit_reached" } }, "upstream_quota"],
  ["a contract's end", { status: { code: 429, errorCode: "contract_spend_limit_reached" } }, "upstream_quota"],
  ["a limit that lasts", { status: { code: 429, headers: { "x-should-retry": "false" } } }, "upstream_quota"],
  ["overload", { status: { code: 529 } }, "upstream_overloaded"],
  ["a busy proxy", { status: { code: 503, body: "html" } }, "upstream_overloaded"],
  ["its own timeout", { status: { code: 504 } }, "upstream_timeout"],
  ["its own fault", { status: { code: 500, body: "empty" } }, "upstream_failed"],
  ["a proxy's page", { status: { code: 502, body: "html" } }, "upstream_failed"],
  [
    "overload under status 200",
    { ...textScript("a"), fault: { kind: "error-in-band", afterTokens: 0, error: {} } },
    "upstream_overloaded",
  ],
  [
    "a refusal before its first word",
    { blocks: [{ kind: "refusal", deltas: [], category: "bio" }] },
    "upstream_filtered",
  ],
  ["a reset", { fault: { kind: "reset-before-headers" } }, "upstream_failed"],
];
for (const [name, script, code, retryAfterMs] of refusals) {
  test(`${name} is ${code}, before anything was promised`, async (context) => {
    const { provider, host, model } = await setUpAnthropic(context);
    const found = await model(MODEL);
    for (const stream of [true, false]) {
      host.playOnce(script);
      await assert.rejects(provider.chat(chat("hi", { stream }), found, never), (error: unknown) => {
        failsWith(code)(error);
        return error instanceof GhostError && error.retryAfterMs === retryAfterMs;
      });
    }
  });
}

const breaks: readonly [name: string, script: CloudScript, code: string][] = [
  ["a reset", { fault: { kind: "cut", afterTokens: 2, where: "between-frames", how: "reset" } }, "upstream_failed"],
  [
    "an end in a frame",
    { fault: { kind: "cut", afterTokens: 2, where: "mid-frame", how: "clean" } },
    "upstream_failed",
  ],
  ["an end without message_stop", { wire: { omitEvents: ["message_stop"] } }, "upstream_failed"],
  ["overload", { fault: { kind: "error-in-band", afterTokens: 2, error: {} } }, "upstream_overloaded"],
  [
    "a rate limit",
    { fault: { kind: "error-in-band", afterTokens: 2, error: { type: "rate_limit_error" } } },
    "upstream_rate_limited",
  ],
];
for (const [name, script, code] of breaks) {
  test(`${name} in the middle is ${code}, and what came before is kept`, async (context) => {
    const { provider, host, model } = await setUpAnthropic(context);
    host.playOnce({ ...textScript("one ", "two ", "three"), ...script });
    const attempt = await provider.chat(chat("hi"), await model(MODEL), never);
    const fold = new AnswerFold();
    await assert.rejects(async () => {
      for await (const frame of attempt.frames) fold.addAll(frame.events());
    }, failsWith(code));
    assert.match(
      fold
        .parts("x")
        .map((part) => (part.kind === "text" ? part.text : ""))
        .join(""),
      /^one two /,
    );
  });
}

const wires: readonly [name: string, wire: NonNullable<CloudScript["wire"]>][] = [
  ["CRLF line ends", { lineEnd: "\r\n" }],
  ["pings and comments everywhere", { pingEvery: 1, commentEvery: 1 }],
  ["events of later years", { unknownEventEvery: 1 }],
  ["data over several lines", { multiLineData: true }],
  ["every byte in a packet of its own", { writeBytes: 1 }],
  ["a last frame without its blank line", { unterminatedLastFrame: true }],
];
for (const [name, wire] of wires) {
  test(`${name}: the answer is whole, and begins and ends once`, async (context) => {
    const { fold, attempt } = await answer(context, { ...textScript("Grü", "ße 🦊"), wire });
    assert.deepEqual([fold.parts("x"), fold.reason], [[{ kind: "text", text: "Grüße 🦊" }], "stop"]);
    assert.equal(attempt.model, `anthropic/${MODEL}`);
  });
}

test("a refusal after its first words ends as one", async (context) => {
  const { fold } = await answer(context, { blocks: [{ kind: "refusal", deltas: ["Well, ", "no."] }] });
  assert.deepEqual([fold.parts("x"), fold.reason], [[{ kind: "text", text: "Well, no." }], "contentFilter"]);
});

test("parallel calls come out one after the other, each whole", async (context) => {
  const blocks = ["a", "b"].map(
    (id) => ({ kind: "tool-call", name: "read", id, arguments: ['{"x":', '"y"}'] }) as const,
  );
  const setup = await setUpAnthropic(context);
  setup.host.playOnce({ blocks });
  const attempt = await setup.provider.chat(chat("hi", { tools: [READ] }), await setup.model(MODEL), never);
  const sequence = new BlockSequence();
  const steps = (await eventsOf(attempt)).flatMap((event) => sequence.add(event));
  const closed = [...steps, ...sequence.end()].flatMap((step) => (step.step === "close" ? [step.text] : []));
  assert.deepEqual(closed, ['{"x":"y"}', '{"x":"y"}']);
});

test("aborting closes the upstream, before and after the first word", async (context) => {
  const { provider, host, model } = await setUpAnthropic(context);
  const found = await model(MODEL);
  const early = new AbortController();
  host.playOnce({ fault: { kind: "hang-before-headers" } });
  const waiting = provider.chat(chat("hi"), found, early.signal);
  await host.until(() => host.openRequests === 1, "the request");
  early.abort();
  await assert.rejects(waiting, failsWith("cancelled"));
  await host.until(() => host.openRequests === 0, "the upstream's end");
  host.playOnce({ ...textScript("a", "b"), fault: { kind: "hang", afterTokens: 1 } });
  const late = new AbortController();
  const attempt = await provider.chat(chat("hi"), found, late.signal);
  late.abort();
  await assert.rejects(eventsOf(attempt), failsWith("cancelled"));
  await host.until(() => host.openRequests === 0, "the upstream's end");
});

test("tokens are counted by Anthropic, of a client's own body without what does not count", async (context) => {
  const { provider, host, model, sent } = await setUpAnthropic(context);
  const found = await model(MODEL);
  host.play({ usage: { inputTokens: 321 } });
  assert.equal(await provider.countTokens(chat("hi", { tools: [READ], sampling: { topK: 3 } }), found, never), 321);
  assert.equal(host.requests.at(-1)?.path, "/v1/messages/count_tokens");
  const body = {
    max_tokens: 9,
    messages: [{ role: "user", content: "hi" }],
    stream: true,
    temperature: 0.5,
    system: "s",
  };
  assert.equal(await provider.countTokens(chat("hi", relayed(body)), found, never), 321);
  assert.deepEqual(sent(), { messages: body.messages, system: "s", model: MODEL });
});

test("what Claude does not do is refused without asking", async (context) => {
  const { provider, host, model } = await setUpAnthropic(context);
  const found = await model(MODEL);
  const before = host.requests.length;
  await assert.rejects(provider.embed(["x"], found, never), failsWith("capability_missing"));
  await assert.rejects(provider.chat(chat("hi", { extras: { n: 2 } }), found, never), failsWith("capability_missing"));
  assert.equal(host.requests.length, before);
});

test("tools that are too strict are sent once more, less strict", async (context) => {
  const { provider, host, model, sent } = await setUpAnthropic(context);
  const found = await model(MODEL);
  const tools = [{ ...READ, strict: true }];
  host.playOnce({ status: { code: 400, message: "tools: Too many strict tools" } });
  host.playOnce(textScript("a"));
  const attempt = await provider.chat(chat("hi", { tools }), found, never);
  await eventsOf(attempt);
  assert.deepEqual(attempt.dropped, ["strict tools"]);
  assert.doesNotMatch(JSON.stringify(sent()), /strict/);
  for (const script of [1, 2]) host.playOnce({ status: { code: 400, message: `strict ${script}` } });
  await assert.rejects(provider.chat(chat("hi", { tools }), found, never), failsWith("upstream_rejected", /strict 2/));
});

test("what could not be told is named", async (context) => {
  const sampling = { seed: 1, temperature: 0.3, topK: 5 };
  const { attempt } = await answer(context, textScript("a"), {
    sampling,
    output: { stop: ["\n"], format: { kind: "text" } },
  });
  assert.deepEqual(attempt.dropped?.toSorted(), ["seed", "stop", "temperature", "top_k"]);
});
