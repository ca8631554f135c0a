/** The identifiers that cross the wire. Each is a branded string; the schemas are the only makers outside the server. */
import { z } from "zod";

const id = (prefix: string) => z.string().regex(new RegExp(`^${prefix}_[0-9A-Za-z]{1,64}$`));

export const userIdSchema = z.string().min(1).max(64).brand("UserId");
/** Whose data this is; `local` until accounts exist. */
export type UserId = z.infer<typeof userIdSchema>;

export const clientIdSchema = z.string().min(1).max(128).brand("ClientId");
/** One attached face or one HTTP client. */
export type ClientId = z.infer<typeof clientIdSchema>;

export const sessionIdSchema = id("ses").brand("SessionId");
/** A conversation: a tree of threads. */
export type SessionId = z.infer<typeof sessionIdSchema>;

export const threadIdSchema = id("thr").brand("ThreadId");
/** One branch of a session. */
export type ThreadId = z.infer<typeof threadIdSchema>;

export const entryIdSchema = id("ent").brand("EntryId");
/** One message in a session's tree. */
export type EntryId = z.infer<typeof entryIdSchema>;

export const answerIdSchema = id("ans").brand("AnswerId");
/** One answer of a model, from its first to its last byte. */
export type AnswerId = z.infer<typeof answerIdSchema>;

export const approvalIdSchema = id("apr").brand("ApprovalId");
/** One question of GhostWarden. */
export type ApprovalId = z.infer<typeof approvalIdSchema>;

export const modelRefSchema = z.string().min(1).max(256).brand("ModelRef");
/** A model by its full name: `provider/model`, `ollama/model@host`. */
export type ModelRef = z.infer<typeof modelRefSchema>;
