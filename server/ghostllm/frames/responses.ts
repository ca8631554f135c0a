/**
 * OpenAI's Responses as frames, as OpenAI, Azure and xAI send them: the events of a stream, or the one JSON object of a plain answer.
 * Format: https://platform.openai.com/docs/api-reference/responses-streaming
 * 1. Decoding keeps nothing between frames: an output's place in the answer (`output_index`) tells calls and reasoning apart.
 * 2. What an event repeats is marked as whole (`isWhole`), so that readers take it once.
 * 3. An end whose word is unknown is an error, never a stop.
 */
import type { FinishReason } from "../../../protocol/chat.ts";
import type { Usage } from "../../../protocol/usage.ts";
import { present } from "../../base/optional.ts";
import type { Frame, StreamEvent } from "../stream.ts";
import { countAt, isRecord, parseJson, recordAt, recordsAt, textAt } from "./json.ts";
import { type ErrorWords, errorWords, meaningOf } from "./responses-error.ts";
import { sseData } from "./sse.ts";

type Json = Readonly<Record<string, unknown>>;

/** What the maker wants back of its reasoning, or of a message: the JSON in `Opaque.data`. */
export type ResponsesSeal =
  | {
      readonly kind: "reasoning";
      readonly id: string;
      readonly encryptedContent: string;
      /** The summary's parts; absent where it has one or none, which then is the text of the reasoning. */
      readonly summary?: readonly string[];
    }
  /** `phase` of the message that follows. */
  | { readonly kind: "phase"; readonly phase: string };

/** A frame of the dialect whose events are parsed when first asked for. */
export function responsesFrame(bytes: Buffer): Frame {
  let events: readonly StreamEvent[] | undefined;
  return { dialect: "openai-responses", bytes, events: () => (events ??= decodeResponses(bytes)) };
}

/**
 * The events in a run of whole frames or in one JSON answer:
 * `data: {"type":"response.output_text.delta","output_index":0,"delta":"Hi"}\n\n` → `[{kind: "text", text: "Hi"}]`.
 * A frame that is not JSON yields an `error` event: the answer cannot be trusted from there on.
 */
export function decodeResponses(bytes: Buffer): readonly StreamEvent[] {
  const events: StreamEvent[] = [];
  const isPlain = bytes[0] === 0x7b; /* { */
  for (const text of isPlain ? [bytes.toString("utf8")] : sseData(bytes)) {
    if (text === "[DONE]" || ECHOES.some((start) => text.startsWith(start))) continue;
    const value = parseJson(text);
    if (!isRecord(value)) {
      events.push(broken(`the server sent something that is no event of a response: ${text.slice(0, 120)}`));
      return events;
    }
    if (isPlain) appendWhole(events, value);
    else appendEvent(events, value);
    if (events.at(-1)?.kind === "error") return events;
  }
  return events;
}

/** Begin events that say the whole request again, tens of kilobytes with an agent's tools, and nothing of the answer: they are not worth parsing. */
const ECHOES = ["created", "queued", "in_progress"].map((state) => `{"type":"response.${state}",`);

/** The inverse of what `reasoning` events bring in `opaque`; undefined for anything else. */
export function readSeal(data: string): ResponsesSeal | undefined {
  const value = parseJson(data);
  if (!isRecord(value)) return undefined;
  const phase = textAt(value, "phase");
  if (phase !== "") return { kind: "phase", phase };
  const encryptedContent = textAt(value, "encrypted_content");
  if (encryptedContent === "") return undefined;
  const { summary } = value;
  const parts = Array.isArray(summary) ? summary.filter((part) => typeof part === "string") : undefined;
  return { kind: "reasoning", id: textAt(value, "id"), encryptedContent, ...present("summary", parts) };
}

/** Between two parts of a summary. */
export const SUMMARY_GAP = "\n\n";

