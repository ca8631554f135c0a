/** Which model answers, and why. */
import { z } from "zod";
import { modelRefSchema } from "./ids.ts";
import { localitySchema } from "./model.ts";

export const routeTaskSchema = z.enum(["chat", "completion", "embedding"]);
export type RouteTask = z.infer<typeof routeTaskSchema>;

export const routeCandidateSchema = z.object({
  model: modelRefSchema,
  locality: localitySchema,
  /** The parts of its score, larger is better; empty for a rejected one. */
  score: z.record(z.string(), z.number()),
  rejectedBecause: z.string().optional(),
});

export const routeDecisionSchema = z.object({
  /** What was asked for: an explicit model, a virtual one, or an alias. */
  target: z.string(),
  task: routeTaskSchema,
  /** Tried in this order until one sends its first content. */
  plan: z.array(modelRefSchema),
  candidates: z.array(routeCandidateSchema),
  reason: z.string(),
});
export type RouteDecision = z.infer<typeof routeDecisionSchema>;
export type RouteCandidate = z.infer<typeof routeCandidateSchema>;

export const routeExplainParams = z.object({
  model: z.string().min(1).max(256),
  task: routeTaskSchema.default("chat"),
});
