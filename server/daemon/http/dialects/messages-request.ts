/**
 * Requests of Anthropic's Messages, checked and made canonical. Pure, so that a worker can do it for large bodies.
 * Format: https://docs.claude.com/en/api/messages; what real clients send is in test/fixtures/clients. A field of the wrong kind is refused with its path;
 * fields without a canonical form are kept as extras, and Anthropic gets the body as it came.
 */
import { z } from "zod";
import { present } from "../../../base/optional.ts";
import { OPAQUE_MARK } from "../../../ghostllm/frames/opaque.ts";
import type { ReasoningOptions, TextFormat, ToolChoice, ToolSpec } from "../../../ghostllm/stream.ts";
import { type ChatFacts, checkBody, extrasOf, MAX_TOOLS, type ParsedChat } from "./chat-facts.ts";
import { BILLING_HEADER, messageSchema, survey, textSchema, toMessages } from "./messages-blocks.ts";

/** Models stop at one of them; more than this nobody sends, and each costs every token a comparison. */
const MAX_STOPS = 64;

const CLIENT_TOOL = "custom";
const tool = z.union([
  z.object({
    /** Anthropic's word for a tool that the client runs. */
    type: z.literal(CLIENT_TOOL).nullish(),
    name: z.string().min(1).max(256),
    description: z.string().nullish(),
    input_schema: z.looseObject({}),
    strict: z.boolean().nullish(),
  }),
  /** One of Anthropic's own: it has no schema, because its models know it. */
  z.looseObject({ type: z.string().refine((type) => type !== CLIENT_TOOL), name: z.string().nullish() }),
]);
const parallel = { disable_parallel_tool_use: z.boolean().nullish() };
const toolChoice = z.discriminatedUnion("type", [
  z.object({ type: z.literal("auto"), ...parallel }),
  z.object({ type: z.literal("any"), ...parallel }),
  z.object({ type: z.literal("none"), ...parallel }),
  z.object({ type: z.literal("tool"), name: z.string().min(1), ...parallel }),
]);
const jsonFormat = z.object({ type: z.literal("json_schema"), schema: z.looseObject({}) });
const display = { display: z.enum(["summarized", "omitted"]).nullish() };
const thinking = z.discriminatedUnion("type", [
  z.object({ type: z.literal("adaptive"), ...display }),
  z.object({ type: z.literal("enabled"), budget_tokens: z.int().positive(), ...display }),
  z.object({ type: z.literal("between_tools"), ...display }),
  z.object({ type: z.literal("disabled") }),
]);
const shape = {
  model: z.string().min(1).max(256),
  messages: z.array(messageSchema).min(1),
  /** Required for an answer, and absent where tokens are counted. */
  max_tokens: z.int().positive().nullish(),
  system: textSchema.nullish(),
  stream: z.boolean().nullish(),
  temperature: z.number().min(0).max(1).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.int().nonnegative().nullish(),
  stop_sequences: z.array(z.string()).max(MAX_STOPS).nullish(),
  tools: z.array(tool).max(MAX_TOOLS).nullish(),
  tool_choice: toolChoice.nullish(),
  thinking: thinking.nullish(),
  output_config: z
    .looseObject({ effort: z.enum(["low", "medium", "high", "xhigh", "max"]).nullish(), format: jsonFormat.nullish() })
    .nullish(),
  /** The same under its older name. */
  output_format: jsonFormat.nullish(),
};
const requestSchema = z.looseObject(shape);
type Request = z.infer<typeof requestSchema>;
const FIELDS: ReadonlySet<string> = new Set(Object.keys(shape));

/** What the writer of an answer needs to know. */
export interface MessagesOwn {
  /**
   * What the client wants to see of the thinking. `sealed`: only what its maker wants back. `hidden`: it did not ask for any, and reads the first block as
   * the answer.
   */
  readonly thinking: "shown" | "sealed" | "hidden";
}

/** The members that are set in a body before it is relayed; see `setMembers`. */
export const MESSAGES_MEMBERS: readonly string[] = ["model"];

