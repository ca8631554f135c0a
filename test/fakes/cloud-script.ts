/**
 * How the fake cloud hosts (Anthropic, Responses, Gemini) are told to answer. One script means the same on each of them, so that a test can play it
 * on all three; what only one provider has says so.
 * 1. Counts are ours: `inputTokens` includes what was read from or written to a cache, `outputTokens` includes reasoning. Each host renders its provider's.
 * 2. Words that a provider chose (finish reasons, error types) are written as that provider writes them, unknown ones included.
 */
import type { ReceivedRequest } from "./scripted-host.ts";
import type { Cut, ErrorStatus, WireFormat } from "./openai-host-script.ts";

/** Reasoning: `thinking` of Anthropic, a `reasoning` item with a summary of Responses, parts with `thought` of Gemini. */
export interface ReasoningBlock {
  readonly kind: "reasoning";
  /** None: reasoning whose text is withheld; it is signed all the same. */
  readonly deltas: readonly string[];
  /** Anthropic's `signature`, Responses' `encrypted_content` (default true). Gemini signs calls and text, never thoughts: there it is ignored. */
  readonly isSigned?: boolean;
  /** Anthropic: the block is `redacted_thinking`. */
  readonly isRedacted?: boolean;
}

export interface TextBlock {
  readonly kind: "text";
  readonly deltas: readonly string[];
  /** Gemini: a `thoughtSignature` comes behind the text, in a stream on a part whose text is empty. */
  readonly isSigned?: boolean;
  /** Responses: the `phase` of the message. */
  readonly phase?: "commentary" | "final_answer";
}

/** Several in a row are parallel calls. */
export interface ToolCallBlock {
  readonly kind: "tool-call";
  readonly name: string;
  /** The JSON text of the arguments in the pieces in which it is streamed; none means that no delta comes at all. Gemini sends them whole. */
  readonly arguments: readonly string[];
  /** Made by the host where it is absent. Gemini: "" leaves the id out, as older models do. */
  readonly id?: string;
  /** Gemini: by default the first call of an answer is signed, as models from 3 on do, and the others are not. */
  readonly isSigned?: boolean;
}

/**
 * The model declines: a `refusal` part of Responses; on Anthropic the deltas come as text and `stop_reason` is `refusal`; on Gemini `finishReason` is
 * `SAFETY`, or, without deltas and alone, the prompt was blocked.
 */
export interface RefusalBlock {
  readonly kind: "refusal";
  readonly deltas: readonly string[];
  /** Anthropic `stop_details.category`; Gemini `promptFeedback.blockReason`. */
  readonly category?: string;
  /** Anthropic `stop_details.explanation`. */
  readonly explanation?: string;
}

export type AnswerBlock = ReasoningBlock | TextBlock | ToolCallBlock | RefusalBlock;

/** See (1). What is absent is counted in words. */
export interface UsageScript {
  readonly inputTokens?: number;
  readonly cachedTokens?: number;
  readonly cacheWriteTokens?: number;
  readonly outputTokens?: number;
  readonly reasoningTokens?: number;
  /** xAI's `cost_in_usd_ticks`: 10^10 are one dollar. */
  readonly costUsdTicks?: number;
}

/** An error in the provider's own words; what is absent follows from the status, or is the provider's usual overload error. */
export interface ErrorWords {
  readonly message?: string;
  /** Anthropic `error.type`, OpenAI `error.type`, Gemini `error.status`. */
  readonly type?: string;
  /** Anthropic `error.details.error_code`, OpenAI and xAI `error.code`. Gemini: a number, the HTTP status it stands for. */
  readonly errorCode?: string | number;
}

/** An answer that fails before its body. The error type that a provider uses with `code` is the default. */
export interface CloudStatus extends Omit<ErrorStatus, "body" | "errorCode">, ErrorWords {
  readonly body?: "json" | "html" | "empty";
  readonly errorCode?: string;
  /** Sent as `retry-after`, in seconds; Gemini says it in `details[].retryDelay` instead, and without a header. */
  readonly retryAfterS?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** xAI's three shapes: `{error:{message,type,code}}`, `{code,error:"text"}`, `{error:"text"}`. */
  readonly shape?: "nested" | "code-and-text" | "text";
}

