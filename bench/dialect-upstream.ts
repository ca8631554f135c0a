/**
 * Answers of every kind of upstream, rendered once. Pure.
 * 1. A model's name ends with its plan, as in `openai-host-fast.ts`: `t16` is 16 deltas at once, `t40e5` one every 5 ms.
 * 2. A delta is `NNNNNN TTTTTTTTTTTTTTTT `: its number and the time of its sending, written into a copy of the frame at `stampAt`.
 * 3. Responses repeats the tools and instructions of a request three times in its answer; `echo` is of the length that an agent's have.
 */

export const UPSTREAM_KINDS = ["compatible", "openai", "anthropic", "gemini", "ollama"] as const;
export type UpstreamKind = (typeof UPSTREAM_KINDS)[number];

/** Before the plan in the model's name. OpenAI's is one that answers by Responses only, so that nothing is relayed to its chat completions. */
export const MODEL_NAMES: Readonly<Record<UpstreamKind, string>> = {
  compatible: "m",
  openai: "gpt-6-pro",
  anthropic: "claude-opus-5-5",
  gemini: "gemini-3.8-flash",
  ollama: "coder",
};

export interface RenderedAnswer {
  readonly contentType: string;
  readonly tokens: number;
  readonly everyMs: number;
  readonly head: Buffer;
  readonly delta: Buffer;
  /** (2) */
  readonly stampAt: number;
  readonly end: Buffer;
}

/** `000000 0000000000000000`: see (2). */
export const STAMP_LENGTH = 6 + 1 + 16;
const STAMP = "0".repeat(STAMP_LENGTH);
const TEXT = `${STAMP} `;

interface Frames {
  readonly head: string;
  readonly delta: string;
  readonly end: string;
}

/** @throws Error for a name without a plan (1) */
export function renderAnswer(kind: UpstreamKind, model: string, echo: string): RenderedAnswer {
  const [, count, everyMs = "0"] = /t(\d+)(?:e(\d+))?$/.exec(model) ?? [];
  if (count === undefined) throw new Error(`a model's name ends like t16 or t40e5, not ${model}`);
  const tokens = Number(count);
  const frames = framesOf(kind, { model, tokens, echo });
  const delta = Buffer.from(frames.delta);
  return {
    contentType: kind === "ollama" ? "application/x-ndjson" : "text/event-stream; charset=utf-8",
    tokens,
    everyMs: Number(everyMs),
    head: Buffer.from(frames.head),
    delta,
    stampAt: delta.indexOf(STAMP),
    end: Buffer.from(frames.end),
  };
}

interface Plan {
  readonly model: string;
  readonly tokens: number;
  readonly echo: string;
}

function framesOf(kind: UpstreamKind, plan: Plan): Frames {
  switch (kind) {
    case "compatible":
      return chatFrames(plan);
    case "openai":
      return responsesFrames(plan);
    case "anthropic":
      return messagesFrames(plan);
    case "gemini":
      return geminiFrames(plan);
    case "ollama":
      return ollamaFrames(plan);
  }
}

const data = (payload: object) => `data: ${JSON.stringify(payload)}\n\n`;
const named = (type: string, payload: object) => `event: ${type}\n${data({ type, ...payload })}`;

function chatFrames({ model, tokens }: Plan): Frames {
  const head = { id: "chatcmpl-bench", object: "chat.completion.chunk", created: 1_700_000_000, model };
  const chunk = (delta: object, finish: string | null) =>
    data({ ...head, choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }] });
  const usage = { prompt_tokens: 60, completion_tokens: tokens, total_tokens: 60 + tokens };
  return {
    head: chunk({ role: "assistant", content: "" }, null),
    delta: chunk({ content: TEXT }, null),
    end: `${chunk({}, "stop")}${data({ ...head, choices: [], usage })}data: [DONE]\n\n`,
  };
}

