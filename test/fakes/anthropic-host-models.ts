/** What each Claude accepts, as the fake of Anthropic's API knows it: the facts behind its rules and its list of models. */

export type Effort = "low" | "medium" | "high" | "xhigh" | "max";
export type ThinkingKind = "adaptive" | "enabled" | "disabled" | "between_tools";

export interface ClaudeFacts {
  readonly line: "haiku" | "sonnet" | "opus" | "fable" | "mythos" | null;
  readonly maxInputTokens: number;
  readonly maxTokens: number;
  readonly thinking: readonly ThinkingKind[];
  /** Whether a request without `thinking` thinks. */
  readonly thinksByDefault: boolean;
  readonly efforts: readonly Effort[];
  /** Whether thinking may be off, or between tools only, above effort `high`. */
  readonly offNeedsHighOrLess: boolean;
  readonly takesSampling: boolean;
  readonly takesForcedTool: boolean;
  readonly takesPrefill: boolean;
  /** `role: "system"` inside `messages`. */
  readonly takesSystemTurns: boolean;
  /** Thinking text is left out unless `display` is `summarized`. */
  readonly omitsThinking: boolean;
  /** Thinking blocks are bound to the conversation before them. */
  readonly bindsThinking: boolean;
}

const UP_TO_MAX = ["low", "medium", "high", "xhigh", "max"] as const;

/** The newest kind: what an unknown model is taken for. */
const newest: ClaudeFacts = {
  line: null,
  maxInputTokens: 1_000_000,
  maxTokens: 128_000,
  thinking: ["adaptive"],
  thinksByDefault: true,
  efforts: UP_TO_MAX,
  offNeedsHighOrLess: true,
  takesSampling: false,
  takesForcedTool: false,
  takesPrefill: false,
  takesSystemTurns: true,
  omitsThinking: true,
  bindsThinking: true,
};
const quiet = { ...newest, thinksByDefault: false, takesForcedTool: true, bindsThinking: false } as const;
/** Opus and Sonnet 4.6: the last that take sampling and a thinking budget. */
const fourSix: ClaudeFacts = {
  ...quiet,
  thinking: ["adaptive", "disabled", "enabled"],
  efforts: ["low", "medium", "high", "max"],
  offNeedsHighOrLess: false,
  takesSampling: true,
  takesSystemTurns: false,
  omitsThinking: false,
};
const fourFive: ClaudeFacts = {
  ...fourSix,
  maxInputTokens: 200_000,
  maxTokens: 64_000,
  thinking: ["enabled", "disabled"],
  efforts: [],
  takesPrefill: true,
};
const opusLate: ClaudeFacts = {
  ...quiet,
  line: "opus",
  thinking: ["adaptive", "disabled"],
  offNeedsHighOrLess: false,
};

/** By the start of the id, the longest first: dated ids share their family's facts. */
const claudes: readonly (readonly [string, ClaudeFacts])[] = [
  ["claude-fable-5-2", { ...newest, line: "fable" }],
  ["claude-mythos-5-2", { ...newest, line: "mythos" }],
  ["claude-fable-5-1", { ...newest, line: "fable" }],
  ["claude-fable-5", { ...newest, line: "fable", takesForcedTool: true, bindsThinking: false }],
  ["claude-opus-5-5", { ...newest, line: "opus" }],
  [
    "claude-opus-5",
    { ...newest, line: "opus", thinking: ["adaptive", "disabled"], takesForcedTool: true, bindsThinking: false },
  ],
  ["claude-opus-4-8", opusLate],
  ["claude-opus-4-7", { ...opusLate, takesSystemTurns: false }],
  ["claude-opus-4-6", { ...fourSix, line: "opus" }],
  ["claude-sonnet-4-6", { ...fourSix, line: "sonnet" }],
  ["claude-sonnet-5-5", { ...newest, line: "sonnet", thinking: ["adaptive", "between_tools"] }],
  [
    "claude-sonnet-5",
    {
      ...newest,
      line: "sonnet",
      thinking: ["adaptive", "disabled"],
      offNeedsHighOrLess: false,
      takesForcedTool: true,
      takesSystemTurns: false,
      bindsThinking: false,
    },
  ],
  ["claude-haiku-5-5", { ...newest, line: "haiku", thinking: ["adaptive", "disabled"], takesForcedTool: true }],
  ["claude-haiku-4-5", { ...fourFive, line: "haiku" }],
  ["claude-opus-4-5", { ...fourFive, line: "opus", efforts: ["low", "medium", "high"] }],
  ["claude-sonnet-4-5", { ...fourFive, line: "sonnet" }],
];

export function factsOf(model: string): ClaudeFacts {
  return claudes.find(([start]) => model.startsWith(start))?.[1] ?? newest;
}

/** One entry of `GET /v1/models`. */
export function modelInfo(id: string): object {
  const facts = factsOf(id);
  const can = (supported: boolean) => ({ supported });
  const takesEffort = (effort: Effort) => can(facts.efforts.includes(effort));
  const takesThinking = (kind: ThinkingKind) => can(facts.thinking.includes(kind));
  return {
    type: "model",
    id,
    display_name: id
      .split("-")
      .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
      .join(" "),
    created_at: "2026-06-01T00:00:00Z",
    lifecycle: "active",
    deprecated_at: null,
    retires_at: null,
    line: facts.line,
    max_input_tokens: facts.maxInputTokens,
    max_tokens: facts.maxTokens,
    capabilities: {
      batch: can(true),
      citations: can(true),
      code_execution: can(true),
      context_management: {
        supported: true,
        clear_thinking_20251015: can(true),
        clear_tool_uses_20250919: can(true),
        compact_20260112: null,
      },
      effort: {
        supported: facts.efforts.length > 0,
        low: takesEffort("low"),
        medium: takesEffort("medium"),
        high: takesEffort("high"),
        max: takesEffort("max"),
        xhigh: facts.efforts.includes("xhigh") ? can(true) : null,
      },
      image_input: can(true),
      pdf_input: can(true),
      server_tools: { supported: true, code_execution: can(true), web_search: can(true) },
      structured_outputs: can(true),
      thinking: {
        supported: true,
        types: {
          adaptive: takesThinking("adaptive"),
          enabled: takesThinking("enabled"),
          disabled: takesThinking("disabled"),
          between_tools: takesThinking("between_tools"),
        },
      },
    },
  };
}