/** `afterTokens` counts deltas: pieces of text, reasoning and arguments; a call of Gemini is one. */
export type CloudFault =
  | Cut
  | { readonly kind: "reset-before-headers" }
  | { readonly kind: "hang-before-headers" }
  | { readonly kind: "hang"; readonly afterTokens: number }
  | { readonly kind: "invalid-utf8"; readonly afterTokens: number }
  /**
   * An error under status 200, then a clean end. `failed`: on Responses `response.failed` in the place of `error`, on Gemini the error as bare JSON,
   * outside any event, which its official client looks for, too.
   */
  | {
      readonly kind: "error-in-band";
      readonly afterTokens: number;
      readonly error: ErrorWords;
      readonly as?: "error" | "failed";
    };

export interface CloudWire extends Omit<WireFormat, "omitDone"> {
  /** Anthropic: a `ping` event before every n-th frame, beside the one that always follows `message_start`. */
  readonly pingEvery?: number;
  /** An event of a type that no client knows before every n-th frame (Gemini: a chunk with an unknown field only). */
  readonly unknownEventEvery?: number;
  /** Events of these types are left out, for instance `message_stop`, `response.output_item.done`. */
  readonly omitEvents?: readonly string[];
  /** Responses: the last event's `output` is empty, as some servers leave it. */
  readonly emptyFinalOutput?: boolean;
  /** Responses: the deltas of calls that follow each other take turns. */
  readonly interleaveCalls?: boolean;
}

/** One answer. Everything is optional: the default is a short healthy text. */
export interface CloudScript {
  readonly blocks?: readonly AnswerBlock[];
  readonly usage?: UsageScript | "never";
  /**
   * The provider's word, see (2): `stop_reason`, `finishReason`; for Responses the reason why the answer is incomplete (`max_output_tokens`).
   * Absent: what follows from the blocks.
   */
  readonly finishReason?: string;
  readonly msPerToken?: number;
  /** The wait before the headers. */
  readonly firstTokenMs?: number;
  /** The wait between headers and the first delta. */
  readonly afterHeadersMs?: number;
  readonly status?: CloudStatus;
  readonly wire?: CloudWire;
  readonly fault?: CloudFault;
  readonly headers?: Readonly<Record<string, string>>;
  /** The model that the answer names, where it is not the one that was asked. */
  readonly model?: string;
  readonly serviceTier?: string;
  /** Gemini: with finish reason `CONTINUATION`, the token that the next hop sends. */
  readonly continuationToken?: string;
  /** Gemini: checkpoints of a long decode that come in mid-stream: with the delta of this number, and good for all up to it. */
  readonly checkpoints?: readonly { readonly afterTokens: number; readonly token: string }[];
}

/** A tool's result that a request brings back. */
export interface ReceivedToolResult {
  readonly callId: string;
  readonly name: string | undefined;
  /** The result as text; JSON where it is no text. */
  readonly text: string;
}

export interface CloudRequest extends ReceivedRequest {
  /** The results at the end of the conversation: after the model's last turn. None in a request that asks something new. */
  readonly toolResults: readonly ReceivedToolResult[];
}

/** One script for all requests, or a choice by request. */
export type CloudScriptSource = CloudScript | ((request: CloudRequest) => CloudScript);

/** An answer of one text. */
export function textScript(...deltas: readonly string[]): CloudScript {
  return { blocks: [{ kind: "text", deltas }] };
}

/** Asks for `call`, and once its result is there answers `text`. */
export function toolThenText(
  call: { readonly name: string; readonly arguments: object },
  text: string,
): (request: CloudRequest) => CloudScript {
  return (request) =>
    request.toolResults.length > 0
      ? textScript(text)
      : { blocks: [{ kind: "tool-call", name: call.name, arguments: [JSON.stringify(call.arguments)] }] };
}
