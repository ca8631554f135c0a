/**
 * OpenAI's chat and text completions as frames: SSE chunks of a stream, or the one JSON object of a plain answer.
 * Format: https://platform.openai.com/docs/api-reference/chat/streaming; what real servers add or forget is in the tests.
 */
import { z } from "zod";
import type { FinishReason } from "../../../protocol/chat.ts";
import type { Usage } from "../../../protocol/usage.ts";
import type { Dialect, Frame, StreamEvent } from "../stream.ts";
import { errorWords, meaningOf } from "./responses-error.ts";
import { sseData } from "./sse.ts";

const toolCallDelta = z.looseObject({
  index: z.int().nullish(),
  id: z.string().nullish(),
  function: z
    .looseObject({
      name: z.string().nullish(),
      /** Some servers give the object itself, whole. */
      arguments: z.union([z.string(), z.record(z.string(), z.unknown())]).nullish(),
    })
    .nullish(),
});
/** Mistral's models that think answer in parts. */
const contentPart = z.looseObject({
  type: z.string().nullish(),
  text: z.string().nullish(),
  thinking: z.union([z.string(), z.array(z.looseObject({ text: z.string().nullish() }))]).nullish(),
});
const message = z.looseObject({
  content: z.union([z.string(), z.array(contentPart)]).nullish(),
  reasoning_content: z.string().nullish(),
  reasoning: z.string().nullish(),
  refusal: z.string().nullish(),
  tool_calls: z.array(toolCallDelta).nullish(),
});
const count = z.int().nonnegative().nullish().catch(undefined);
const usageShape = z.looseObject({
  prompt_tokens: count,
  completion_tokens: count,
  prompt_tokens_details: z.looseObject({ cached_tokens: count }).nullish().catch(undefined),
  completion_tokens_details: z.looseObject({ reasoning_tokens: count }).nullish().catch(undefined),
});
export const openAiChunk = z.looseObject({
  choices: z
    .array(
      z.looseObject({
        index: z.int().nullish(),
        delta: message.nullish(),
        message: message.nullish(),
        text: z.string().nullish(),
        finish_reason: z.string().nullish(),
      }),
    )
    .nullish(),
  usage: usageShape.nullish(),
  error: z
    .union([
      z.string(),
      z.looseObject({ message: z.string().nullish(), code: z.unknown().optional(), type: z.unknown().optional() }),
    ])
    .nullish(),
});
type OpenAiChunk = z.infer<typeof openAiChunk>;

/** A frame of the `openai-chat` or `openai-completion` dialect whose events are parsed when first asked for. */
export function openAiFrame(dialect: Dialect, bytes: Buffer): Frame {
  let events: readonly StreamEvent[] | undefined;
  return { dialect, bytes, events: () => (events ??= decodeOpenAi(bytes)) };
}

/**
 * The events in a run of whole SSE frames or in one JSON answer:
 * `data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n` → `[{kind: "text", text: "Hi"}]`.
 * A frame that is not JSON yields an `error` event: the answer cannot be trusted from there on.
 */
export function decodeOpenAi(bytes: Buffer): readonly StreamEvent[] {
  const events: StreamEvent[] = [];
  const first = bytes[0];
  const texts = first === 0x7b /* { */ ? [bytes.toString("utf8")] : sseData(bytes);
  for (const text of texts) {
    if (text === "[DONE]") continue;
    const chunk = parseChunk(text);
    if (chunk === undefined) {
      events.push(brokenFrame(`the server sent something that is not a completion chunk: ${text.slice(0, 120)}`));
      return events;
    }
    appendEvents(events, chunk);
  }
  return events;
}

function parseChunk(text: string): OpenAiChunk | undefined {
  try {
    const parsed = openAiChunk.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined; // Not JSON; the caller reports it with the text.
  }
}

function appendEvents(events: StreamEvent[], chunk: OpenAiChunk): void {
  if (chunk.error !== undefined && chunk.error !== null) {
    events.push(reportedError(chunk));
    return;
  }
  for (const choice of chunk.choices ?? []) {
    if ((choice.index ?? 0) !== 0) continue;
    const part = choice.delta ?? choice.message;
    push(events, "reasoning", part?.reasoning_content ?? part?.reasoning);
    appendContent(events, part?.content ?? choice.text);
    push(events, "refusal", part?.refusal);
    for (const [position, call] of (part?.tool_calls ?? []).entries()) {
      events.push({
        kind: "toolCall",
        index: call.index ?? position,
        ...(call.id === undefined || call.id === null ? {} : { callId: call.id }),
        ...(call.function?.name === undefined || call.function.name === null ? {} : { name: call.function.name }),
        arguments: argumentsText(call.function?.arguments),
      });
    }
    // Some servers say "" with every chunk, where others say null.
    if (choice.finish_reason !== undefined && choice.finish_reason !== null && choice.finish_reason !== "") {
      events.push({ kind: "finish", reason: finishReason(choice.finish_reason) });
    }
  }
  const usage = chunk.usage;
  if (usage !== undefined && usage !== null) events.push({ kind: "usage", usage: toUsage(usage) });
}

function push(events: StreamEvent[], kind: "text" | "refusal" | "reasoning", text: string | null | undefined): void {
  if (text !== undefined && text !== null && text !== "") events.push({ kind, text });
}

function appendContent(events: StreamEvent[], content: z.infer<typeof message>["content"]): void {
  if (!Array.isArray(content)) return push(events, "text", content);
  for (const { thinking, text } of content) {
    if (Array.isArray(thinking)) for (const thought of thinking) push(events, "reasoning", thought.text);
    else push(events, "reasoning", thinking);
    push(events, "text", text);
  }
}

function argumentsText(value: string | Readonly<Record<string, unknown>> | null | undefined): string {
  return typeof value === "string" ? value : value === null || value === undefined ? "" : JSON.stringify(value);
}

/** Some servers give a number as its code: the status that they would have answered with. */
function reportedError(chunk: OpenAiChunk): StreamEvent {
  const words = errorWords(chunk);
  if (words === undefined) return brokenFrame("the server reported an error");
  const status = /^[45]\d\d$/.test(words.code) ? Number(words.code) : undefined;
  const { code } = meaningOf(words, status);
  const message = words.message === "" ? "the server reported an error" : words.message;
  return { kind: "error", error: { code, message, details: {} } };
}

function brokenFrame(messageText: string): StreamEvent {
  return { kind: "error", error: { code: "upstream_failed", message: messageText, details: {} } };
}

export function finishReason(text: string): FinishReason {
  switch (text) {
    case "stop":
    case "eos":
    case "end_turn":
    case "stop_sequence":
      return "stop";
    case "length":
    case "max_tokens":
    case "model_length":
      return "length";
    case "tool_calls":
    case "function_call":
    case "tool_use":
      return "toolCalls";
    case "content_filter":
      return "contentFilter";
    default:
      return "unknown";
  }
}

function toUsage(usage: z.infer<typeof usageShape>): Usage {
  const known = (value: number | null | undefined): value is number => typeof value === "number";
  const cached = usage.prompt_tokens_details?.cached_tokens;
  const reasoning = usage.completion_tokens_details?.reasoning_tokens;
  return {
    ...(known(usage.prompt_tokens) ? { promptTokens: usage.prompt_tokens } : {}),
    ...(known(usage.completion_tokens) ? { completionTokens: usage.completion_tokens } : {}),
    ...(known(cached) ? { cachedTokens: cached } : {}),
    ...(known(reasoning) ? { reasoningTokens: reasoning } : {}),
  };
}
