/** The bytes of the fake OpenAI-compatible host's answers: pure, from a script and a request to frames or one JSON text. */
import { createHash } from "node:crypto";
import type { ChatBody, CompletionBody, EmbeddingsBody, Script } from "./openai-host-script.ts";

/** What an answer is made of, once script and request are put together. */
export interface Answer {
  readonly kind: "chat" | "completion";
  readonly id: string;
  readonly createdS: number;
  readonly model: string;
  readonly tokens: readonly string[];
  readonly toolCalls: NonNullable<Script["toolCalls"]>;
  readonly finishReason: string;
  readonly promptTokens: number;
  readonly usageInStream: boolean;
  readonly usageInBody: boolean;
}

/** One frame of a stream: its JSON (or `[DONE]`), and whether it is a content delta. */
export interface Step {
  readonly payload: string;
  readonly isToken: boolean;
}

const DEFAULT_TOKENS = ["Hello", " from", " the", " fake", " host", "."];

export function composeAnswer(script: Script, request: ChatBody | CompletionBody, number: number): Answer {
  const isChat = "messages" in request;
  const scripted = typeof script.tokens === "number" ? countedTokens(script.tokens) : script.tokens;
  const asked = scripted ?? (script.toolCalls === undefined ? DEFAULT_TOKENS : []);
  const limit = request.max_tokens ?? (isChat ? request.max_completion_tokens : undefined) ?? Number.POSITIVE_INFINITY;
  const tokens = asked.length > limit ? asked.slice(0, limit) : asked;
  const toolCalls = isChat ? (script.toolCalls ?? []) : [];
  const natural = toolCalls.length > 0 ? "tool_calls" : "stop";
  const usage = script.usage ?? "asked";
  const includeUsage = request.stream_options?.include_usage === true;
  return {
    kind: isChat ? "chat" : "completion",
    id: `${isChat ? "chatcmpl" : "cmpl"}-fake-${number}`,
    createdS: 1_700_000_000 + number,
    model: request.model,
    tokens,
    toolCalls,
    finishReason: script.finishReason ?? (tokens.length < asked.length ? "length" : natural),
    promptTokens: isChat ? countPrompt(request.messages) : countWords(promptText(request)),
    usageInStream: usage === "always" || (usage === "asked" && includeUsage),
    usageInBody: usage !== "never",
  };
}

function countedTokens(count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => `token${index} `);
}

function promptText(request: CompletionBody): string {
  return typeof request.prompt === "string" ? request.prompt : request.prompt.join("");
}

function countPrompt(messages: ChatBody["messages"]): number {
  return messages.reduce((sum, message) => sum + 4 + countWords(JSON.stringify(message.content ?? "")), 3);
}

/** The fake's tokenizer: words. Only its being stable matters. */
export function countWords(text: string): number {
  return text.split(/\s+/).filter((word) => word !== "").length;
}

export function usageOf(answer: Answer, tokensSent: number): object {
  return {
    prompt_tokens: answer.promptTokens,
    completion_tokens: tokensSent,
    total_tokens: answer.promptTokens + tokensSent,
  };
}

/** All frames of a healthy stream, in order, `[DONE]` included. */
export function* streamSteps(answer: Answer): Generator<Step> {
  const isChat = answer.kind === "chat";
  const usage = answer.usageInStream ? { usage: null } : {};
  const head = {
    id: answer.id,
    object: isChat ? "chat.completion.chunk" : "text_completion",
    created: answer.createdS,
    model: answer.model,
  };
  const chunk = (content: object, finishReason: string | null): string =>
    JSON.stringify({
      ...head,
      choices: [{ index: 0, ...content, logprobs: null, finish_reason: finishReason }],
      ...usage,
    });
  if (isChat) yield { payload: chunk({ delta: { role: "assistant", content: "" } }, null), isToken: false };
  for (const text of answer.tokens) {
    yield { payload: chunk(isChat ? { delta: { content: text } } : { text }, null), isToken: true };
  }
  for (const [index, call] of answer.toolCalls.entries()) {
    const start = { index, id: call.id, type: "function", function: { name: call.name, arguments: "" } };
    yield { payload: chunk({ delta: { tool_calls: [start] } }, null), isToken: false };
    for (const piece of call.arguments) {
      const delta = { tool_calls: [{ index, function: { arguments: piece } }] };
      yield { payload: chunk({ delta }, null), isToken: true };
    }
  }
  yield { payload: chunk(isChat ? { delta: {} } : { text: "" }, answer.finishReason), isToken: false };
  if (answer.usageInStream) {
    const tokensSent = answer.tokens.length + answer.toolCalls.reduce((sum, call) => sum + call.arguments.length, 0);
    const usageChunk = { ...head, choices: [], usage: usageOf(answer, tokensSent) };
    yield { payload: JSON.stringify(usageChunk), isToken: false };
  }
  yield { payload: "[DONE]", isToken: false };
}

/** The body of an answer that is not streamed. */
export function wholeBody(answer: Answer): string {
  const text = answer.tokens.join("");
  const toolCalls = answer.toolCalls.map((call) => ({
    id: call.id,
    type: "function",
    function: { name: call.name, arguments: call.arguments.join("") },
  }));
  const message = {
    role: "assistant",
    content: toolCalls.length > 0 && text === "" ? null : text,
    refusal: null,
    ...(toolCalls.length > 0 ? { tool_calls: toolCalls } : {}),
  };
  return JSON.stringify({
    id: answer.id,
    object: answer.kind === "chat" ? "chat.completion" : "text_completion",
    created: answer.createdS,
    model: answer.model,
    choices: [
      {
        index: 0,
        ...(answer.kind === "chat" ? { message } : { text }),
        logprobs: null,
        finish_reason: answer.finishReason,
      },
    ],
    ...(answer.usageInBody ? { usage: usageOf(answer, answer.tokens.length + toolCalls.length) } : {}),
  });
}

/** Deterministic unit vectors: equal texts get equal ones. */
export function embeddingsAnswer(request: EmbeddingsBody): string {
  const inputs = typeof request.input === "string" ? [request.input] : request.input;
  const dimensions = request.dimensions ?? 8;
  const data = inputs.map((text, index) => {
    const vector = embed(text, dimensions);
    const embedding =
      request.encoding_format === "base64" ? Buffer.from(vector.buffer).toString("base64") : [...vector];
    return { object: "embedding", index, embedding };
  });
  const promptTokens = inputs.reduce((sum, text) => sum + countWords(text), 0);
  return JSON.stringify({
    object: "list",
    data,
    model: request.model,
    usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
  });
}

function embed(text: string, dimensions: number): Float32Array {
  const digest = createHash("sha256").update(text).digest();
  const raw = Float32Array.from({ length: dimensions }, (_, index) => (digest[index % 32] ?? 0) - 127.5);
  const length = Math.hypot(...raw);
  return raw.map((value) => value / length);
}

/** An error in OpenAI's shape. */
export function errorBody(error: {
  readonly message: string;
  readonly type: string;
  readonly code: string | null;
}): string {
  return JSON.stringify({ error: { message: error.message, type: error.type, param: null, code: error.code } });
}
