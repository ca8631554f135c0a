/**
 * What each family of Gemini takes (https://ai.google.dev/gemini-api/docs/thinking), and what Google's own list says of a model. Pure.
 * A name that no family fits is taken for one of the newest, by the smallest set of what they take.
 */
import { z } from "zod";

export type ThinkingLevel = "MINIMAL" | "LOW" | "MEDIUM" | "HIGH";

/** How a model is told how much to think. */
export type GeminiThinking =
  | { readonly kind: "none" }
  /** In tokens; 0, where it may be off. */
  | { readonly kind: "budget"; readonly min: number; readonly max: number; readonly canBeOff: boolean }
  /** From low to high; it cannot be off. */
  | { readonly kind: "level"; readonly levels: readonly ThinkingLevel[] };

export interface GeminiFacts {
  readonly thinking: GeminiThinking;
  /** Calls are signed, and a call without a signature is refused in the current turn. */
  readonly signsCalls: boolean;
  /** A long answer goes on in another request, so that the limit of one is not the answer's. */
  readonly continues: boolean;
  /** An answer may be held to JSON while there are tools. */
  readonly takesFormatWithTools: boolean;
  /** Pictures stand inside a function's response. */
  readonly takesResultImages: boolean;
  readonly takesSystem: boolean;
  readonly takesTools: boolean;
}

const NEWEST: GeminiFacts = {
  thinking: { kind: "level", levels: ["LOW", "MEDIUM", "HIGH"] },
  signsCalls: true,
  continues: true,
  takesFormatWithTools: true,
  takesResultImages: true,
  takesSystem: true,
  takesTools: true,
};
const THREE: GeminiFacts = { ...NEWEST, continues: false };
const TWO_FIVE: GeminiFacts = {
  ...THREE,
  thinking: { kind: "budget", min: 1, max: 24_576, canBeOff: true },
  signsCalls: false,
  takesFormatWithTools: false,
  takesResultImages: false,
};
const TWO: GeminiFacts = { ...TWO_FIVE, thinking: { kind: "none" } };

/** By the name; the first that fits. */
const FAMILIES: readonly (readonly [name: RegExp, facts: GeminiFacts])[] = [
  [/^gemini-2\.5-pro/, { ...TWO_FIVE, thinking: { kind: "budget", min: 128, max: 32_768, canBeOff: false } }],
  [/^gemini-2\.5-flash-lite/, { ...TWO_FIVE, thinking: { kind: "budget", min: 512, max: 24_576, canBeOff: true } }],
  [/^gemini-2\.5/, TWO_FIVE],
  [/^gemini-[12]\b/, TWO],
  [/^gemini-3-pro/, { ...THREE, thinking: { kind: "level", levels: ["LOW", "HIGH"] } }],
  [/^gemini-3\.(?:1-pro|[78])/, THREE],
  [/^gemini-3/, { ...THREE, thinking: { kind: "level", levels: ["MINIMAL", "LOW", "MEDIUM", "HIGH"] } }],
  [/^gemma/, { ...TWO, takesSystem: false, takesTools: false }],
];

export function familyOf(name: string): GeminiFacts {
  return FAMILIES.find(([pattern]) => pattern.test(name))?.[1] ?? NEWEST;
}

const tokens = z.int().positive().nullish().catch(undefined);
const listedModel = z.looseObject({
  /** `models/gemini-…` */
  name: z.string().min(1).max(200),
  inputTokenLimit: tokens,
  outputTokenLimit: tokens,
  supportedGenerationMethods: z.array(z.string()).nullish().catch(undefined),
});
export const modelPage = z.looseObject({
  models: z.array(listedModel).default([]),
  nextPageToken: z.string().nullish().catch(undefined),
});

export interface ListedModel {
  readonly name: string;
  readonly kind: "chat" | "embedding";
  readonly contextWindow: number | undefined;
  readonly maxOutputTokens: number | undefined;
}

/** Models that chat by the same method, and make pictures, sound or moves: what they answer is no text. */
const OTHER_KINDS = /image|imagen|tts|audio|live|veo|lyria|robotics|computer-use|deep-research|\baqa\b/;

/** The model as it is asked for; none for what is neither a chat nor an embedding model. */
export function toListed(model: z.infer<typeof listedModel>): readonly ListedModel[] {
  const name = model.name.replace(/^models\//, "");
  const methods = model.supportedGenerationMethods ?? ["generateContent"];
  const isChat = methods.includes("generateContent") && !OTHER_KINDS.test(name);
  const isEmbedding = methods.includes("embedContent") || methods.includes("batchEmbedContents");
  if (name.includes("/") || (!isChat && !isEmbedding)) return [];
  const contextWindow = model.inputTokenLimit ?? undefined;
  const maxOutputTokens = model.outputTokenLimit ?? undefined;
  return [{ name, kind: isChat ? "chat" : "embedding", contextWindow, maxOutputTokens }];
}
