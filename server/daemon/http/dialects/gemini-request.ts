/**
 * Requests of Gemini's `generateContent`, checked and made canonical. Pure, so that a worker can do it for large bodies.
 * Format: https://ai.google.dev/api/generate-content. The model and whether to stream stand in the address, not here. A field of the wrong kind is refused
 * with its path; fields without a canonical form are kept as extras, and Gemini gets the body as it came.
 */
import { z } from "zod";
import { present } from "../../../base/optional.ts";
import { isRecord } from "../../../ghostllm/frames/json.ts";
import { OPAQUE_MARK } from "../../../ghostllm/frames/opaque.ts";
import type { ReasoningEffort, ReasoningOptions, Sampling, TextFormat } from "../../../ghostllm/stream.ts";
import { type ChatFacts, checkBody, extrasOf, MAX_TOOLS, type ParsedChat } from "./chat-facts.ts";
import { answerSchema, protoMessage, readTools, toolConfigSchema, toolSchema } from "./gemini-tools.ts";
import { contentSchema, survey, toMessages } from "./gemini-turns.ts";

/** Gemini takes five; a few more are cut here. */
const MAX_STOPS = 64;

const thinkingShape = {
  includeThoughts: z.boolean().nullish(),
  /** 0 is none, -1 as the model likes. */
  thinkingBudget: z.int().min(-1).nullish(),
  thinkingLevel: z.enum(["THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH"]).nullish(),
};
const configShape = {
  temperature: z.number().min(0).max(2).nullish(),
  topP: z.number().min(0).max(1).nullish(),
  topK: z.number().min(0).nullish(),
  seed: z.int().nullish(),
  frequencyPenalty: z.number().min(-2).max(2).nullish(),
  presencePenalty: z.number().min(-2).max(2).nullish(),
  maxOutputTokens: z.int().nonnegative().nullish(),
  stopSequences: z.array(z.string()).max(MAX_STOPS).nullish(),
  candidateCount: z.int().min(1).max(8).nullish(),
  responseMimeType: z.string().nullish(),
  responseSchema: z.unknown().optional(),
  responseJsonSchema: z.unknown().optional(),
  /** The same under its older name. */
  _responseJsonSchema: z.unknown().optional(),
  responseModalities: z.array(z.string()).nullish(),
  responseLogprobs: z.boolean().nullish(),
  thinkingConfig: z.preprocess(upperLevel, protoMessage(thinkingShape)).nullish(),
};
const requestShape = {
  contents: z.array(contentSchema).min(1),
  systemInstruction: contentSchema.nullish(),
  generationConfig: protoMessage(configShape).nullish(),
  tools: z.array(toolSchema).max(MAX_TOOLS).nullish(),
  toolConfig: toolConfigSchema.nullish(),
  /** Says what the address says. */
  model: z.string().nullish(),
};
const requestSchema = protoMessage(requestShape);
/** For `countTokens` the request itself may stand inside. */
const bodySchema = z.preprocess((value) => {
  if (!isRecord(value)) return value;
  return value["generateContentRequest"] ?? value["generate_content_request"] ?? value;
}, requestSchema);
type Config = NonNullable<z.infer<typeof requestSchema>["generationConfig"]>;
const CONFIG_FIELDS: ReadonlySet<string> = new Set(Object.keys(configShape));
const REQUEST_FIELDS: ReadonlySet<string> = new Set(Object.keys(requestShape));

/** Google's clients write levels in both cases. */
function upperLevel(value: unknown): unknown {
  if (!isRecord(value)) return value;
  const entries = Object.entries(value).map(
    ([key, member]) =>
      [key, /level$/i.test(key) && typeof member === "string" ? member.toUpperCase() : member] as const,
  );
  return Object.fromEntries(entries);
}

/** What the writer of an answer needs to know. */
export interface GeminiOwn {
  readonly showsThoughts: boolean;
  /** The body names its model, too. */
  readonly namesModel: boolean;
}

/** The members that are set in a body before it is relayed; see `setMembers`. */
export const GEMINI_MEMBERS: readonly string[] = ["model"];

