/**
 * Answers in the form of Gemini's `generateContent`, streamed and whole. Frames of the same dialect pass as they came; events of other engines are rendered.
 * Format: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
 * 1. Each piece of a stream is a whole answer of its own; the last one says why it ended. Counts are totals so far; what nobody counted is left out.
 * 2. A call is sent when its JSON is complete. One that was cut is an error, and no call; where the answer ran out of tokens, its finish reason says so.
 * 3. A seal stands on the part that it belongs to, else on an empty one behind it.
 */
import type { FinishReason } from "../../../../protocol/chat.ts";
import type { AnswerId, ModelRef } from "../../../../protocol/ids.ts";
import type { Usage } from "../../../../protocol/usage.ts";
import type { GhostError } from "../../../base/errors.ts";
import { type AnswerBlock, type AnswerFold, argumentsOf, brokenCall } from "../../../ghostllm/frames/answer-fold.ts";
import { BlockSequence, type BlockStep, type OpenBlock } from "../../../ghostllm/frames/block-sequence.ts";
import { parseRecord } from "../../../ghostllm/frames/json.ts";
import { sseData } from "../../../ghostllm/frames/sse.ts";
import type { Frame, StreamEvent } from "../../../ghostllm/stream.ts";
import { errorBody } from "../errors.ts";
import type { GeminiOwn } from "./gemini-request.ts";
import { GEMINI, ownSeal, PLACEHOLDER, toSignature } from "./gemini-seal.ts";
import type { StreamWriter } from "./serve.ts";

export interface GeminiWriting extends Pick<GeminiOwn, "showsThoughts"> {
  readonly id: AnswerId;
  readonly model: ModelRef;
  /** The provider that answers, whose seals are in the answer. */
  readonly maker: string;
  /** Gemini, where it answers, got the client's own body: then its frames are the client's, and pass as they came. */
  readonly isRelayed: boolean;
  /** `sse`, or pieces of one JSON list. */
  readonly form: "sse" | "list";
}

interface TextPart {
  text: string;
  thought?: true;
  thoughtSignature?: string;
}
interface CallPart {
  readonly functionCall: { readonly id: string; readonly name: string; readonly args: object };
  readonly thoughtSignature?: string;
}
type WirePart = TextPart | CallPart;

const FINISH_REASONS: Record<FinishReason, string> = {
  stop: "STOP",
  length: "MAX_TOKENS",
  toolCalls: "STOP",
  contentFilter: "SAFETY",
  unknown: "STOP",
};

/** Events as parts, which are taken when they are to be sent. */
class PartSequence {
  readonly #options: GeminiWriting;
  readonly #blocks = new BlockSequence();
  #parts: WirePart[] = [];
  #calls = 0;
  #isRefusal = false;
  /** Thinking that is not shown, of the open block. */
  #hidden = "";
  /** The name of a call that is no JSON object. */
  #broken: string | undefined;

  constructor(options: GeminiWriting) {
    this.#options = options;
  }

  get usage(): Usage | undefined {
    return this.#blocks.usage;
  }

  add(event: StreamEvent): void {
    if (event.kind === "refusal") this.#isRefusal = true;
    this.#addSteps(this.#blocks.add(event));
  }

  /** The parts since the last time. */
  take(): readonly WirePart[] {
    const parts = this.#parts;
    this.#parts = [];
    return parts;
  }

  /** The rest, and the word for why it ended. @throws OperationalError `upstream_failed` for a call that is none (2) */
  end(): string {
    this.#addSteps(this.#blocks.end());
    const reason = this.#blocks.reason ?? "unknown";
    if (this.#broken !== undefined && reason !== "length") throw brokenCall(this.#broken);
    return this.#isRefusal && reason === "stop" ? "SAFETY" : FINISH_REASONS[reason];
  }

  #addSteps(steps: readonly BlockStep[]): void {
    for (const step of steps) {
      if (step.step === "delta") this.#addDelta(step.block, step.text);
      else if (step.step === "close") this.#close(step);
    }
  }

  #addDelta({ kind }: OpenBlock, text: string): void {
    if (kind === "toolCall") return;
    const isThought = kind === "reasoning";
    if (isThought && !this.#options.showsThoughts) {
      this.#hidden += text;
      return;
    }
    const last = this.#parts.at(-1);
    if (last !== undefined && isOpenText(last) && (last.thought === true) === isThought) last.text += text;
    else this.#parts.push(isThought ? { text, thought: true } : { text });
  }

  #close({ block, text, opaque }: Extract<BlockStep, { step: "close" }>): void {
    if (block.kind === "toolCall") this.#addCall(block, text, opaque);
    if (block.kind !== "reasoning") return;
    const hidden = this.#hidden;
    this.#hidden = "";
    if (opaque !== undefined) this.#seal(opaque, { hidden, hasText: text !== "" });
  }

  /** (3) */
  #seal(data: string, { hidden, hasText }: { readonly hidden: string; readonly hasText: boolean }): void {
    const { maker, showsThoughts } = this.#options;
    const thoughtSignature = toSignature(maker, data, hidden);
    const own = ownSeal(maker, data)?.on;
    const isThought = showsThoughts && (own === "thought" || (own === undefined && hasText));
    const last = this.#parts.at(-1);
    const mayHold = isThought || own === "text";
    if (mayHold && last !== undefined && isOpenText(last) && (last.thought === true) === isThought)
      last.thoughtSignature = thoughtSignature;
    else this.#parts.push({ text: "", ...(isThought ? { thought: true } : {}), thoughtSignature });
  }

  #addCall(block: Extract<OpenBlock, { kind: "toolCall" }>, text: string, opaque: string | undefined): void {
    const { id: answer, maker } = this.#options;
    const position = this.#calls;
    this.#calls += 1;
    const args = parseRecord(argumentsOf(text));
    if (args === undefined) {
      this.#broken ??= block.name;
      return;
    }
    const id = block.callId === "" ? `call_${answer}_${position}` : block.callId;
    const isForeignFirst = position === 0 && maker !== GEMINI;
    const signature = opaque === undefined ? (isForeignFirst ? PLACEHOLDER : undefined) : toSignature(maker, opaque);
    this.#parts.push({
      functionCall: { id, name: block.name, args },
      ...(signature === undefined ? {} : { thoughtSignature: signature }),
    });
  }
}

