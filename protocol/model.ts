/** Models: what is there, what each can do, and how weights are fetched. */
import { z } from "zod";
import { modelRefSchema } from "./ids.ts";

export const localitySchema = z.enum(["machine", "lan", "cloud"]);
/** Where text goes when it is sent to a model: this machine, the local network, or beyond. */
export type Locality = z.infer<typeof localitySchema>;

export const modelCapabilitiesSchema = z.object({
  chat: z.boolean(),
  /** Plain text continuation (`/v1/completions` without a suffix). */
  complete: z.boolean(),
  /** Infill between a prefix and a suffix. */
  fim: z.boolean(),
  embeddings: z.boolean(),
  tools: z.boolean(),
  vision: z.boolean(),
  /** Answers can be held to a JSON schema. */
  jsonSchema: z.boolean(),
  /** Thinks before it answers, or can be told to. */
  reasoning: z.boolean().optional(),
});

/** Prices in US dollars per million tokens; what is absent is unknown, not free. */
export const modelPricesSchema = z.object({
  input: z.number().nonnegative().optional(),
  output: z.number().nonnegative().optional(),
  cachedInput: z.number().nonnegative().optional(),
  cacheWrite: z.number().nonnegative().optional(),
});
export type ModelPrices = z.infer<typeof modelPricesSchema>;

export const modelInfoSchema = z.object({
  ref: modelRefSchema,
  /** The id of the provider that serves it: `embedded`, `ollama`, or the name of a compatible server. */
  provider: z.string(),
  /** The name its own server knows. */
  name: z.string(),
  /** The host of an Ollama model; absent elsewhere. */
  host: z.string().optional(),
  locality: localitySchema,
  capabilities: modelCapabilitiesSchema,
  /** Tokens of prompt and answer together; absent where the server does not say. */
  contextWindow: z.int().positive().optional(),
  maxOutputTokens: z.int().positive().optional(),
  /** How it is asked to go on with an answer that broke off: from its own words natively, by an anchor in a new request, or not at all. */
  continuation: z.enum(["native", "anchored", "none"]).optional(),
  /** As its server lists them. */
  prices: modelPricesSchema.optional(),
  sizeBytes: z.number().nonnegative().optional(),
  /** Something its user must know, for example that a demonstration model cannot chat. */
  note: z.string().optional(),
  /** True for weights that only show that everything works: the router takes them last. */
  demonstration: z.boolean().optional(),
  /** True when it is listed but cannot answer, for example because its file is damaged; `note` says why. */
  unusable: z.boolean().optional(),
});
export type ModelInfo = z.infer<typeof modelInfoSchema>;

export const providerStatusSchema = z.object({
  id: z.string(),
  kind: z.enum([
    "embedded",
    "ollama",
    "compatible",
    "anthropic",
    "openai",
    "azure",
    "xai",
    "gemini",
    "copilot",
    "claude-code",
  ]),
  /** Where it is: a URL, or `in a child process`. */
  address: z.string(),
  locality: localitySchema,
  /** `idle`: not asked yet. `absent`: it was only looked for, and is not there; no fault. */
  state: z.enum(["ok", "unreachable", "refused", "idle", "absent"]),
  models: z.int().nonnegative(),
  /** Why it is not `ok`, in one sentence. */
  problem: z.string().optional(),
});
export type ProviderStatus = z.infer<typeof providerStatusSchema>;

export const modelListParams = z.object({
  /** Ask the servers again instead of answering from what was last seen (at most 30 s old). */
  refresh: z.boolean().default(false),
});
export const modelListResult = z.object({
  models: z.array(modelInfoSchema),
  providers: z.array(providerStatusSchema),
});

export const modelPullParams = z.object({
  /** `https://…/file.gguf`, `http://…` or `hf:owner/repo/file.gguf`. */
  source: z.string().min(1).max(2048),
  /** The name under which the model is registered; the file's name without `.gguf` by default. */
  name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/)
    .optional(),
  /** The expected sha256, 64 hexadecimal digits. */
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/i)
    .optional(),
});
export const modelPullUpdate = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("progress"),
    receivedBytes: z.number(),
    /** Absent where the server does not say. */
    totalBytes: z.number().optional(),
    /** Bytes that an earlier, interrupted download had already brought. */
    resumedFromBytes: z.number(),
  }),
  z.object({ kind: z.literal("checking") }),
  z.object({ kind: z.literal("retrying"), attempt: z.int(), inMs: z.number(), reason: z.string() }),
  z.object({ kind: z.literal("done"), model: modelInfoSchema, sha256: z.string(), path: z.string() }),
]);
export type ModelPullUpdate = z.infer<typeof modelPullUpdate>;