/** `model` is empty and `stream` false: the address says both. @throws UserError `invalid_json` | `invalid_params` */
export function parseGemini(body: Buffer): ParsedChat<GeminiOwn> {
  const request = checkBody(bodySchema, body);
  const { contents, systemInstruction: system, generationConfig } = request;
  const config = generationConfig ?? {};
  const { hasImages, hasFiles, extras } = survey(system ? [system, ...contents] : contents);
  const { tools, choice, extras: toolExtras } = readTools(request.tools ?? [], request.toolConfig);
  const { stopSequences, maxOutputTokens, thinkingConfig } = config;
  const facts: ChatFacts<GeminiOwn> = {
    model: "",
    stream: false,
    output: {
      // 0 is how Google's JSON says nothing.
      ...present("maxTokens", maxOutputTokens === 0 ? undefined : maxOutputTokens),
      stop: stopSequences ?? [],
      format: formatOf(config),
    },
    sampling: samplingOf(config),
    tools,
    toolChoice: choice,
    ...present("reasoning", reasoningOf(thinkingConfig)),
    hasImages,
    hasFiles,
    extras: { ...configExtras(config), ...toolExtras, ...extras, ...requestExtras(request) },
    isForeign: contents.some(({ parts }) => (parts ?? []).some(holdsSealOfOurs)),
    own: { showsThoughts: thinkingConfig?.includeThoughts === true, namesModel: isSet(request.model) },
  };
  return { facts, messages: () => toMessages(system, contents) };
}

const holdsSealOfOurs = ({ thoughtSignature }: { readonly thoughtSignature?: string | null | undefined }) =>
  thoughtSignature?.startsWith(OPAQUE_MARK) === true;

const isSet = (value: unknown) => value !== null && value !== undefined;

function samplingOf({ temperature, topP, topK, seed, frequencyPenalty, presencePenalty }: Config): Sampling {
  return {
    ...present("temperature", temperature),
    ...present("topP", topP),
    ...present("topK", topK === 0 || !isSet(topK) ? undefined : Math.max(1, Math.round(topK ?? 0))),
    ...present("seed", seed),
    ...present("frequencyPenalty", frequencyPenalty),
    ...present("presencePenalty", presencePenalty),
  };
}

const JSON_TYPE = "application/json";

function formatOf(config: Config): TextFormat {
  if (config.responseMimeType !== JSON_TYPE) return { kind: "text" };
  const schema = answerSchema(config.responseSchema, config.responseJsonSchema ?? config._responseJsonSchema);
  return schema === undefined ? { kind: "json" } : { kind: "schema", name: "answer", schema };
}

const EFFORTS: Readonly<Record<string, ReasoningEffort>> = {
  MINIMAL: "minimal",
  LOW: "low",
  MEDIUM: "medium",
  HIGH: "high",
};

function reasoningOf(thinking: Config["thinkingConfig"]): ReasoningOptions | undefined {
  if (thinking === null || thinking === undefined) return undefined;
  const { thinkingBudget: budget, thinkingLevel: level, includeThoughts } = thinking;
  const effort = budget === 0 ? "none" : EFFORTS[level ?? ""];
  return {
    ...present("effort", effort),
    ...(effort === undefined && isSet(budget) && (budget ?? 0) > 0 ? present("budgetTokens", budget) : {}),
    ...present("isShown", includeThoughts),
  };
}

/** By names of their own: what changes the answer's meaning is refused by them (`carriage.ts`). */
function configExtras(config: Config): Readonly<Record<string, unknown>> {
  const { candidateCount, responseModalities, responseLogprobs, responseMimeType } = config;
  const isTextOnly = (responseModalities ?? []).every((name) => name.toUpperCase() === "TEXT");
  const isOrdinary = ["", "text/plain", JSON_TYPE].includes(responseMimeType ?? "");
  const { logprobs, ...more } = extrasOf(config, CONFIG_FIELDS);
  return {
    ...Object.fromEntries(Object.entries(more).map(([key, value]) => [`generationConfig.${key}`, value])),
    ...(isSet(candidateCount) && candidateCount !== 1 ? { candidateCount } : {}),
    ...(isTextOnly ? {} : { responseModalities }),
    ...(isOrdinary ? {} : { responseMimeType }),
    ...(responseLogprobs === true ? { responseLogprobs } : {}),
    ...(isSet(logprobs) ? { logprobs } : {}),
  };
}

function requestExtras(request: z.infer<typeof requestSchema>): Readonly<Record<string, unknown>> {
  const { safetySettings, ...more } = extrasOf(request, REQUEST_FIELDS);
  const isNone = Array.isArray(safetySettings) && safetySettings.length === 0;
  return { ...more, ...(isNone ? {} : present("safetySettings", safetySettings)) };
}
