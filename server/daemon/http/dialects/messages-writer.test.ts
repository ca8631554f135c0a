import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { answerIdSchema, modelRefSchema } from "../../../../protocol/ids.ts";
import { GhostError, OperationalError } from "../../../base/errors.ts";
import { anthropicFrame } from "../../../ghostllm/frames/anthropic.ts";
import { AnswerFold } from "../../../ghostllm/frames/answer-fold.ts";
import { openOpaque } from "../../../ghostllm/frames/opaque.ts";
import { eventsFrame, type StreamEvent } from "../../../ghostllm/stream.ts";
import { parseMessages } from "./messages-request.ts";
import { createMessagesWriter, type MessagesWriting, renderMessage } from "./messages-writer.ts";

const options: MessagesWriting = {
  id: answerIdSchema.parse("ans_1"),
  model: modelRefSchema.parse("up/m"),
  maker: "up",
  thinking: "shown",
  isRelayed: true,
};
const STOP: StreamEvent = { kind: "finish", reason: "stop" };

const record = z.record(z.string(), z.unknown());
type Json = z.infer<typeof record>;

/** The events of a stream, each in a frame of its own; their `event:` lines say their types. */
function play(events: readonly StreamEvent[], more: Partial<MessagesWriting> = {}): readonly Json[] {
  const writer = createMessagesWriter({ ...options, ...more });
  const bytes = [...events.map((event) => writer.write(eventsFrame([event]))), writer.end()];
  return read(Buffer.concat(bytes).toString());
}

function read(text: string): readonly Json[] {
  return text
    .split("\n\n")
    .filter((frame) => frame !== "")
    .map((frame) => {
      const [event, data, ...none] = frame.split("\n");
      const json = record.parse(JSON.parse(data?.replace(/^data: /, "") ?? ""));
      assert.deepEqual([event, none], [`event: ${String(json["type"])}`, []]);
      return json;
    });
}

const message = z.looseObject({ content: z.array(z.looseObject({ type: z.string() })), stop_reason: z.string() });

/** The content that a client adds up, checked against the rules of the stream on the way. */
function contentOf(frames: readonly Json[]): readonly Json[] {
  assert.deepEqual([frames[0]?.["type"], frames[1]?.["type"]], ["message_start", "ping"]);
  assert.deepEqual([frames.at(-2)?.["type"], frames.at(-1)?.["type"]], ["message_delta", "message_stop"]);
  const content: Record<string, unknown>[] = [];
  let json = "";
  let isOpen = false;
  for (const frame of frames.slice(2, -2)) {
    const delta = record.optional().parse(frame["delta"]);
    if (frame["type"] === "content_block_start") {
      assert.deepEqual([frame["index"], isOpen], [content.length, false], "blocks follow one another, without gaps");
      content.push({ ...record.parse(frame["content_block"]) });
      [isOpen, json] = [true, ""];
      continue;
    }
    assert.deepEqual([frame["index"], isOpen], [content.length - 1, true]);
    const block = content.at(-1) ?? {};
    if (frame["type"] === "content_block_stop") {
      isOpen = false;
      if (block["type"] === "tool_use") block["input"] = JSON.parse(json === "" ? "{}" : json);
    } else if (delta?.["type"] === "input_json_delta") json += String(delta["partial_json"]);
    else if (delta?.["type"] === "signature_delta") block["signature"] = delta["signature"];
    else if (delta?.["type"] === "thinking_delta")
      block["thinking"] = String(block["thinking"]) + String(delta["thinking"]);
    else {
      assert.equal(delta?.["type"], "text_delta");
      block["text"] = String(block["text"]) + String(delta?.["text"]);
    }
  }
  assert.equal(isOpen, false);
  return content;
}

const text = (value: string): StreamEvent => ({ kind: "text", text: value });
const say = (value: string) => ({ type: "text", text: value, citations: null });
const use = (id: string, name: string, input: object) => ({
  type: "tool_use",
  id,
  name,
  input,
  caller: { type: "direct" },
});

