/**
 * Answers in OpenAI's chat and text completion formats.
 * Frames of the same dialect are relayed as they came, less what the client did not ask for; events of other engines are rendered.
 */
import type { FinishReason } from "../../../../protocol/chat.ts";
import type { AnswerId, ModelRef } from "../../../../protocol/ids.ts";
import type { Usage } from "../../../../protocol/usage.ts";
import { sseData, sseFrames } from "../../../ghostllm/frames/sse.ts";
import type { Frame, StreamEvent } from "../../../ghostllm/stream.ts";

export type OpenAiFormat = "openai-chat" | "openai-completion";

export interface WriterOptions {
  readonly format: OpenAiFormat;
  readonly id: AnswerId;
  readonly model: ModelRef;
  readonly createdAtMs: number;
  readonly includeUsage: boolean;
}

const FINISH_REASONS: Record<FinishReason, string> = {
  stop: "stop",
  length: "length",
  toolCalls: "tool_calls",
  contentFilter: "content_filter",
  unknown: "stop",
};
export const DONE = Buffer.from("data: [DONE]\n\n");

export interface StreamWriter {
  /** The bytes for the client; empty where a frame holds nothing for it. */
  write(frame: Frame): Buffer;
  /** What must come after the last frame of a whole answer: the usage chunk, where it was asked for, and `[DONE]`. */
  end(): Buffer;
}

export function createStreamWriter(options: WriterOptions): StreamWriter {
  const { format, includeUsage } = options;
  const head = chunkHead(options, true);
  let isFirst = true;
  let usage: Usage | undefined;
  const render = (choice: object): string => {
    const line = `data: ${JSON.stringify({ ...head, choices: [choice], ...(includeUsage ? { usage: null } : {}) })}\n\n`;
    isFirst = false;
    return line;
  };
  const renderEvent = (event: StreamEvent): string => {
    if (event.kind === "usage") {
      usage = { ...usage, ...event.usage };
      return "";
    }
    const role = isFirst ? { role: "assistant" } : {};
    switch (event.kind) {
      case "text":
        return render(
          format === "openai-chat" ? chatChoice({ ...role, content: event.text }, null) : textChoice(event.text, null),
        );
      case "reasoning":
        return format === "openai-chat" ? render(chatChoice({ ...role, reasoning_content: event.text }, null)) : "";
      case "toolCall":
        return render(chatChoice({ ...role, tool_calls: [toolCallDelta(event)] }, null));
      case "finish": {
        const reason = FINISH_REASONS[event.reason];
        return render(format === "openai-chat" ? chatChoice({ ...role }, reason) : textChoice("", reason));
      }
      case "error":
        return "";
    }
  };
  return {
    write: (frame) =>
      frame.dialect === format
        ? relay(frame.bytes, includeUsage)
        : Buffer.from(frame.events().map(renderEvent).join("")),
    end() {
      if (!includeUsage || usage === undefined) return DONE;
      const last = `data: ${JSON.stringify({ ...head, choices: [], usage: toOpenAiUsage(usage) })}\n\n`;
      return Buffer.concat([Buffer.from(last), DONE]);
    },
  };
}

/** Drops the usage chunk that we asked for and the client did not. The gate is two native searches: most frames hold neither text. */
function relay(bytes: Buffer, includeUsage: boolean): Buffer {
  if (includeUsage || !bytes.includes('"usage"') || !/"choices"\s*:\s*\[\s*\]/.test(bytes.toString("latin1")))
    return bytes;
  return Buffer.concat(sseFrames(bytes).filter((frame) => !isUsageOnly(frame)));
}

function isUsageOnly(frame: Buffer): boolean {
  const text = sseData(frame)[0];
  if (text === undefined) return false;
  try {
    const chunk: unknown = JSON.parse(text);
    return (
      typeof chunk === "object" &&
      chunk !== null &&
      "usage" in chunk &&
      chunk.usage !== null &&
      "choices" in chunk &&
      Array.isArray(chunk.choices) &&
      chunk.choices.length === 0
    );
  } catch {
    return false; // Not a chunk of ours to judge: it passes as it came.
  }
}

/** A whole answer as one JSON object. */
export function renderWhole(options: WriterOptions, events: readonly StreamEvent[]): string {
  const whole = foldEvents(events);
  const reason = FINISH_REASONS[whole.reason];
  const choice =
    options.format === "openai-completion"
      ? textChoice(whole.text, reason)
      : {
          index: 0,
          message: {
            role: "assistant",
            content: whole.text === "" && whole.toolCalls.length > 0 ? null : whole.text,
            refusal: null,
            ...(whole.reasoning === "" ? {} : { reasoning_content: whole.reasoning }),
            ...(whole.toolCalls.length === 0 ? {} : { tool_calls: whole.toolCalls }),
          },
          logprobs: null,
          finish_reason: reason,
        };
  return JSON.stringify({
    ...chunkHead(options, false),
    choices: [choice],
    ...(whole.usage === undefined ? {} : { usage: toOpenAiUsage(whole.usage) }),
  });
}

function foldEvents(events: readonly StreamEvent[]) {
  let text = "";
  let reasoning = "";
  let reason: FinishReason = "unknown";
  let usage: Usage | undefined;
  const calls: { id: string; type: "function"; function: { name: string; arguments: string } }[] = [];
  for (const event of events) {
    if (event.kind === "text") text += event.text;
    else if (event.kind === "reasoning") reasoning += event.text;
    else if (event.kind === "usage") usage = { ...usage, ...event.usage };
    else if (event.kind === "finish") reason = event.reason;
    else if (event.kind === "toolCall") {
      const call = (calls[event.index] ??= {
        id: event.callId ?? "",
        type: "function",
        function: { name: "", arguments: "" },
      });
      call.id = event.callId ?? call.id;
      call.function.name += event.name ?? "";
      call.function.arguments += event.arguments;
    }
  }
  return { text, reasoning, reason, usage, toolCalls: calls.filter(Boolean) };
}

function chunkHead(options: WriterOptions, isStream: boolean): object {
  const isChat = options.format === "openai-chat";
  return {
    id: `${isChat ? "chatcmpl" : "cmpl"}-${options.id}`,
    object: isChat ? (isStream ? "chat.completion.chunk" : "chat.completion") : "text_completion",
    created: Math.floor(options.createdAtMs / 1000),
    model: options.model,
  };
}

function chatChoice(delta: object, finishReason: string | null): object {
  return { index: 0, delta, logprobs: null, finish_reason: finishReason };
}

function textChoice(text: string, finishReason: string | null): object {
  return { index: 0, text, logprobs: null, finish_reason: finishReason };
}

function toolCallDelta(event: Extract<StreamEvent, { kind: "toolCall" }>): object {
  const start = event.callId === undefined ? {} : { id: event.callId, type: "function" };
  return {
    index: event.index,
    ...start,
    function: { ...(event.name === undefined ? {} : { name: event.name }), arguments: event.arguments },
  };
}

/** OpenAI's fields are required: an unknown count is null, never 0. */
export function toOpenAiUsage(usage: Usage): object {
  const { promptTokens, completionTokens } = usage;
  return {
    prompt_tokens: promptTokens ?? null,
    completion_tokens: completionTokens ?? null,
    total_tokens: promptTokens === undefined || completionTokens === undefined ? null : promptTokens + completionTokens,
    ...(usage.cachedTokens === undefined ? {} : { prompt_tokens_details: { cached_tokens: usage.cachedTokens } }),
    ...(usage.reasoningTokens === undefined
      ? {}
      : { completion_tokens_details: { reasoning_tokens: usage.reasoningTokens } }),
  };
}
