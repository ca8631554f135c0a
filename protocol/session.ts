/** Sessions: what was said, by whom, and what became of each answer. */
import { z } from "zod";
import { answerIdSchema, entryIdSchema, modelRefSchema, sessionIdSchema, threadIdSchema } from "./ids.ts";
import { finishReasonSchema } from "./chat.ts";
import { usageSchema } from "./usage.ts";

export const answerStateSchema = z.enum(["streaming", "complete", "failed", "cancelled", "interrupted"]);
/** `interrupted`: the daemon died while it streamed; what had been shown is kept. */
export type AnswerState = z.infer<typeof answerStateSchema>;

export const sessionSummarySchema = z.object({
  id: sessionIdSchema,
  /** The beginning of the first user message. */
  title: z.string(),
  createdAtMs: z.number(),
  updatedAtMs: z.number(),
  threads: z.int(),
  messages: z.int(),
  /** The client that opened it. */
  client: z.string(),
});
export type SessionSummary = z.infer<typeof sessionSummarySchema>;

export const roleSchema = z.enum(["system", "developer", "user", "assistant", "tool"]);
export type Role = z.infer<typeof roleSchema>;

export const sessionEntrySchema = z.object({
  id: entryIdSchema,
  parent: entryIdSchema.nullable(),
  role: roleSchema,
  text: z.string(),
  toolCalls: z.array(z.object({ callId: z.string(), name: z.string(), arguments: z.string() })),
  /** For a tool's result: the call that it answers. */
  toolCallId: z.string().optional(),
  createdAtMs: z.number(),
  answer: z
    .object({
      id: answerIdSchema,
      model: modelRefSchema,
      state: answerStateSchema,
      reason: finishReasonSchema.optional(),
      usage: usageSchema,
      /** Why it failed; a message of the catalogue. */
      error: z.string().optional(),
    })
    .optional(),
});
export type SessionEntry = z.infer<typeof sessionEntrySchema>;

export const sessionListParams = z.object({
  limit: z.int().positive().max(1000).default(50),
  /** `nextCursor` of the page before. */
  cursor: z.string().min(1).max(200).optional(),
});
export const sessionListResult = z.object({
  sessions: z.array(sessionSummarySchema),
  /**
   * Where the next page begins; absent on the last one. It is opaque, and stays valid whatever is stored or deleted meanwhile: a session that changes
   * between two pages moves to the front, and is not met again behind it.
   */
  nextCursor: z.string().optional(),
});

export const sessionGetParams = z.object({ sessionId: sessionIdSchema, threadId: threadIdSchema.optional() });
export const sessionGetResult = z.object({
  session: sessionSummarySchema,
  threads: z.array(z.object({ id: threadIdSchema, head: entryIdSchema, updatedAtMs: z.number() })),
  /** The thread that `entries` shows: the one asked for, else the one changed last. */
  threadId: threadIdSchema,
  /** From the first message to the thread's last one. */
  entries: z.array(sessionEntrySchema),
});
export const sessionDeleteParams = z.object({ sessionId: sessionIdSchema });
export const sessionDeleteResult = z.object({ deletedEntries: z.int() });

export const sessionWatchParams = z.object({
  sessionId: sessionIdSchema,
  /** Only what comes after this revision; 0 or absent: everything. A revision ahead of the store is `stream_position_lost`. */
  afterRevision: z.int().nonnegative().default(0),
});
/** History first, then live. An entry comes again, with a higher revision, whenever it has grown or changed its state. */
export const sessionWatchUpdate = z.object({ revision: z.int().nonnegative(), entry: sessionEntrySchema });
export type SessionWatchUpdate = z.infer<typeof sessionWatchUpdate>;