interface Case {
  readonly name: string;
  readonly events: readonly StreamEvent[];
  readonly content: readonly object[];
  readonly reason: string;
}
const cases: readonly Case[] = [
  { name: "text", events: [text("Grüße "), text("🦊"), STOP], content: [say("Grüße 🦊")], reason: "end_turn" },
  { name: "nothing at all", events: [text(""), STOP], content: [], reason: "end_turn" },
  {
    name: "text and two calls whose deltas interleave, under the wrong word",
    events: [
      text("I look."),
      { kind: "toolCall", index: 1, callId: "c1", name: "read", arguments: '{"path":' },
      { kind: "toolCall", index: 3, callId: "functions.ls:1", name: "ls", arguments: "" },
      { kind: "toolCall", index: 1, arguments: '"a"}' },
      { kind: "toolCall", index: 3, arguments: "{}", isWhole: true },
      STOP,
    ],
    content: [say("I look."), use("c1", "read", { path: "a" }), use("ghost_ZnVuY3Rpb25zLmxzOjE", "ls", {})],
    reason: "tool_use",
  },
  {
    name: "a call without an id and without arguments",
    events: [
      { kind: "toolCall", index: 0, name: "now", arguments: "" },
      { kind: "finish", reason: "toolCalls" },
    ],
    content: [use("toolu_ans_1_0", "now", {})],
    reason: "tool_use",
  },
  {
    name: "a free-form tool",
    events: [
      { kind: "toolCall", index: 0, callId: "c", name: "patch", isCustom: true, arguments: '{"input":"x"}' },
      STOP,
    ],
    content: [use("c", "patch", { input: "x" })],
    reason: "tool_use",
  },
  {
    name: "an answer that ran out of tokens",
    events: [text("a"), { kind: "finish", reason: "length" }],
    content: [say("a")],
    reason: "max_tokens",
  },
  {
    name: "a refusal in words",
    events: [{ kind: "refusal", text: "No." }, STOP],
    content: [say("No.")],
    reason: "refusal",
  },
  {
    name: "filtered content",
    events: [text("a"), { kind: "finish", reason: "contentFilter" }],
    content: [say("a")],
    reason: "refusal",
  },
];
for (const { name, events, content, reason } of cases) {
  test(`${name}: the same answer streamed and whole`, () => {
    const frames = play(events);
    assert.deepEqual(contentOf(frames), content);
    assert.equal(record.parse(frames.at(-2)?.["delta"])["stop_reason"], reason);
    const whole = message.parse(JSON.parse(renderMessage(options, new AnswerFold().addAll(events))));
    // A refusal in words is a block of its own in both.
    assert.deepEqual([whole.content, whole.stop_reason], [content, reason]);
  });
}

test("thinking of another maker is sealed so that it comes back to it, signed or not", () => {
  const events: readonly StreamEvent[] = [
    { kind: "reasoning", text: "one", block: 0 },
    { kind: "reasoning", text: "", block: 0, opaque: '{"id":"r"}' },
    { kind: "reasoning", text: "two", block: 1 },
    { kind: "reasoning", text: "", block: 2, opaque: '{"id":"s"}' },
    text("yes"),
    STOP,
  ];
  const content = contentOf(play(events));
  assert.deepEqual(
    content.map(({ type, thinking }) => [type, thinking]),
    [
      ["thinking", "one"],
      ["thinking", "two"],
      ["redacted_thinking", undefined],
      ["text", undefined],
    ],
  );
  const seals = content.slice(0, 3).map((block) => openOpaque(String(block["signature"] ?? block["data"])));
  assert.deepEqual(seals, [
    { maker: "up", data: '{"id":"r"}' },
    { maker: "up", data: "" },
    { maker: "up", data: '{"id":"s"}' },
  ]);
  const whole = message.parse(JSON.parse(renderMessage(options, new AnswerFold().addAll(events))));
  assert.deepEqual(whole.content, content);
});

