import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Message, Part } from "../../ghostllm/stream.ts";
import { decodeMessages, decodeReply, encodeMessages } from "./body-job.ts";

const long = fc.string({ unit: "grapheme", minLength: 1, maxLength: 5 }).map((text) => text.repeat(700));
const text = fc.oneof(fc.string({ unit: "grapheme" }), long, fc.constant("\ud800 half of a pair".repeat(99)));
const part: fc.Arbitrary<Part> = fc.oneof(
  text.map((said): Part => ({ kind: "text", text: said })),
  fc.tuple(text, text, text).map(([callId, name, args]): Part => ({ kind: "toolCall", callId, name, arguments: args })),
  fc
    .tuple(text, text)
    .map(([said, image]): Part => ({ kind: "toolResult", callId: said, text: said, images: [image] })),
  fc.tuple(text, text).map(([said, data]): Part => ({ kind: "reasoning", text: said, opaque: { maker: "m", data } })),
);
const messages = fc.array(
  fc.array(part, { maxLength: 4 }).map((parts): Message => ({ role: "user", parts })),
  { maxLength: 5 },
);

test("messages come out of a worker as they went in, whatever their texts", () => {
  fc.assert(fc.property(messages, (given) => assert.deepEqual(decodeMessages(encodeMessages(given)), given)));
});

test("long texts are not parsed again where they arrive", () => {
  const given: readonly Message[] = [{ role: "user", parts: [{ kind: "text", text: "x".repeat(1_000_000) }] }];
  const { head, texts } = decodeReply(encodeMessages(given));
  assert.ok(JSON.stringify(head).length < 200);
  assert.deepEqual(texts, ["x".repeat(1_000_000)]);
});
