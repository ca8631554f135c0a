/** Code completion: text before and after the cursor in, a continuation out. */
import { z } from "zod";
import { answerIdSchema, modelRefSchema } from "./ids.ts";
import { finishReasonSchema } from "./chat.ts";
import { wireErrorSchema } from "./errors.ts";
import { routeDecisionSchema } from "./route.ts";
import { usageSchema } from "./usage.ts";

export const completionParams = z.object({
  prefix: z.string().max(4_000_000),
  /** The text after the cursor; empty continues the prefix without infill. */
  suffix: z.string().max(4_000_000).default(""),
  model: z.string().min(1).max(256).default("ghost/fast"),
  maxTokens: z.int().positive().max(4096).default(32),
  /** The answer ends before the first of these strings. */
  stop: z.array(z.string().min(1).max(64)).max(4).default(["\n"]),
  temperature: z.number().min(0).max(2).default(0),
  /**
   * Where the prefix does not fit: `error` refuses with `context_too_long`; `trim` drops whole lines from the far ends of prefix
   * and suffix until it fits, and reports how many characters were left out.
   */
  overflow: z.enum(["error", "trim"]).default("trim"),
});

export const completionUpdate = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("started"),
    answerId: answerIdSchema,
    model: modelRefSchema,
    decision: routeDecisionSchema,
    note: z.string().optional(),
    trimmedCharacters: z.int().nonnegative(),
  }),
  z.object({ kind: z.literal("text"), text: z.string() }),
  z.object({
    kind: z.literal("finished"),
    reason: finishReasonSchema,
    usage: usageSchema,
    elapsedMs: z.number(),
    firstTokenMs: z.number(),
  }),
  z.object({ kind: z.literal("failed"), error: wireErrorSchema }),
]);
export type CompletionUpdate = z.infer<typeof completionUpdate>;
