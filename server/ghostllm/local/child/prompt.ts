/** Turns a task into the tokens that a model reads, and says what ends its answer. */
import { type ChatHistoryItem, LlamaText, type Token } from "node-llama-cpp";
import { UserError } from "../../../base/errors.ts";
import type { EngineMessage, GenerateJob } from "../engine-protocol.ts";
import { fitAroundCursor } from "./fit.ts";
import type { Weights } from "./weights.ts";

export interface Prompt {
  readonly tokens: readonly Token[];
  /** Tokens that end the answer, besides the model's own end tokens. */
  readonly stopTokens: ReadonlySet<Token>;
  readonly stopTexts: readonly string[];
  readonly trimmedCharacters: number;
}

/** Room that trimming leaves for an answer whose length is not given. */
const DEFAULT_RESERVE_TOKENS = 32;

/** @throws UserError `context_too_long` when not even one token of an answer would fit; `capability_missing` for infill without infill tokens. */
export function buildPrompt(weights: Weights, job: GenerateJob): Prompt {
  const { task } = job;
  const prompt = task.kind === "chat" ? chatPrompt(weights, task.messages) : completionPrompt(weights, job);
  const { window } = weights;
  if (prompt.tokens.length < window) return prompt;
  const promptTokens = prompt.tokens.length;
  throw new UserError(
    "context_too_long",
    `the prompt has ${promptTokens} tokens; with at least 1 for the answer that is ${promptTokens + 1}, and the model's window has ${window}`,
    { details: { promptTokens, contextWindow: window } },
  );
}

function chatPrompt(weights: Weights, messages: readonly EngineMessage[]): Prompt {
  const chatHistory = messages.map(toHistoryItem);
  if (messages.at(-1)?.role !== "assistant") chatHistory.push({ type: "model", response: [""] });
  const { contextText, stopGenerationTriggers } = weights.chatWrapper().generateContextState({ chatHistory });
  const stopTokens = new Set<Token>();
  const stopTexts: string[] = [];
  for (const trigger of stopGenerationTriggers) {
    const [first] = trigger.tokenize(weights.model.tokenizer);
    if (first === undefined) continue;
    if (weights.model.isSpecialToken(first)) stopTokens.add(first);
    else if (trigger.values.every((value) => typeof value === "string")) stopTexts.push(trigger.values.join(""));
  }
  const tokens = withBos(weights, contextText.tokenize(weights.model.tokenizer));
  return { tokens, stopTokens, stopTexts: stopTexts.filter((text) => text !== ""), trimmedCharacters: 0 };
}

function toHistoryItem(message: EngineMessage): ChatHistoryItem {
  if (message.role === "assistant") return { type: "model", response: [message.text] };
  // As text, never as special tokens: what a user writes cannot open another role.
  if (message.role === "system") return { type: "system", text: LlamaText(message.text).toJSON() };
  return { type: "user", text: message.text };
}

function completionPrompt(weights: Weights, job: GenerateJob): Prompt {
  if (job.task.kind !== "completion") throw new UserError("capability_missing", "not a completion");
  const { prefix, suffix, overflow } = job.task;
  const build = (before: string, after: string) =>
    after === "" ? continuation(weights, before) : infill(weights, before, after);
  const whole =
    overflow === "trim" && prefix.length + suffix.length > weights.window * LONG_TOKEN_CHARACTERS
      ? undefined
      : build(prefix, suffix);
  const reserve = Math.min(job.maxTokens ?? DEFAULT_RESERVE_TOKENS, Math.floor(weights.window / 4));
  const fits = whole !== undefined && whole.length + reserve <= weights.window;
  const ends = { stopTokens: new Set<Token>(), stopTexts: [] };
  if (fits || overflow === "error") return { ...ends, tokens: whole ?? build(prefix, suffix), trimmedCharacters: 0 };
  const fitted = fitAroundCursor({
    prefix,
    suffix,
    budget: weights.window - reserve - MAX_FRAME_TOKENS,
    count: (text) => weights.model.tokenize(text).length,
  });
  if (fitted === undefined) return { ...ends, tokens: whole ?? build(prefix, suffix), trimmedCharacters: 0 };
  return { ...ends, tokens: build(fitted.prefix, fitted.suffix), trimmedCharacters: fitted.droppedCharacters };
}

/** Beginning of text and the three infill tokens. */
const MAX_FRAME_TOKENS = 4;
/** Text with more characters than this for each token of the window is not tokenised whole just to see that it is too long. */
const LONG_TOKEN_CHARACTERS = 8;

function continuation(weights: Weights, prefix: string): readonly Token[] {
  const tokens = withBos(weights, weights.model.tokenize(prefix));
  // An empty prompt of a model without a beginning token: something must be evaluated to sample from.
  const start = weights.model.tokens.bos ?? weights.model.tokens.eos;
  return tokens.length === 0 && start !== null ? [start] : tokens;
}

/** With a middle token: prefix, suffix, middle. Without: suffix, prefix (the order such models are trained in). */
function infill(weights: Weights, prefix: string, suffix: string): readonly Token[] {
  const { model } = weights;
  const special = model.tokens.infill;
  if (special.prefix === null || special.suffix === null) {
    throw new UserError(
      "capability_missing",
      `${model.filename ?? "the model"} has no infill tokens: it cannot use a suffix`,
    );
  }
  const before = model.tokenize(prefix, false, "trimLeadingSpace");
  const after = model.tokenize(suffix, false, "trimLeadingSpace");
  return withBos(
    weights,
    special.middle === null
      ? [special.suffix, ...after, special.prefix, ...before]
      : [special.prefix, ...before, special.suffix, ...after, special.middle],
  );
}

function withBos(weights: Weights, tokens: readonly Token[]): readonly Token[] {
  const { bos, shouldPrependBosToken } = weights.model.tokens;
  return shouldPrependBosToken && bos !== null && tokens[0] !== bos ? [bos, ...tokens] : tokens;
}
