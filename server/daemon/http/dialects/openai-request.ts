/**
 * Requests of OpenAI's chat and text completions, checked and made canonical. Pure, so that a worker can do it for large bodies.
 * A field of the wrong kind is refused with its path; fields without a canonical form are kept as extras, and an upstream of the same dialect gets the
 * body as it came.
 */
import { z } from "zod";
import { present } from "../../../base/optional.ts";
import type {
  Message,
  OutputOptions,
  Part,
  Sampling,
  TextFormat,
  ToolChoice,
  ToolSpec,
} from "../../../ghostllm/stream.ts";
import { type ChatFacts, checkBody, extrasOf, MAX_TOOLS, type ParsedChat } from "./chat-facts.ts";

const KNOWN_PARTS: readonly string[] = ["text", "image_url", "refusal", "file"];
const contentPart = z.union([
  z.discriminatedUnion("type", [
    z.looseObject({ type: z.literal("text"), text: z.string() }),
    z.looseObject({ type: z.literal("image_url"), image_url: z.looseObject({ url: z.string() }) }),
    z.looseObject({ type: z.literal("refusal"), refusal: z.string() }),
    z.looseObject({
      type: z.literal("file"),
      file: z.looseObject({ file_data: z.string().nullish(), filename: z.string().nullish() }),
    }),
  ]),
  /** Sound, video and their like: only a relay can carry them. */
  z
    .object({ type: z.string().refine((type) => !KNOWN_PARTS.includes(type)) })
    .transform(({ type }) => ({ type: "other" as const, name: type })),
]);
const content = z.union([z.string(), z.array(contentPart)]);
const functionCall = z.object({ name: z.string(), arguments: z.string() });
const customCall = z.object({ name: z.string(), input: z.string() });
const toolCall = z
  .object({ id: z.string(), function: functionCall.optional(), custom: customCall.optional() })
  .refine((call) => call.function !== undefined || call.custom !== undefined, { error: "names no function" });
/** Who of several speaks. */
const speaker = { name: z.string().nullish() };
const message = z.discriminatedUnion("role", [
  z.object({ role: z.literal("system"), content, ...speaker }),
  z.object({ role: z.literal("developer"), content, ...speaker }),
  z.object({ role: z.literal("user"), content, ...speaker }),
  z.object({
    role: z.literal("assistant"),
    content: content.nullish(),
    refusal: z.string().nullish(),
    tool_calls: z.array(toolCall).nullish(),
    /** The older form of one call; only a relay carries it, and its result. */
    function_call: z.looseObject({}).nullish(),
    ...speaker,
  }),
  z.object({ role: z.literal("tool"), content, tool_call_id: z.string() }),
  z.object({ role: z.literal("function"), content: z.string().nullish(), name: z.string() }),
]);
type ChatMessage = z.infer<typeof message>;

const shared = {
  model: z.string().min(1).max(256),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: z.int().positive().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  seed: z.int().nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(16)]).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
};