test("what comes back of it is what the model said", () => {
  const events: readonly StreamEvent[] = [
    { kind: "reasoning", text: "hm", opaque: '{"id":"r"}' },
    { kind: "toolCall", index: 0, callId: "a.b", name: "read", arguments: '{"x":1}', opaque: '"sig"' },
    { kind: "toolCall", index: 1, callId: "c", name: "ls", arguments: "{}" },
    STOP,
  ];
  for (const content of [
    contentOf(play(events)),
    message.parse(JSON.parse(renderMessage(options, new AnswerFold().addAll(events)))).content,
  ]) {
    const body = {
      model: "m",
      max_tokens: 1,
      messages: [
        { role: "user", content: "x" },
        { role: "assistant", content },
      ],
    };
    const parsed = parseMessages(Buffer.from(JSON.stringify(body)));
    assert.deepEqual(parsed.messages()[1]?.parts, new AnswerFold().addAll(events).parts("up"));
    assert.equal(parsed.facts.isForeign, true);
  }
});

test("Anthropic's own seals stand as they came", () => {
  const events: readonly StreamEvent[] = [
    { kind: "reasoning", text: "hm", block: 0 },
    { kind: "reasoning", text: "", block: 0, opaque: '{"signature":"EqQB"}' },
    { kind: "reasoning", text: "", block: 1, opaque: '{"redacted":"xx"}' },
    { kind: "reasoning", text: "", block: 2, opaque: '{"signature":"omitted"}' },
    STOP,
  ];
  const content = [
    { type: "thinking", thinking: "hm", signature: "EqQB" },
    { type: "redacted_thinking", data: "xx" },
    { type: "thinking", thinking: "", signature: "omitted" },
  ];
  assert.deepEqual(contentOf(play(events, { maker: "anthropic" })), content);
  const whole = renderMessage({ ...options, maker: "anthropic" }, new AnswerFold().addAll(events));
  assert.deepEqual(message.parse(JSON.parse(whole)).content, content);
});

test("who did not ask for thinking gets none; who wants it left out gets what its maker wants back", () => {
  const events: readonly StreamEvent[] = [
    { kind: "reasoning", text: "one", block: 0 },
    { kind: "reasoning", text: "", block: 0, opaque: '{"id":"r"}' },
    { kind: "reasoning", text: "unsigned", block: 1 },
    text("yes"),
    STOP,
  ];
  const types = (thinking: MessagesWriting["thinking"]) => {
    const streamed = contentOf(play(events, { thinking }));
    const whole = renderMessage({ ...options, thinking }, new AnswerFold().addAll(events));
    assert.deepEqual(message.parse(JSON.parse(whole)).content, streamed);
    return streamed.map(({ type }) => type);
  };
  assert.deepEqual(types("hidden"), ["text"]);
  assert.deepEqual(types("sealed"), ["redacted_thinking", "text"]);
});

test("usage: the prompt without its cached part; what nobody counted is named", () => {
  const usage = { promptTokens: 100, cachedTokens: 60, cacheWriteTokens: 10, completionTokens: 7, reasoningTokens: 2 };
  const known = play([text("a"), { kind: "usage", usage }, STOP]).at(-2)?.["usage"];
  const counts = {
    input_tokens: 30,
    output_tokens: 7,
    cache_read_input_tokens: 60,
    cache_creation_input_tokens: 10,
    output_tokens_details: { thinking_tokens: 2 },
    server_tool_use: null,
  };
  assert.deepEqual(known, counts);
  const unknown = record.parse(play([text("a"), STOP]).at(-2)?.["usage"]);
  assert.deepEqual(
    [unknown["input_tokens"], unknown["output_tokens"], unknown["ghost_unknown"]],
    [null, 0, ["input_tokens", "output_tokens"]],
  );
  const whole = z.looseObject({ usage: record });
  const usageOf = (events: readonly StreamEvent[]) =>
    whole.parse(JSON.parse(renderMessage(options, new AnswerFold().addAll(events)))).usage;
  assert.equal(usageOf([{ kind: "usage", usage }])["input_tokens"], 30);
  const { input_tokens, ghost_unknown } = usageOf([{ kind: "usage", usage: { completionTokens: 1 } }]);
  assert.deepEqual([input_tokens, ghost_unknown], [0, ["input_tokens"]]);
});

