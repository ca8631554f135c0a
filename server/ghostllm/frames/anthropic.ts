/**
 * Anthropic's Messages as frames: the events of a stream, or the one JSON object of a plain answer.
 * Format: https://platform.claude.com/docs/en/build-with-claude/streaming
 * 1. What runs on Anthropic's side (`server_tool_use` and its results) is no call of a client's tool: it opens no call here. The pieces of its input
 *    look like those of a call, and are dropped by whoever sums up, because their call has no name.
 * 2. A seal (`Opaque.data`) is `{"signature": TEXT}` of a thinking block, whose text stands beside it, or `{"redacted": DATA}`.
 * 3. An end in a word that we do not know is `unknown`: a relay passes it on, everybody else must not take it for a stop.
 */
import type { FinishReason } from "../../../protocol/chat.ts";
import type { Usage } from "../../../protocol/usage.ts";
import { present } from "../../base/optional.ts";
import type { Frame, StreamEvent } from "../stream.ts";
import { codeOfAnthropic, readAnthropicError } from "./anthropic-error.ts";
import { countAt, isRecord, parseRecord, stringAt, textAt } from "./json.ts";
import { sseData } from "./sse.ts";

type Json = Readonly<Record<string, unknown>>;

/** The seal of a thinking block (2). */
export type AnthropicSeal = { readonly signature: string } | { readonly redacted: string };

/** @returns undefined for what is no seal of ours */
export function readSeal(data: string): AnthropicSeal | undefined {
  const json = parseRecord(data);
  const signature = json === undefined ? undefined : stringAt(json, "signature");
  if (signature !== undefined) return { signature };
  const redacted = json === undefined ? undefined : stringAt(json, "redacted");
  return redacted === undefined ? undefined : { redacted };
}

const sealText = (seal: AnthropicSeal): string => JSON.stringify(seal);

/** A run of whole frames whose events are parsed when first asked for. */
export function anthropicFrame(bytes: Buffer): Frame {
  let events: readonly StreamEvent[] | undefined;
  return { dialect: "anthropic-messages", bytes, events: () => (events ??= decodeAnthropic(bytes)) };
}

const OPEN_BRACE = 0x7b;

/**
 * The events in a run of whole SSE frames or in one JSON answer:
 * `event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n` → `[{kind: "text", text: "Hi"}]`.
 * A frame that is not JSON yields an `error` event: the answer cannot be trusted from there on.
 */
export function decodeAnthropic(bytes: Buffer): readonly StreamEvent[] {
  const events: StreamEvent[] = [];
  const texts = bytes[0] === OPEN_BRACE ? [bytes.toString("utf8")] : sseData(bytes);
  for (const text of texts) {
    const data = parseRecord(text);
    if (data === undefined) {
      const message = `the server sent something that is no event of a message: ${text.slice(0, 120)}`;
      events.push({ kind: "error", error: { code: "upstream_failed", message, details: {} } });
      return events;
    }
    appendEvents(events, data);
  }
  return events;
}

/** Whether the last event of a whole stream is among these frames. */
export function hasMessageStop(bytes: Buffer): boolean {
  // Text may hold the word, too; then it is looked at more closely.
  return bytes.includes("message_stop") && sseData(bytes).some(isMessageStop);
}

export function isMessageStop(data: string): boolean {
  return data.includes("message_stop") && parseRecord(data)?.["type"] === "message_stop";
}

function appendEvents(events: StreamEvent[], data: Json): void {
  switch (data["type"]) {
    case "content_block_delta":
      return appendDelta(events, data);
    case "content_block_start":
      if (isRecord(data["content_block"])) appendBlock(events, data["content_block"], indexOf(data));
      return;
    case "message_start":
      if (isRecord(data["message"])) appendUsage(events, data["message"]["usage"], "start");
      return;
    case "message_delta":
      appendUsage(events, data["usage"], "end");
      if (isRecord(data["delta"])) appendFinish(events, data["delta"]);
      return;
    case "message":
      return appendWhole(events, data);
    case "error":
      return appendError(events, data);
    default: // `ping`, `content_block_stop`, `message_stop`, and events of later years.
  }
}

function appendDelta(events: StreamEvent[], data: Json): void {
  const { delta } = data;
  if (!isRecord(delta)) return;
  switch (delta["type"]) {
    case "text_delta": {
      const text = textAt(delta, "text");
      if (text !== "") events.push({ kind: "text", text });
      return;
    }
    case "input_json_delta": {
      const piece = textAt(delta, "partial_json");
      if (piece !== "") events.push({ kind: "toolCall", index: indexOf(data), arguments: piece });
      return;
    }
    case "thinking_delta": {
      const text = textAt(delta, "thinking");
      if (text !== "") events.push({ kind: "reasoning", text, block: indexOf(data) });
      return;
    }
    case "signature_delta": {
      const opaque = sealText({ signature: textAt(delta, "signature") });
      events.push({ kind: "reasoning", text: "", block: indexOf(data), opaque });
      return;
    }
    default: // Citations point into documents of the request: no other dialect has them.
  }
}

