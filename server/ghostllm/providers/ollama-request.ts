/**
 * Requests in Ollama's words (https://github.com/ollama/ollama/blob/main/docs/api.md). Pure.
 * 1. Every body carries the same `num_ctx` for a model: another value makes Ollama load it anew, and blocks all other loads meanwhile.
 *    For the same reason `shift` and the other options that reload are never sent.
 * 2. `truncate: false`, because Ollama otherwise drops the oldest messages of a prompt that is too long without a word; so it refuses instead,
 *    with its own exact count. Versions before 0.12.6 ignore the field.
 * 3. What Ollama cannot do is refused here, never left out in silence.
 */
import type { ModelInfo } from "../../../protocol/model.ts";
import { UserError } from "../../base/errors.ts";
import { carry } from "../carriage.ts";
import { parseRecord } from "../frames/json.ts";
import type { ChatRequest, CompletionRequest, Message, OutputOptions, Part, Sampling } from "../stream.ts";
import { OPENAI_NAMES, type WireFunction, type WireTools, wireTools } from "../tool-names.ts";
import type { Infill } from "./ollama-infill.ts";

export type Body = Readonly<Record<string, unknown>>;

export interface RequestSettings {
  readonly numCtx: number;
  /** A Go duration; how long the model stays loaded after its last request. */
  readonly keepAlive: string;
  /** The words of the model's family, where its template has no place for a suffix. */
  readonly infill?: Infill | undefined;
}

/**
 * No tokenizer packs more text than this into a token on average, except for pure white space. What is longer than `num_ctx` times this
 * surely does not fit and is refused before it is serialised and sent.
 */
const MAX_CHARACTERS_PER_TOKEN = 16;
/** Trimming must not end in a refusal, so it counts on a poor tokenizer; code has 3 to 4 characters a token with most. */
const TRIM_CHARACTERS_PER_TOKEN = 2;
/** Room for the answer where the request does not say, as a part of the window. */
const ANSWER_SHARE = 0.25;
/** Of what fits, the text before the cursor gets this part: it says more about what comes next than the text after it. */
const PREFIX_SHARE = 0.75;

/** @throws UserError `capability_missing`, `context_too_long` or `invalid_params` */
export async function chatBody(
  request: ChatRequest,
  model: ModelInfo,
  settings: RequestSettings,
): Promise<{ readonly body: Body; readonly tools: WireTools; readonly dropped: readonly string[] }> {
  const dropped = carry(request, "ollama", model.ref);
  const tools = wireTools(request, OPENAI_NAMES);
  const offered = offer(request, model, tools);
  const messages = await request.messages();
  if (messages.length === 0) {
    // Ollama takes it as "load the model" and answers nothing.
    throw new UserError("invalid_params", "there are no messages", { details: { field: "messages" } });
  }
  checkFits(
    messages.reduce((sum, message) => sum + message.parts.reduce((all, part) => all + textLength(part), 0), 0),
    model,
    settings,
  );
  const body = {
    ...common(request, model, settings),
    messages: translateMessages(messages, model, tools),
    ...(offered.length === 0 ? {} : { tools: offered.map(translateTool) }),
    ...thinkingOf(request, model),
    ...formatOf(request.output),
  };
  return { body, tools, dropped };
}

/** Without a word about it the model does as it does by itself. https://github.com/ollama/ollama/blob/main/docs/capabilities/thinking.mdx */
function thinkingOf({ reasoning }: ChatRequest, model: ModelInfo): Body {
  const effort = reasoning?.effort ?? (reasoning?.budgetTokens === undefined ? undefined : "medium");
  if (effort === undefined || model.capabilities.reasoning !== true) return {};
  if (effort === "none" || effort === "minimal") return { think: false };
  // Only gpt-oss takes levels; to all others they would be an error.
  if (!/(^|\/)gpt-oss/.test(model.name)) return { think: true };
  return { think: effort === "low" || effort === "medium" ? effort : "high" };
}

