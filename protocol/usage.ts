/** Token counts and money. A count that nobody reported is absent: unknown is not 0. */
import { z } from "zod";

export const usageSchema = z.object({
  promptTokens: z.int().nonnegative().optional(),
  completionTokens: z.int().nonnegative().optional(),
  /** The part of `promptTokens` that came from a cache. */
  cachedTokens: z.int().nonnegative().optional(),
  /** The part of `promptTokens` that was written to a cache, where that costs extra. */
  cacheWriteTokens: z.int().nonnegative().optional(),
  /** The part of `completionTokens` that was thinking. */
  reasoningTokens: z.int().nonnegative().optional(),
  /** What the provider itself says that it costs, in millionths of a US dollar. */
  costUsdMicros: z.number().nonnegative().optional(),
});
export type Usage = z.infer<typeof usageSchema>;

export const usageSummaryParams = z.object({
  /** Only answers that started at or after this time, in milliseconds since the epoch. */
  sinceMs: z.number().nonnegative().default(0),
});
export const usageSummaryResult = z.object({
  models: z.array(
    z.object({
      model: z.string(),
      answers: z.int(),
      interrupted: z.int(),
      /** Sums over the answers that reported them; `answersWithoutUsage` counts the others. */
      promptTokens: z.int(),
      completionTokens: z.int(),
      answersWithoutUsage: z.int(),
    }),
  ),
});