/** Text that more may be added to. */
function isOpenText(part: WirePart): part is TextPart {
  return "text" in part && part.thoughtSignature === undefined;
}

/** One piece of a stream, or all of an answer. */
function chunkText(
  { model, id }: GeminiWriting,
  parts: readonly WirePart[],
  { usage, finishReason }: { readonly usage: Usage | undefined; readonly finishReason?: string },
): string {
  const candidate = {
    content: { parts, role: "model" },
    ...(finishReason === undefined ? {} : { finishReason }),
    index: 0,
  };
  const usageMetadata = usage === undefined ? {} : { usageMetadata: toGeminiUsage(usage) };
  return JSON.stringify({ candidates: [candidate], ...usageMetadata, modelVersion: model, responseId: id });
}

/** Thinking is counted beside the answer there. */
function toGeminiUsage({ promptTokens, completionTokens, cachedTokens, reasoningTokens }: Usage): object {
  const isTotal = promptTokens !== undefined && completionTokens !== undefined;
  return {
    ...(promptTokens === undefined ? {} : { promptTokenCount: promptTokens }),
    ...(completionTokens === undefined
      ? {}
      : { candidatesTokenCount: Math.max(0, completionTokens - (reasoningTokens ?? 0)) }),
    ...(reasoningTokens === undefined ? {} : { thoughtsTokenCount: reasoningTokens }),
    ...(cachedTokens === undefined ? {} : { cachedContentTokenCount: cachedTokens }),
    ...(isTotal ? { totalTokenCount: promptTokens + completionTokens } : {}),
  };
}

/** A whole answer as one JSON object. @throws OperationalError `upstream_failed` for a call that is none (2) */
export function renderGemini(options: GeminiWriting, fold: AnswerFold): string {
  const sequence = new PartSequence(options);
  for (const block of fold.blocks) sequence.add(wholeEvent(block));
  if (fold.reason !== undefined) sequence.add({ kind: "finish", reason: fold.reason });
  const finishReason = sequence.end();
  return chunkText(options, sequence.take(), { usage: fold.usage, finishReason });
}

function wholeEvent(block: AnswerBlock): StreamEvent {
  switch (block.kind) {
    case "text":
    case "refusal":
      return block;
    case "reasoning": {
      const { block: number, ...event } = block;
      return { ...event, ...(number === undefined ? {} : { block: number }) };
    }
    case "toolCall":
      return { ...block, isWhole: true };
  }
}

export function createGeminiWriter(options: GeminiWriting): StreamWriter {
  return new GeminiWriter(options);
}

class GeminiWriter implements StreamWriter {
  readonly #options: GeminiWriting;
  readonly #parts: PartSequence;
  #isRelay = false;
  #isBegun = false;

  constructor(options: GeminiWriting) {
    this.#options = options;
    this.#parts = new PartSequence(options);
  }

  write(frame: Frame): Buffer {
    const { isRelayed, form } = this.#options;
    if (isRelayed && frame.dialect === "gemini") {
      this.#isRelay = true;
      return form === "sse"
        ? frame.bytes
        : Buffer.from(
            sseData(frame.bytes)
              .map((text) => this.#piece(text))
              .join(""),
          );
    }
    for (const event of frame.events()) this.#parts.add(event);
    const parts = this.#parts.take();
    return Buffer.from(parts.length === 0 ? "" : this.#chunk(parts));
  }

  end(): Buffer {
    const close = this.#options.form === "sse" ? "" : "\r\n]";
    if (this.#isRelay) return Buffer.from(close);
    const finishReason = this.#parts.end();
    const parts = this.#parts.take();
    return Buffer.from(this.#chunk(parts.length === 0 ? [{ text: "" }] : parts, finishReason) + close);
  }

  fail(error: GhostError): Buffer {
    return Buffer.from(this.#piece(errorBody(error, "gemini", this.#options.id)));
  }

  #chunk(parts: readonly WirePart[], finishReason?: string): string {
    const { usage } = this.#parts;
    return this.#piece(
      chunkText(this.#options, parts, { usage, ...(finishReason === undefined ? {} : { finishReason }) }),
    );
  }

  #piece(json: string): string {
    if (this.#options.form === "sse") return `data: ${json}\r\n\r\n`;
    const before = this.#isBegun ? ",\r\n" : "[";
    this.#isBegun = true;
    return before + json;
  }
}