/** The body, and how many characters were left out to make it fit. @throws as `chatBody` */
export function completionBody(
  request: CompletionRequest,
  model: ModelInfo,
  settings: RequestSettings,
): { readonly body: Body; readonly trimmedCharacters: number } {
  if (request.suffix !== "" && !model.capabilities.fim) {
    throw new UserError(
      "capability_missing",
      `${model.ref} cannot fill in before a suffix: its template has no place for one`,
    );
  }
  const infill = request.suffix === "" ? undefined : settings.infill;
  if (request.prefix === "" && infill === undefined) {
    // With an empty prompt Ollama only loads the model.
    throw new UserError("invalid_params", `${model.ref} needs some text to continue`, { details: { field: "prefix" } });
  }
  const { prefix, suffix } = request.overflow === "trim" ? trimToFit(request, settings.numCtx) : request;
  checkFits(prefix.length + suffix.length, model, settings);
  const stop = [...request.output.stop, ...(infill?.stop ?? [])];
  return {
    body: {
      ...common({ ...request, output: { ...request.output, stop } }, model, settings),
      prompt: infill === undefined ? prefix : infill.prompt(prefix, suffix),
      // Raw: the model continues the text itself instead of answering it as a message. With a suffix its template places the FIM tokens.
      ...(suffix === "" || infill !== undefined ? { raw: true } : { suffix }),
      // A thinking model would think about a completion, too.
      think: false,
      ...formatOf(request.output),
    },
    trimmedCharacters: request.prefix.length - prefix.length + request.suffix.length - suffix.length,
  };
}

export function embedBody(texts: readonly string[], model: ModelInfo, settings: RequestSettings): Body {
  return {
    model: model.name,
    input: texts,
    truncate: false,
    keep_alive: settings.keepAlive,
    options: { num_ctx: settings.numCtx },
  };
}

/** Loads the model and answers nothing. */
export function preloadBody(model: ModelInfo, settings: RequestSettings): Body {
  const base = { model: model.name, keep_alive: settings.keepAlive, options: { num_ctx: settings.numCtx } };
  return model.capabilities.complete ? { ...base, stream: false } : { ...base, input: "" };
}

function common(request: ChatRequest | CompletionRequest, model: ModelInfo, settings: RequestSettings): Body {
  return {
    model: model.name,
    stream: true,
    truncate: false,
    keep_alive: settings.keepAlive,
    options: { num_ctx: settings.numCtx, ...samplingOf(request.sampling), ...limitsOf(request.output) },
  };
}

function samplingOf(sampling: Sampling): Body {
  return {
    ...(sampling.temperature === undefined ? {} : { temperature: sampling.temperature }),
    ...(sampling.topP === undefined ? {} : { top_p: sampling.topP }),
    ...(sampling.topK === undefined ? {} : { top_k: sampling.topK }),
    ...(sampling.frequencyPenalty === undefined ? {} : { frequency_penalty: sampling.frequencyPenalty }),
    ...(sampling.presencePenalty === undefined ? {} : { presence_penalty: sampling.presencePenalty }),
    ...(sampling.seed === undefined ? {} : { seed: sampling.seed }),
  };
}

function limitsOf(output: OutputOptions): Body {
  return {
    ...(output.maxTokens === undefined ? {} : { num_predict: output.maxTokens }),
    ...(output.stop.length === 0 ? {} : { stop: output.stop }),
  };
}

function formatOf({ format }: OutputOptions): Body {
  if (format.kind === "text") return {};
  return { format: format.kind === "json" ? "json" : format.schema };
}

function offer(request: ChatRequest, model: ModelInfo, tools: WireTools): readonly WireFunction[] {
  // Leaving the tools out is the only way to forbid them; forcing one is not possible at all (`carriage.ts` refuses it).
  if (request.toolChoice === "none" || tools.functions.length === 0) return [];
  if (request.toolChoice !== "auto") {
    throw new UserError("capability_missing", `${model.ref}: Ollama cannot be made to call one of several tools`, {
      details: { field: "tool_choice" },
    });
  }
  if (!model.capabilities.tools) throw new UserError("capability_missing", `${model.ref} cannot call tools`);
  return tools.functions;
}

function translateTool(tool: WireFunction): Body {
  return {
    type: "function",
    function: {
      name: tool.name,
      ...(tool.description === undefined ? {} : { description: tool.description }),
      // Ollama keeps only the plain parts of a schema (type, properties, enum, …) and drops the rest; it is passed as it is.
      parameters: tool.parameters,
    },
  };
}

function translateMessages(messages: readonly Message[], model: ModelInfo, tools: WireTools): readonly Body[] {
  const toolNames = new Map<string, string>();
  return messages.flatMap((message, position) => {
    for (const part of message.parts) if (part.kind === "toolCall") toolNames.set(part.callId, tools.wireName(part));
    const results = message.parts.filter((part) => part.kind === "toolResult");
    const rest = message.parts.filter((part) => part.kind !== "toolResult");
    const translated: Body[] = results.map((result) => ({
      role: "tool",
      content: result.isError === true ? `Error: ${result.text}` : result.text,
      ...imagesOf(result.images ?? [], position, model),
      tool_name: toolNames.get(result.callId) ?? "",
      tool_call_id: result.callId,
    }));
    if (rest.length > 0 || results.length === 0)
      translated.push(translateMessage(message, rest, { position, model, tools }));
    return translated;
  });
}

