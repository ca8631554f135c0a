/**
 * Requests of Ollama's own API (https://github.com/ollama/ollama/blob/main/docs/api.md), checked and made canonical. Pure, so that a worker can do it for
 * large bodies. `/api/chat` and `/api/generate` differ in where the words stand: both come out as a chat, or, with `raw` or a suffix, as a completion.
 */
import { z } from "zod";
import { UserError } from "../../../base/errors.ts";
import { present } from "../../../base/optional.ts";
import type { Message, OutputOptions, Part, ReasoningOptions, Sampling, TextFormat } from "../../../ghostllm/stream.ts";
import { type ChatFacts, checkBody, extrasOf, MAX_TOOLS, type ParsedChat } from "./chat-facts.ts";

const images = z.array(z.string()).nullish();
const toolCall = z.object({
  id: z.string().nullish(),
  function: z.object({ name: z.string(), arguments: z.record(z.string(), z.unknown()).nullish() }),
});
const message = z.object({
  role: z.enum(["system", "user", "assistant", "tool"]),
  content: z.string().nullish(),
  thinking: z.string().nullish(),
  images,
  tool_calls: z.array(toolCall).nullish(),
  tool_name: z.string().nullish(),
  tool_call_id: z.string().nullish(),
});
type OllamaMessage = z.infer<typeof message>;

const options = z
  .looseObject({
    num_predict: z.int().nullish(),
    stop: z.union([z.string(), z.array(z.string()).max(16)]).nullish(),
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().min(0).max(1).nullish(),
    top_k: z.int().nonnegative().nullish(),
    seed: z.int().nullish(),
    frequency_penalty: z.number().min(-2).max(2).nullish(),
    presence_penalty: z.number().min(-2).max(2).nullish(),
  })
  .nullish();
const OPTION_NAMES: ReadonlySet<string> = new Set([
  "num_predict",
  "stop",
  "temperature",
  "top_p",
  "top_k",
  "seed",
  "frequency_penalty",
  "presence_penalty",
]);

const shared = {
  model: z.string().min(1).max(256),
  stream: z.boolean().nullish(),
  format: z.union([z.literal(""), z.literal("json"), z.record(z.string(), z.unknown())]).nullish(),
  options,
  think: z.union([z.boolean(), z.enum(["low", "medium", "high", "max"])]).nullish(),
  keep_alive: z.union([z.string(), z.number()]).nullish(),
};
const tool = z.object({
  type: z.literal("function"),
  function: z.object({
    name: z.string().min(1),
    description: z.string().nullish(),
    parameters: z.unknown().optional(),
  }),
});
const chatShape = {
  ...shared,
  messages: z.array(message).nullish(),
  tools: z.array(tool).max(MAX_TOOLS).nullish(),
};
const generateShape = {
  ...shared,
  prompt: z.string().nullish(),
  suffix: z.string().nullish(),
  system: z.string().nullish(),
  raw: z.boolean().nullish(),
  images,
};
const generateSchema = z.looseObject(generateShape);
const requestSchema = z.looseObject({ ...generateShape, ...chatShape });
type Request = z.infer<typeof requestSchema>;
/** These are Ollama's own business with its models: they change nothing of the answer here. */
const IGNORED = ["keep_alive", "truncate", "shift", "context"] as const;
const CHAT_FIELDS: ReadonlySet<string> = new Set([...Object.keys(chatShape), ...IGNORED]);
const GENERATE_FIELDS: ReadonlySet<string> = new Set([...Object.keys(generateShape), ...IGNORED]);

export interface OllamaOwn {
  /** Names no words: such a request only loads the model, or with `keep_alive: 0` unloads it. */
  readonly isLoad: "load" | "unload" | undefined;
  /** The client wants the thinking apart; else it is left out. */
  readonly showsThinking: boolean;
}

export interface OllamaCompletion {
  readonly model: string;
  readonly stream: boolean;
  readonly prefix: string;
  readonly suffix: string;
  readonly output: OutputOptions;
  readonly sampling: Sampling;
}

