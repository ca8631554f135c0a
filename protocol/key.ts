/**
 * Keys. Those that clients use towards the daemon are told to faces (`key.model`). Those of providers travel in the other direction only: a face hands
 * one in, and no call gives one back.
 */
import { z } from "zod";

export const keyModelResult = z.object({
  /** Opens the model APIs and nothing else. */
  key: z.string(),
  /** The base URL for clients of OpenAI's API. */
  openaiBaseUrl: z.string(),
});

/** How the well-known keys begin, and what is too long and too mixed for a name: a key in the wrong place must not be repeated in an error. */
const LIKE_A_KEY =
  /^(sk|pk|rk|key|gsk|xai|AIza|gh[opusr]|github_pat|hf|ghost-(model|face))[-_]\S{8}|^AIza|^(?=.*\d)(?=.*[A-Za-z])[\w-]{32,}$/;

/** A provider's name in ghost.toml: `anthropic`, or the `<name>` of `[providers.compatible.<name>]`. */
export const keyProviderSchema = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, "a provider's name has at most 64 letters, digits, `.`, `_` and `-`")
  .refine((text) => !LIKE_A_KEY.test(text), "this looks like a key; a provider's name belongs here");

/** Shorter ones could not be blanked out of texts without harming them; longer ones fit into no header. */
const MIN_KEY_CHARACTERS = 8;
const MAX_KEY_CHARACTERS = 8192;

export const keyValueSchema = z
  .string()
  .min(MIN_KEY_CHARACTERS, `a key has at least ${MIN_KEY_CHARACTERS} characters`)
  .max(MAX_KEY_CHARACTERS, `a key has at most ${MAX_KEY_CHARACTERS} characters`)
  .regex(/^[\x21-\x7e]*$/, "a key has visible ASCII characters only, without spaces and line breaks")
  .refine((text) => !text.startsWith("ghost-face-"), "this is a face credential of GhostStack, which opens the daemon");

export const keyRowSchema = z.object({
  provider: z.string(),
  /** Where the key in use comes from; `none`: there is none. */
  source: z.enum(["keyring", "file", "environment", "none"]),
  /** The environment variable that holds it. */
  variable: z.string().optional(),
  /** The last 4 hexadecimal digits of the key's SHA-256: tells two keys apart, and says nothing about either. */
  fingerprint: z.string().optional(),
  /** When it was stored; absent for one from the environment. */
  updatedAtMs: z.number().optional(),
  /** Why a stored key cannot be read. */
  problem: z.string().optional(),
  /** What its owner should know though nothing is wrong. */
  note: z.string().optional(),
});
export type KeyRow = z.infer<typeof keyRowSchema>;

export const keySetParams = z.object({ provider: keyProviderSchema, value: keyValueSchema });
export const keySetResult = z.object({ row: keyRowSchema, note: z.string().optional() });

export const keyListResult = z.object({
  /** One row for each provider that takes a key, and each stored key. */
  rows: z.array(keyRowSchema),
  /** That the stored keys cannot be read, or what was found damaged since the daemon started. */
  problem: z.string().optional(),
});

export const keyRemoveParams = z.object({ provider: keyProviderSchema });
export const keyRemoveResult = z.object({ note: z.string().optional() });

export const keyTestParams = z.object({ provider: keyProviderSchema });
export const keyTestResult = z.object({
  ok: z.boolean(),
  /** In plain words: what the provider said, or what is in the way. */
  detail: z.string(),
  latencyMs: z.number().nonnegative(),
});
