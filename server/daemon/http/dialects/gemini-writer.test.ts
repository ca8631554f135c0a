import assert from "node:assert/strict";
import { test } from "node:test";
import { answerIdSchema, modelRefSchema } from "../../../../protocol/ids.ts";
import { GhostError, OperationalError } from "../../../base/errors.ts";
import { AnswerFold } from "../../../ghostllm/frames/answer-fold.ts";
import { geminiFrame } from "../../../ghostllm/frames/gemini.ts";
import { sseData } from "../../../ghostllm/frames/sse.ts";
import { eventsFrame, type StreamEvent } from "../../../ghostllm/stream.ts";
import { parseGemini } from "./gemini-request.ts";
import { PLACEHOLDER, toSignature } from "./gemini-seal.ts";
import { createGeminiWriter, type GeminiWriting, renderGemini } from "./gemini-writer.ts";

const options: GeminiWriting = {
  id: answerIdSchema.parse("ans_1"),
  model: modelRefSchema.parse("up/m"),
  maker: "anthropic",
  showsThoughts: true,
  isRelayed: false,
  form: "sse",
};
type Runs = readonly (readonly StreamEvent[])[];
type Json = Readonly<Record<string, unknown>>;

/** Each run is one frame. */
function written(runs: Runs, more: Partial<GeminiWriting> = {}): string {
  const writer = createGeminiWriter({ ...options, ...more });
  const texts = runs.map((events) => writer.write(eventsFrame(events)).toString());
  return texts.join("") + writer.end().toString();
}
const chunks = (text: string): readonly Json[] => sseData(Buffer.from(text)).map((json) => JSON.parse(json));
const stream = (runs: Runs, more?: Partial<GeminiWriting>) => chunks(written(runs, more));
const whole = (runs: Runs, more: Partial<GeminiWriting> = {}): Json =>
  JSON.parse(renderGemini({ ...options, ...more }, new AnswerFold().addAll(runs.flat())));

const candidateOf = (chunk: Json | undefined): Json => {
  const list: readonly Json[] = JSON.parse(JSON.stringify(chunk?.["candidates"] ?? []));
  assert.equal(list.length, 1);
  return list[0] ?? {};
};
function partsOf(chunk: Json | undefined): readonly Json[] {
  const content: { role: string; parts: readonly Json[] } = JSON.parse(JSON.stringify(candidateOf(chunk)["content"]));
  assert.equal(content.role, "model");
  return content.parts;
}
const allParts = (all: readonly Json[]) => all.flatMap(partsOf);

const text = (said: string): StreamEvent => ({ kind: "text", text: said });
const finish = (reason: "stop" | "length" | "toolCalls" | "contentFilter" | "unknown"): StreamEvent => ({
  kind: "finish",
  reason,
});
const call = (index: number, callId: string, more: object = {}): StreamEvent => ({
  kind: "toolCall",
  index,
  callId,
  name: `tool${index}`,
  arguments: "",
  ...more,
});
const piece = (index: number, json: string): StreamEvent => ({ kind: "toolCall", index, arguments: json });

test("each piece of text is a whole answer, and the last says why it ended and what was counted", () => {
  const usage: StreamEvent = {
    kind: "usage",
    usage: { promptTokens: 10, completionTokens: 7, cachedTokens: 4, reasoningTokens: 2 },
  };
  const head = { modelVersion: "up/m", responseId: "ans_1" };
  const piece1 = { content: { parts: [{ text: "Grüße " }], role: "model" }, index: 0 };
  const piece2 = { content: { parts: [{ text: "🦊" }], role: "model" }, index: 0 };
  const last = { content: { parts: [{ text: "" }], role: "model" }, finishReason: "STOP", index: 0 };
  const usageMetadata = {
    promptTokenCount: 10,
    candidatesTokenCount: 5,
    thoughtsTokenCount: 2,
    cachedContentTokenCount: 4,
    totalTokenCount: 17,
  };
  const sent = written([[text("Grüße ")], [text("🦊")], [finish("stop"), usage]]);
  assert.deepEqual(chunks(sent), [
    { candidates: [piece1], ...head },
    { candidates: [piece2], ...head },
    { candidates: [last], usageMetadata, ...head },
  ]);
  assert.match(sent, /^(data: \{[^\n]*\}\r\n\r\n){3}$/);
  assert.doesNotMatch(sent, /DONE/);
});

test("what is not known is not said, and what is known early is said again", () => {
  const [first, last] = stream([[{ kind: "usage", usage: { promptTokens: 3 } }, text("a")], [finish("stop")]]);
  assert.deepEqual(
    [first?.["usageMetadata"], last?.["usageMetadata"]],
    [{ promptTokenCount: 3 }, { promptTokenCount: 3 }],
  );
  assert.equal(stream([[text("a"), finish("stop")]])[1]?.["usageMetadata"], undefined);
});

