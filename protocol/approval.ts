/** Questions of GhostWarden, and their answers. */
import { z } from "zod";
import { approvalIdSchema, clientIdSchema } from "./ids.ts";

export const approvalOutcomeSchema = z.enum(["allow_once", "reject_once"]);
export type ApprovalOutcome = z.infer<typeof approvalOutcomeSchema>;

export const approvalSchema = z.object({
  id: approvalIdSchema,
  /** Who wants to act. */
  actor: z.string(),
  /** Why, in the actor's words. */
  reason: z.string(),
  /** What is about to happen: one line an effect, `net.http GET https://…`. */
  effects: z.array(z.string()),
  askedAtMs: z.number(),
  /** Unanswered by then counts as no. */
  expiresAtMs: z.number(),
});
export type Approval = z.infer<typeof approvalSchema>;

/** The open questions first, each as `asked`; then every change. */
export const approvalWatchUpdate = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("asked"), approval: approvalSchema }),
  z.object({
    kind: z.literal("settled"),
    id: approvalIdSchema,
    outcome: z.union([approvalOutcomeSchema, z.enum(["expired", "withdrawn"])]),
    by: clientIdSchema.optional(),
  }),
]);
export type ApprovalWatchUpdate = z.infer<typeof approvalWatchUpdate>;

export const approvalRespondParams = z.object({ id: approvalIdSchema, outcome: approvalOutcomeSchema });
/** One compare-and-set: the first answer counts, later ones learn who was first. */
export const approvalRespondResult = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("accepted") }),
  z.object({
    kind: z.literal("alreadyAnswered"),
    by: clientIdSchema,
    atMs: z.number(),
    outcome: approvalOutcomeSchema,
  }),
  z.object({ kind: z.literal("expired") }),
]);
export type ApprovalRespondResult = z.infer<typeof approvalRespondResult>;