function translateMessage(
  message: Message,
  parts: readonly Part[],
  { position, model, tools }: { readonly position: number; readonly model: ModelInfo; readonly tools: WireTools },
): Body {
  const images = parts.flatMap((part) => (part.kind === "image" ? [part.url] : []));
  const calls = parts.filter((part) => part.kind === "toolCall");
  return {
    // Ollama knows no "developer"; it means the same.
    role: message.role === "developer" ? "system" : message.role,
    content: parts
      .filter((part) => part.kind === "text")
      .map((part) => part.text)
      .join("\n"),
    ...imagesOf(images, position, model),
    ...(calls.length === 0
      ? {}
      : {
          tool_calls: calls.map((call, index) => ({
            id: call.callId,
            function: { index, name: tools.wireName(call), arguments: argumentsObject(call.arguments) },
          })),
        }),
  };
}

function imagesOf(urls: readonly string[], position: number, model: ModelInfo): Body {
  return urls.length === 0 ? {} : { images: urls.map((url) => imageData(url, position, model)) };
}

function imageData(url: string, position: number, model: ModelInfo): string {
  if (!model.capabilities.vision) throw new UserError("capability_missing", `${model.ref} cannot see images`);
  const data = /^data:[^;,]*;base64,([A-Za-z0-9+/]+={0,2})$/.exec(url)?.[1];
  if (data === undefined) {
    throw new UserError("invalid_params", "Ollama takes images as `data:…;base64,…` only; it fetches none", {
      details: { field: `messages.${position}` },
    });
  }
  return data;
}

/** Arguments that are no JSON object were cut, or come from a model that cannot do better: they are shown as they are. */
function argumentsObject(text: string): object {
  return text.trim() === "" ? {} : (parseRecord(text) ?? { input: text });
}

function textLength(part: Part): number {
  if (part.kind === "image" || part.kind === "file" || part.kind === "reasoning") return 0;
  return part.kind === "toolCall" ? part.arguments.length : part.text.length;
}

function checkFits(characters: number, model: ModelInfo, settings: RequestSettings): void {
  if (characters <= settings.numCtx * MAX_CHARACTERS_PER_TOKEN) return;
  throw new UserError(
    "context_too_long",
    `the prompt has ${characters} characters, far more than the ${settings.numCtx} tokens of ${model.ref} can hold`,
    { details: { characters, contextWindow: settings.numCtx } },
  );
}

/** Drops whole lines from the far ends of prefix and suffix; the line of the cursor itself is cut only when it alone is too long. */
function trimToFit(request: CompletionRequest, numCtx: number): { readonly prefix: string; readonly suffix: string } {
  const answerTokens = Math.min(request.output.maxTokens ?? numCtx, Math.floor(numCtx * ANSWER_SHARE));
  const budget = (numCtx - answerTokens) * TRIM_CHARACTERS_PER_TOKEN;
  const { prefix, suffix } = request;
  if (prefix.length + suffix.length <= budget) return { prefix, suffix };
  const forPrefix = Math.max(Math.floor(budget * PREFIX_SHARE), budget - suffix.length);
  const keptPrefix = lastLines(prefix, forPrefix);
  return { prefix: keptPrefix, suffix: firstLines(suffix, Math.max(0, budget - keptPrefix.length)) };
}

function lastLines(text: string, limit: number): string {
  if (text.length <= limit) return text;
  const tail = text.slice(text.length - limit);
  const newline = text[text.length - limit - 1] === "\n" ? -1 : tail.indexOf("\n");
  // One endless line: its end is still better than nothing.
  const kept = newline === tail.length - 1 ? tail : tail.slice(newline + 1);
  return /^[\udc00-\udfff]/.test(kept) ? kept.slice(1) : kept;
}

function firstLines(text: string, limit: number): string {
  if (text.length <= limit) return text;
  const head = text.slice(0, limit);
  const newline = head.lastIndexOf("\n");
  const kept = newline <= 0 ? head : head.slice(0, newline + 1);
  return /[\ud800-\udbff]$/.test(kept) ? kept.slice(0, -1) : kept;
}