const reasons: readonly [events: readonly StreamEvent[], word: string][] = [
  [[text("a"), finish("stop")], "STOP"],
  [[text("a"), finish("length")], "MAX_TOKENS"],
  [[text("a"), finish("contentFilter")], "SAFETY"],
  [[{ kind: "refusal", text: "no" }, finish("stop")], "SAFETY"],
  [[call(0, "x"), finish("toolCalls")], "STOP"],
  [[text("a")], "STOP"],
];

test("why it ended, streamed and whole", () => {
  for (const [events, word] of reasons) {
    assert.equal(candidateOf(stream([events]).at(-1))["finishReason"], word);
    assert.equal(candidateOf(whole([events]))["finishReason"], word);
  }
});

test("calls come whole, in their order, also when their pieces interleave; those of another maker get the placeholder", () => {
  const runs: Runs = [
    [text("Look: ")],
    [call(1, "x"), piece(1, '{"a":')],
    [call(4, ""), piece(4, '{"b"')],
    [piece(1, "1}"), piece(4, ":2}")],
    [finish("toolCalls")],
  ];
  const expected = [
    { text: "Look: " },
    { functionCall: { id: "x", name: "tool1", args: { a: 1 } }, thoughtSignature: PLACEHOLDER },
    { functionCall: { id: "call_ans_1_1", name: "tool4", args: { b: 2 } } },
  ];
  assert.deepEqual(allParts(stream(runs)), expected);
  assert.deepEqual(partsOf(whole(runs)), expected);
});

test("arguments that are repeated are sent once, and none are an empty object", () => {
  const repeated: Runs = [
    [call(0, "x"), piece(0, '{"a":1}'), { kind: "toolCall", index: 0, arguments: '{"a":1}', isWhole: true }],
  ];
  assert.deepEqual(partsOf(stream(repeated)[0])[0]?.["functionCall"], { id: "x", name: "tool0", args: { a: 1 } });
  assert.deepEqual(partsOf(stream([[call(0, "x"), finish("stop")]])[0])[0]?.["functionCall"], {
    id: "x",
    name: "tool0",
    args: {},
  });
});

test("pieces of something that ran on the provider's side are no call", () => {
  const runs: Runs = [[piece(3, '{"query":"x"}'), text("found")], [finish("stop")]];
  assert.deepEqual(allParts(stream(runs)), [{ text: "found" }, { text: "" }]);
});

test("a call that was cut is an error, unless the answer ran out of tokens", () => {
  const cut = (reason: "stop" | "length"): Runs => [[text("a"), call(0, "x"), piece(0, '{"a":')], [finish(reason)]];
  const isBroken = (error: unknown) =>
    error instanceof GhostError && error.code === "upstream_failed" && error.message.includes('"tool0"');
  assert.throws(() => written(cut("stop")), isBroken);
  assert.throws(() => whole(cut("stop")), isBroken);
  assert.deepEqual(allParts(stream(cut("length"))), [{ text: "a" }, { text: "" }]);
  assert.deepEqual(
    [partsOf(whole(cut("length"))), candidateOf(whole(cut("length")))["finishReason"]],
    [[{ text: "a" }], "MAX_TOKENS"],
  );
});

const THOUGHT: Runs = [
  [{ kind: "reasoning", text: "let ", block: 0 }],
  [{ kind: "reasoning", text: "me", block: 0, opaque: '{"signature":"s"}' }],
  [text("yes"), finish("stop")],
];

test("thinking that is shown has its seal on its last piece", () => {
  const thoughtSignature = toSignature("anthropic", '{"signature":"s"}');
  assert.deepEqual(allParts(stream(THOUGHT)), [
    { text: "let ", thought: true },
    { text: "me", thought: true, thoughtSignature },
    { text: "yes" },
    { text: "" },
  ]);
  assert.deepEqual(partsOf(whole(THOUGHT)), [{ text: "let me", thought: true, thoughtSignature }, { text: "yes" }]);
});

test("thinking that nobody asked to see travels in its seal, and unsealed thinking does not travel", () => {
  const hidden = { showsThoughts: false };
  const thoughtSignature = toSignature("anthropic", '{"signature":"s"}', "let me");
  assert.deepEqual(allParts(stream(THOUGHT, hidden)), [{ text: "", thoughtSignature }, { text: "yes" }, { text: "" }]);
  assert.deepEqual(partsOf(whole(THOUGHT, hidden)), [{ text: "", thoughtSignature }, { text: "yes" }]);
  const twice: Runs = [
    [{ kind: "reasoning", text: "one", block: 0, opaque: "a" }],
    [{ kind: "reasoning", text: "two", block: 2, opaque: "b" }],
  ];
  assert.deepEqual(allParts(stream(twice, hidden)).slice(0, 2), [
    { text: "", thoughtSignature: toSignature("anthropic", "a", "one") },
    { text: "", thoughtSignature: toSignature("anthropic", "b", "two") },
  ]);
  const unsealed: Runs = [[{ kind: "reasoning", text: "hm" }, text("a")]];
  assert.deepEqual(partsOf(whole(unsealed, hidden)), [{ text: "a" }]);
  assert.deepEqual(partsOf(whole(unsealed)), [{ text: "hm", thought: true }, { text: "a" }]);
});

