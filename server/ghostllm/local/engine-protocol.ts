/** What the daemon and the embedded engine's child process say to each other over IPC. Both sides check what they receive. */
import { z } from "zod";
import { errorDetailsSchema } from "../../../protocol/errors.ts";

const idSchema = z.int().positive();

/** Which weights, and in how large a context they run. Two requests with different values run on different contexts. */
export const engineModelSchema = z.object({
  file: z.string(),
  /** Changes when the file's content does: its sha256, or size and time. */
  version: z.string(),
  /** Tokens of prompt and answer together. */
  contextSize: z.int().positive(),
  /** How many answers may run at once. */
  sequences: z.int().positive(),
});
export type EngineModel = z.infer<typeof engineModelSchema>;

export const engineMessageSchema = z.object({
  role: z.enum(["system", "user", "assistant"]),
  text: z.string(),
});
export type EngineMessage = z.infer<typeof engineMessageSchema>;

export const engineTaskSchema = z.discriminatedUnion("kind", [
  /** A last message of the assistant is continued where it stops. */
  z.object({ kind: z.literal("chat"), messages: z.array(engineMessageSchema) }),
  z.object({
    kind: z.literal("completion"),
    prefix: z.string(),
    /** Not empty: infill. */
    suffix: z.string(),
    overflow: z.enum(["error", "trim"]),
  }),
]);
export type EngineTask = z.infer<typeof engineTaskSchema>;

export const engineGrammarSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("none") }),
  z.object({ kind: z.literal("json") }),
  /** A schema in the subset of `schema-subset.ts`. */
  z.object({ kind: z.literal("schema"), schema: z.record(z.string(), z.unknown()) }),
]);
export type EngineGrammar = z.infer<typeof engineGrammarSchema>;

export const generateJobSchema = z.object({
  model: engineModelSchema,
  task: engineTaskSchema,
  maxTokens: z.int().positive().optional(),
  stop: z.array(z.string().min(1)),
  grammar: engineGrammarSchema,
  temperature: z.number().nonnegative(),
  topP: z.number().min(0).max(1),
  seed: z.int().nonnegative(),
  lane: z.enum(["completion", "chat", "background"]),
});
export type GenerateJob = z.infer<typeof generateJobSchema>;

export const engineRequestSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("generate"), id: idSchema, job: generateJobSchema }),
  z.object({ kind: z.literal("embed"), id: idSchema, model: engineModelSchema, texts: z.array(z.string()) }),
  /** Loads the weights and makes their context. */
  z.object({ kind: z.literal("load"), id: idSchema, model: engineModelSchema }),
  /** Stops a request; answered by `cancelled`, unless its last message is under way already. */
  z.object({ kind: z.literal("cancel"), id: idSchema }),
]);
export type EngineRequest = z.infer<typeof engineRequestSchema>;

/** The first message to the child. */
export const engineSettingsSchema = z.object({
  kind: z.literal("settings"),
  threads: z.int().positive(),
  /** Weights in memory at once; the least recently used idle ones are given up. */
  maxLoadedModels: z.int().positive(),
});
export type EngineSettings = z.infer<typeof engineSettingsSchema>;

export const engineUsageSchema = z.object({
  promptTokens: z.int().nonnegative(),
  completionTokens: z.int().nonnegative(),
  /** The part of `promptTokens` that was still in the KV cache and was not evaluated again. */
  cachedTokens: z.int().nonnegative(),
});
export type EngineUsage = z.infer<typeof engineUsageSchema>;

export const engineReplySchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("ready") }),
  /** The engine cannot run on this machine; the process ends. */
  z.object({ kind: z.literal("unusable"), message: z.string() }),
  z.object({ kind: z.literal("text"), id: idSchema, text: z.string(), trimmedCharacters: z.int().nonnegative() }),
  /** The last message of a generation that came to its end. */
  z.object({
    kind: z.literal("finished"),
    id: idSchema,
    reason: z.enum(["stop", "length"]),
    usage: engineUsageSchema,
    trimmedCharacters: z.int().nonnegative(),
  }),
  z.object({ kind: z.literal("embedded"), id: idSchema, vectors: z.array(z.array(z.number())), promptTokens: z.int() }),
  z.object({ kind: z.literal("loaded"), id: idSchema }),
  z.object({ kind: z.literal("cancelled"), id: idSchema }),
  z.object({
    kind: z.literal("failed"),
    id: idSchema,
    code: z.enum(["weights_corrupt", "context_too_long", "capability_missing", "no_model_available", "internal"]),
    message: z.string(),
    details: errorDetailsSchema,
  }),
]);
export type EngineReply = z.infer<typeof engineReplySchema>;
