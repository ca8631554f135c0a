/**
 * The request bodies of Anthropic's Messages API that the fake models, field by field, from the public API's types. What no field of the API is called
 * is refused; how fields depend on each other is in `anthropic-host-rules.ts`.
 */
import { z } from "zod";

const cacheControl = z
  .strictObject({ type: z.literal("ephemeral"), ttl: z.enum(["5m", "1h"]).optional() })
  .nullable()
  .optional();

const textBlock = z.strictObject({
  type: z.literal("text"),
  text: z.string(),
  cache_control: cacheControl,
  citations: z
    .array(z.looseObject({ type: z.string() }))
    .nullable()
    .optional(),
});

const imageBlock = z.strictObject({
  type: z.literal("image"),
  source: z.discriminatedUnion("type", [
    z.strictObject({
      type: z.literal("base64"),
      media_type: z.enum(["image/jpeg", "image/png", "image/gif", "image/webp"]),
      data: z.base64(),
    }),
    z.strictObject({ type: z.literal("url"), url: z.url() }),
    z.strictObject({ type: z.literal("file"), file_id: z.string() }),
  ]),
  cache_control: cacheControl,
  transformations: z.looseObject({}).nullable().optional(),
});

const documentBlock = z.strictObject({
  type: z.literal("document"),
  source: z.discriminatedUnion("type", [
    z.strictObject({ type: z.literal("base64"), media_type: z.literal("application/pdf"), data: z.base64() }),
    z.strictObject({ type: z.literal("text"), media_type: z.literal("text/plain"), data: z.string() }),
    z.strictObject({ type: z.literal("url"), url: z.url() }),
    z.strictObject({ type: z.literal("file"), file_id: z.string() }),
    z.strictObject({
      type: z.literal("content"),
      content: z.union([z.string(), z.array(z.looseObject({ type: z.string() }))]),
    }),
  ]),
  cache_control: cacheControl,
  citations: z.strictObject({ enabled: z.boolean().optional() }).nullable().optional(),
  context: z.string().nullable().optional(),
  title: z.string().nullable().optional(),
});

const toolUseBlock = z.strictObject({
  type: z.literal("tool_use"),
  id: z.string(),
  name: z.string(),
  input: z.record(z.string(), z.unknown()),
  cache_control: cacheControl,
  caller: z.looseObject({ type: z.string() }).optional(),
  toolset_name: z.string().nullable().optional(),
});

const toolResultBlock = z.strictObject({
  type: z.literal("tool_result"),
  tool_use_id: z.string(),
  content: z
    .union([
      z.string(),
      z.array(
        z.discriminatedUnion("type", [
          textBlock,
          imageBlock,
          documentBlock,
          z.strictObject({ type: z.literal("tool_reference"), tool_name: z.string(), cache_control: cacheControl }),
        ]),
      ),
    ])
    .optional(),
  is_error: z.boolean().optional(),
  cache_control: cacheControl,
  toolset_name: z.string().nullable().optional(),
});

const thinkingBlock = z.strictObject({ type: z.literal("thinking"), thinking: z.string(), signature: z.string() });
const redactedBlock = z.strictObject({ type: z.literal("redacted_thinking"), data: z.string() });

const message = z.strictObject({
  role: z.enum(["user", "assistant", "system"]),
  content: z.union([
    z.string(),
    z.array(
      z.discriminatedUnion("type", [
        textBlock,
        imageBlock,
        documentBlock,
        toolUseBlock,
        toolResultBlock,
        thinkingBlock,
        redactedBlock,
      ]),
    ),
  ]),
});

