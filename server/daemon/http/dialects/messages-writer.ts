/**
 * Answers in the form of Anthropic's Messages, streamed and whole. Frames of the same dialect pass as they came; events of other engines are rendered.
 * Format: https://docs.claude.com/en/docs/build-with-claude/streaming
 * 1. Blocks are numbered without gaps, and none is empty: clients send them back, and Anthropic refuses empty ones.
 * 2. `message_start` leaves with the first content, so that it can name the prompt's tokens where they are known by then.
 * 3. A call whose JSON was cut is an error, and no call; where the answer ran out of tokens, its stop reason says so.
 */
import type { FinishReason } from "../../../../protocol/chat.ts";
import type { AnswerId, ModelRef } from "../../../../protocol/ids.ts";
import type { Usage } from "../../../../protocol/usage.ts";
import { type GhostError, OperationalError } from "../../../base/errors.ts";
import { type AnthropicSeal, hasMessageStop } from "../../../ghostllm/frames/anthropic.ts";
import { type AnswerBlock, type AnswerFold, argumentsOf } from "../../../ghostllm/frames/answer-fold.ts";
import { BlockSequence, type BlockStep, type OpenBlock } from "../../../ghostllm/frames/block-sequence.ts";
import type { Frame, StreamEvent } from "../../../ghostllm/stream.ts";
import { errorBody } from "../errors.ts";
import { wireCallId } from "./messages-call-id.ts";
import type { MessagesOwn } from "./messages-request.ts";
import { sealForCall, toWireSeal } from "./messages-seal.ts";
import type { StreamWriter } from "./serve.ts";

export interface MessagesWriting extends MessagesOwn {
  readonly id: AnswerId;
  readonly model: ModelRef;
  /** The provider that answers, whose seals are in the answer. */
  readonly maker: string;
  /** Anthropic, where it answers, got the client's own body: then its frames are the client's, and pass as they came. */
  readonly isRelayed: boolean;
}

const STOP_REASONS: Record<FinishReason, string> = {
  stop: "end_turn",
  length: "max_tokens",
  toolCalls: "tool_use",
  contentFilter: "refusal",
  unknown: "end_turn",
};

/** A tool call that the client itself answers, as all of ours are. */
const CALLER = { type: "direct" } as const;

export function createMessagesWriter(options: MessagesWriting): StreamWriter {
  return new MessagesWriter(options);
}

class MessagesWriter implements StreamWriter {
  readonly #options: MessagesWriting;
  readonly #blocks = new BlockSequence();
  #isRelay = false;
  #isStopped = false;
  #isStarted = false;
  #isRefusal = false;
  readonly #named = new Set<number>();
  /** Blocks that the client was shown (1). */
  #shown = 0;
  #calls = 0;
  /** The open block has not been shown yet. */
  #isHeld = false;
  /** The name of a call that is no JSON object. */
  #broken: string | undefined;

  constructor(options: MessagesWriting) {
    this.#options = options;
  }

  write(frame: Frame): Buffer {
    if (this.#options.isRelayed && frame.dialect === "anthropic-messages") {
      this.#isRelay = true;
      this.#isStopped ||= hasMessageStop(frame.bytes);
      return frame.bytes;
    }
    let text = "";
    for (const event of frame.events()) text += this.#event(event);
    return Buffer.from(text);
  }

