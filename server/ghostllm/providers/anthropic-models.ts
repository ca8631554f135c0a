/**
 * What each family of Claude takes (https://platform.claude.com/docs/en/about-claude/models), and what Anthropic's own list says of a model. Pure.
 * 1. The list is right where it speaks: thinking, effort, images, schemas, limits. The families below say the rest, and everything where it is silent.
 * 2. A name that no family fits is taken for one of the newest: they take the least, so that what is sent to them is taken by all.
 */
import { z } from "zod";
import { modelRefSchema } from "../../../protocol/ids.ts";
import type { Locality, ModelInfo } from "../../../protocol/model.ts";
import { present } from "../../base/optional.ts";
import type { ReasoningEffort } from "../stream.ts";

export type ThinkingKind = "adaptive" | "enabled" | "disabled" | "between_tools";
export type ClaudeEffort = Exclude<ReasoningEffort, "none" | "minimal">;

export interface ClaudeFacts {
  readonly contextWindow: number;
  /** More than this in `max_tokens` is refused. */
  readonly maxOutputTokens: number;
  readonly thinking: readonly ThinkingKind[];
  /** Thinks when a request does not say. */
  readonly thinksByDefault: boolean;
  /** The text of thinking is left out unless it is asked for. */
  readonly omitsThinking: boolean;
  /** From low to high; none: the field is refused. */
  readonly efforts: readonly ClaudeEffort[];
  /** A temperature, `top_p` or `top_k`, by the API version of 2023. */
  readonly takesSampling: boolean;
  /** `tool_choice` `any` and `tool`. */
  readonly takesForcedChoice: boolean;
  /** Goes on from its own last words. */
  readonly takesPrefill: boolean;
  /** `role: "system"` among the messages, behind a user's. */
  readonly takesSystemTurns: boolean;
  /** `output_config.format`. */
  readonly takesSchemas: boolean;
  readonly takesImages: boolean;
}

const UP_TO_MAX = ["low", "medium", "high", "xhigh", "max"] as const;

const NEWEST: ClaudeFacts = {
  contextWindow: 1_000_000,
  maxOutputTokens: 128_000,
  thinking: ["adaptive"],
  thinksByDefault: true,
  omitsThinking: true,
  efforts: UP_TO_MAX,
  takesSampling: false,
  takesForcedChoice: false,
  takesPrefill: false,
  takesSystemTurns: true,
  takesSchemas: true,
  takesImages: true,
};
/** Thinks unless it is told not to, and lets itself be made to call a tool. */
const OBEDIENT: ClaudeFacts = { ...NEWEST, thinking: ["adaptive", "disabled"], takesForcedChoice: true };
const LATE_FOUR: ClaudeFacts = { ...OBEDIENT, thinksByDefault: false };
const FOUR_SIX: ClaudeFacts = {
  ...LATE_FOUR,
  thinking: ["adaptive", "enabled", "disabled"],
  omitsThinking: false,
  efforts: ["low", "medium", "high", "max"],
  takesSampling: true,
  takesSystemTurns: false,
};
const FOUR_FIVE: ClaudeFacts = {
  ...FOUR_SIX,
  contextWindow: 200_000,
  maxOutputTokens: 64_000,
  thinking: ["enabled", "disabled"],
  efforts: [],
  takesPrefill: true,
};
const EARLY_FOUR: ClaudeFacts = { ...FOUR_FIVE, maxOutputTokens: 32_000, takesSchemas: false };
const THREE: ClaudeFacts = { ...EARLY_FOUR, maxOutputTokens: 4_096, thinking: ["disabled"] };

/** The end of a version: `-5` but neither `-5-1` nor `-5-20`; a date of eight digits may follow. */
const families: readonly (readonly [name: RegExp, facts: ClaudeFacts])[] = [
  [/^claude-(?:fable|mythos)-5(?!-\d{1,2}\b)/, { ...NEWEST, takesForcedChoice: true }],
  [/^claude-opus-5(?!-\d{1,2}\b)/, OBEDIENT],
  [/^claude-sonnet-5(?!-\d{1,2}\b)/, { ...OBEDIENT, takesSystemTurns: false }],
  [/^claude-sonnet-5-\d{1,2}\b/, { ...NEWEST, thinking: ["adaptive", "between_tools"] }],
  [/^claude-haiku-5/, OBEDIENT],
  [/^claude-opus-4-8\b/, LATE_FOUR],
  [/^claude-opus-4-7\b/, { ...LATE_FOUR, takesSystemTurns: false }],
  [/^claude-[a-z]+-4-6\b/, FOUR_SIX],
  [/^claude-opus-4-5\b/, { ...FOUR_FIVE, efforts: ["low", "medium", "high"] }],
  [/^claude-[a-z]+-4-5\b/, FOUR_FIVE],
  [/^claude-(?:[a-z]+-4\b|3-7\b)/, EARLY_FOUR],
  [/^claude-(?:[123]\b|instant\b)/, THREE],
];

