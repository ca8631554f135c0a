/**
 * Requests of OpenAI's Responses API, checked and made canonical. Pure, so that a worker can do it for large bodies.
 * Fields without a canonical form are kept as extras, and an upstream of the same dialect gets the body as it came. `metadata` and `client_metadata` are
 * the client's own notes: the first is given back to it, no model is told either, and neither counts as dropped.
 */
import { z } from "zod";
import { UserError } from "../../../base/errors.ts";
import { present } from "../../../base/optional.ts";
import type { Message, ReasoningOptions, TextFormat, ToolChoice, ToolSpec } from "../../../ghostllm/stream.ts";
import { type ChatFacts, checkBody, checkValue, extrasOf, MAX_TOOLS, type ParsedChat } from "./chat-facts.ts";
import { readItems } from "./responses-items.ts";

const name = z.string().min(1);
const plainTool = z.looseObject({
  type: z.enum(["function", "custom"]),
  name,
  description: z.string().nullish(),
  parameters: z.unknown().optional(),
  strict: z.boolean().nullish(),
  format: z.unknown().optional(),
});
const namespaceTool = z.looseObject({
  type: z.literal("namespace"),
  name,
  description: z.string().nullish(),
  tools: z.array(plainTool),
});
const OWN_TOOLS: readonly string[] = ["function", "custom", "namespace"];
const tool = z.union([
  z.discriminatedUnion("type", [namespaceTool, plainTool]),
  z.looseObject({ type: z.string().refine((type) => !OWN_TOOLS.includes(type), { abort: true }) }),
]);
const toolList = z.array(tool);
const namedTool = z.looseObject({ type: z.string(), name: name.nullish(), namespace: z.string().nullish() });
const toolChoice = z.union([
  z.enum(["auto", "none", "required"]),
  z.looseObject({ type: z.literal("allowed_tools"), mode: z.enum(["auto", "required"]), tools: z.array(namedTool) }),
  namedTool,
]);
const textFormat = z.discriminatedUnion("type", [
  z.looseObject({ type: z.literal("text") }),
  z.looseObject({ type: z.literal("json_object") }),
  z.looseObject({
    type: z.literal("json_schema"),
    name: z.string().nullish(),
    schema: z.unknown().optional(),
    strict: z.boolean().nullish(),
  }),
]);

const shape = {
  model: z.string({ error: "is missing" }).min(1).max(256),
  input: z.union([z.string(), z.array(z.unknown())]).nullish(),
  instructions: z.string().nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({}).nullish(),
  store: z.boolean().nullish(),
  previous_response_id: z.string().min(1).max(256).nullish(),
  include: z.array(z.string()).nullish(),
  tools: toolList.max(MAX_TOOLS).nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  text: z.looseObject({ format: textFormat.nullish() }).nullish(),
  reasoning: z
    .looseObject({
      effort: z.enum(["none", "minimal", "low", "medium", "high", "xhigh", "max"]).nullish(),
      summary: z.string().nullish(),
    })
    .nullish(),
  max_output_tokens: z.int().positive().nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  truncation: z.enum(["auto", "disabled"]).nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  client_metadata: z.unknown().optional(),
  prompt_cache_key: z.string().nullish(),
  type: z.string().nullish(),
  generate: z.boolean().nullish(),
  stream_id: z.string().nullish(),
};
/** What only a frame of a WebSocket has. */
export const SOCKET_MEMBERS: readonly string[] = ["type", "generate", "stream_id", "background"];
const requestSchema = z.looseObject(shape);
type Request = z.infer<typeof requestSchema>;

/** Refused wherever they ask for something. */
const KEPT_BY_PROVIDERS = ["background", "conversation", "prompt"] as const;
const KNOWN: ReadonlySet<string> = new Set([...Object.keys(shape), ...KEPT_BY_PROVIDERS]);
/** The request's fields that every answer says again, with what stands there where the client said nothing. */
const ECHOED: Readonly<Record<string, unknown>> = {
  instructions: null,
  tools: [],
  tool_choice: "auto",
  truncation: "disabled",
  parallel_tool_calls: true,
  text: { format: { type: "text" } },
  top_p: null,
  presence_penalty: null,
  frequency_penalty: null,
  top_logprobs: null,
  temperature: null,
  reasoning: null,
  max_output_tokens: null,
  max_tool_calls: null,
  store: true,
  background: false,
  service_tier: null,
  metadata: {},
  safety_identifier: null,
  prompt_cache_key: null,
  user: null,
  previous_response_id: null,
  access_programs: null,
};