const named = z.object({ name: z.string().min(1) });
const KNOWN_TOOLS: readonly string[] = ["function", "custom"];
const tool = z.union([
  /** Runs on the server's side; only a relay can carry it. */
  z.looseObject({ type: z.string().refine((type) => !KNOWN_TOOLS.includes(type), { abort: true }) }),
  z.discriminatedUnion("type", [
    z.object({
      type: z.literal("function"),
      function: named.extend({
        description: z.string().nullish(),
        parameters: z.unknown().optional(),
        strict: z.boolean().nullish(),
      }),
    }),
    z.object({
      type: z.literal("custom"),
      custom: named.extend({ description: z.string().nullish(), format: z.unknown().optional() }),
    }),
  ]),
]);
const responseFormat = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object") }),
  z.object({
    type: z.literal("json_schema"),
    json_schema: z.object({
      name: z.string().nullish(),
      schema: z.unknown().optional(),
      strict: z.boolean().nullish(),
    }),
  }),
]);
const namedTool = z.object({ function: named.optional(), custom: named.optional() });
const allowedTools = z.object({
  type: z.literal("allowed_tools"),
  allowed_tools: z.object({ mode: z.enum(["auto", "required"]), tools: z.array(namedTool) }),
});
const chatShape = {
  ...shared,
  messages: z.array(message).min(1),
  n: z.int().min(1).max(128).nullish(),
  /** Not OpenAI's, but many servers take it. */
  top_k: z.int().positive().nullish(),
  max_completion_tokens: z.int().positive().nullish(),
  tools: z.array(tool).max(MAX_TOOLS).nullish(),
  tool_choice: z
    .union([
      z.enum(["auto", "none", "required"]),
      allowedTools,
      namedTool.refine((choice) => (choice.function ?? choice.custom) !== undefined, { error: "names no tool" }),
    ])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  reasoning_effort: z.enum(["none", "minimal", "low", "medium", "high", "xhigh", "max"]).nullish(),
  prompt_cache_key: z.string().nullish(),
  response_format: responseFormat.nullish(),
};
const chatSchema = z.looseObject(chatShape);
/** `n` above 1 has no canonical form: it is kept as an extra. */
const CHAT_FIELDS: ReadonlySet<string> = new Set(Object.keys(chatShape).filter((key) => key !== "n"));

const completionShape = {
  ...shared,
  n: z.literal(1, { error: "only one choice per request is supported" }).nullish(),
  prompt: z.union([z.string(), z.array(z.string()).length(1)]),
  suffix: z.string().nullish(),
};
const completionSchema = z.looseObject(completionShape);
const COMPLETION_FIELDS: ReadonlySet<string> = new Set(Object.keys(completionShape));

/** OpenAI takes no more at once. */
const MAX_EMBEDDED = 2_048;

const embeddingSchema = z.looseObject({
  model: shared.model,
  input: z.union([
    z.string(),
    z.array(z.string()).min(1).max(MAX_EMBEDDED),
    z.array(z.int().nonnegative()).min(1),
    z.array(z.array(z.int().nonnegative()).min(1)).min(1).max(MAX_EMBEDDED),
  ]),
  encoding_format: z.enum(["float", "base64"]).nullish(),
  dimensions: z.int().positive().nullish(),
});

/** What the writer of an answer needs to know. */
export interface OpenAiOwn {
  readonly includeUsage: boolean;
  /** The client's `stream_options` with usage asked for: we always want to know it. */
  readonly streamOptions: Readonly<Record<string, unknown>>;
}

export interface CompletionFacts {
  readonly model: string;
  readonly stream: boolean;
  readonly output: OutputOptions;
  readonly sampling: Sampling;
  readonly own: OpenAiOwn;
  readonly prefix: string;
  readonly suffix: string;
  readonly extras: Readonly<Record<string, unknown>>;
}

export interface EmbeddingFacts {
  readonly model: string;
  readonly isBase64: boolean;
  /** What only a relay can carry, by its field. */
  readonly relayOnly?: { readonly field: "input" | "dimensions"; readonly why: string };
}

/** The members that are set in a body before it is relayed; see `setMembers`. */
export const OPENAI_MEMBERS: readonly string[] = ["model", "stream_options"];

/** @throws UserError `invalid_json` | `invalid_params` */
export function parseChat(body: Buffer): ParsedChat<OpenAiOwn> {
  const request = checkBody(chatSchema, body);
  const common = sharedFacts(request, request.max_completion_tokens ?? request.max_tokens);
  const { tools, choice } = toolsOf(request);
  const facts: ChatFacts<OpenAiOwn> = {
    ...common,
    output: { ...common.output, format: textFormat(request.response_format) },
    tools,
    toolChoice: choice,
    ...present("parallelToolCalls", request.parallel_tool_calls),
    ...present("reasoning", reasoningOf(request.reasoning_effort)),
    ...present("cacheKey", request.prompt_cache_key),
    hasImages: hasPart(request.messages, "image_url"),
    hasFiles: hasPart(request.messages, "file"),
    extras: {
      ...extrasOf(request.n === 1 ? { ...request, n: undefined } : request, CHAT_FIELDS),
      ...extrasAmong(request.messages),
    },
    // The dialect has no field for a seal, of whomever: `reasoning-keeper.ts` has them.
    isForeign: false,
  };
  return { facts, messages: () => request.messages.map(toMessage) };
}