function responsesFrames({ model, tokens, echo }: Plan): Frames {
  const response = (status: string, output: readonly object[], usage: object | null) => ({
    id: "resp_bench",
    object: "response",
    created_at: 1_780_000_000,
    status,
    background: false,
    error: null,
    incomplete_details: null,
    instructions: echo,
    max_output_tokens: null,
    model,
    output,
    parallel_tool_calls: true,
    reasoning: { effort: "medium", summary: null },
    store: false,
    temperature: 1,
    text: { format: { type: "text" }, verbosity: "medium" },
    tool_choice: "auto",
    tools: [],
    usage,
    metadata: {},
  });
  const text = TEXT.repeat(tokens);
  const place = { item_id: "msg_bench", output_index: 0, content_index: 0 };
  const part = (words: string) => ({ type: "output_text", annotations: [], logprobs: [], text: words });
  const item = (status: string, content: readonly object[]) => ({
    id: "msg_bench",
    type: "message",
    status,
    role: "assistant",
    content,
  });
  const usage = {
    input_tokens: 60,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: tokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: 60 + tokens,
  };
  const done = item("completed", [part(text)]);
  const started = response("in_progress", [], null);
  const added = { output_index: 0, item: item("in_progress", []) };
  return {
    head: [
      named("response.created", { sequence_number: 0, response: started }),
      named("response.in_progress", { sequence_number: 1, response: started }),
      named("response.output_item.added", { sequence_number: 2, ...added }),
      named("response.content_part.added", { sequence_number: 3, ...place, part: part("") }),
    ].join(""),
    delta: named("response.output_text.delta", {
      sequence_number: 4,
      ...place,
      delta: TEXT,
      logprobs: [],
      obfuscation: "aB3kd9",
    }),
    end: [
      named("response.output_text.done", { sequence_number: 5, ...place, text, logprobs: [] }),
      named("response.content_part.done", { sequence_number: 6, ...place, part: part(text) }),
      named("response.output_item.done", { sequence_number: 7, output_index: 0, item: done }),
      named("response.completed", { sequence_number: 8, response: response("completed", [done], usage) }),
    ].join(""),
  };
}

function messagesFrames({ model, tokens }: Plan): Frames {
  const input = { input_tokens: 60, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 };
  const message = {
    model,
    id: "msg_bench",
    type: "message",
    role: "assistant",
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: { ...input, output_tokens: 1, service_tier: "standard" },
  };
  return {
    head: [
      named("message_start", { message }),
      named("content_block_start", { index: 0, content_block: { type: "text", text: "", citations: null } }),
      named("ping", {}),
    ].join(""),
    delta: named("content_block_delta", { index: 0, delta: { type: "text_delta", text: TEXT } }),
    end: [
      named("content_block_stop", { index: 0 }),
      named("message_delta", {
        delta: { stop_reason: "end_turn", stop_sequence: null },
        usage: { ...input, output_tokens: tokens },
      }),
      named("message_stop", {}),
    ].join(""),
  };
}

function geminiFrames({ model, tokens }: Plan): Frames {
  const chunk = (text: string, finish: object) => {
    const candidate = { content: { parts: [{ text }], role: "model" }, ...finish, index: 0 };
    const usageMetadata = { promptTokenCount: 60, candidatesTokenCount: tokens, totalTokenCount: 60 + tokens };
    const payload = { candidates: [candidate], usageMetadata, modelVersion: model, responseId: "bench" };
    return `data: ${JSON.stringify(payload)}\r\n\r\n`;
  };
  return { head: "", delta: chunk(TEXT, {}), end: chunk("", { finishReason: "STOP" }) };
}

function ollamaFrames({ model, tokens }: Plan): Frames {
  const line = (content: string, rest: object) => {
    const message = { role: "assistant", content };
    return `${JSON.stringify({ model, created_at: "2026-11-27T06:00:00.123456789Z", message, ...rest })}\n`;
  };
  const counts = { prompt_eval_count: 60, prompt_eval_duration: 1e6, eval_count: tokens, eval_duration: 1e7 };
  const end = { done: true, done_reason: "stop", total_duration: 2e7, load_duration: 1e6, ...counts };
  return { head: "", delta: line(TEXT, { done: false }), end: line("", end) };
}