/** What the writer of an answer, and the store, need to know. */
export interface ResponsesOwn {
  readonly isStored: boolean;
  readonly previousId?: string;
  /** What is said again in the answer: members of a JSON object, without its braces. */
  readonly echo: string;
  /** The `call_id` of a result whose call is not among the items. */
  readonly unmatched?: string;
  readonly hasReferences: boolean;
  readonly isCompaction: boolean;
  /** False only warms up a WebSocket. */
  readonly generates: boolean;
  /** Who keeps nothing upstream needs the thinking back sealed: the client's `include` with that, where its model is known to think. */
  readonly include?: readonly string[];
}

const REASONING_SEALS = "reasoning.encrypted_content";
const LOGPROBS = "message.output_text.logprobs";

/** The members that are set in a body before it is relayed. */
export const RESPONSES_MEMBERS: readonly string[] = ["model", "store", "include", "input", "previous_response_id"];

/** @throws UserError `invalid_json` | `invalid_params` */
export function parseResponses(body: Buffer): ParsedChat<ResponsesOwn> {
  const request = checkBody(requestSchema, body);
  refuseKept(request);
  const items = readItems(request.input ?? []);
  const { tools, choice } = toolsOf(request, items.tools);
  const facts: ChatFacts<ResponsesOwn> = {
    model: request.model,
    stream: request.stream ?? false,
    output: { ...present("maxTokens", request.max_output_tokens), stop: [], format: formatOf(request) },
    sampling: {
      ...present("temperature", request.temperature),
      ...present("topP", request.top_p),
      ...present("frequencyPenalty", request.frequency_penalty),
      ...present("presencePenalty", request.presence_penalty),
    },
    tools,
    toolChoice: choice,
    ...present("parallelToolCalls", request.parallel_tool_calls),
    ...present("reasoning", reasoningOf(request)),
    ...present("cacheKey", request.prompt_cache_key),
    hasImages: items.hasImages,
    hasFiles: items.hasFiles,
    extras: { ...extrasOfRequest(request), ...items.extras },
    isForeign: items.isForeign,
    own: {
      isStored: request.store ?? true,
      ...present("previousId", request.previous_response_id),
      // With an agent's tools a fifth of all that reading takes, and neither a relay nor the transcript wants it.
      get echo() {
        return echoOf(request);
      },
      ...present("unmatched", items.unmatched),
      hasReferences: items.hasReferences,
      isCompaction: items.isCompaction,
      generates: request.generate ?? true,
      ...(request.reasoning ? { include: [...new Set([...(request.include ?? []), REASONING_SEALS])] } : {}),
    },
  };
  const { instructions } = request;
  const system: readonly Message[] =
    instructions === null || instructions === undefined || instructions === ""
      ? []
      : [{ role: "system", parts: [{ kind: "text", text: instructions }] }];
  return { facts, messages: () => [...system, ...items.messages()] };
}

/** What only a provider could keep for its client. */
function refuseKept(request: Request): void {
  const whys = {
    background: "answers in the background are not kept here; send the request and read its stream",
    conversation: "conversations are not kept here; use `previous_response_id`, or send all items",
    prompt: "prompt templates are not kept here; send the items themselves",
  };
  for (const field of KEPT_BY_PROVIDERS) {
    const value = request[field];
    if (value === null || value === undefined || value === false) continue;
    throw new UserError("invalid_params", `\`${field}\`: ${whys[field]}`, { details: { field } });
  }
}

function formatOf({ text }: Request): TextFormat {
  const format = text?.format;
  if (format?.type === "json_object") return { kind: "json" };
  if (format?.type !== "json_schema") return { kind: "text" };
  return { kind: "schema", name: format.name ?? "answer", schema: format.schema, ...present("strict", format.strict) };
}

function reasoningOf({ reasoning }: Request): ReasoningOptions | undefined {
  if (reasoning === null || reasoning === undefined) return undefined;
  const isShown = typeof reasoning.summary === "string" && reasoning.summary !== "none";
  return { ...present("effort", reasoning.effort), ...(isShown ? { isShown } : {}) };
}