/** @throws UserError `invalid_json` | `invalid_params` */
export function parseCompletion(body: Buffer): CompletionFacts {
  const request = checkBody(completionSchema, body);
  const prefix = typeof request.prompt === "string" ? request.prompt : request.prompt.join("");
  const extras = extrasOf(request, COMPLETION_FIELDS);
  return { ...sharedFacts(request, request.max_tokens), prefix, suffix: request.suffix ?? "", extras };
}

/** @throws UserError `invalid_json` | `invalid_params` */
export function parseEmbedding(body: Buffer): EmbeddingFacts & { readonly texts: readonly string[] } {
  const request = checkBody(embeddingSchema, body);
  const { model, input, dimensions } = request;
  const texts = typeof input === "string" ? [input] : input.filter((entry) => typeof entry === "string");
  const relayOnly =
    texts.length === 0
      ? ({ field: "input", why: "it takes texts, not tokens of another model" } as const)
      : dimensions === null || dimensions === undefined
        ? undefined
        : ({ field: "dimensions", why: "its vectors have one length" } as const);
  return { model, texts, isBase64: request.encoding_format === "base64", ...present("relayOnly", relayOnly) };
}

type Shared = z.infer<z.ZodObject<typeof shared>> & { readonly top_k?: number | null | undefined };

function sharedFacts(request: Shared, maxTokens: number | null | undefined) {
  const { stop } = request;
  return {
    model: request.model,
    stream: request.stream ?? false,
    output: {
      ...present("maxTokens", maxTokens),
      stop: stop === undefined || stop === null ? [] : typeof stop === "string" ? [stop] : stop,
      format: { kind: "text" },
    } satisfies OutputOptions,
    sampling: {
      ...present("temperature", request.temperature),
      ...present("topP", request.top_p),
      ...present("topK", request.top_k),
      ...present("seed", request.seed),
      ...present("frequencyPenalty", request.frequency_penalty),
      ...present("presencePenalty", request.presence_penalty),
    },
    own: {
      includeUsage: request.stream_options?.include_usage ?? false,
      streamOptions: { ...request.stream_options, include_usage: true },
    },
  };
}

function textFormat(format: z.infer<typeof responseFormat> | null | undefined): TextFormat {
  if (format?.type === "json_object") return { kind: "json" };
  if (format?.type !== "json_schema") return { kind: "text" };
  const { name, schema, strict } = format.json_schema;
  return { kind: "schema", name: name ?? "answer", schema, ...present("strict", strict) };
}

function toTool(entry: z.infer<typeof tool>): ToolSpec {
  if (isCustom(entry)) {
    const { name, description, format } = entry.custom;
    return { kind: "custom", name, description: description ?? undefined, format };
  }
  if (!isFunction(entry)) return { kind: "hosted", name: entry.type, spec: entry };
  const { name, description, parameters, strict } = entry.function;
  return { kind: "function", name, description: description ?? undefined, parameters, ...present("strict", strict) };
}

type Tool = z.infer<typeof tool>;
const isCustom = (entry: Tool): entry is Extract<Tool, { type: "custom" }> => entry.type === "custom";
const isFunction = (entry: Tool): entry is Extract<Tool, { type: "function" }> => entry.type === "function";

