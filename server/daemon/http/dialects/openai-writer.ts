/**
 * Answers in OpenAI's chat and text completion formats.
 * Frames of the same dialect are relayed as they came, less what the client did not ask for; events of other engines are rendered.
 * 1. A call that its model broke off is an error, and no call; where the answer ran out of tokens, its finish reason says so, and a free-form call, whose
 *    text goes out whole or not at all, stays out.
 * 2. Why it ended is told when it is whole, and not when its upstream says so: some break off behind that, and clients end at the word.
 */
import type { FinishReason } from "../../../../protocol/chat.ts";
import type { AnswerId, ModelRef } from "../../../../protocol/ids.ts";
import type { Usage } from "../../../../protocol/usage.ts";
import type { GhostError } from "../../../base/errors.ts";
import {
  type AnswerFold,
  argumentsOf,
  brokenCall,
  isWholeCall,
  normalReason,
  type ToolCallBlock,
} from "../../../ghostllm/frames/answer-fold.ts";
import { sseData, sseFrames } from "../../../ghostllm/frames/sse.ts";
import type { Frame, StreamEvent } from "../../../ghostllm/stream.ts";
import { errorBody } from "../errors.ts";
import type { StreamWriter } from "./serve.ts";

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

export function createStreamWriter(options: WriterOptions): StreamWriter {
  return new ChunkWriter(options);
}

interface OpenCall {
  /** Its place among the calls of the answer: clients count calls, not blocks. */
  readonly position: number;
  readonly name: string;
  readonly custom: { readonly id: string; text: string } | undefined;
  /** The arguments so far, to give once what an upstream repeats. */
  written: string;
}