export function familyOf(name: string): ClaudeFacts {
  return families.find(([pattern]) => pattern.test(name))?.[1] ?? NEWEST;
}

const can = z.looseObject({ supported: z.boolean() }).nullish().catch(undefined);
const tokens = z.int().positive().nullish().catch(undefined);
const listedModel = z.looseObject({
  id: z.string().min(1).max(200),
  lifecycle: z.string().nullish().catch(undefined),
  retires_at: z.string().nullish().catch(undefined),
  max_input_tokens: tokens,
  max_tokens: tokens,
  capabilities: z
    .looseObject({
      image_input: can,
      structured_outputs: can,
      effort: z
        .looseObject({ supported: z.boolean(), low: can, medium: can, high: can, xhigh: can, max: can })
        .nullish()
        .catch(undefined),
      thinking: z
        .looseObject({
          supported: z.boolean(),
          types: z
            .looseObject({ adaptive: can, enabled: can, disabled: can, between_tools: can })
            .nullish()
            .catch(undefined),
        })
        .nullish()
        .catch(undefined),
    })
    .nullish()
    .catch(undefined),
});
export const modelPage = z.looseObject({
  data: z.array(listedModel),
  has_more: z.boolean().nullish().catch(undefined),
  last_id: z.string().nullish().catch(undefined),
});
export type ListedModel = z.infer<typeof listedModel>;

/** What the list says, on top of what the family is known for (1). */
export function factsOf(model: ListedModel): ClaudeFacts {
  const family = familyOf(model.id);
  const capabilities = model.capabilities ?? {};
  return {
    ...family,
    contextWindow: model.max_input_tokens ?? family.contextWindow,
    maxOutputTokens: model.max_tokens ?? family.maxOutputTokens,
    thinking: thinkingOf(capabilities.thinking, family),
    efforts: effortsOf(capabilities.effort, family),
    takesSchemas: capabilities.structured_outputs?.supported ?? family.takesSchemas,
    takesImages: capabilities.image_input?.supported ?? family.takesImages,
  };
}

/** One that is retired is listed for the record only. */
export const isUsable = ({ lifecycle }: ListedModel) => lifecycle !== "retired";

export function describeClaude(
  listed: ListedModel,
  { provider, locality }: { readonly provider: string; readonly locality: Locality },
): ModelInfo {
  const facts = factsOf(listed);
  const { id, lifecycle, retires_at: retires } = listed;
  const until = retires === null || retires === undefined ? "" : ` on ${retires.slice(0, 10)}`;
  return {
    ref: modelRefSchema.parse(`${provider}/${id}`),
    provider,
    name: id,
    locality,
    capabilities: {
      chat: true,
      complete: false,
      fim: false,
      embeddings: false,
      tools: true,
      vision: facts.takesImages,
      jsonSchema: facts.takesSchemas || facts.takesForcedChoice,
      reasoning: facts.thinking.some((kind) => kind !== "disabled"),
    },
    contextWindow: facts.contextWindow,
    maxOutputTokens: facts.maxOutputTokens,
    continuation: facts.takesPrefill ? "native" : "anchored",
    ...present("note", lifecycle === "deprecated" ? `Anthropic retires this model${until}.` : undefined),
  };
}

type Capabilities = NonNullable<ListedModel["capabilities"]>;

function thinkingOf(listed: Capabilities["thinking"], family: ClaudeFacts): readonly ThinkingKind[] {
  if (listed?.supported === false) return [];
  const { types } = listed ?? {};
  if (types === null || types === undefined) return family.thinking;
  const kinds = ["adaptive", "enabled", "disabled", "between_tools"] as const;
  return kinds.filter((kind) => types[kind]?.supported === true);
}

function effortsOf(listed: Capabilities["effort"], family: ClaudeFacts): readonly ClaudeEffort[] {
  if (listed === null || listed === undefined) return family.efforts;
  return listed.supported ? UP_TO_MAX.filter((effort) => listed[effort]?.supported === true) : [];
}
