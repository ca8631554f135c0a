/** The bytes of the fake Anthropic host's answers: pure, from a script and a request to events or one JSON text. */
import type { MessagesBody } from "./anthropic-host-body.ts";
import { factsOf } from "./anthropic-host-models.ts";
import { thinksFor } from "./anthropic-host-rules.ts";
import { argumentsOf, type Counts, countUsage, type Step, shorten } from "./cloud-frames.ts";
import type { AnswerBlock, CloudScript, ErrorWords, ReasoningBlock } from "./cloud-script.ts";

/** What an answer is made of, once script and request are put together. */
export interface AnthropicAnswer {
  readonly id: string;
  readonly model: string;
  readonly number: number;
  readonly blocks: readonly AnswerBlock[];
  /** The signature of each reasoning block, by its place in `blocks`. */
  readonly signatures: ReadonlyMap<number, string>;
  readonly stopReason: string;
  readonly stopSequence: string | null;
  readonly stopDetails: object | null;
  readonly counts: Counts | undefined;
  readonly serviceTier: string;
}

const ERROR_TYPES: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  402: "billing_error",
  403: "permission_error",
  404: "not_found_error",
  409: "conflict_error",
  413: "request_too_large",
  429: "rate_limit_error",
  500: "api_error",
  504: "timeout_error",
  529: "overloaded_error",
};

export function composeAnthropic(
  script: CloudScript,
  request: { readonly body: MessagesBody; readonly number: number; readonly sign: (text: string) => string },
): AnthropicAnswer {
  const { body, number } = request;
  const { blocks, cutBy, stopSequence } = shorten(visible(script, body), {
    maxTokens: body.max_tokens,
    stops: body.stop_sequences,
  });
  const refusal = blocks.find((block) => block.kind === "refusal");
  const natural = blocks.some((block) => block.kind === "tool-call") ? "tool_use" : "end_turn";
  const cut = cutBy === "length" ? "max_tokens" : cutBy === "stop" ? "stop_sequence" : natural;
  const signatures = new Map<number, string>();
  for (const [index, block] of blocks.entries()) {
    if (block.kind === "reasoning" && (block.isSigned ?? true)) {
      signatures.set(index, request.sign(block.deltas.join("")));
    }
  }
  return {
    id: `msg_fake_${number}`,
    model: script.model ?? body.model,
    number,
    blocks,
    signatures,
    stopReason: script.finishReason ?? (refusal === undefined ? cut : "refusal"),
    stopSequence: stopSequence ?? null,
    stopDetails:
      refusal === undefined
        ? null
        : { type: "refusal", category: refusal.category ?? null, explanation: refusal.explanation ?? null },
    counts: countUsage(script, { blocks, promptText: JSON.stringify([body.system, body.tools, body.messages]) }),
    serviceTier: script.serviceTier ?? "standard",
  };
}

/** The script with its reasoning as this request is shown it: whole, signed but without its text, or not at all. */
function visible(script: CloudScript, body: MessagesBody): CloudScript {
  const facts = factsOf(body.model);
  if (script.blocks === undefined) return script;
  const config = body.thinking;
  const wish = config !== undefined && "display" in config ? (config.display ?? undefined) : undefined;
  const isOmitted = (wish ?? (facts.omitsThinking ? "omitted" : "summarized")) === "omitted";
  const show = (block: ReasoningBlock) => (isOmitted ? { ...block, deltas: [] } : block);
  const blocks = script.blocks.flatMap((block): readonly AnswerBlock[] => {
    if (block.kind !== "reasoning") return [block];
    return thinksFor({ body, facts }) ? [show(block)] : [];
  });
  return { ...script, blocks };
}

/** All events of a healthy stream, in order. */
export function* anthropicSteps(answer: AnthropicAnswer): Generator<Step> {
  yield step("message_start", { message: { ...messageOf(answer, []), usage: usageOf(answer, "start") } });
  yield pingStep();
  let index = 0;
  for (const [at, block] of answer.blocks.entries()) {
    if (block.kind === "refusal" && block.deltas.length === 0) continue;
    yield step("content_block_start", { index, content_block: startOf(answer, block, at) });
    yield* deltasOf(block, { index, signature: answer.signatures.get(at) });
    yield step("content_block_stop", { index });
    index += 1;
  }
  yield step("message_delta", {
    delta: {
      container: null,
      stop_reason: answer.stopReason,
      stop_sequence: answer.stopSequence,
      stop_details: answer.stopDetails,
    },
    usage: usageOf(answer, "end"),
  });
  yield step("message_stop", {});
}

export function pingStep(): Step {
  return step("ping", {});
}

/** An event of a type that the API does not have. */
export function unknownStep(): Step {
  return step("content_block_hint", { index: 0, hint: { type: "new_in_2027" } });
}

