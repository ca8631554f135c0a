/** The record of every effect: what was asked, decided and done. */
import { z } from "zod";
import { capabilitySchema } from "./policy.ts";

export const ledgerRowSchema = z.object({
  id: z.int(),
  atMs: z.number(),
  actor: z.string(),
  capability: capabilitySchema,
  resource: z.string(),
  decision: z.enum(["allowed", "approved", "denied", "expired", "withdrawn"]),
  /** The rule or the person that decided. */
  decidedBy: z.string(),
  /** `unknown`: the daemon died between decision and outcome, or the effect is still running. */
  outcome: z.enum(["unknown", "done", "failed", "none"]),
  detail: z.string().optional(),
});
export type LedgerRow = z.infer<typeof ledgerRowSchema>;

export const ledgerListParams = z.object({
  limit: z.int().positive().max(1000).default(100),
  beforeId: z.int().optional(),
});
export const ledgerListResult = z.object({ rows: z.array(ledgerRowSchema) });