test("tokens that are known before the first content stand in its beginning", () => {
  const start = play([{ kind: "usage", usage: { promptTokens: 9 } }, text("a"), STOP])[0]?.["message"];
  const { id, model, usage } = record.parse(start);
  assert.deepEqual([id, model, record.parse(usage)["input_tokens"]], ["msg_ans_1", "up/m", 9]);
});

test("a call whose JSON was cut is an error, except where the tokens ran out", () => {
  const cut: StreamEvent = { kind: "toolCall", index: 0, callId: "c", name: "read", arguments: '{"path":"a' };
  const isBroken = (error: unknown) => error instanceof GhostError && error.code === "upstream_failed";
  assert.throws(() => play([cut, STOP]), isBroken);
  assert.throws(() => renderMessage(options, new AnswerFold().addAll([cut, STOP])), isBroken);
  const list: StreamEvent = { ...cut, arguments: "[1]" };
  assert.throws(() => play([list, STOP]), isBroken);
  const short: StreamEvent = { kind: "finish", reason: "length" };
  const frames = createMessagesWriter(options);
  frames.write(eventsFrame([cut, short]));
  assert.match(frames.end().toString(), /"stop_reason":"max_tokens"/);
  const whole = message.parse(JSON.parse(renderMessage(options, new AnswerFold().addAll([cut, short]))));
  assert.deepEqual([whole.content, whole.stop_reason], [[], "max_tokens"]);
});

test("a stream that breaks off says why, in Anthropic's words and with the answer's id", () => {
  const writer = createMessagesWriter(options);
  writer.write(eventsFrame([text("a")]));
  const told = writer.fail(new OperationalError("upstream_overloaded", "too much")).toString();
  const [frame] = read(told);
  assert.deepEqual([record.parse(frame?.["error"])["type"], frame?.["request_id"]], ["overloaded_error", "ans_1"]);
});

test("Anthropic's frames pass as they came, and their end is said once", () => {
  const first = Buffer.from('event: message_start\ndata: {"type":"message_start", "message":{}}\n\n');
  const last = Buffer.from('event: message_stop\ndata: {"type":"message_stop"}\n\n');
  const whole = createMessagesWriter(options);
  assert.equal(whole.write(anthropicFrame(first)), first);
  assert.equal(whole.write(anthropicFrame(last)), last);
  assert.equal(whole.end().length, 0);
  const withheld = createMessagesWriter(options);
  withheld.write(anthropicFrame(first));
  assert.equal(withheld.end().toString(), last.toString());
});

test("where the request was written anew, its frames are, too, without the calls of its own tools", () => {
  const frames = [
    { type: "message_start", message: { usage: { input_tokens: 3, output_tokens: 1 } } },
    { type: "content_block_start", index: 0, content_block: { type: "server_tool_use", id: "s", name: "web_search" } },
    { type: "content_block_delta", index: 0, delta: { type: "input_json_delta", partial_json: '{"q":1}' } },
    { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "found" } },
    { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 5 } },
  ];
  const writer = createMessagesWriter({ ...options, maker: "anthropic", isRelayed: false });
  const bytes = frames.map((frame) =>
    writer.write(anthropicFrame(Buffer.from(`event: ${frame.type}\ndata: ${JSON.stringify(frame)}\n\n`))),
  );
  assert.deepEqual(contentOf(read(Buffer.concat([...bytes, writer.end()]).toString())), [say("found")]);
});