const customTool = z.strictObject({
  type: z.literal("custom").nullable().optional(),
  name: z.string(),
  description: z.string().optional(),
  input_schema: z.looseObject({ type: z.literal("object") }),
  strict: z.boolean().optional(),
  cache_control: cacheControl,
  allowed_callers: z.array(z.string()).optional(),
  defer_loading: z.boolean().optional(),
  eager_input_streaming: z.boolean().nullable().optional(),
  input_examples: z.array(z.looseObject({})).optional(),
});
/** Tools that Anthropic runs, or whose schema it knows: named with a date. The fake takes them and never calls them. */
const hostedTool = z.looseObject({ type: z.string().regex(/_\d{8}$/), cache_control: cacheControl });

const parallel = { disable_parallel_tool_use: z.boolean().optional() };

/** Display words and block binding beyond the plain API need a beta. */
const thinkingDisplay = z.enum(["summarized", "omitted", "updates"]).nullable().optional();
const blockBinding = z
  .strictObject({ prefix_mismatch_behavior: z.enum(["error", "drop_block"]).nullable().optional() })
  .nullable()
  .optional();

const common = {
  model: z.string(),
  messages: z.array(message),
  system: z.union([z.string(), z.array(textBlock)]).optional(),
  cache_control: cacheControl,
  output_config: z
    .strictObject({
      effort: z.enum(["low", "medium", "high", "xhigh", "max"]).nullable().optional(),
      format: z
        .strictObject({ type: z.literal("json_schema"), schema: z.looseObject({}) })
        .nullable()
        .optional(),
    })
    .optional(),
  speed: z.enum(["standard", "fast"]).nullable().optional(),
  thinking: z
    .discriminatedUnion("type", [
      z.strictObject({
        type: z.literal("enabled"),
        budget_tokens: z.int(),
        display: thinkingDisplay,
        block_binding: blockBinding,
      }),
      z.strictObject({ type: z.literal("adaptive"), display: thinkingDisplay, block_binding: blockBinding }),
      z.strictObject({ type: z.literal("disabled") }),
      z.strictObject({ type: z.literal("between_tools") }),
    ])
    .optional(),
  tool_choice: z
    .discriminatedUnion("type", [
      z.strictObject({ type: z.literal("auto"), ...parallel }),
      z.strictObject({ type: z.literal("any"), ...parallel }),
      z.strictObject({ type: z.literal("tool"), name: z.string(), ...parallel }),
      z.strictObject({ type: z.literal("none") }),
    ])
    .optional(),
  tools: z.array(z.union([customTool, hostedTool])).optional(),
  user_profile_id: z.string().optional(),
  workspace_id: z.string().optional(),
  /** Only under an `anthropic-beta` header. */
  context_management: z
    .strictObject({ edits: z.array(z.looseObject({ type: z.string() })).optional() })
    .nullable()
    .optional(),
  mcp_servers: z.array(z.looseObject({ type: z.literal("url") })).optional(),
};

export const messagesBody = z.strictObject({
  ...common,
  /** Required; that it is there is a rule, so that a request without it is refused and is no violation. */
  max_tokens: z.int().min(0).optional(),
  stream: z.boolean().optional(),
  stop_sequences: z.array(z.string()).optional(),
  temperature: z.number().min(0).max(1).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: z.int().min(0).optional(),
  metadata: z.strictObject({ user_id: z.string().max(512).nullable().optional() }).optional(),
  service_tier: z.enum(["auto", "standard_only"]).optional(),
  container: z
    .union([z.string(), z.looseObject({})])
    .nullable()
    .optional(),
  diagnostics: z.looseObject({}).nullable().optional(),
  inference_geo: z.string().nullable().optional(),
});

export const countTokensBody = z.strictObject(common);

/** Those of the fields above that need an `anthropic-beta` header. */
export const BETA_FIELDS = ["context_management", "mcp_servers"] as const;

export type MessagesBody = z.infer<typeof messagesBody>;
/** A body of both routes, for the rules that they share. */
export type CountTokensBody = z.infer<typeof countTokensBody>;
export type ApiMessage = z.infer<typeof message>;
export type ApiBlock = Exclude<ApiMessage["content"], string>[number];