/** Nothing of a body is relayed: every model has a window of its own that Ollama must be told. */
export const OLLAMA_MEMBERS: readonly string[] = [];

/** A body of `/api/chat`, or of `/api/generate` that asks a question. @throws UserError `invalid_json` | `invalid_params` */
export function parseOllama(body: Buffer): ParsedChat<OllamaOwn> {
  const request = checkBody(requestSchema, body);
  return request.messages === undefined ? toGenerate(request) : toChat(request);
}

function toChat(request: Request): ParsedChat<OllamaOwn> {
  const entries = request.messages ?? [];
  const facts: ChatFacts<OllamaOwn> = {
    ...commonFacts(request, CHAT_FIELDS),
    tools: (request.tools ?? []).map(({ function: { name, description, parameters } }) => ({
      kind: "function",
      name,
      description: description ?? undefined,
      parameters,
    })),
    hasImages: entries.some((entry) => (entry.images ?? []).length > 0),
    own: ownOf(request, entries.length === 0),
  };
  return { facts, messages: () => toMessages(entries) };
}

function toGenerate(request: Request): ParsedChat<OllamaOwn> {
  const prompt = request.prompt ?? "";
  const facts: ChatFacts<OllamaOwn> = {
    ...commonFacts(request, GENERATE_FIELDS),
    tools: [],
    hasImages: (request.images ?? []).length > 0,
    own: ownOf(request, prompt === ""),
  };
  const system: OllamaMessage[] = request.system ? [{ role: "system", content: request.system }] : [];
  return { facts, messages: () => toMessages([...system, { role: "user", content: prompt, images: request.images }]) };
}

/** A body of `/api/generate` that is to be continued as it stands; undefined for one that asks. @throws UserError as above */
export function parseOllamaCompletion(body: Buffer): OllamaCompletion | undefined {
  const request = checkBody(generateSchema, body);
  const { prompt, suffix, raw } = request;
  if (!prompt || (raw !== true && !suffix)) return undefined;
  const { model, stream, output, sampling } = commonFacts(request, GENERATE_FIELDS);
  return { model, stream, prefix: prompt, suffix: suffix ?? "", output, sampling };
}

/** More texts at once would hold a model for too long. */
const MAX_TEXTS = 2_048;
const embedSchema = z.looseObject({
  model: shared.model,
  input: z.union([z.string(), z.array(z.string()).max(MAX_TEXTS)]),
});
const embedOneSchema = z.looseObject({ model: shared.model, prompt: z.string() });

export interface OllamaEmbedding {
  readonly model: string;
  readonly texts: readonly string[];
}

/** A body of `/api/embed`. @throws UserError as above */
export function parseOllamaEmbed(body: Buffer): OllamaEmbedding {
  const { model, input } = checkBody(embedSchema, body);
  return { model, texts: typeof input === "string" ? [input] : input };
}

/** A body of `/api/embeddings`, the older form, of one text. @throws UserError as above */
export function parseOllamaEmbedOne(body: Buffer): OllamaEmbedding {
  const { model, prompt } = checkBody(embedOneSchema, body);
  return { model, texts: [prompt] };
}

type Common = z.infer<z.ZodObject<typeof shared>>;

function commonFacts(request: Common & Readonly<Record<string, unknown>>, known: ReadonlySet<string>) {
  const given = request.options ?? {};
  const { num_predict: limit, stop } = given;
  const output: OutputOptions = {
    // -1 and -2: as much as there is room for.
    ...present("maxTokens", limit !== null && limit !== undefined && limit > 0 ? limit : undefined),
    stop: stop === null || stop === undefined ? [] : typeof stop === "string" ? [stop] : stop,
    format: formatOf(request.format),
  };
  const sampling: Sampling = {
    ...present("temperature", given.temperature),
    ...present("topP", given.top_p),
    ...present("topK", given.top_k === 0 ? undefined : given.top_k),
    ...present("seed", given.seed),
    ...present("frequencyPenalty", given.frequency_penalty),
    ...present("presencePenalty", given.presence_penalty),
  };
  const others = Object.entries(extrasOf(given, OPTION_NAMES)).map(([key, value]) => [`options.${key}`, value]);
  return {
    model: request.model,
    stream: request.stream ?? true,
    output,
    sampling,
    toolChoice: "auto" as const,
    ...present("reasoning", reasoningOf(request.think)),
    hasFiles: false,
    extras: { ...extrasOf(request, known), ...Object.fromEntries(others) },
    isForeign: false,
  };
}