/** The start of a block, or a whole one of an answer that is not streamed. */
function appendBlock(events: StreamEvent[], block: Json, index: number): void {
  switch (block["type"]) {
    case "text": {
      const text = textAt(block, "text");
      if (text !== "") events.push({ kind: "text", text });
      return;
    }
    case "thinking": {
      const signature = textAt(block, "signature");
      // Also without text: thinking has begun, and a client that waits for its answer may be told so.
      const event = { kind: "reasoning", text: textAt(block, "thinking"), block: index } as const;
      events.push(signature === "" ? event : { ...event, opaque: sealText({ signature }) });
      return;
    }
    case "redacted_thinking": {
      const opaque = sealText({ redacted: textAt(block, "data") });
      events.push({ kind: "reasoning", text: "", block: index, opaque });
      return;
    }
    case "tool_use": {
      const { input } = block;
      // A stream begins with `{}` and brings the input piece by piece.
      const isGiven = isRecord(input) && Object.keys(input).length > 0;
      const said = { callId: textAt(block, "id"), name: textAt(block, "name") };
      events.push({ kind: "toolCall", index, ...said, arguments: isGiven ? JSON.stringify(input) : "" });
      return;
    }
    default: // (1)
  }
}

function appendWhole(events: StreamEvent[], data: Json): void {
  const { content } = data;
  if (Array.isArray(content)) {
    for (const [index, block] of content.entries()) if (isRecord(block)) appendBlock(events, block, index);
  }
  appendUsage(events, data["usage"], "whole");
  if (typeof data["stop_reason"] === "string") return appendFinish(events, data);
  const message = "the server's answer does not say why it ended";
  events.push({ kind: "error", error: { code: "upstream_failed", message, details: {} } });
}

function appendFinish(events: StreamEvent[], delta: Json): void {
  const word = stringAt(delta, "stop_reason");
  if (word !== undefined) events.push({ kind: "finish", reason: finishReason(word) });
}

function finishReason(word: string): FinishReason {
  switch (word) {
    case "end_turn":
    case "stop_sequence":
      return "stop";
    case "max_tokens":
    case "model_context_window_exceeded":
      return "length";
    case "tool_use":
      return "toolCalls";
    case "refusal":
      return "contentFilter";
    default: // (3); `pause_turn` as well: only its own dialect can go on after it.
      return "unknown";
  }
}

function appendError(events: StreamEvent[], data: Json): void {
  const error = readAnthropicError(data);
  const code = codeOfAnthropic(error);
  const { type = "", errorCode } = error ?? {};
  const message = error === undefined || error.message === "" ? "the server reported an error" : error.message;
  const details = { type, ...(errorCode === undefined ? {} : { reason: errorCode }) };
  events.push({ kind: "error", error: { code, message, details } });
}

/**
 * Counts are totals of the whole answer; null in the last event keeps what the first said. What was read from or written to a cache is counted apart
 * there, and is part of `promptTokens` here. The first event's `output_tokens` is only what was there when it was sent: it is no count of the answer.
 */
function appendUsage(events: StreamEvent[], usage: unknown, place: "start" | "end" | "whole"): void {
  if (!isRecord(usage)) return;
  const cacheRead = cacheCount(usage, "cache_read_input_tokens", place);
  const cacheWrite = cacheCount(usage, "cache_creation_input_tokens", place);
  const fresh = countAt(usage, "input_tokens");
  const output = place === "start" ? undefined : countAt(usage, "output_tokens");
  const details = isRecord(usage["output_tokens_details"]) ? usage["output_tokens_details"] : {};
  const thinking = countAt(details, "thinking_tokens");
  const isInputKnown = fresh !== undefined && cacheRead !== undefined && cacheWrite !== undefined;
  const counts: Usage = {
    ...(isInputKnown ? { promptTokens: fresh + cacheRead + cacheWrite } : {}),
    ...present("completionTokens", output),
    ...present("cachedTokens", countAt(usage, "cache_read_input_tokens")),
    ...present("cacheWriteTokens", countAt(usage, "cache_creation_input_tokens")),
    ...present("reasoningTokens", thinking),
  };
  if (Object.keys(counts).length > 0) events.push({ kind: "usage", usage: counts });
}

/** A server without a cache does not name it: then nothing came from there. Null in a stream's last event means: as said before. */
function cacheCount(usage: Json, key: string, place: "start" | "end" | "whole"): number | undefined {
  const value = usage[key];
  return value === undefined || (value === null && place !== "end") ? 0 : countAt(usage, key);
}

function indexOf(data: Json): number {
  return countAt(data, "index") ?? 0;
}
