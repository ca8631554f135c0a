/**
 * What every writer says, read again by the decoder of its dialect: whatever the order in which an upstream tells its answer, texts, calls and the end are
 * the same for clients of all dialects, streamed and whole.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { answerIdSchema, modelRefSchema } from "../../../../protocol/ids.ts";
import { AnswerFold, argumentsOf } from "../../../ghostllm/frames/answer-fold.ts";
import { decodeAnthropic } from "../../../ghostllm/frames/anthropic.ts";
import { decodeGemini } from "../../../ghostllm/frames/gemini.ts";
import { decodeOllama } from "../../../ghostllm/frames/ollama.ts";
import { decodeOpenAi } from "../../../ghostllm/frames/openai.ts";
import { decodeResponses } from "../../../ghostllm/frames/responses.ts";
import { eventsFrame, type StreamEvent } from "../../../ghostllm/stream.ts";
import { systemClock } from "../../../platform/system-clock.ts";
import { createGeminiWriter, renderGemini } from "./gemini-writer.ts";
import { createMessagesWriter, renderMessage } from "./messages-writer.ts";
import { createOllamaWriter, renderOllama } from "./ollama-writer.ts";
import { createStreamWriter, renderWhole } from "./openai-writer.ts";
import { ResponseStream } from "./responses-stream.ts";
import { endingOf, ResponseEvents, stepsOf } from "./responses-writer.ts";
import type { StreamWriter } from "./serve.ts";

const id = answerIdSchema.parse("ans_01M8DX5EFQK19THSPGGVWTA5MK");
const model = modelRefSchema.parse("up/m");
const chat = { format: "openai-chat", id, model, createdAtMs: 0, includeUsage: true } as const;
const messages = { thinking: "shown", id, model, maker: "up", isRelayed: false } as const;
const gemini = { showsThoughts: true, id, model, maker: "up", isRelayed: false, form: "sse" } as const;
const ollama = { route: "chat", model, showsThinking: true, clock: systemClock, startedAtMs: 0 } as const;
const head = {
  id: "resp_1",
  model,
  createdAtMs: 0,
  echo: '"store":false',
  sealReasoning: (data: string) => data,
  sealCall: (_callId: string, data: string) => data,
};

interface Dialect {
  readonly name: string;
  readonly stream: (events: readonly StreamEvent[]) => string | Promise<string>;
  readonly whole: (fold: AnswerFold) => string;
  readonly decode: (bytes: Buffer) => readonly StreamEvent[];
}

/** Each event in a frame of its own. */
const written = (writer: StreamWriter) => (events: readonly StreamEvent[]) =>
  events.map((event) => writer.write(eventsFrame([event])).toString()).join("") + writer.end().toString();

const DIALECTS: readonly Dialect[] = [
  {
    name: "chat completions",
    stream: (events) => written(createStreamWriter(chat))(events),
    whole: (fold) => renderWhole(chat, fold),
    decode: decodeOpenAi,
  },
  {
    name: "Messages",
    stream: (events) => written(createMessagesWriter(messages))(events),
    whole: (fold) => renderMessage(messages, fold),
    decode: decodeAnthropic,
  },
  { name: "Responses", stream: responsesStream, whole: responsesWhole, decode: decodeResponses },
  {
    name: "Gemini",
    stream: (events) => written(createGeminiWriter(gemini))(events),
    whole: (fold) => renderGemini(gemini, fold),
    decode: decodeGemini,
  },
  {
    name: "Ollama",
    stream: (events) => written(createOllamaWriter(ollama))(events),
    whole: (fold) => renderOllama(ollama, fold),
    decode: decodeOllama,
  },
];

async function responsesStream(events: readonly StreamEvent[]): Promise<string> {
  let text = "";
  const sink = (type: string, json: string) => {
    text += `event: ${type}\ndata: ${json}\n\n`;
  };
  const stream = new ResponseStream({ head, isRelayed: false, now: () => 0, sink, relay() {}, keep: async () => {} });
  for (const event of events) stream.write(eventsFrame([event]));
  await stream.settle();
  stream.end();
  return text;
}

function responsesWhole(fold: AnswerFold): string {
  const events = new ResponseEvents(head, () => {});
  for (const step of stepsOf(fold.blocks)) events.step(step);
  return events.finish({ ...endingOf(fold.reason), completedAtMs: 0, usage: fold.usage }).text;
}

