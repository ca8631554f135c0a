/**
 * Requests of OpenAI's chat and text completions, checked and made canonical. Pure, so that a worker can do it for large bodies.
 * A field of the wrong kind is refused with its path; fields that we do not know are left to the upstream that gets the body as it came.
 */
import { z } from "zod";
import { UserError } from "../../../base/errors.ts";
import { findMembers, type MemberPlaces } from "../../../base/json-scan.ts";
import type {
  Message,
  OutputOptions,
  Part,
  Sampling,
  TextFormat,
  ToolChoice,
  ToolSpec,
} from "../../../ghostllm/stream.ts";

const textPart = z.looseObject({ type: z.literal("text"), text: z.string() });
const imagePart = z.looseObject({ type: z.literal("image_url"), image_url: z.looseObject({ url: z.string() }) });
const refusalPart = z.looseObject({ type: z.literal("refusal"), refusal: z.string() });
const contentPart = z.discriminatedUnion("type", [textPart, imagePart, refusalPart]);
const content = z.union([z.string(), z.array(contentPart)]);
const toolCall = z.looseObject({
  id: z.string(),
  function: z.looseObject({ name: z.string(), arguments: z.string() }),
});
const message = z.discriminatedUnion("role", [
  z.looseObject({ role: z.literal("system"), content }),
  z.looseObject({ role: z.literal("developer"), content }),
  z.looseObject({ role: z.literal("user"), content }),
  z.looseObject({ role: z.literal("assistant"), content: content.nullish(), tool_calls: z.array(toolCall).nullish() }),
  z.looseObject({ role: z.literal("tool"), content, tool_call_id: z.string() }),
]);

const shared = {
  model: z.string().min(1).max(256),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: z.int().positive().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  seed: z.int().nullish(),
  stop: z.union([z.string(), z.array(z.string()).max(16)]).nullish(),
  n: z.literal(1, { error: "only one choice per request is supported" }).nullish(),
};

/** OpenAI takes 128; agents with many servers attached send some hundreds. Each costs routing, and the main loop, its share. */
const MAX_TOOLS = 512;

const chatSchema = z.looseObject({
  ...shared,
  messages: z.array(message).min(1),
  max_completion_tokens: z.int().positive().nullish(),
  tools: z
    .array(
      z.looseObject({
        type: z.string(),
        function: z
          .looseObject({
            name: z.string().min(1),
            description: z.string().nullish(),
            parameters: z.unknown().optional(),
          })
          .optional(),
      }),
    )
    .max(MAX_TOOLS)
    .nullish(),
  tool_choice: z
    .union([z.enum(["auto", "none", "required"]), z.looseObject({ function: z.looseObject({ name: z.string() }) })])
    .nullish(),
  response_format: z
    .discriminatedUnion("type", [
      z.looseObject({ type: z.literal("text") }),
      z.looseObject({ type: z.literal("json_object") }),
      z.looseObject({
        type: z.literal("json_schema"),
        json_schema: z.looseObject({ name: z.string().nullish(), schema: z.unknown().optional() }),
      }),
    ])
    .nullish(),
});

const completionSchema = z.looseObject({
  ...shared,
  prompt: z.union([z.string(), z.array(z.string()).length(1)]),
  suffix: z.string().nullish(),
});

const embeddingSchema = z.looseObject({
  model: shared.model,
  input: z.union([z.string(), z.array(z.string()).min(1).max(2048)]),
  encoding_format: z.enum(["float", "base64"]).nullish(),
});

/** What routing and writing need to know of a request; small, and plain JSON. */
export interface RequestFacts {
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** The client's `stream_options` with usage asked for: we always want to know it. */
  readonly streamOptions: Readonly<Record<string, unknown>>;
  readonly output: OutputOptions;
  readonly sampling: Sampling;
}

export interface ChatFacts extends RequestFacts {
  readonly tools: readonly ToolSpec[];
  readonly toolChoice: ToolChoice;
}

export interface CompletionFacts extends RequestFacts {
  readonly prefix: string;
  readonly suffix: string;
}

export interface EmbeddingFacts {
  readonly model: string;
  readonly isBase64: boolean;
}

/** What we set in a body before it is relayed; see `setMembers`. */
export const findPlaces = (body: Buffer): MemberPlaces => findMembers(body, ["model", "stream_options"]);