test("what an answer says comes back as it was said, whoever made it, shown or hidden, streamed or whole", () => {
  const seal = (on: string) => JSON.stringify({ signature: `${on}==`, on });
  const answers: Readonly<Record<string, Runs>> = {
    anthropic: [...THOUGHT.slice(0, 2), [text("yes"), call(0, "x"), piece(0, "{}"), finish("toolCalls")]],
    other: [[text("yes"), call(0, "x", { opaque: "sealed" })], [finish("toolCalls")]],
    gemini: [
      [{ kind: "reasoning", text: "hm", block: 0 }, text("yes")],
      [{ kind: "reasoning", text: "", block: 1, opaque: seal("text") }],
      [
        call(0, "x", { opaque: seal("call") }),
        call(1, "y"),
        { kind: "reasoning", text: "", block: 1, opaque: seal("end") },
      ],
      [finish("toolCalls")],
    ],
  };
  for (const [maker, runs] of Object.entries(answers)) {
    for (const showsThoughts of [true, false]) {
      const given = { maker, showsThoughts };
      const said = new AnswerFold().addAll(runs.flat()).parts(maker);
      const isLost = (part: (typeof said)[number]) =>
        part.kind === "reasoning" && part.opaque === undefined && !showsThoughts;
      const expected = said
        .filter((part) => !isLost(part))
        .map((part) => (part.kind === "toolCall" ? { ...part, arguments: "{}" } : part));
      for (const parts of [partsOf(whole(runs, given)), allParts(stream(runs, given))]) {
        const contents = [{ parts: [{ text: "hi" }] }, { role: "model", parts }];
        const [, turn] = parseGemini(Buffer.from(JSON.stringify({ contents }))).messages();
        assert.equal(plain(turn?.parts), plain(expected), JSON.stringify(parts));
      }
    }
  }
});

/** A seal on text may come to stand behind it: both places mean the same. */
const plain = (parts: unknown) =>
  JSON.stringify(parts).replaceAll(String.raw`\"on\":\"text\"`, String.raw`\"on\":\"end\"`);

test("a signature of Gemini's on text stands on the text where that is still here, else behind it", () => {
  const opaque = JSON.stringify({ signature: "AA==", on: "text" });
  const seal: StreamEvent = { kind: "reasoning", text: "", block: 1, opaque };
  const gemini = { maker: "gemini" };
  assert.deepEqual(partsOf(stream([[text("yes"), seal]], gemini)[0]), [{ text: "yes", thoughtSignature: "AA==" }]);
  assert.deepEqual(allParts(stream([[text("yes")], [seal]], gemini)), [
    { text: "yes" },
    { text: "", thoughtSignature: "AA==" },
    { text: "" },
  ]);
});

const RAW = 'data: {"candidates":[{"content":{"parts":[{"text":"hi"}],"role":"model"},"finishReason":"STOP"}]}\r\n\r\n';

test("a relay passes the bytes, as a list their JSON, and adds nothing", () => {
  const frame = geminiFrame(Buffer.from(RAW + RAW));
  const relay = (form: GeminiWriting["form"], isRelayed = true) => {
    const writer = createGeminiWriter({ ...options, form, isRelayed });
    return writer.write(frame).toString() + writer.end().toString();
  };
  assert.equal(relay("sse"), RAW + RAW);
  const json = RAW.slice("data: ".length).trim();
  assert.equal(relay("list"), `[${json},\r\n${json}\r\n]`);
  assert.equal(JSON.parse(relay("list")).length, 2);
  assert.match(relay("sse", false), /"modelVersion":"up\/m"/);
});

test("as a list, pieces and errors are JSON", () => {
  const list = { form: "list" } as const;
  const all: readonly Json[] = JSON.parse(written([[text("a")], [text("b"), finish("stop")]], list));
  assert.deepEqual(allParts(all), [{ text: "a" }, { text: "b" }, { text: "" }]);
  assert.equal(JSON.parse(written([], list)).length, 1);
});

test("a failure is a chunk of its own, in Gemini's shape", () => {
  const error = new OperationalError("upstream_rate_limited", "slow down", { retryAfterMs: 6_100 });
  const [chunk] = chunks(createGeminiWriter(options).fail(error).toString());
  const told = chunk?.["error"];
  assert.ok(typeof told === "object" && told !== null && "details" in told);
  const { code, status, details } = { code: 0, status: "", ...told };
  assert.deepEqual([code, status], [429, "RESOURCE_EXHAUSTED"]);
  assert.deepEqual(details, [
    { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "upstream_rate_limited", domain: "ghoststack" },
    { "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: "7s" },
  ]);
});