function* deltasOf(
  block: AnswerBlock,
  { index, signature }: { readonly index: number; readonly signature: string | undefined },
): Generator<Step> {
  const delta = (value: object, isToken: boolean) => step("content_block_delta", { index, delta: value }, { isToken });
  switch (block.kind) {
    case "text":
    case "refusal":
      for (const text of block.deltas) yield delta({ type: "text_delta", text }, true);
      return;
    case "tool-call":
      if (block.arguments.length > 0) yield delta({ type: "input_json_delta", partial_json: "" }, false);
      for (const piece of block.arguments) yield delta({ type: "input_json_delta", partial_json: piece }, true);
      return;
    case "reasoning":
      if (block.isRedacted === true) return;
      for (const thinking of block.deltas) yield delta({ type: "thinking_delta", thinking }, true);
      if (signature !== undefined) yield delta({ type: "signature_delta", signature }, false);
  }
}

/** A block as `content_block_start` has it: empty. */
function startOf(answer: AnthropicAnswer, block: AnswerBlock, at: number): object {
  switch (block.kind) {
    case "text":
    case "refusal":
      return { type: "text", text: "", citations: null };
    case "tool-call":
      return { ...callOf(answer, block, at), input: {} };
    case "reasoning":
      if (block.isRedacted === true) return { type: "redacted_thinking", data: answer.signatures.get(at) ?? "" };
      return { type: "thinking", thinking: "", signature: "" };
  }
}

function wholeBlock(answer: AnthropicAnswer, block: AnswerBlock, at: number): object {
  switch (block.kind) {
    case "text":
    case "refusal":
      return { type: "text", text: block.deltas.join(""), citations: null };
    case "tool-call":
      return { ...callOf(answer, block, at), input: argumentsOf(block.arguments) };
    case "reasoning":
      if (block.isRedacted === true) return { type: "redacted_thinking", data: answer.signatures.get(at) ?? "" };
      return { type: "thinking", thinking: block.deltas.join(""), signature: answer.signatures.get(at) ?? "" };
  }
}

function callOf(answer: AnthropicAnswer, block: Extract<AnswerBlock, { kind: "tool-call" }>, at: number): object {
  return {
    type: "tool_use",
    id: block.id ?? `toolu_fake_${answer.number}_${at}`,
    name: block.name,
    caller: { type: "direct" },
  };
}

/** The body of an answer that is not streamed. */
export function anthropicBody(answer: AnthropicAnswer): string {
  const content = answer.blocks
    .filter((block) => block.kind !== "refusal" || block.deltas.length > 0)
    .map((block) => wholeBlock(answer, block, answer.blocks.indexOf(block)));
  return JSON.stringify({
    ...messageOf(answer, content),
    stop_reason: answer.stopReason,
    stop_sequence: answer.stopSequence,
    stop_details: answer.stopDetails,
    usage: usageOf(answer, "whole"),
  });
}

function messageOf(answer: AnthropicAnswer, content: readonly object[]): object {
  return {
    model: answer.model,
    id: answer.id,
    type: "message",
    role: "assistant",
    content,
    stop_reason: null,
    stop_sequence: null,
    stop_details: null,
    container: null,
    diagnostics: null,
  };
}

/** `start` and `end` are the two places of a stream: what the first says stands where the last says null; `output_tokens` is cumulative. */
function usageOf({ counts, serviceTier }: AnthropicAnswer, place: "start" | "end" | "whole"): object | undefined {
  if (counts === undefined) return undefined;
  const { inputTokens, cachedTokens, cacheWriteTokens, outputTokens, reasoningTokens } = counts;
  const input = {
    input_tokens: inputTokens - cachedTokens - cacheWriteTokens,
    cache_creation_input_tokens: cacheWriteTokens,
    cache_read_input_tokens: cachedTokens,
  };
  const details = { output_tokens_details: { thinking_tokens: reasoningTokens }, server_tool_use: null };
  if (place === "end") return { ...input, output_tokens: outputTokens, ...details };
  return {
    ...input,
    cache_creation: { ephemeral_5m_input_tokens: cacheWriteTokens, ephemeral_1h_input_tokens: 0 },
    output_tokens: place === "start" ? 1 : outputTokens,
    ...(place === "start" ? { output_tokens_details: null, server_tool_use: null } : details),
    service_tier: serviceTier,
    inference_geo: null,
    speed: "standard",
  };
}

/** An error in Anthropic's shape; without words it is an overload. */
export function anthropicError(
  error: ErrorWords,
  { status, requestId }: { readonly status: number; readonly requestId: string },
): object {
  const type = error.type ?? ERROR_TYPES[status] ?? "api_error";
  const details = error.errorCode === undefined ? {} : { details: { error_code: error.errorCode } };
  return {
    type: "error",
    error: { type, message: error.message ?? (type === "overloaded_error" ? "Overloaded" : type), ...details },
    request_id: requestId,
  };
}

function step(type: string, fields: object, { isToken }: { readonly isToken: boolean } = { isToken: false }): Step {
  return { event: type, data: JSON.stringify({ type, ...fields }), isToken };
}