class ChunkWriter implements StreamWriter {
  readonly #options: WriterOptions;
  readonly #head: object;
  readonly #calls = new Map<number, OpenCall>();
  #isFirst = true;
  #reason: FinishReason = "unknown";
  #isRelay = false;
  #usage: Usage | undefined;
  /** The name of a call that is none (1). */
  #broken: string | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#head = chunkHead(options, true);
  }

  write(frame: Frame): Buffer {
    if (frame.dialect === this.#options.format) {
      this.#isRelay = true;
      return relay(frame.bytes, this.#options.includeUsage);
    }
    let text = "";
    for (const event of frame.events()) text += this.#event(event);
    return Buffer.from(text);
  }

  end(): Buffer {
    const finish = this.#isRelay ? "" : this.#finish(this.#reason); // (2)
    if (this.#broken !== undefined) throw brokenCall(this.#broken);
    if (!this.#options.includeUsage || this.#usage === undefined) return Buffer.concat([Buffer.from(finish), DONE]);
    const last = `data: ${JSON.stringify({ ...this.#head, choices: [], usage: toOpenAiUsage(this.#usage) })}\n\n`;
    return Buffer.concat([Buffer.from(finish + last), DONE]);
  }

  fail(error: GhostError): Buffer {
    return Buffer.from(`data: ${errorBody(error)}\n\n`);
  }

  #event(event: StreamEvent): string {
    const isChat = this.#options.format === "openai-chat";
    switch (event.kind) {
      case "text":
        if (event.text === "" && !this.#isFirst) return "";
        return isChat ? this.#delta({ content: event.text }) : this.#chunk(textChoice(event.text, null));
      case "refusal":
        return isChat ? this.#delta({ refusal: event.text }) : "";
      case "reasoning":
        return isChat && event.text !== "" ? this.#delta({ reasoning_content: event.text }) : "";
      case "toolCall":
        return isChat ? this.#call(event) : "";
      case "usage":
        this.#usage = { ...this.#usage, ...event.usage };
        return "";
      case "finish":
        this.#reason = event.reason;
        return "";
      case "error":
        return "";
    }
  }

  #call(event: Extract<StreamEvent, { kind: "toolCall" }>): string {
    const known = this.#calls.get(event.index);
    // Pieces of a call that was never opened belong to a tool on the provider's own side.
    if (known === undefined && event.name === undefined && event.callId === undefined) return "";
    const call = known ?? this.#openCall(event);
    const text =
      event.isWhole !== true
        ? event.arguments
        : event.arguments.startsWith(call.written)
          ? event.arguments.slice(call.written.length)
          : "";
    call.written += text;
    if (call.custom !== undefined) {
      // Its text stands inside JSON until that is complete.
      call.custom.text += text;
      return "";
    }
    if (known !== undefined)
      return text === "" ? "" : this.#delta({ tool_calls: [{ index: call.position, function: { arguments: text } }] });
    const id = event.callId || callIdFor(this.#options, call.position);
    const start = { id, type: "function", function: { name: event.name ?? "", arguments: text } };
    return this.#delta({ tool_calls: [{ index: call.position, ...start }] });
  }

  #openCall(event: Extract<StreamEvent, { kind: "toolCall" }>): OpenCall {
    const position = this.#calls.size;
    const id = event.callId || callIdFor(this.#options, position);
    const custom = event.isCustom === true ? { id, text: "" } : undefined;
    const call: OpenCall = { position, name: event.name ?? "", custom, written: "" };
    this.#calls.set(event.index, call);
    return call;
  }

  #finish(reason: FinishReason): string {
    let text = "";
    for (const { position, name, custom, written } of this.#calls.values()) {
      if (!isWholeCall(written)) {
        if (reason !== "length") this.#broken ??= name;
        continue;
      }
      if (custom === undefined) {
        // Clients parse the arguments as JSON, also of a call that has none.
        if (written === "") text += this.#delta({ tool_calls: [{ index: position, function: { arguments: "{}" } }] });
        continue;
      }
      const call = { name, input: customInput(custom.text) };
      text += this.#delta({ tool_calls: [{ index: position, id: custom.id, type: "custom", custom: call }] });
    }
    const word = FINISH_REASONS[normalReason(reason, this.#calls.size > 0) ?? "unknown"];
    if (this.#options.format === "openai-completion") return text + this.#chunk(textChoice("", word));
    return text + this.#chunk(chatChoice(this.#isFirst ? { role: "assistant", content: "" } : {}, word));
  }

  #delta(delta: object): string {
    return this.#chunk(chatChoice(this.#isFirst ? { role: "assistant", ...delta } : delta, null));
  }

  #chunk(choice: object): string {
    this.#isFirst = false;
    const usage = this.#options.includeUsage ? { usage: null } : {};
    return `data: ${JSON.stringify({ ...this.#head, choices: [choice], ...usage })}\n\n`;
  }
}

/** The text of a free-form tool's call, whose arguments are `{"input": TEXT}`; what is no such JSON stands as it is. */
export function customInput(json: string): string {
  try {
    const parsed: unknown = JSON.parse(argumentsOf(json));
    if (typeof parsed === "object" && parsed !== null && "input" in parsed && typeof parsed.input === "string")
      return parsed.input;
  } catch {
    // Cut short by the model: better its own words than nothing.
  }
  return json;
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

/** Who gave no id to its call gets one by its place. */
const callIdFor = ({ id }: WriterOptions, position: number): string => `call_${id}_${position}`;

/** A whole answer as one JSON object. @throws OperationalError `upstream_failed` for a call that is none (1) */
export function renderWhole(options: WriterOptions, fold: AnswerFold): string {
  const said = (kind: "text" | "refusal" | "reasoning") =>
    fold.blocks.flatMap((block) => (block.kind === kind ? [block.text] : [])).join("");
  const called = fold.blocks.filter((block) => block.kind === "toolCall");
  const broken = called.find((call) => !isWholeCall(call.arguments));
  if (broken !== undefined && fold.reason !== "length") throw brokenCall(broken.name);
  const whole = called.filter((call) => call.isCustom !== true || isWholeCall(call.arguments));
  const calls = whole.map((call, position) => wholeCall(call, call.callId || callIdFor(options, position)));
  const [text, refusal, reasoning] = [said("text"), said("refusal"), said("reasoning")];
  const reason = FINISH_REASONS[fold.reason ?? "unknown"];
  const choice =
    options.format === "openai-completion"
      ? textChoice(text, reason)
      : {
          index: 0,
          message: {
            role: "assistant",
            content: text === "" && (calls.length > 0 || refusal !== "") ? null : text,
            refusal: refusal === "" ? null : refusal,
            ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
            ...(calls.length === 0 ? {} : { tool_calls: calls }),
          },
          logprobs: null,
          finish_reason: reason,
        };
  return JSON.stringify({
    ...chunkHead(options, false),
    choices: [choice],
    ...(fold.usage === undefined ? {} : { usage: toOpenAiUsage(fold.usage) }),
  });
}

function wholeCall(call: ToolCallBlock, id: string): object {
  if (call.isCustom === true)
    return { id, type: "custom", custom: { name: call.name, input: customInput(call.arguments) } };
  return {
    id,
    type: "function",
    function: { name: call.name, arguments: argumentsOf(call.arguments) },
  };
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
