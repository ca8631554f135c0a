/**
 * Canonical requests as bodies of Gemini's `generateContent` (https://ai.google.dev/api/generate-content). Pure.
 * Only fields that the model takes are sent; what it does not take is mapped to the nearest thing, or named in `dropped`.
 */
import { UserError } from "../../base/errors.ts";
import { present } from "../../base/optional.ts";
import type { ChatRequest, ReasoningOptions } from "../stream.ts";
import { GEMINI_NAMES, type WireFunction, type WireTools, wireTools } from "../tool-names.ts";
import type { GeminiFacts, GeminiThinking, ThinkingLevel } from "./gemini-models.ts";
import { toGeminiSchema, toParameters } from "./gemini-schema.ts";
import { type Content, toContents, withoutSignatures } from "./gemini-turns.ts";

/** More are refused. */
const MAX_STOPS = 5;
const MAX_INT32 = 2_147_483_647;

export interface GenerateBody {
  readonly contents: readonly Content[];
  readonly generationConfig?: Readonly<Record<string, unknown>>;
  readonly [field: string]: unknown;
}

export interface GeminiRequest {
  readonly body: GenerateBody;
  readonly tools: WireTools;
  /** Stop strings that the text must be cut at here: more than the model takes. */
  readonly ownStops: readonly string[];
  readonly dropped: readonly string[];
}

export interface ModelFacts {
  readonly maker: string;
  readonly ref: string;
  readonly facts: GeminiFacts;
  /** Of one request; undefined where it is unknown. */
  readonly maxOutputTokens: number | undefined;
}

/** @throws UserError `capability_missing` */
export async function geminiRequest(request: ChatRequest, model: ModelFacts): Promise<GeminiRequest> {
  const { facts } = model;
  const tools = wireTools(request, GEMINI_NAMES);
  if (!facts.takesTools && tools.functions.length > 0 && tools.choice !== "none")
    throw new UserError("capability_missing", `${model.ref} cannot be asked with \`tools\`: it calls none`);
  const functions = facts.takesTools ? tools.functions : [];
  const format = formatOf(request, { hasTools: functions.length > 0, model });
  const thinking = thinkingOf(request.reasoning, facts.thinking);
  const config = { ...samplingOf(request, model), ...format.fields, ...thinking.field };
  const { system, contents, dropped } = toContents(await request.messages(), {
    maker: model.maker,
    signsCalls: facts.signsCalls,
    takesResultImages: facts.takesResultImages,
    takesSystem: facts.takesSystem,
    wireName: tools.wireName,
    closing: format.words,
  });
  return {
    tools,
    ownStops: request.output.stop.length > MAX_STOPS ? request.output.stop : [],
    dropped: [...dropped, ...thinking.dropped],
    body: {
      ...(system.length === 0 ? {} : { systemInstruction: { parts: system } }),
      ...(functions.length === 0 ? {} : { tools: [{ functionDeclarations: functions.map(toDeclaration) }] }),
      ...(functions.length === 0 ? {} : callingOf(tools, facts)),
      contents,
      ...(Object.keys(config).length === 0 ? {} : { generationConfig: config }),
    },
  };
}

/** The body for `countTokens`. Only what is sent can be counted: the prompt, without how it is to be answered. */
export function countBody({ body }: Pick<GeminiRequest, "body">, name: string): object {
  const { generationConfig: _answer, ...prompt } = body;
  return { generateContentRequest: { model: `models/${name}`, ...prompt } };
}

/** A second try after a refusal, without what was refused. */
export interface Cure {
  readonly names: readonly string[];
  readonly body: GenerateBody;
}

const SIGNATURES = /thought[ _]?signature/i;
const PENALTIES = /penalt(?:y|ies)/i;
const THINKING = /thinking/i;

/** @param said the server's own words for a 400 */
export function cureFor(said: string, body: GenerateBody): Cure | undefined {
  const { generationConfig = {}, ...others } = body;
  if (SIGNATURES.test(said)) {
    return { names: ["earlier thinking"], body: { ...body, contents: withoutSignatures(body.contents) } };
  }
  const { frequencyPenalty, presencePenalty, ...withoutPenalties } = generationConfig;
  if (PENALTIES.test(said) && (frequencyPenalty !== undefined || presencePenalty !== undefined)) {
    const names = [
      ...(frequencyPenalty === undefined ? [] : ["frequency_penalty"]),
      ...(presencePenalty === undefined ? [] : ["presence_penalty"]),
    ];
    return { names, body: { ...others, contents: body.contents, generationConfig: withoutPenalties } };
  }
  const { thinkingConfig, ...withoutThinking } = generationConfig;
  if (!THINKING.test(said) || thinkingConfig === undefined) return undefined;
  return { names: ["reasoning"], body: { ...others, contents: body.contents, generationConfig: withoutThinking } };
}

function toDeclaration({ name, description, parameters }: WireFunction): object {
  return {
    name,
    description: description ?? "",
    ...present("parametersJsonSchema", toParameters(parameters)),
  };
}

function callingOf({ choice, functions }: WireTools, facts: GeminiFacts): object {
  const config = (mode: string, allowed?: readonly string[]) => ({
    toolConfig: { functionCallingConfig: { mode, ...present("allowedFunctionNames", allowed) } },
  });
  if (choice === "none") return config("NONE");
  if (choice === "required") return config("ANY");
  if (choice !== "auto") return config("ANY", [choice.name]);
  // To the letter, as the client asks of all its tools.
  return facts.signsCalls && functions.every(({ strict }) => strict === true) ? config("VALIDATED") : {};
}

