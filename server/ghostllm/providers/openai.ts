/** OpenAI's own API. Its list of models says only their names: what each takes follows from its family. */
import { z } from "zod";
import type { ReasoningEffort } from "../stream.ts";
import type { RelayingProvider } from "./compatible.ts";
import type { ResponsesFamily } from "./responses-family.ts";
import {
  createResponsesProvider,
  type ListedModel,
  type ResponsesFlavour,
  type ResponsesOptions,
} from "./responses-upstream.ts";

export function createOpenAiProvider(options: Omit<ResponsesOptions, "flavour">): RelayingProvider {
  return createResponsesProvider({ ...options, flavour: OPENAI });
}

/** Fields of OpenAI's dialects that OpenAI and Azure take in Responses, too. */
export const OPENAI_EXTRAS: ReadonlySet<string> = new Set([
  "metadata",
  "user",
  "safety_identifier",
  "service_tier",
  "verbosity",
  "text.verbosity",
  "truncation",
  "max_tool_calls",
]);

const OPENAI: ResponsesFlavour = {
  id: "openai",
  keyVariables: ["OPENAI_API_KEY"],
  authorization: (key) => ({ authorization: `Bearer ${key}` }),
  familyOf: openAiFamily,
  list: { path: "models", read: readModels },
  relay: { takesChat: true, takesAllTools: true, isReference: true },
  extras: OPENAI_EXTRAS,
  isPadding: true,
  countsTokens: true,
  continuation: "anchored",
};

/** Models for pictures, sound, moderation and search, and those that only complete text: neither chats nor embeddings. */
const OTHER_KINDS =
  /whisper|tts|dall-e|image|realtime|audio|moderation|sora|transcribe|search|babbage|davinci|instruct|deep-research|computer-use/;

const modelList = z.looseObject({ data: z.array(z.looseObject({ id: z.string().min(1).max(200) })) });

function readModels(json: unknown): readonly ListedModel[] | undefined {
  const parsed = modelList.safeParse(json);
  if (!parsed.success) return undefined;
  return parsed.data.data.filter(({ id }) => !OTHER_KINDS.test(id)).map(({ id }) => ({ name: id }));
}

const reasoning = (...efforts: readonly ReasoningEffort[]): ResponsesFamily => ({
  kind: "chat",
  efforts,
  isReasoning: true,
  // Only a model that can do without reasoning takes a temperature then.
  sampling: efforts[0] === "none" ? "without-reasoning" : "never",
  customTools: true,
  instructionRole: "developer",
  chat: "all",
  vision: true,
});

/** What answers without reasoning; also what is deployed on Azure and not OpenAI's. */
export const PLAIN_FAMILY: ResponsesFamily = {
  ...reasoning(),
  isReasoning: false,
  sampling: "always",
  customTools: false,
  instructionRole: "system",
};
const EMBEDDING: ResponsesFamily = { ...PLAIN_FAMILY, kind: "embedding", vision: false };

const MILLION = { contextWindow: 1_050_000, maxOutputTokens: 128_000 };
const SMALLER = { contextWindow: 400_000, maxOutputTokens: 128_000 };
const O_SERIES = { contextWindow: 200_000, maxOutputTokens: 100_000 };
const RESPONSES_ONLY = { chat: "none", sampling: "never" } as const;

const toMax = reasoning("none", "low", "medium", "high", "xhigh", "max");
const toXhigh = reasoning("none", "low", "medium", "high", "xhigh");
/** What a name that no row knows is taken for. */
const NEWEST: ResponsesFamily = { ...toMax, sampling: "never", chat: "without-tools" };
const ALWAYS_THINKS: ResponsesFamily = {
  ...NEWEST,
  ...MILLION,
  efforts: ["low", "medium", "high", "xhigh", "max"],
};

/** By the name; the first that fits. */
const FAMILIES: readonly (readonly [RegExp, ResponsesFamily])[] = [
  [/embedding/, EMBEDDING],
  [/^gpt-5-pro/, { ...reasoning("high"), ...RESPONSES_ONLY, ...SMALLER }],
  [/^o\d+-pro/, { ...reasoning("low", "medium", "high"), ...RESPONSES_ONLY, ...O_SERIES, customTools: false }],
  [/^gpt-.*-pro/, { ...reasoning("medium", "high", "xhigh"), ...RESPONSES_ONLY }],
  [/^gpt-5(\.1)?-codex(?!-max)/, { ...reasoning("low", "medium", "high"), ...RESPONSES_ONLY, ...SMALLER }],
  [/codex/, { ...reasoning("low", "medium", "high", "xhigh"), ...RESPONSES_ONLY }],
  [/^gpt-5[\d.]*-chat/, { ...PLAIN_FAMILY, instructionRole: "developer", contextWindow: 128_000 }],
  [/^gpt-6-astra|^gpt-6\.1-sol/, ALWAYS_THINKS],
  [/^gpt-6/, { ...NEWEST, ...MILLION }],
  [/^gpt-5\.6/, { ...toMax, ...MILLION, chat: "without-tools" }],
  [/^gpt-5\.4-(mini|nano)/, { ...toXhigh, ...SMALLER }],
  [/^gpt-5\.[45]/, { ...toXhigh, ...MILLION }],
  [/^gpt-5\.[23]/, { ...toXhigh, ...SMALLER }],
  [/^gpt-5\.1/, { ...reasoning("none", "low", "medium", "high"), ...SMALLER }],
  [/^gpt-5(-|$)/, { ...reasoning("minimal", "low", "medium", "high"), ...SMALLER }],
  [/^o\d/, { ...reasoning("low", "medium", "high"), ...O_SERIES, customTools: false }],
  [/^gpt-4\.1/, { ...PLAIN_FAMILY, contextWindow: 1_047_576, maxOutputTokens: 32_768 }],
  [/^(chat)?gpt-4o/, { ...PLAIN_FAMILY, contextWindow: 128_000, maxOutputTokens: 16_384 }],
  [/^gpt-[34]/, PLAIN_FAMILY],
];

/** A fine-tuned model is named `ft:BASE:…`. */
export function openAiFamily(name: string): ResponsesFamily {
  const base = name.replace(/^ft:/, "");
  return FAMILIES.find(([pattern]) => pattern.test(base))?.[1] ?? NEWEST;
}