function appendEvent(events: StreamEvent[], event: Json): void {
  const index = countAt(event, "output_index") ?? 0;
  switch (event["type"]) {
    case "response.output_text.delta":
      return appendText(events, "text", textAt(event, "delta"));
    case "response.refusal.delta":
      return appendText(events, "refusal", textAt(event, "delta"));
    case "response.reasoning_summary_text.delta":
    case "response.reasoning_text.delta":
      return appendReasoning(events, textAt(event, "delta"), index);
    case "response.reasoning_summary_part.added":
      return appendReasoning(events, (countAt(event, "summary_index") ?? 0) > 0 ? SUMMARY_GAP : "", index);
    case "response.output_item.added":
      return appendOpening(events, recordAt(event, "item"), index);
    case "response.function_call_arguments.delta":
      events.push({ kind: "toolCall", index, arguments: textAt(event, "delta") });
      return;
    case "response.function_call_arguments.done":
      events.push({ kind: "toolCall", index, arguments: textAt(event, "arguments"), isWhole: true });
      return;
    case "response.custom_tool_call_input.delta":
      events.push({ kind: "toolCall", index, arguments: JSON.stringify(textAt(event, "delta")).slice(1, -1) });
      return;
    case "response.custom_tool_call_input.done":
      events.push({ kind: "toolCall", index, arguments: customArguments(textAt(event, "input")), isWhole: true });
      return;
    case "response.output_item.done":
      return appendClosing(events, recordAt(event, "item"), index);
    case "response.completed":
    case "response.incomplete":
    case "response.failed":
      return appendEnd(events, recordAt(event, "response"));
    case "error":
      events.push(failure(errorWords(event)));
      return;
    default:
      // Some servers put an error of their HTTP kind into the stream.
      if (isRecord(event["error"])) events.push(failure(errorWords(event)));
  }
}

function appendText(events: StreamEvent[], kind: "text" | "refusal", text: string): void {
  if (text !== "") events.push({ kind, text });
}

function appendReasoning(events: StreamEvent[], text: string, block: number): void {
  if (text !== "") events.push({ kind: "reasoning", text, block });
}

function appendOpening(events: StreamEvent[], item: Json, index: number): void {
  if (item["type"] === "message") return appendPhase(events, item, index);
  const call = callOf(item, index);
  // The text of a free-form tool comes inside JSON, which begins here.
  if (call !== undefined) events.push({ ...call, arguments: call.isCustom === true ? CUSTOM_OPENING : "" });
}

function appendPhase(events: StreamEvent[], item: Json, block: number): void {
  const phase = textAt(item, "phase");
  if (phase !== "") events.push({ kind: "reasoning", text: "", block, opaque: JSON.stringify({ phase }) });
}

function appendClosing(events: StreamEvent[], item: Json, index: number): void {
  if (item["type"] === "reasoning") {
    const opaque = sealOf(item);
    if (opaque !== undefined) events.push({ kind: "reasoning", text: "", block: index, opaque });
    return;
  }
  const call = callOf(item, index);
  if (call !== undefined) events.push({ ...call, isWhole: true });
}

function sealOf(item: Json): string | undefined {
  const encrypted = textAt(item, "encrypted_content");
  if (encrypted === "") return undefined;
  const summary = recordsAt(item, "summary").map((part) => textAt(part, "text"));
  return JSON.stringify({
    id: textAt(item, "id"),
    encrypted_content: encrypted,
    ...(summary.length > 1 ? { summary } : {}),
  });
}

const CUSTOM_OPENING = '{"input":"';
const customArguments = (input: string) => JSON.stringify({ input });

function callOf(item: Json, index: number): Extract<StreamEvent, { kind: "toolCall" }> | undefined {
  const isCustom = item["type"] === "custom_tool_call";
  if (!isCustom && item["type"] !== "function_call") return undefined;
  const namespace = textAt(item, "namespace");
  return {
    kind: "toolCall",
    index,
    callId: textAt(item, "call_id"),
    name: textAt(item, "name"),
    ...(namespace === "" ? {} : { namespace }),
    ...(isCustom ? { isCustom } : {}),
    arguments: isCustom ? customArguments(textAt(item, "input")) : textAt(item, "arguments"),
  };
}