/** @throws UserError `invalid_json` | `invalid_params` */
export function parseMessages(body: Buffer): ParsedChat<MessagesOwn> {
  const request = checkBody(requestSchema, body);
  const { messages, system, tools, tool_choice: choice } = request;
  const { hasImages, hasFiles, extras } = survey(messages);
  const facts: ChatFacts<MessagesOwn> = {
    model: request.model,
    stream: request.stream ?? false,
    output: {
      ...present("maxTokens", request.max_tokens),
      stop: request.stop_sequences ?? [],
      format: formatOf(request),
    },
    sampling: {
      ...present("temperature", request.temperature),
      ...present("topP", request.top_p),
      ...present("topK", request.top_k === 0 ? undefined : request.top_k),
    },
    tools: (tools ?? []).map(toTool),
    toolChoice: toToolChoice(choice),
    ...(choice?.disable_parallel_tool_use === true ? { parallelToolCalls: false } : {}),
    ...present("reasoning", reasoningOf(request)),
    ...present("cacheKey", sessionOf(request["metadata"])),
    hasImages,
    hasFiles,
    extras: { ...ownExtras(request, body), ...extras },
    isForeign: body.includes(OPAQUE_MARK),
    own: { thinking: viewOf(request.thinking) },
  };
  return { facts, messages: () => toMessages(system, messages) };
}

/** What an upstream of another dialect cannot be told, by the name it has in Anthropic's. */
function ownExtras(request: Request, body: Buffer): Readonly<Record<string, unknown>> {
  const { effort: _effort, format: _format, ...moreConfig } = request.output_config ?? {};
  const { mcp_servers: servers, ...more } = extrasOf(request, FIELDS);
  const { system } = request;
  const isBilled = Array.isArray(system) && system.some(({ text }) => text.startsWith(BILLING_HEADER));
  return {
    ...more,
    ...(Array.isArray(servers) && servers.length === 0 ? {} : present("mcp_servers", servers)),
    ...Object.fromEntries(Object.entries(moreConfig).map(([key, value]) => [`output_config.${key}`, value])),
    ...(request.thinking?.type === "between_tools" ? { "thinking between_tools": true } : {}),
    ...(body.includes('"cache_control"') ? { cache_control: true } : {}),
    ...(isBilled ? { [BILLING_HEADER.slice(0, -1)]: true } : {}),
  };
}

function formatOf({ output_config: config, output_format: older }: Request): TextFormat {
  const format = config?.format ?? older;
  return format === null || format === undefined
    ? { kind: "text" }
    : { kind: "schema", name: "answer", schema: format.schema };
}

function toTool(entry: z.infer<typeof tool>): ToolSpec {
  if (!isClientTool(entry)) return { kind: "hosted", name: entry.name ?? entry.type, spec: entry };
  const { name, description, input_schema: parameters, strict } = entry;
  return { kind: "function", name, description: description ?? undefined, parameters, ...present("strict", strict) };
}

type Tool = z.infer<typeof tool>;
const isClientTool = (entry: Tool): entry is Extract<Tool, { input_schema: object }> =>
  entry.type === CLIENT_TOOL || entry.type === null || entry.type === undefined;

function toToolChoice(choice: Request["tool_choice"]): ToolChoice {
  switch (choice?.type) {
    case undefined:
    case "auto":
      return "auto";
    case "any":
      return "required";
    case "none":
      return "none";
    case "tool":
      return { name: choice.name };
  }
}

/** `effort` alone says how much, not whether: models that think by themselves do. */
function reasoningOf({ thinking: how, output_config: config }: Request): ReasoningOptions | undefined {
  if (how?.type === "disabled") return { effort: "none" };
  const effort = present("effort", config?.effort);
  if (how === null || how === undefined) return effort.effort === undefined ? undefined : effort;
  // The older form always shows its thinking.
  const isShown = how.display === undefined || how.display === null ? undefined : how.display === "summarized";
  if (how.type !== "enabled") return { ...effort, ...present("isShown", isShown) };
  return { ...effort, budgetTokens: how.budget_tokens, isShown: isShown ?? true };
}

function viewOf(how: Request["thinking"]): MessagesOwn["thinking"] {
  if (how === null || how === undefined || how.type === "disabled") return "hidden";
  return how.display === "omitted" ? "sealed" : "shown";
}

const metadata = z.object({ user_id: z.string() });
const session = z.object({ session_id: z.string().min(1).max(200) });

/** Claude Code names its session in `metadata.user_id`: as JSON, or behind `_session_` in older versions. A user's own id is nobody else's business. */
function sessionOf(value: unknown): string | undefined {
  const parsed = metadata.safeParse(value);
  if (!parsed.success) return undefined;
  const { user_id: userId } = parsed.data;
  if (!userId.startsWith("{")) return /_session_([A-Za-z0-9-]{1,200})$/.exec(userId)?.[1];
  try {
    return session.safeParse(JSON.parse(userId)).data?.session_id;
  } catch {
    return undefined; // Somebody's own id, which only begins like JSON.
  }
}