/** @throws UserError `invalid_json` | `invalid_params` */
export function parseChat(body: Buffer): { readonly facts: ChatFacts; readonly messages: () => readonly Message[] } {
  const request = check(chatSchema, body);
  const facts: ChatFacts = {
    ...sharedFacts(request, request.max_completion_tokens ?? request.max_tokens),
    output: {
      ...sharedFacts(request, request.max_completion_tokens ?? request.max_tokens).output,
      format: textFormat(request.response_format),
    },
    tools: (request.tools ?? []).flatMap((tool) =>
      tool.function === undefined
        ? []
        : [
            {
              name: tool.function.name,
              description: tool.function.description ?? undefined,
              parameters: tool.function.parameters,
            },
          ],
    ),
    toolChoice:
      typeof request.tool_choice === "object" && request.tool_choice !== null
        ? { name: request.tool_choice.function.name }
        : (request.tool_choice ?? "auto"),
  };
  return { facts, messages: () => request.messages.map(toMessage) };
}

/** @throws UserError `invalid_json` | `invalid_params` */
export function parseCompletion(body: Buffer): CompletionFacts {
  const request = check(completionSchema, body);
  const prefix = typeof request.prompt === "string" ? request.prompt : request.prompt.join("");
  return { ...sharedFacts(request, request.max_tokens), prefix, suffix: request.suffix ?? "" };
}

/** @throws UserError `invalid_json` | `invalid_params` */
export function parseEmbedding(body: Buffer): EmbeddingFacts & { readonly texts: readonly string[] } {
  const request = check(embeddingSchema, body);
  return {
    model: request.model,
    texts: typeof request.input === "string" ? [request.input] : request.input,
    isBase64: request.encoding_format === "base64",
  };
}

type Shared = z.infer<z.ZodObject<typeof shared>>;

function sharedFacts(request: Shared, maxTokens: number | null | undefined): RequestFacts {
  const { temperature, top_p: topP, seed, stop } = request;
  return {
    model: request.model,
    stream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
    streamOptions: { ...request.stream_options, include_usage: true },
    output: {
      ...(maxTokens === undefined || maxTokens === null ? {} : { maxTokens }),
      stop: stop === undefined || stop === null ? [] : typeof stop === "string" ? [stop] : stop,
      format: { kind: "text" },
    },
    sampling: {
      ...(temperature === undefined || temperature === null ? {} : { temperature }),
      ...(topP === undefined || topP === null ? {} : { topP }),
      ...(seed === undefined || seed === null ? {} : { seed }),
    },
  };
}

function textFormat(format: z.infer<typeof chatSchema>["response_format"]): TextFormat {
  if (format?.type === "json_object") return { kind: "json" };
  if (format?.type === "json_schema")
    return { kind: "schema", name: format.json_schema.name ?? "answer", schema: format.json_schema.schema };
  return { kind: "text" };
}

function toMessage(entry: z.infer<typeof message>): Message {
  if (entry.role === "tool") {
    const text = partsOf(entry.content)
      .flatMap((part) => (part.kind === "text" ? [part.text] : []))
      .join("");
    return { role: "tool", parts: [{ kind: "toolResult", callId: entry.tool_call_id, text }] };
  }
  const calls = entry.role === "assistant" ? (entry.tool_calls ?? []) : [];
  return {
    role: entry.role,
    parts: [
      ...partsOf(entry.content),
      ...calls.map(
        (call): Part => ({
          kind: "toolCall",
          callId: call.id,
          name: call.function.name,
          arguments: call.function.arguments,
        }),
      ),
    ],
  };
}

function partsOf(value: z.infer<typeof content> | null | undefined): readonly Part[] {
  if (value === undefined || value === null || value === "") return [];
  if (typeof value === "string") return [{ kind: "text", text: value }];
  return value.map((part): Part => {
    if (part.type === "text") return { kind: "text", text: part.text };
    if (part.type === "refusal") return { kind: "text", text: part.refusal };
    return { kind: "image", url: part.image_url.url };
  });
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function check<Shape>(schema: z.ZodType<Shape>, body: Buffer): Shape {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(body));
  } catch (error) {
    const reason = error instanceof Error ? error.message : "unreadable";
    throw new UserError("invalid_json", `the body is not valid JSON: ${reason.slice(0, 200)}`, { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = deepest(parsed.error.issues);
  const field = issue.path.map(String).join(".");
  throw new UserError("invalid_params", `${field === "" ? "the body" : `\`${field}\``}: ${issue.message}`, {
    details: { field },
  });
}

/** A union reports one issue for all its branches; the branch that got furthest names the field that the client can mend. */
function deepest(issues: readonly z.core.$ZodIssue[]): {
  readonly path: readonly PropertyKey[];
  readonly message: string;
} {
  const first = issues[0];
  if (first === undefined) return { path: [], message: "is not valid" };
  if (first.code !== "invalid_union" || first.errors.length === 0) return first;
  const branches = first.errors.map((branch) => deepest(branch)).toSorted((a, b) => b.path.length - a.path.length);
  const best = branches[0];
  return best === undefined || best.path.length === 0
    ? first
    : { path: [...first.path, ...best.path], message: best.message };
}