  end(): Buffer {
    if (this.#isRelay) return this.#isStopped ? Buffer.alloc(0) : Buffer.from(MESSAGE_STOP);
    const text = this.#render(this.#blocks.end());
    const reason = this.#blocks.reason ?? "unknown";
    if (this.#broken !== undefined && reason !== "length") throw brokenCall(this.#broken);
    const delta = { container: null, ...stopOf(reason, this.#isRefusal) };
    const { input_tokens, output_tokens, ...more } = toUsage(this.#blocks.usage);
    const usage = { ...more, input_tokens, output_tokens: output_tokens ?? 0, ...unknownCounts(this.#blocks.usage) };
    return Buffer.from(text + this.#start() + frameText("message_delta", { delta, usage }) + MESSAGE_STOP);
  }

  fail(error: GhostError): Buffer {
    return Buffer.from(`event: error\ndata: ${errorBody(error, "anthropic", this.#options.id)}\n\n`);
  }

  #event(event: StreamEvent): string {
    switch (event.kind) {
      case "usage":
      case "finish":
      case "error":
        this.#blocks.add(event);
        return "";
      case "refusal":
        this.#isRefusal = true;
        return event.text === "" ? "" : this.#add({ kind: "text", text: event.text });
      case "text":
        return event.text === "" ? "" : this.#add(event);
      case "reasoning": {
        const visible = visibleThinking(event, this.#options);
        return visible === undefined ? "" : this.#add(visible);
      }
      case "toolCall": {
        const { callId, name, opaque, index } = event;
        if (name !== undefined) this.#named.add(index);
        // A piece of something that ran on the provider's side, and is no call.
        if (!this.#named.has(index)) return "";
        if (opaque === undefined || callId === undefined) return this.#add(event);
        // Its number is no other block's, which count from 0.
        const seal = { kind: "reasoning", text: "", block: -1 - index, opaque: sealForCall(callId, opaque) } as const;
        return this.#add(seal) + this.#add(event);
      }
    }
  }

  #add(event: StreamEvent): string {
    return this.#start() + this.#render(this.#blocks.add(event));
  }

  #start(): string {
    if (this.#isStarted) return "";
    this.#isStarted = true;
    const { ghost_unknown: _soon, ...usage } = wholeUsage(this.#blocks.usage);
    const message = { ...messageHead(this.#options), content: [], ...NOT_STOPPED, usage };
    return `${frameText("message_start", { message })}event: ping\ndata: {"type":"ping"}\n\n`;
  }

  #render(steps: readonly BlockStep[]): string {
    let text = "";
    for (const step of steps) {
      if (step.step === "open") this.#isHeld = true;
      else if (step.step === "delta") text += this.#delta(step.block, step.text);
      else text += this.#close(step);
    }
    return text;
  }

  #delta(block: OpenBlock, text: string): string {
    return (this.#isHeld ? this.#open(startOf(block, this.#callIdOf(block))) : "") + this.#frame(deltaOf(block, text));
  }

  #close({ block, text, opaque }: Extract<BlockStep, { step: "close" }>): string {
    if (block.kind === "toolCall") {
      const start = this.#isHeld ? this.#open(startOf(block, this.#callIdOf(block))) : "";
      this.#calls += 1;
      if (toInput(text) === undefined) this.#broken ??= block.name;
      return start + this.#stop();
    }
    if (block.kind !== "reasoning") return this.#isHeld ? "" : this.#stop();
    const hasText = text !== "";
    const seal = toWireSeal(this.#options.maker, opaque, hasText);
    if ("redacted" in seal) {
      // With text, it was shown as thinking already; its maker's answer then has no such seal.
      const start = this.#isHeld ? this.#open({ type: "redacted_thinking", data: seal.redacted }) : "";
      return start + this.#stop();
    }
    const start = this.#isHeld ? this.#open(THINKING) : "";
    return (
      start + this.#frame(`{"type":"signature_delta","signature":${JSON.stringify(seal.signature)}}`) + this.#stop()
    );
  }

  #callIdOf(block: OpenBlock): string {
    return block.kind === "toolCall" ? callIdOf(this.#options.id, block.callId, this.#calls) : "";
  }

  #open(block: object): string {
    this.#isHeld = false;
    this.#shown += 1;
    return frameText("content_block_start", { index: this.#shown - 1, content_block: block });
  }

  /** Written out: there is one for each piece of text. */
  #frame(delta: string): string {
    return `event: content_block_delta\ndata: {"type":"content_block_delta","index":${this.#shown - 1},"delta":${delta}}\n\n`;
  }

  #stop(): string {
    return frameText("content_block_stop", { index: this.#shown - 1 });
  }
}

const frameText = (type: string, members: object): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...members })}\n\n`;
const MESSAGE_STOP = frameText("message_stop", {});
const THINKING = { type: "thinking", thinking: "", signature: "" } as const;
const NOT_STOPPED = { stop_reason: null, stop_sequence: null, stop_details: null } as const;

function startOf(block: OpenBlock, callId: string): object {
  switch (block.kind) {
    case "text":
    case "refusal":
      return { type: "text", text: "", citations: null };
    case "reasoning":
      return THINKING;
    case "toolCall":
      return { type: "tool_use", id: callId, name: block.name, input: {}, caller: CALLER };
  }
}

function deltaOf(block: OpenBlock, text: string): string {
  const json = JSON.stringify(text);
  switch (block.kind) {
    case "text":
    case "refusal":
      return `{"type":"text_delta","text":${json}}`;
    case "reasoning":
      return `{"type":"thinking_delta","thinking":${json}}`;
    case "toolCall":
      return `{"type":"input_json_delta","partial_json":${json}}`;
  }
}

/** What of a piece of thinking the client is shown. */
function visibleThinking<Piece extends { readonly text: string; readonly opaque?: string }>(
  piece: Piece,
  { thinking }: MessagesOwn,
): Piece | undefined {
  const shown = thinking === "sealed" ? { ...piece, text: "" } : piece;
  const isNothing = shown.text === "" && shown.opaque === undefined;
  return thinking === "hidden" || isNothing ? undefined : shown;
}

/** A whole answer as one JSON object. @throws OperationalError `upstream_failed` for a call that is none (3) */
export function renderMessage(options: MessagesWriting, fold: AnswerFold): string {
  const reason = fold.reason ?? "unknown";
  const isRefusal = fold.blocks.some(({ kind }) => kind === "refusal");
  let calls = 0;
  const content = fold.blocks.flatMap((block): readonly object[] => {
    if (block.kind !== "toolCall") return renderBlock(options, block);
    const { callId, name, opaque } = block;
    const input = toInput(block.arguments);
    if (input === undefined && reason === "length") return [];
    if (input === undefined) throw brokenCall(name);
    const id = callIdOf(options.id, callId, calls);
    calls += 1;
    const seal =
      opaque === undefined ? [] : [sealedBlock("", toWireSeal(options.maker, sealForCall(callId, opaque), false))];
    return [...seal, { type: "tool_use", id, name, input, caller: CALLER }];
  });
  return JSON.stringify({
    ...messageHead(options),
    content,
    ...stopOf(reason, isRefusal),
    usage: wholeUsage(fold.usage),
  });
}

function renderBlock(options: MessagesWriting, block: Exclude<AnswerBlock, { kind: "toolCall" }>): readonly object[] {
  if (block.kind !== "reasoning") return block.text === "" ? [] : [{ type: "text", text: block.text, citations: null }];
  const visible = visibleThinking(block, options);
  if (visible === undefined) return [];
  return [sealedBlock(visible.text, toWireSeal(options.maker, visible.opaque, visible.text !== ""))];
}

function sealedBlock(text: string, seal: AnthropicSeal): object {
  return "redacted" in seal
    ? { type: "redacted_thinking", data: seal.redacted }
    : { type: "thinking", thinking: text, signature: seal.signature };
}

function messageHead({ id, model }: MessagesWriting): object {
  return { id: `msg_${id}`, type: "message", role: "assistant", model, container: null, diagnostics: null };
}

/** Which of the client's stop sequences it was, other providers do not say: there it is `end_turn`. */
function stopOf(reason: FinishReason, isRefusal: boolean): object {
  const word = isRefusal && reason === "stop" ? "refusal" : STOP_REASONS[reason];
  const details = word === "refusal" ? { type: "refusal", category: null, explanation: null } : null;
  return { stop_reason: word, stop_sequence: null, stop_details: details };
}

/** Some servers name no call: then its place does, the same in every rendering of the answer. */
function callIdOf(answer: AnswerId, callId: string, position: number): string {
  return callId === "" ? `toolu_${answer}_${position}` : wireCallId(callId);
}

/** The arguments as an object; undefined where they are none. */
function toInput(text: string): object | undefined {
  try {
    const parsed: unknown = JSON.parse(argumentsOf(text));
    return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed) ? parsed : undefined;
  } catch {
    return undefined; // The caller says so, with the call's name.
  }
}

function brokenCall(name: string): OperationalError {
  return new OperationalError(
    "upstream_failed",
    `the model called ${JSON.stringify(name)} with arguments that are not a JSON object`,
  );
}

/** Ours count everything that was read; Anthropic's `input_tokens` leave out what came from a cache or went into one. */
function toUsage(usage: Usage = {}) {
  const { promptTokens, completionTokens, cachedTokens, cacheWriteTokens, reasoningTokens } = usage;
  return {
    input_tokens:
      promptTokens === undefined ? null : Math.max(0, promptTokens - (cachedTokens ?? 0) - (cacheWriteTokens ?? 0)),
    output_tokens: completionTokens ?? null,
    cache_creation_input_tokens: cacheWriteTokens ?? null,
    cache_read_input_tokens: cachedTokens ?? null,
    output_tokens_details: reasoningTokens === undefined ? null : { thinking_tokens: reasoningTokens },
    server_tool_use: null,
  };
}

/** The schema wants numbers: what nobody counted is 0, and named as unknown. */
function wholeUsage(usage: Usage | undefined) {
  const { input_tokens, output_tokens, ...more } = toUsage(usage);
  return {
    ...more,
    input_tokens: input_tokens ?? 0,
    output_tokens: output_tokens ?? 0,
    cache_creation: null,
    inference_geo: null,
    service_tier: null,
    speed: null,
    ...unknownCounts(usage),
  };
}

/** A member of ours, which clients pass over. */
function unknownCounts({ promptTokens, completionTokens }: Usage = {}): { readonly ghost_unknown?: readonly string[] } {
  const names = [
    ...(promptTokens === undefined ? ["input_tokens"] : []),
    ...(completionTokens === undefined ? ["output_tokens"] : []),
  ];
  return names.length === 0 ? {} : { ghost_unknown: names };
}
