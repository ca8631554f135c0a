/**
 * Requests of Anthropic's Messages, checked and made canonical. Pure, so that a worker can do it for large bodies.
 * Format: https://docs.claude.com/en/api/messages; what real clients send is in test/fixtures/clients. A field of the wrong kind is refused with its path;
 * fields without a canonical form are kept as extras, and Anthropic gets the body as it came.
 */
import { z } from "zod";
import { present } from "../../../base/optional.ts";
import type { ReasoningOptions, TextFormat } from "../../../ghostllm/stream.ts";
import { type ChatFacts, checkBody, extrasOf, MAX_TOOLS, type ParsedChat } from "./chat-facts.ts";
import { BILLING_HEADER, effort, messageSchema, survey, textSchema, toMessages } from "./messages-blocks.ts";
import { toolChoiceSchema, toolSchema, toToolChoice, toTools } from "./messages-tools.ts";

/** Models stop at one of them; more than this nobody sends, and each costs every token a comparison. */
const MAX_STOPS = 64;

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
  tools: z.array(toolSchema).max(MAX_TOOLS).nullish(),
  tool_choice: toolChoiceSchema.nullish(),
  thinking: thinking.nullish(),
  output_config: z.looseObject({ effort: effort.nullish(), format: jsonFormat.nullish() }).nullish(),
  /** The same under its older name. */
  output_format: jsonFormat.nullish(),
};
const requestSchema = z.looseObject(shape);
type Request = z.infer<typeof requestSchema>;
type Effort = z.infer<typeof effort> | undefined;
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
  const { hasImages, hasFiles, isForeign, extras, toolChanges, effort: turnEffort } = survey(messages);
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
    tools: toTools(tools ?? [], toolChanges),
    toolChoice: toToolChoice(choice),
    ...(choice?.disable_parallel_tool_use === true ? { parallelToolCalls: false } : {}),
    ...present("reasoning", reasoningOf(request, turnEffort)),
    ...present("cacheKey", sessionOf(request["metadata"])),
    hasImages,
    hasFiles,
    extras: { ...ownExtras(request, body), ...extras },
    isForeign,
    own: { thinking: viewOf(request.thinking) },
  };
  return { facts, messages: () => toMessages(system, messages) };
}

/** What an upstream of another dialect cannot be told, by the name it has in Anthropic's. */
function ownExtras(request: Request, body: Buffer): Readonly<Record<string, unknown>> {
  const { effort: _effort, format: _format, ...moreConfig } = request.output_config ?? {};
  const { mcp_servers: servers, metadata: about, service_tier: tier, ...more } = extrasOf(request, FIELDS);
  const { system } = request;
  const isBilled = Array.isArray(system) && system.some(({ text }) => text.startsWith(BILLING_HEADER));
  return {
    ...more,
    ...(Array.isArray(servers) && servers.length === 0 ? {} : present("mcp_servers", servers)),
    // By names that no other dialect has: what they say is meant for Anthropic.
    ...(about === undefined ? {} : { "metadata.user_id": true }),
    ...(tier === "standard_only" ? { "service_tier standard_only": true } : {}),
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

/** `effort` alone says how much, not whether: models that think by themselves do. */
function reasoningOf(
  { thinking: how, output_config: config }: Request,
  turnEffort: Effort,
): ReasoningOptions | undefined {
  if (how?.type === "disabled") return { effort: "none" };
  const asked = present("effort", turnEffort ?? config?.effort);
  if (how === null || how === undefined) return asked.effort === undefined ? undefined : asked;
  // The older form always shows its thinking.
  const isShown = how.display === undefined || how.display === null ? undefined : how.display === "summarized";
  if (how.type !== "enabled") return { ...asked, ...present("isShown", isShown) };
  return { ...asked, budgetTokens: how.budget_tokens, isShown: isShown ?? true };
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
