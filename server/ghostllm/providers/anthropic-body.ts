/**
 * Canonical requests as bodies of Anthropic's Messages, for requests that did not come in that dialect. Pure.
 * 1. Only fields that the model takes are sent; what it does not take is mapped to the nearest thing, or named in `dropped`.
 * 2. What is asked for one answer only, and has no field, is said behind the conversation, not in `system`: thinking is signed over what came before it.
 */
import { UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import { isRecord } from "../frames/json.ts";
import type { ChatRequest, ReasoningOptions } from "../stream.ts";
import { ANTHROPIC_NAMES, type WireFunction, type WireTools, wireTools } from "../tool-names.ts";
import type { ClaudeEffort, ClaudeFacts } from "./anthropic-models.ts";
import { toOutputSchema } from "./anthropic-schema.ts";
import { callsWithoutThinking, type Place, toTurns, type Turn, withoutThinking } from "./anthropic-turns.ts";

/** Knows no sampling; otherwise the one to use. */
export const API_VERSION = "2026-10-21";
/** The last that takes a temperature. */
export const SAMPLING_VERSION = "2023-06-01";

/**
 * The field is required, and its size costs nothing by itself: thinking counts inside it, so that less would cut long answers short. It is what agents
 * ask for themselves, and an answer that runs in circles still ends.
 */
const DEFAULT_MAX_TOKENS = 32_000;
/** At the highest efforts thinking alone can be longer than that. */
const LONG_MAX_TOKENS = 64_000;
/** The API refuses smaller ones. */
const MIN_BUDGET_TOKENS = 1_024;
/** Left for the answer itself where the client's own limit is tight. */
const MIN_ANSWER_TOKENS = 1_024;
/** For models that are told in tokens how much to think: about what newer ones think at these levels. */
const BUDGET_TOKENS: Readonly<Record<ClaudeEffort, number>> = {
  low: 4_096,
  medium: 10_240,
  high: 20_480,
  xhigh: 26_624,
  max: 26_624,
};
/** And back: up to so many tokens are this level. */
const LOW_BUDGET_TOKENS = 4_096;
const MEDIUM_BUDGET_TOKENS = 16_384;

/** The tool that a model is made to call where it cannot be held to a schema: its input is the answer. */
export const ANSWER_TOOL = "answer";

export interface MessagesBody {
  readonly model: string;
  readonly max_tokens: number;
  readonly messages: readonly Turn[];
  readonly [field: string]: unknown;
}

export interface MessagesRequest {
  readonly body: MessagesBody;
  readonly version: string;
  readonly tools: WireTools;
  /** The answer comes as a call of `ANSWER_TOOL`. */
  readonly isAnswerTool: boolean;
  readonly dropped: readonly string[];
}

export interface ModelFacts {
  readonly maker: string;
  readonly name: string;
  readonly facts: ClaudeFacts;
  readonly isRefused: (seal: string) => boolean;
}

/** @throws UserError `capability_missing` | `invalid_params` */
export async function messagesRequest(request: ChatRequest, model: ModelFacts): Promise<MessagesRequest> {
  const { facts, maker, name, isRefused } = model;
  const tools = wireTools(request, ANTHROPIC_NAMES);
  const format = formatOf(request, tools, model);
  const choice = choiceOf(request, tools, facts, format.isAnswerTool);
  const dropped: string[] = [];
  const isForced = choice.field?.type === "any" || choice.field?.type === "tool";
  const planned = planThinking(request.reasoning, facts, { maxTokens: request.output.maxTokens, isForced });
  const { system, turns, ...conversation } = toTurns(await request.messages(), {
    maker,
    isRefused,
    takesSystemTurns: facts.takesSystemTurns,
    takesPrefill: facts.takesPrefill && !planned.isThinking,
    wireName: tools.wireName,
    closing: [...choice.words, ...format.words],
  });
  const plan = planned.field?.type === "enabled" && callsWithoutThinking(turns) ? NO_THINKING : planned;
  if (plan.isDropped) dropped.push("reasoning");
  const sampling = samplingOf(request.sampling, facts, plan.isThinking);
  const stops = request.output.stop.filter((stop) => stop.trim() !== "");
  if (stops.length < request.output.stop.length) dropped.push("stop");
  const effort = present("effort", plan.effort);
  const output = { ...effort, ...present("format", format.field) };
  const functions = format.isAnswerTool ? [...tools.functions, answerTool(request)] : tools.functions;
  return {
    tools,
    isAnswerTool: format.isAnswerTool,
    version: Object.keys(sampling.fields).length > 0 ? SAMPLING_VERSION : API_VERSION,
    dropped: [...dropped, ...sampling.dropped, ...conversation.dropped],
    body: {
      model: name,
      max_tokens: maxTokensOf(request.output.maxTokens, facts, plan.effort),
      ...(system.length === 0 ? {} : { system }),
      messages: turns,
      ...(functions.length === 0 ? {} : { tools: functions.map(toTool) }),
      ...present("tool_choice", choice.field),
      ...present("thinking", plan.field),
      ...(Object.keys(output).length === 0 ? {} : { output_config: output }),
      ...(stops.length === 0 ? {} : { stop_sequences: stops }),
      ...sampling.fields,
      ...cacheMark(request, functions),
      stream: request.stream,
    },
  };
}

/** The body for `count_tokens`, which takes no more than what is counted. */
export function countBody({ body }: Pick<MessagesRequest, "body">): object {
  return pickCounted(body);
}

const COUNTED = [
  "model",
  "messages",
  "system",
  "tools",
  "tool_choice",
  "thinking",
  "output_config",
  "mcp_servers",
  "context_management",
];

/** Of a client's own body, too. */
export function pickCounted(body: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(Object.entries(body).filter(([key]) => COUNTED.includes(key)));
}

/** Without earlier thinking from this place on. A model that thinks by a budget then does not think in this answer, where it would have to go on. */
export function forgetThinking(
  body: MessagesBody,
  from: Place,
): { readonly body: MessagesBody; readonly seals: readonly string[] } {
  const { turns: messages, seals } = withoutThinking(body.messages, from);
  const { thinking, ...others } = body;
  const isBudget = isRecord(thinking) && thinking["type"] === "enabled";
  const kept = isBudget && callsWithoutThinking(messages) ? {} : present("thinking", thinking);
  return { body: { ...others, model: body.model, max_tokens: body.max_tokens, messages, ...kept }, seals };
}

/** Whether tools must be followed to the letter. */
export function hasStrictTools({ tools }: MessagesBody): boolean {
  return Array.isArray(tools) && tools.some((tool) => isRecord(tool) && tool["strict"] === true);
}

/** Resends with tools that need not be followed to the letter: too many strict ones are refused. */
export function withoutStrictTools(body: MessagesBody): MessagesBody {
  const { tools } = body;
  if (!Array.isArray(tools)) return body;
  const loosen = (tool: unknown) => (isRecord(tool) ? { ...tool, strict: undefined } : tool);
  return { ...body, tools: tools.map(loosen) };
}

/**
 * One mark that follows the end of the conversation: what is sent now is read from the cache by the next turn. Only where a next turn is likely (tools,
 * or a client that names its conversation), since writing costs a quarter more than reading nothing.
 */
function cacheMark(request: ChatRequest, functions: readonly WireFunction[]): object {
  const isConversation = request.cacheKey !== undefined || functions.length > 0;
  return isConversation ? { cache_control: { type: "ephemeral" } } : {};
}

function maxTokensOf(asked: number | undefined, facts: ClaudeFacts, effort: ClaudeEffort | undefined): number {
  const isLong = effort === "xhigh" || effort === "max";
  return Math.min(asked ?? (isLong ? LONG_MAX_TOKENS : DEFAULT_MAX_TOKENS), facts.maxOutputTokens);
}

function toTool({ name, description, parameters, strict }: WireFunction): object {
  const { schema, told } = inputSchema(isRecord(parameters) ? parameters : {});
  const words = [description, told].filter((text) => text !== undefined && text !== "").join("\n");
  return {
    name,
    ...(words === "" ? {} : { description: words }),
    input_schema: schema,
    ...(strict === true ? { strict } : {}),
  };
}

/** Alternatives at the top of a tool's schema are refused: they are told in words. */
function inputSchema(schema: Readonly<Record<string, unknown>>): { readonly schema: object; readonly told?: string } {
  const { oneOf, anyOf, allOf, ...others } = schema;
  const plain = { ...others, type: "object" };
  const alternatives = { ...present("oneOf", oneOf), ...present("anyOf", anyOf), ...present("allOf", allOf) };
  if (Object.keys(alternatives).length === 0) return { schema: schema["type"] === "object" ? schema : plain };
  return { schema: plain, told: `The input must also fit this schema: ${JSON.stringify(alternatives)}` };
}

interface Format {
  readonly field: object | undefined;
  readonly words: readonly string[];
  readonly isAnswerTool: boolean;
}

function formatOf({ output: { format }, tools }: ChatRequest, wire: WireTools, { name, facts }: ModelFacts): Format {
  const plain: Format = { field: undefined, words: [], isAnswerTool: false };
  if (format.kind === "text") return plain;
  // Nothing but words makes a model write JSON of any shape: a tool without a schema is called with nothing.
  if (format.kind === "json") return { ...plain, words: ["Answer with one JSON object and nothing else."] };
  const schema = facts.takesSchemas ? toOutputSchema(format.schema) : undefined;
  if (schema !== undefined) return { ...plain, field: { type: "json_schema", schema } };
  const isToolSchema = isRecord(format.schema) && format.schema["type"] === "object";
  if (isToolSchema && facts.takesForcedChoice && wire.functions.length === 0) return { ...plain, isAnswerTool: true };
  const why = !isToolSchema
    ? "it describes no object"
    : tools.length > 0
      ? "not with this schema and tools at once"
      : "not with objects whose members may have any name";
  throw new UserError("capability_missing", `${name} cannot be held to \`response_format json_schema\`: ${why}`);
}

function answerTool({ output: { format } }: ChatRequest): WireFunction {
  const parameters = format.kind === "schema" ? format.schema : {};
  return { name: ANSWER_TOOL, description: "Give your answer with this tool.", parameters, strict: undefined };
}

type ChoiceField =
  | { readonly type: "auto" | "any"; readonly disable_parallel_tool_use?: true }
  | { readonly type: "tool"; readonly name: string; readonly disable_parallel_tool_use?: true }
  | { readonly type: "none" };
interface Choice {
  readonly field: ChoiceField | undefined;
  readonly words: readonly string[];
}

function choiceOf(request: ChatRequest, tools: WireTools, facts: ClaudeFacts, isAnswerTool: boolean): Choice {
  if (isAnswerTool) return { field: { type: "tool", name: ANSWER_TOOL }, words: [] };
  if (tools.functions.length === 0) return { field: undefined, words: [] };
  const { choice } = tools;
  const single = request.parallelToolCalls === false ? ({ disable_parallel_tool_use: true } as const) : undefined;
  if (choice === "none") return { field: { type: "none" }, words: [] };
  const auto: ChoiceField | undefined = single === undefined ? undefined : { type: "auto", ...single };
  if (choice === "auto") return { field: auto, words: [] };
  if (facts.takesForcedChoice) {
    const forced = typeof choice === "string" ? ({ type: "any" } as const) : ({ type: "tool", ...choice } as const);
    return { field: { ...forced, ...single }, words: [] };
  }
  const which = typeof choice === "string" ? "one of your tools" : `the tool \`${choice.name}\``;
  return { field: auto, words: [`Call ${which} now; do not answer without it.`] };
}

interface ThinkingPlan {
  readonly field:
    | { readonly type: "adaptive"; readonly display?: "summarized" }
    | { readonly type: "enabled"; readonly budget_tokens: number }
    | { readonly type: "disabled" | "between_tools" }
    | undefined;
  readonly effort: ClaudeEffort | undefined;
  /** The model thinks in this answer. */
  readonly isThinking: boolean;
  /** What was asked for cannot be had. */
  readonly isDropped: boolean;
}

const NO_THINKING: ThinkingPlan = { field: undefined, effort: undefined, isThinking: false, isDropped: true };

interface ThinkingLimits {
  readonly maxTokens: number | undefined;
  /** It must call a tool: with a thinking budget that is refused. */
  readonly isForced: boolean;
}

function planThinking(wish: ReasoningOptions | undefined, facts: ClaudeFacts, limits: ThinkingLimits): ThinkingPlan {
  const display = wish?.isShown === true && facts.omitsThinking ? ({ display: "summarized" } as const) : {};
  const takes = (kind: ClaudeFacts["thinking"][number]) => facts.thinking.includes(kind);
  const isAsked = wish?.effort !== undefined || wish?.budgetTokens !== undefined;
  const natural = { field: undefined, effort: undefined, isThinking: facts.thinksByDefault, isDropped: false };
  if (!isAsked) {
    const isAdaptive = facts.thinksByDefault && takes("adaptive") && "display" in display;
    return isAdaptive ? { ...natural, field: { type: "adaptive", ...display } } : natural;
  }
  if (wish.effort === "none" || (wish.effort === undefined && wish.budgetTokens === 0)) return planNone(facts, natural);
  const level = nearestEffort(facts.efforts, levelOf(wish));
  if (takes("adaptive"))
    return { ...natural, field: { type: "adaptive", ...display }, effort: level, isThinking: true };
  if (!takes("enabled") || limits.isForced) return { ...NO_THINKING, effort: level };
  const wanted = wish.budgetTokens ?? BUDGET_TOKENS[levelOf(wish)];
  const room = Math.min(limits.maxTokens ?? DEFAULT_MAX_TOKENS, facts.maxOutputTokens) - MIN_ANSWER_TOKENS;
  if (room < MIN_BUDGET_TOKENS) return { ...NO_THINKING, effort: level };
  const budget = Math.max(MIN_BUDGET_TOKENS, Math.min(wanted, room));
  return { ...natural, field: { type: "enabled", budget_tokens: budget }, effort: level, isThinking: true };
}

/** No thinking, or as little as the model can do. */
function planNone(facts: ClaudeFacts, natural: ThinkingPlan): ThinkingPlan {
  if (!facts.thinksByDefault) return natural;
  if (facts.thinking.includes("disabled")) return { ...natural, field: { type: "disabled" }, isThinking: false };
  if (facts.thinking.includes("between_tools")) return { ...natural, field: { type: "between_tools" } };
  return { ...natural, effort: facts.efforts[0] };
}

function levelOf({ effort, budgetTokens = 0 }: ReasoningOptions): ClaudeEffort {
  if (effort !== undefined && effort !== "none") return effort === "minimal" ? "low" : effort;
  if (budgetTokens <= LOW_BUDGET_TOKENS) return "low";
  return budgetTokens <= MEDIUM_BUDGET_TOKENS ? "medium" : "high";
}

const EFFORTS = ["low", "medium", "high", "xhigh", "max"] as const;

/** The level itself, else the next lower one, which never costs more than was asked for; else the lowest there is. */
function nearestEffort(efforts: readonly ClaudeEffort[], level: ClaudeEffort): ClaudeEffort | undefined {
  const upTo = EFFORTS.slice(0, EFFORTS.indexOf(level) + 1);
  return upTo.findLast((effort) => efforts.includes(effort)) ?? efforts[0];
}

/** 1 is what happens anyway. A model that thinks takes nothing else. */
function samplingOf(
  { temperature, topP, topK }: ChatRequest["sampling"],
  facts: ClaudeFacts,
  isThinking: boolean,
): { readonly fields: object; readonly dropped: readonly string[] } {
  const isTaken = facts.takesSampling && !isThinking;
  const heat = temperature === undefined ? undefined : Math.min(temperature, 1);
  const hasHeat = heat !== undefined && heat !== 1;
  const hasTopP = topP !== undefined && topP !== 1;
  // Only one of the two is taken.
  const sendsTopP = isTaken && hasTopP && !hasHeat;
  return {
    fields: {
      ...(isTaken && hasHeat ? { temperature: heat } : {}),
      ...(sendsTopP ? { top_p: topP } : {}),
      ...(isTaken && topK !== undefined ? { top_k: topK } : {}),
    },
    dropped: [
      ...(hasHeat && !isTaken ? ["temperature"] : []),
      ...(hasTopP && !sendsTopP ? ["top_p"] : []),
      ...(topK !== undefined && !isTaken ? ["top_k"] : []),
    ],
  };
}
