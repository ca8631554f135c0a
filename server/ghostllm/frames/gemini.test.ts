/** Gemini's frames as events: every kind of part, every word for an end, errors, and what is cut or strange. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { StreamEvent } from "../stream.ts";
import { AnswerFold } from "./answer-fold.ts";
import { continuationIn, decodeGemini, endsHop, endWords, readSeal } from "./gemini.ts";
import { codeOfGemini, readGeminiError } from "./gemini-error.ts";

const frame = (json: object) => Buffer.from(`data: ${JSON.stringify(json)}\r\n\r\n`);
const parts = (...all: readonly object[]) =>
  frame({ candidates: [{ content: { parts: all, role: "model" }, index: 0 }] });
const ends = (finishReason: string, more: object = {}) => frame({ candidates: [{ finishReason, ...more }] });
const golden = (name: string) => readFileSync(new URL(`../../../test/fixtures/wire/gemini/${name}`, import.meta.url));

const check = (bytes: Buffer, expected: readonly StreamEvent[]) => assert.deepEqual(decodeGemini(bytes), expected);
const seal = (signature: string, on: string) => JSON.stringify({ signature, on });

test("text, thoughts, calls and signatures, each in its place", () => {
  check(parts({ text: "Grüße 🦊" }, { text: "" }), [{ kind: "text", text: "Grüße 🦊" }]);
  check(parts({ text: "Hm.", thought: true }, { text: "So.", thought: true, thoughtSignature: "s1" }), [
    { kind: "reasoning", text: "Hm.", block: 0 },
    { kind: "reasoning", text: "So.", block: 0, opaque: seal("s1", "thought") },
  ]);
  check(
    parts({ text: "a", thoughtSignature: "s2" }, { text: "", thoughtSignature: "s3" }, { thoughtSignature: "s4" }),
    [
      { kind: "text", text: "a" },
      { kind: "reasoning", text: "", block: 1, opaque: seal("s2", "text") },
      { kind: "reasoning", text: "", block: 1, opaque: seal("s3", "end") },
      { kind: "reasoning", text: "", block: 1, opaque: seal("s4", "end") },
    ],
  );
  const call = { functionCall: { id: "c1", name: "read", args: { path: "ä" } }, thoughtSignature: "s5" };
  const [one, two, again] = decodeGemini(
    Buffer.concat([parts(call), parts({ functionCall: { name: "list" } }), parts(call)]),
  );
  assert.ok(one?.kind === "toolCall" && two?.kind === "toolCall");
  assert.notEqual(one.index, two.index);
  assert.deepEqual(one, again, "a call has the same number in whatever run of frames it is read");
  assert.deepEqual(
    [one, two],
    [
      {
        kind: "toolCall",
        index: one.index,
        callId: "c1",
        name: "read",
        arguments: '{"path":"ä"}',
        isWhole: true,
        opaque: seal("s5", "call"),
      },
      { kind: "toolCall", index: two.index, name: "list", arguments: "{}", isWhole: true },
    ],
  );
  for (const { index } of [one, two]) assert.ok(Number.isSafeInteger(index) && index >= 0);
});

test("a seal tells what it stood on, and anything else is none", () => {
  assert.deepEqual(readSeal(seal("s", "call")), { signature: "s", on: "call" });
  assert.deepEqual(readSeal('{"signature":"s","on":"new"}'), { signature: "s", on: "end" });
  assert.deepEqual([readSeal("{"), readSeal('{"sig":"s"}'), readSeal("[]")], [undefined, undefined, undefined]);
});

test("counts: thoughts are part of the answer, what is not said stays unknown", () => {
  const usage = (usageMetadata: object) => decodeGemini(frame({ usageMetadata }));
  const all = { promptTokenCount: 50, cachedContentTokenCount: 40, candidatesTokenCount: 6, thoughtsTokenCount: 3 };
  assert.deepEqual(usage(all), [
    { kind: "usage", usage: { promptTokens: 50, completionTokens: 9, cachedTokens: 40, reasoningTokens: 3 } },
  ]);
  assert.deepEqual(usage({ promptTokenCount: 50, totalTokenCount: 50 }), [
    { kind: "usage", usage: { promptTokens: 50 } },
  ]);
  assert.deepEqual(usage({ thoughtsTokenCount: 3 }), [
    { kind: "usage", usage: { completionTokens: 3, reasoningTokens: 3 } },
  ]);
  assert.deepEqual(usage({ promptTokenCount: "many" }), []);
});

const finishes: readonly [word: string, reason: string][] = [
  ["STOP", "stop"],
  ["MAX_TOKENS", "length"],
  ["SAFETY", "contentFilter"],
  ["RECITATION", "contentFilter"],
  ["BLOCKLIST", "contentFilter"],
  ["PROHIBITED_CONTENT", "contentFilter"],
  ["SPII", "contentFilter"],
];
test("an end is known by its word, and a word that is none here is told as such", () => {
  for (const [word, reason] of finishes) {
    assert.deepEqual(decodeGemini(ends(word)), [{ kind: "finish", reason }], word);
    assert.ok(endsHop(ends(word)));
  }
  const strange = [
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "LANGUAGE",
    "OTHER",
    "FINISH_REASON_UNSPECIFIED",
    "NEW_IN_2027",
  ];
  for (const word of strange) {
    const end = ends(word, { finishMessage: "print(1)" });
    assert.deepEqual(decodeGemini(end), [{ kind: "finish", reason: "unknown" }], word);
    assert.equal(endWords(end), `${word} (print(1))`);
  }
});

test("CONTINUATION ends a hop and not the answer; a token says how it goes on", () => {
  const end = ends("CONTINUATION", { continuationToken: "t2" });
  assert.deepEqual(decodeGemini(end), []);
  assert.ok(endsHop(end));
  assert.deepEqual(continuationIn(end), { token: "t2", isLast: true });
  const checkpoint = frame({ candidates: [{ content: { parts: [{ text: "a" }] }, continuationToken: "t1" }] });
  assert.deepEqual(continuationIn(checkpoint), { token: "t1", isLast: true });
  assert.deepEqual(continuationIn(Buffer.concat([checkpoint, parts({ text: "b" })])), { token: "t1", isLast: false });
  assert.deepEqual(continuationIn(Buffer.concat([checkpoint, parts({ text: "b" }), end])), {
    token: "t2",
    isLast: true,
  });
  assert.equal(continuationIn(parts({ text: '"continuationToken"' })), undefined);
});

test("the words of an end inside a call's arguments end nothing", () => {
  const call = parts({ functionCall: { name: "log", args: { finishReason: "STOP", continuationToken: "x" } } });
  assert.ok(call.includes('"finishReason"'));
  assert.deepEqual([endsHop(call), continuationIn(call)], [false, undefined]);
});

test("a refused prompt, an error in band and a page that is no JSON are errors", () => {
  const codeOf = (bytes: Buffer) => {
    const [event] = decodeGemini(bytes);
    return event?.kind === "error" ? [event.error.code, event.error.message] : [];
  };
  const feedback = { blockReason: "PROHIBITED_CONTENT", blockReasonMessage: "no" };
  assert.deepEqual(codeOf(frame({ promptFeedback: feedback })), [
    "upstream_filtered",
    "the prompt was refused: PROHIBITED_CONTENT (no)",
  ]);
  check(frame({ promptFeedback: { safetyRatings: [] } }), []);
  const busy = { error: { code: 503, message: "The model is overloaded.", status: "UNAVAILABLE" } };
  assert.deepEqual(codeOf(frame(busy)), ["upstream_overloaded", "The model is overloaded."]);
  assert.deepEqual(codeOf(Buffer.from(JSON.stringify(busy))), ["upstream_overloaded", "The model is overloaded."]);
  assert.equal(codeOf(Buffer.from("data: <html>\n\n"))[0], "upstream_failed");
});

test("a plain answer is whole only when it says why it ended", () => {
  const whole = (candidate: object) => decodeGemini(Buffer.from(JSON.stringify({ candidates: [candidate] })));
  const content = { parts: [{ text: "Hi" }] };
  assert.deepEqual(whole({ content, finishReason: "STOP" }), [
    { kind: "text", text: "Hi" },
    { kind: "finish", reason: "stop" },
  ]);
  assert.equal(whole({ content }).at(-1)?.kind, "error");
});

test("goldens of Google's own streams read as they were meant", () => {
  const read = (name: string) => new AnswerFold().addAll(decodeGemini(golden(name)));
  const text = read("text.sse");
  assert.deepEqual([text.blocks, text.reason], [[{ kind: "text", text: "Bonjour, à bientôt 🌍!" }], "stop"]);
  const tools = read("thoughts-tools.sse");
  assert.deepEqual(
    tools.blocks.map(({ kind }) => kind),
    ["reasoning", "text", "toolCall", ...tools.blocks.slice(3).map(() => "toolCall")],
  );
  assert.ok(tools.blocks.some((block) => block.kind === "toolCall" && block.opaque !== undefined));
  assert.equal(tools.reason, "toolCalls");
  const signed = read("signed-text.sse");
  assert.deepEqual(
    signed.blocks.map(({ kind }) => kind),
    ["text", "reasoning"],
  );
  assert.equal(read("blocked.sse").error?.code, "upstream_filtered");
  assert.equal(read("unavailable.sse").error?.code, "upstream_overloaded");
  assert.equal(read("safety.sse").reason, "contentFilter");
  assert.deepEqual(continuationIn(golden("continuation.sse")), { token: "TmV4dEhvcA==", isLast: true });
});

const type = (name: string) => `type.googleapis.com/google.rpc.${name}`;
const violation = (quotaId: string) => ({ "@type": type("QuotaFailure"), violations: [{ quotaId }] });
const plan = "You exceeded your current quota, please check your plan and billing details.";
const errors: readonly [error: object | undefined, status: number, code: string][] = [
  [undefined, 500, "upstream_failed"],
  [undefined, 413, "upstream_rejected"],
  [{ code: 400, status: "INVALID_ARGUMENT", message: "bad" }, 400, "upstream_rejected"],
  [
    {
      code: 400,
      status: "INVALID_ARGUMENT",
      message: "The input token count (9) exceeds the maximum number of tokens allowed (8).",
    },
    400,
    "context_too_long",
  ],
  [
    {
      code: 400,
      status: "INVALID_ARGUMENT",
      message: "API key not valid.",
      details: [{ "@type": type("ErrorInfo"), reason: "API_KEY_INVALID" }],
    },
    400,
    "upstream_auth",
  ],
  [
    {
      code: 400,
      status: "FAILED_PRECONDITION",
      message: "Gemini API free tier is not available in your country. Please enable billing on your project.",
    },
    400,
    "upstream_quota",
  ],
  [
    { code: 400, status: "FAILED_PRECONDITION", message: "User location is not supported for the API use." },
    400,
    "upstream_rejected",
  ],
  [{ code: 403, status: "PERMISSION_DENIED", message: "no" }, 403, "upstream_auth"],
  [{ code: 404, status: "NOT_FOUND", message: "no" }, 404, "model_not_found"],
  [{ code: 429, status: "RESOURCE_EXHAUSTED", message: plan }, 429, "upstream_rate_limited"],
  [
    {
      code: 429,
      status: "RESOURCE_EXHAUSTED",
      message: plan,
      details: [violation("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")],
    },
    429,
    "upstream_rate_limited",
  ],
  [
    {
      code: 429,
      status: "RESOURCE_EXHAUSTED",
      message: plan,
      details: [violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier")],
    },
    429,
    "upstream_quota",
  ],
  [
    { code: 429, status: "RESOURCE_EXHAUSTED", message: `${plan} Quota exceeded for metric x, limit: 0, model: y` },
    429,
    "upstream_quota",
  ],
  [
    { code: 429, status: "RESOURCE_EXHAUSTED", message: "Your prepayment credits are depleted." },
    429,
    "upstream_quota",
  ],
  [{ code: 500, status: "INTERNAL", message: "x" }, 500, "upstream_failed"],
  [{ code: 503, status: "UNAVAILABLE", message: "x" }, 503, "upstream_overloaded"],
  [{ code: 504, status: "DEADLINE_EXCEEDED", message: "x" }, 504, "upstream_timeout"],
];
test("errors mean what they say", () => {
  for (const [error, status, code] of errors) {
    assert.equal(codeOfGemini(readGeminiError({ error }), status), code, JSON.stringify(error));
  }
  const delay = (retryDelay: unknown) =>
    readGeminiError([{ error: { details: [{ "@type": type("RetryInfo"), retryDelay }] } }])?.retryAfterMs;
  assert.deepEqual(["37s", "1.5s", { seconds: "2", nanos: 500_000_000 }, "0s", "soon", undefined].map(delay), [
    37_000,
    1_500,
    2_500,
    undefined,
    undefined,
    undefined,
  ]);
  assert.equal(readGeminiError("<html>"), undefined);
});