function ownOf(request: Common, isEmpty: boolean): OllamaOwn {
  const isLoad = !isEmpty ? undefined : isZero(request.keep_alive) ? "unload" : "load";
  // A model that thinks does so when nothing is said about it, and Ollama then shows it.
  return { isLoad, showsThinking: request.think !== false };
}

const isZero = (keepAlive: string | number | null | undefined) => keepAlive === 0 || /^0[a-z]*$/.test(`${keepAlive}`);

function formatOf(format: Common["format"]): TextFormat {
  if (format === "json") return { kind: "json" };
  return typeof format === "object" && format !== null
    ? { kind: "schema", name: "answer", schema: format }
    : { kind: "text" };
}

function reasoningOf(think: Common["think"]): ReasoningOptions | undefined {
  if (think === null || think === undefined) return undefined;
  if (think === false) return { effort: "none" };
  return { effort: think === true ? "medium" : think, isShown: true };
}

/** Older clients give calls no ids: they get some by their place, and results find theirs by name and order. */
function toMessages(entries: readonly OllamaMessage[]): readonly Message[] {
  let open: { readonly id: string; readonly name: string }[] = [];
  return entries.map((entry, position): Message => {
    if (entry.role === "tool") return { role: "tool", parts: [resultOf(entry, position, open)] };
    const calls = (entry.tool_calls ?? []).map(({ id, function: called }, index) => ({
      id: id ?? `call_${position}_${index}`,
      name: called.name,
      arguments: JSON.stringify(called.arguments ?? {}),
    }));
    if (entry.role === "assistant") open = calls.map(({ id, name }) => ({ id, name }));
    return { role: entry.role, parts: partsOf(entry, calls) };
  });
}

function partsOf(
  entry: OllamaMessage,
  calls: readonly { readonly id: string; readonly name: string; readonly arguments: string }[],
): readonly Part[] {
  return [
    ...(entry.content ? [{ kind: "text", text: entry.content } as const] : []),
    ...(entry.images ?? []).map((image) => ({ kind: "image", url: dataUrl(image) }) as const),
    ...calls.map(
      (call) => ({ kind: "toolCall", callId: call.id, name: call.name, arguments: call.arguments }) as const,
    ),
  ];
}

function resultOf(
  entry: OllamaMessage,
  position: number,
  open: { readonly id: string; readonly name: string }[],
): Part {
  const { tool_call_id: id, tool_name: name } = entry;
  const at = open.findIndex((call) => (id ? call.id === id : !name || call.name === name));
  const [call] = at === -1 ? [] : open.splice(at, 1);
  const callId = call?.id ?? id;
  if (!callId) {
    throw new UserError("invalid_params", `\`messages.${position}\`: it answers no call before it`, {
      details: { field: `messages.${position}` },
    });
  }
  const urls = (entry.images ?? []).map(dataUrl);
  return {
    kind: "toolResult",
    callId,
    text: entry.content ?? "",
    ...(urls.length === 0 ? {} : { images: urls }),
  };
}

/** What the first bytes of a picture are in base64. */
const SIGNATURES: readonly (readonly [start: string, type: string])[] = [
  ["iVBORw0KGgo", "image/png"],
  ["/9j/", "image/jpeg"],
  ["R0lGOD", "image/gif"],
  ["UklGR", "image/webp"],
];

function dataUrl(image: string): string {
  if (image.startsWith("data:")) return image;
  const type = SIGNATURES.find(([start]) => image.startsWith(start))?.[1] ?? "image/png";
  return `data:${type};base64,${image}`;
}