function toolsOf(
  request: Request,
  offered: readonly unknown[],
): { readonly tools: readonly ToolSpec[]; readonly choice: ToolChoice } {
  const later = checkValue(toolList, offered, "input");
  const tools = [...(request.tools ?? []), ...later].flatMap(toTools);
  if (tools.length > MAX_TOOLS) {
    throw new UserError("invalid_params", `\`tools\`: ${tools.length} tools are more than ${MAX_TOOLS}`, {
      details: { field: "tools" },
    });
  }
  const choice = request.tool_choice;
  if (choice === null || choice === undefined) return { tools, choice: "auto" };
  if (typeof choice === "string") return { tools, choice };
  if (isAllowed(choice)) {
    const isNamed = (spec: ToolSpec) =>
      choice.tools.some(
        (allowed) => (allowed.name ?? allowed.type) === spec.name && isOfGroup(spec, allowed.namespace),
      );
    return { tools: tools.filter(isNamed), choice: choice.mode };
  }
  return { tools, choice: { name: choice.name ?? choice.type, ...present("namespace", choice.namespace) } };
}

type Choice = Exclude<z.infer<typeof toolChoice>, string>;
const isAllowed = (choice: Choice): choice is Extract<Choice, { type: "allowed_tools" }> =>
  choice.type === "allowed_tools" && "mode" in choice;

function isOfGroup(spec: ToolSpec, namespace: string | null | undefined): boolean {
  return namespace === null || namespace === undefined || (spec.kind !== "hosted" && spec.namespace === namespace);
}

type Tool = z.infer<typeof tool>;
const isPlain = (entry: Tool): entry is z.infer<typeof plainTool> =>
  entry.type === "function" || entry.type === "custom";
const isNamespace = (entry: Tool): entry is z.infer<typeof namespaceTool> => entry.type === "namespace";

function toTools(entry: Tool): readonly ToolSpec[] {
  if (isPlain(entry)) return [toTool(entry, entry.description ?? undefined)];
  if (!isNamespace(entry)) return [{ kind: "hosted", name: entry.type, spec: entry }];
  // What the group is for stands with its first tool: an upstream without groups has no other place for it.
  return entry.tools.map((member, index) => {
    const own = member.description ?? undefined;
    const description =
      index === 0 && entry.description ? `${own ?? ""}\n(${entry.name}: ${entry.description})`.trim() : own;
    return { ...toTool(member, description), namespace: entry.name };
  });
}

function toTool(
  { type, name: toolName, parameters, strict, format }: z.infer<typeof plainTool>,
  description: string | undefined,
): Exclude<ToolSpec, { kind: "hosted" }> {
  if (type === "custom") return { kind: "custom", name: toolName, description, ...present("format", format) };
  return { kind: "function", name: toolName, description, parameters, ...present("strict", strict) };
}

/** Fields that ask for what happens anyway are no extras. */
function extrasOfRequest(request: Request): Readonly<Record<string, unknown>> {
  const { truncation, text, reasoning, include, service_tier: tier } = request;
  const { format: _format, ...style } = text ?? {};
  const { effort: _effort, summary: _summary, ...thinking } = reasoning ?? {};
  const others = (include ?? []).filter((what) => what !== REASONING_SEALS && what !== LOGPROBS);
  const nested = (prefix: string, values: Readonly<Record<string, unknown>>) =>
    Object.entries(values).flatMap(([key, value]) =>
      value === null || value === undefined ? [] : [[`${prefix}.${key}`, value] as const],
    );
  const plain = { ...request, service_tier: tier === "auto" || tier === "default" ? null : tier };
  return {
    ...extrasOf(plain, KNOWN),
    ...present("truncation", truncation === "auto" ? truncation : undefined),
    ...Object.fromEntries([...nested("text", style), ...nested("reasoning", thinking)]),
    ...(include?.includes(LOGPROBS) === true ? { logprobs: true } : {}),
    ...(others.length === 0 ? {} : { include: others }),
  };
}

function echoOf(request: Request): string {
  const echoed = Object.entries(ECHOED).map(([key, standard]) => [key, request[key] ?? standard]);
  return JSON.stringify(Object.fromEntries(echoed)).slice(1, -1);
}