function samplingOf({ sampling, output }: ChatRequest, { facts, maxOutputTokens }: ModelFacts): object {
  const { temperature, topP, topK, seed, frequencyPenalty, presencePenalty } = sampling;
  const most = facts.continues ? undefined : maxOutputTokens;
  const { maxTokens } = output;
  const stops = output.stop.length > MAX_STOPS ? [] : output.stop;
  return {
    ...present("temperature", temperature),
    ...present("topP", topP),
    ...present("topK", topK),
    ...present("seed", seed === undefined ? undefined : Math.trunc(seed) % MAX_INT32),
    ...present("frequencyPenalty", frequencyPenalty),
    ...present("presencePenalty", presencePenalty),
    ...present("maxOutputTokens", maxTokens === undefined ? undefined : Math.min(maxTokens, most ?? maxTokens)),
    ...(stops.length === 0 ? {} : { stopSequences: stops }),
  };
}

interface Format {
  readonly fields: object;
  readonly words: readonly string[];
}

function formatOf(
  { output: { format } }: ChatRequest,
  { hasTools, model }: { readonly hasTools: boolean; readonly model: ModelFacts },
): Format {
  if (format.kind === "text") return { fields: {}, words: [] };
  const isTaken = !hasTools || model.facts.takesFormatWithTools;
  if (format.kind === "json") {
    if (isTaken) return { fields: { responseMimeType: "application/json" }, words: [] };
    return { fields: {}, words: ["Unless you call a tool, answer with one JSON object and nothing else."] };
  }
  if (isTaken) {
    const fields = { responseMimeType: "application/json", responseJsonSchema: toGeminiSchema(format.schema) };
    return { fields, words: [] };
  }
  const message = `${model.ref} cannot be held to \`response_format json_schema\` and have tools at once`;
  throw new UserError("capability_missing", message, { details: { field: "response_format json_schema" } });
}

const EFFORTS = ["minimal", "low", "medium", "high", "xhigh", "max"] as const;
type Effort = (typeof EFFORTS)[number];
/** For models that are told in tokens: what Google's own OpenAI dialect makes of these words. */
const BUDGETS: Readonly<Record<Effort, number>> = {
  minimal: 1_024,
  low: 1_024,
  medium: 8_192,
  high: 24_576,
  xhigh: 32_768,
  max: 32_768,
};
const LEVELS = ["MINIMAL", "LOW", "MEDIUM", "HIGH"] as const;
/** And back, for models that are told in levels: up to so many tokens. */
const LOW_BUDGET_TOKENS = 4_096;
const MEDIUM_BUDGET_TOKENS = 16_384;

function thinkingOf(
  wish: ReasoningOptions | undefined,
  thinking: GeminiThinking,
): { readonly field: object; readonly dropped: readonly string[] } {
  const { effort, budgetTokens, isShown } = wish ?? {};
  const isAsked = effort !== undefined || budgetTokens !== undefined;
  const isOff = effort === "none" || (effort === undefined && budgetTokens === 0);
  if (thinking.kind === "none") return { field: {}, dropped: isAsked && !isOff ? ["reasoning"] : [] };
  const shown = isShown === true ? { includeThoughts: true } : {};
  const amount = !isAsked ? {} : thinking.kind === "level" ? levelOf(wish, thinking) : budgetOf(wish, thinking);
  const config = { ...shown, ...amount };
  return { field: Object.keys(config).length === 0 ? {} : { thinkingConfig: config }, dropped: [] };
}

function budgetOf(
  { effort, budgetTokens }: ReasoningOptions = {},
  { min, max, canBeOff }: Extract<GeminiThinking, { kind: "budget" }>,
): object {
  const wanted = effort === "none" ? 0 : (budgetTokens ?? BUDGETS[effort ?? "medium"]);
  if (wanted === 0) return { thinkingBudget: canBeOff ? 0 : min };
  return { thinkingBudget: Math.max(min, Math.min(wanted, max)) };
}

/** The level itself, else the next lower one, which never costs more than was asked for; else the lowest there is. */
function levelOf(
  { effort, budgetTokens = 0 }: ReasoningOptions = {},
  { levels }: Extract<GeminiThinking, { kind: "level" }>,
): object {
  const wanted = effort === undefined ? byBudget(budgetTokens) : byEffort(effort);
  const upTo: readonly ThinkingLevel[] = LEVELS.slice(0, LEVELS.indexOf(wanted) + 1);
  return present("thinkingLevel", upTo.findLast((level) => levels.includes(level)) ?? levels[0]);
}

function byEffort(effort: NonNullable<ReasoningOptions["effort"]>): ThinkingLevel {
  switch (effort) {
    case "none":
    case "minimal":
      return "MINIMAL";
    case "low":
      return "LOW";
    case "medium":
      return "MEDIUM";
    case "high":
    case "xhigh":
    case "max":
      return "HIGH";
  }
}

function byBudget(tokens: number): ThinkingLevel {
  if (tokens === 0) return "MINIMAL";
  if (tokens <= LOW_BUDGET_TOKENS) return "LOW";
  return tokens <= MEDIUM_BUDGET_TOKENS ? "MEDIUM" : "HIGH";
}
