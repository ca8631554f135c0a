/** Conversation through the daemon: one prompt in, a stream of updates out. */
import { z } from "zod";
import { wireErrorSchema } from "./errors.ts";
import { answerIdSchema, modelRefSchema, sessionIdSchema } from "./ids.ts";
import { routeDecisionSchema } from "./route.ts";
import { usageSchema } from "./usage.ts";

export const chatSendParams = z.object({
  /** Continue this session; absent: a new one. */
  sessionId: sessionIdSchema.optional(),
  /** The user's words. */
  text: z.string().min(1).max(4_000_000),
  /** An explicit model, a virtual one (`ghost/auto`) or an alias. */
  model: z.string().min(1).max(256).default("ghost/auto"),
  system: z.string().max(1_000_000).optional(),
  maxTokens: z.int().positive().max(1_000_000).optional(),
  temperature: z.number().min(0).max(2).optional(),
});

export const finishReasonSchema = z.enum(["stop", "length", "toolCalls", "contentFilter", "unknown"]);
/** Why a model stopped by itself. */
export type FinishReason = z.infer<typeof finishReasonSchema>;

export const chatUpdate = z.discriminatedUnion("kind", [
  /** First: who will answer, and why. */
  z.object({
    kind: z.literal("started"),
    sessionId: sessionIdSchema,
    answerId: answerIdSchema,
    model: modelRefSchema,
    decision: routeDecisionSchema,
    /** Something the user must know about this model. */
    note: z.string().optional(),
  }),
  z.object({ kind: z.literal("text"), text: z.string() }),
  z.object({ kind: z.literal("reasoning"), text: z.string() }),
  z.object({
    kind: z.literal("toolCall"),
    callId: z.string(),
    name: z.string(),
    /** The arguments as the model wrote them: JSON text. */
    arguments: z.string(),
  }),
  /** Last, of an answer that came to its end. What it says is stored durably. */
  z.object({
    kind: z.literal("finished"),
    reason: finishReasonSchema,
    usage: usageSchema,
    elapsedMs: z.number(),
    firstTokenMs: z.number(),
  }),
  /** Last, of an answer that broke off; what arrived before is kept. */
  z.object({ kind: z.literal("failed"), error: wireErrorSchema }),
]);
export type ChatUpdate = z.infer<typeof chatUpdate>;
