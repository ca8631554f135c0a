/** What a family of models takes when it is asked by OpenAI's Responses. Each provider's file has the table of its own families. Pure. */
import type { ReasoningEffort, ReasoningOptions } from "../stream.ts";

export interface ResponsesFamily {
  readonly kind: "chat" | "embedding";
  /** The levels that `reasoning.effort` may have, the lowest first; none where the family does not know the field. */
  readonly efforts: readonly ReasoningEffort[];
  /** Gives its reasoning back encrypted, and wants it again. */
  readonly isReasoning: boolean;
  /** When `temperature` and `top_p` are taken. */
  readonly sampling: "always" | "without-reasoning" | "never";
  /** Tools that take free text. */
  readonly customTools: boolean;
  /** The role of instructions. */
  readonly instructionRole: "developer" | "system";
  /** Which chat requests /chat/completions takes, so that they are relayed there as they came. */
  readonly chat: "all" | "without-tools" | "none";
  readonly vision: boolean;
  readonly contextWindow?: number;
  readonly maxOutputTokens?: number;
}

/** From the lowest to the highest. */
const LEVELS: readonly ReasoningEffort[] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/** Budgets of Anthropic's older form, in tokens, and the level that thinks about as long. */
const LOW_BUDGET = 4_096;
const MEDIUM_BUDGET = 16_384;

/** The level to ask for; undefined where none was wished, or the family takes none. */
export function effortFor(
  reasoning: ReasoningOptions | undefined,
  { efforts }: Pick<ResponsesFamily, "efforts">,
): ReasoningEffort | undefined {
  const wish = reasoning?.effort ?? levelOf(reasoning?.budgetTokens);
  return wish === undefined ? undefined : nearestLevel(wish, efforts);
}

function levelOf(budgetTokens: number | undefined): ReasoningEffort | undefined {
  if (budgetTokens === undefined) return undefined;
  if (budgetTokens <= 0) return "none";
  return budgetTokens < LOW_BUDGET ? "low" : budgetTokens < MEDIUM_BUDGET ? "medium" : "high";
}

/** Of two that are as near, the higher: who asks for thinking gets some. */
function nearestLevel(wish: ReasoningEffort, efforts: readonly ReasoningEffort[]): ReasoningEffort | undefined {
  const at = LEVELS.indexOf(wish);
  const distance = (level: ReasoningEffort) => Math.abs(LEVELS.indexOf(level) - at);
  return efforts.reduce<ReasoningEffort | undefined>(
    (best, level) => (best === undefined || distance(level) <= distance(best) ? level : best),
    undefined,
  );
}