function appendWhole(events: StreamEvent[], response: Json): void {
  for (const [index, item] of recordsAt(response, "output").entries()) {
    switch (item["type"]) {
      case "message":
        appendPhase(events, item, index);
        for (const part of recordsAt(item, "content")) {
          appendText(events, "text", part["type"] === "output_text" ? textAt(part, "text") : "");
          appendText(events, "refusal", part["type"] === "refusal" ? textAt(part, "refusal") : "");
        }
        break;
      case "reasoning": {
        const parts = [...recordsAt(item, "summary"), ...recordsAt(item, "content")];
        appendReasoning(events, parts.map((part) => textAt(part, "text")).join(SUMMARY_GAP), index);
        appendClosing(events, item, index);
        break;
      }
      default:
        appendClosing(events, item, index);
    }
  }
  appendEnd(events, response);
}

function appendEnd(events: StreamEvent[], response: Json): void {
  const usage = toUsage(recordAt(response, "usage"));
  if (usage !== undefined) events.push({ kind: "usage", usage });
  switch (response["status"]) {
    case "completed":
      events.push({ kind: "finish", reason: completedReason(response) });
      return;
    case "incomplete": {
      const word = textAt(recordAt(response, "incomplete_details"), "reason");
      const reason = INCOMPLETE[word];
      events.push(
        reason === undefined
          ? broken(`the server ended its answer for a reason that is not known here: "${word}"`)
          : { kind: "finish", reason },
      );
      return;
    }
    default: {
      const words = errorWords(response);
      const status = `the server left its answer in the state "${textAt(response, "status")}"`;
      events.push(words === undefined ? broken(status) : failure(words));
    }
  }
}

const INCOMPLETE: Readonly<Record<string, FinishReason>> = {
  max_output_tokens: "length",
  content_filter: "contentFilter",
};

function completedReason(response: Json): FinishReason {
  const output = recordsAt(response, "output");
  if (output.some(({ type }) => type === "function_call" || type === "custom_tool_call")) return "toolCalls";
  const isRefused = output.some((item) => recordsAt(item, "content").some(({ type }) => type === "refusal"));
  return isRefused ? "contentFilter" : "stop";
}

/** Ticks of xAI: 10^10 are one dollar. */
const TICKS_PER_USD_MICRO = 10_000;

/** Counts that nobody reported stay absent. */
function toUsage(usage: Json): Usage | undefined {
  const [input, output] = [recordAt(usage, "input_tokens_details"), recordAt(usage, "output_tokens_details")];
  const ticks = countAt(usage, "cost_in_usd_ticks");
  const counts: Usage = {
    ...present("promptTokens", countAt(usage, "input_tokens")),
    ...present("completionTokens", countAt(usage, "output_tokens")),
    ...present("cachedTokens", countAt(input, "cached_tokens")),
    ...present("cacheWriteTokens", countAt(input, "cache_write_tokens")),
    ...present("reasoningTokens", countAt(output, "reasoning_tokens")),
    ...present("costUsdMicros", ticks === undefined ? undefined : ticks / TICKS_PER_USD_MICRO),
  };
  return Object.keys(counts).length === 0 ? undefined : counts;
}

function failure(words: ErrorWords | undefined): StreamEvent {
  if (words === undefined) return broken("the server reported an error and said nothing about it");
  const { code, message } = words;
  const details = code === "" ? {} : { reason: code.slice(0, 100) };
  const text = message === "" ? `the server reported an error: ${code}` : message;
  return { kind: "error", error: { code: meaningOf(words, undefined).code, message: text, details } };
}

function broken(message: string): StreamEvent {
  return { kind: "error", error: { code: "upstream_failed", message, details: {} } };
}