function toolsOf(request: Pick<z.infer<typeof chatSchema>, "tools" | "tool_choice">): {
  readonly tools: readonly ToolSpec[];
  readonly choice: ToolChoice;
} {
  const tools = (request.tools ?? []).map(toTool);
  const { tool_choice: choice } = request;
  if (choice === null || choice === undefined) return { tools, choice: "auto" };
  if (typeof choice === "string") return { tools, choice };
  if (!("allowed_tools" in choice)) return { tools, choice: choice.function ?? choice.custom ?? "auto" };
  const { mode, tools: allowed } = choice.allowed_tools;
  const names = new Set(allowed.map((entry) => (entry.function ?? entry.custom)?.name));
  return { tools: tools.filter(({ name }) => names.has(name)), choice: mode };
}

function reasoningOf(effort: z.infer<typeof chatSchema>["reasoning_effort"]) {
  return effort === null || effort === undefined ? undefined : { effort };
}

/** What among the messages only a relay carries, by the name under which it is refused or told as dropped elsewhere. */
function extrasAmong(messages: readonly ChatMessage[]): Readonly<Record<string, unknown>> {
  const extras: Record<string, unknown> = {};
  for (const entry of messages) {
    if (entry.role === "function" || (entry.role === "assistant" && entry.function_call)) extras["functions"] = true;
    else if (entry.role !== "tool" && entry.name) extras["messages.name"] = true;
    if (!Array.isArray(entry.content)) continue;
    for (const part of entry.content) {
      if (part.type === "other") extras[OTHER_PARTS[part.name] ?? "parts of other kinds"] = part.name;
      if (part.type === "file" && !part.file.file_data) extras["file_id"] = true;
      if (part.type === "file" && entry.role === "tool") extras["files in tool results"] = true;
    }
  }
  return extras;
}

const OTHER_PARTS: Readonly<Record<string, string>> = { input_audio: "audio", video_url: "video" };

function hasPart(messages: readonly ChatMessage[], type: "image_url" | "file"): boolean {
  return messages.some(({ content: parts }) => Array.isArray(parts) && parts.some((part) => part.type === type));
}

function toMessage(entry: ChatMessage): Message {
  if (entry.role === "function")
    return { role: "tool", parts: [{ kind: "toolResult", callId: entry.name, text: entry.content ?? "" }] };
  if (entry.role === "tool") {
    const parts = partsOf(entry.content);
    const text = parts.flatMap((part) => (part.kind === "text" ? [part.text] : [])).join("");
    const images = parts.flatMap((part) => (part.kind === "image" ? [part.url] : []));
    return {
      role: "tool",
      parts: [{ kind: "toolResult", callId: entry.tool_call_id, text, ...(images.length === 0 ? {} : { images }) }],
    };
  }
  if (entry.role !== "assistant") return { role: entry.role, parts: partsOf(entry.content) };
  const { refusal } = entry;
  return {
    role: entry.role,
    parts: [
      ...partsOf(entry.content),
      ...(refusal === null || refusal === undefined ? [] : [{ kind: "text", text: refusal } as const]),
      ...(entry.tool_calls ?? []).map(toCall),
    ],
  };
}

function toCall({ id, function: called, custom }: z.infer<typeof toolCall>): Part {
  if (custom === undefined) {
    return { kind: "toolCall", callId: id, name: called?.name ?? "", arguments: called?.arguments ?? "" };
  }
  const text = JSON.stringify({ input: custom.input });
  return { kind: "toolCall", callId: id, name: custom.name, arguments: text, isCustom: true };
}

function partsOf(value: z.infer<typeof content> | null | undefined): readonly Part[] {
  if (value === undefined || value === null || value === "") return [];
  if (typeof value === "string") return [{ kind: "text", text: value }];
  return value.flatMap((part): readonly Part[] => {
    switch (part.type) {
      case "text":
        return [{ kind: "text", text: part.text }];
      case "refusal":
        return [{ kind: "text", text: part.refusal }];
      case "image_url":
        return [{ kind: "image", url: part.image_url.url }];
      case "file": {
        const url = part.file.file_data ?? "";
        const mediaType = /^data:([^;,]+)/.exec(url)?.[1] ?? "application/pdf";
        return [{ kind: "file", url, mediaType, ...present("name", part.file.filename) }];
      }
      case "other":
        return [];
    }
  });
}