/** What a client makes of an answer. Free-form calls are left to each dialect's own tests: not all of them know any. */
function meaning(events: readonly StreamEvent[]) {
  const { blocks, reason, usage } = new AnswerFold().addAll(events);
  const said = (...kinds: readonly string[]) =>
    blocks.flatMap((block) => (kinds.includes(block.kind) && "text" in block ? [block.text] : [])).join("");
  return {
    text: said("text", "refusal"),
    thought: said("reasoning"),
    calls: blocks.flatMap((block) =>
      block.kind === "toolCall" ? [{ name: block.name, arguments: JSON.parse(argumentsOf(block.arguments)) }] : [],
    ),
    reason,
    // Anthropic's clients add up the prompt's tokens over several events, which decoding keeps apart.
    tokens: usage?.completionTokens,
  };
}

/** Pieces of calls and words in any order; every call is told to its end. */
const words = fc.oneof(
  fc.string({ minLength: 1, maxLength: 6 }),
  fc.constantFrom("🦊", "\n\n", "data: [DONE]\n\n", "</x>", "\u2028"),
);
const calls = fc.array(
  fc.option(fc.dictionary(fc.string({ maxLength: 4 }), fc.jsonValue(), { maxKeys: 2 }), { nil: undefined }),
  { maxLength: 3 },
);
const answers = fc
  .record({
    calls,
    said: fc.array(fc.record({ kind: fc.constantFrom("text", "reasoning"), text: words }), { maxLength: 6 }),
    cuts: fc.infiniteStream(fc.nat(5)),
    order: fc.infiniteStream(fc.nat(9)),
    isRepeated: fc.boolean(),
    reason: fc.constantFrom("stop", "toolCalls", "length"),
  })
  .map(({ calls: given, said, cuts, order, isRepeated, reason }) => {
    const queues: StreamEvent[][] = given.map((value, index) => callEvents(index, value, { cuts, isRepeated }));
    queues.push(
      said.map(
        ({ kind, text }): StreamEvent => (kind === "text" ? { kind: "text", text } : { kind: "reasoning", text }),
      ),
    );
    const events: StreamEvent[] = [];
    while (queues.some((queue) => queue.length > 0)) {
      const waiting = queues.filter((queue) => queue.length > 0);
      const next = waiting[(order.next().value ?? 0) % waiting.length]?.shift();
      if (next !== undefined) events.push(next);
    }
    // An upstream that has calls says so, or that it stopped.
    const end = given.length === 0 && reason === "toolCalls" ? "stop" : reason;
    return [
      ...events,
      { kind: "usage", usage: { promptTokens: 3, completionTokens: 5 } },
      { kind: "finish", reason: end },
    ] as const;
  });

function callEvents(
  index: number,
  value: object | undefined,
  { cuts, isRepeated }: { readonly cuts: Iterator<number>; readonly isRepeated: boolean },
): StreamEvent[] {
  const json = value === undefined ? "" : JSON.stringify(value);
  // Numbers have gaps where an upstream counts all its blocks.
  const place = { kind: "toolCall", index: index * 3 } as const;
  const events: StreamEvent[] = [{ ...place, callId: `call_${index}`, name: `tool_${index}`, arguments: "" }];
  for (let at = 0; at < json.length; ) {
    const length = 1 + (cuts.next().value ?? 0);
    events.push({ ...place, arguments: json.slice(at, at + length) });
    at += length;
  }
  if (isRepeated) events.push({ ...place, arguments: json, isWhole: true });
  return events;
}

/** Calls in the order of their numbers: where they interleave, the dialects open them in different orders. */
const sorted = (told: ReturnType<typeof meaning>) => ({
  ...told,
  calls: told.calls.toSorted((a, b) => a.name.localeCompare(b.name)),
});

for (const { name, stream, whole, decode } of DIALECTS) {
  test(`${name}: whatever the order in which an answer is told, it means the same, streamed and whole`, async () => {
    await fc.assert(
      fc.asyncProperty(answers, async (events) => {
        const expected = sorted(meaning(events));
        const streamed = await stream(events);
        assert.deepEqual(sorted(meaning(decode(Buffer.from(streamed)))), expected, streamed);
        const body = whole(new AnswerFold().addAll(events));
        assert.deepEqual(sorted(meaning(decode(Buffer.from(body)))), expected, body);
      }),
      { numRuns: 300 },
    );
  });
}
