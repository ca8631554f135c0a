/**
 * The request bodies of the Responses API that the fake models, field by field, from the public API's types. What no field of the API is called is
 * refused; how fields depend on each other is in `responses-host-rules.ts`.
 */
import { z } from "zod";

const breakpoint = z.looseObject({}).optional();
const status = z.enum(["in_progress", "completed", "incomplete"]).nullable().optional();
const id = z.string().nullable().optional();

const inputText = z.strictObject({
  type: z.literal("input_text"),
  text: z.string(),
  prompt_cache_breakpoint: breakpoint,
});
const inputImage = z.strictObject({
  type: z.literal("input_image"),
  detail: z.enum(["auto", "low", "high", "original"]).optional(),
  image_url: z.string().nullable().optional(),
  file_id: z.string().nullable().optional(),
  prompt_cache_breakpoint: breakpoint,
});
const inputFile = z.strictObject({
  type: z.literal("input_file"),
  detail: z.enum(["auto", "low", "high"]).optional(),
  file_data: z.string().optional(),
  file_id: z.string().nullable().optional(),
  file_url: z.string().optional(),
  filename: z.string().optional(),
  prompt_cache_breakpoint: breakpoint,
});
const outputText = z.strictObject({
  type: z.literal("output_text"),
  text: z.string(),
  annotations: z.array(z.looseObject({})).optional(),
  logprobs: z.array(z.looseObject({})).optional(),
});
const refusal = z.strictObject({ type: z.literal("refusal"), refusal: z.string() });

const message = z.strictObject({
  type: z.literal("message").optional(),
  role: z.enum(["user", "assistant", "system", "developer"]),
  content: z.union([
    z.string(),
    z.array(z.discriminatedUnion("type", [inputText, inputImage, inputFile, outputText, refusal])),
  ]),
  id,
  status,
  phase: z.enum(["commentary", "final_answer"]).nullable().optional(),
});

const caller = z.looseObject({ type: z.string() }).nullable().optional();
const outputParts = z.union([z.string(), z.array(z.discriminatedUnion("type", [inputText, inputImage, inputFile]))]);

const typedItem = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("function_call"),
    call_id: z.string(),
    name: z.string(),
    arguments: z.string(),
    id,
    status,
    namespace: z.string().nullable().optional(),
    caller,
    async: z.boolean().optional(),
  }),
  z.strictObject({
    type: z.literal("function_call_output"),
    call_id: z.string(),
    output: outputParts,
    id,
    status,
    name: z.string().nullable().optional(),
    namespace: z.string().nullable().optional(),
    caller,
  }),
  z.strictObject({
    type: z.literal("custom_tool_call"),
    call_id: z.string(),
    name: z.string(),
    input: z.string(),
    id,
    status,
    namespace: z.string().nullable().optional(),
    caller,
  }),
  z.strictObject({ type: z.literal("custom_tool_call_output"), call_id: z.string(), output: outputParts, id, status }),
  z.strictObject({
    type: z.literal("reasoning"),
    id: z.string().optional(),
    summary: z.array(z.strictObject({ type: z.literal("summary_text"), text: z.string() })),
    content: z
      .array(z.strictObject({ type: z.literal("reasoning_text"), text: z.string() }))
      .nullable()
      .optional(),
    encrypted_content: z.string().nullable().optional(),
    status,
  }),
  z.strictObject({ type: z.literal("item_reference"), id: z.string() }),
]);

const inputItem = z.union([message, typedItem]);

const functionTool = z.strictObject({
  type: z.literal("function"),
  name: z.string(),
  description: z.string().nullable().optional(),
  parameters: z.looseObject({}).nullable().optional(),
  strict: z.boolean().nullable().optional(),
  allowed_callers: z.array(z.string()).nullable().optional(),
  async: z.boolean().optional(),
  defer_loading: z.boolean().optional(),
  output_schema: z.looseObject({}).nullable().optional(),
});
const customTool = z.strictObject({
  type: z.literal("custom"),
  name: z.string(),
  description: z.string().optional(),
  format: z.looseObject({ type: z.enum(["text", "grammar"]) }).optional(),
  allowed_callers: z.array(z.string()).nullable().optional(),
  async: z.boolean().optional(),
  defer_loading: z.boolean().optional(),
});
const namespaceTool = z.strictObject({
  type: z.literal("namespace"),
  name: z.string(),
  description: z.string(),
  tools: z.array(z.discriminatedUnion("type", [functionTool, customTool])).min(1),
});
/** Tools that the provider runs. The fake takes them and never calls them. */
const hostedTool = z.looseObject({
  type: z.enum([
    "web_search",
    "web_search_preview",
    "file_search",
    "code_interpreter",
    "image_generation",
    "mcp",
    "local_shell",
    "shell",
    "apply_patch",
    "x_search",
  ]),
});

const schemaFormat = z.strictObject({
  type: z.literal("json_schema"),
  name: z.string(),
  schema: z.looseObject({}),
  description: z.string().optional(),
  strict: z.boolean().nullable().optional(),
});

const named = { name: z.string() };

export const responsesBody = z.strictObject({
  model: z.string().optional(),
  input: z.union([z.string(), z.array(inputItem)]).optional(),
  instructions: z.string().nullable().optional(),
  stream: z.boolean().nullable().optional(),
  stream_options: z.strictObject({ include_obfuscation: z.boolean().optional() }).nullable().optional(),
  store: z.boolean().nullable().optional(),
  previous_response_id: z.string().nullable().optional(),
  include: z
    .array(
      z.enum([
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
        "reasoning.encrypted_content",
        "message.output_text.logprobs",
      ]),
    )
    .nullable()
    .optional(),
  max_output_tokens: z.int().nullable().optional(),
  max_tool_calls: z.int().positive().nullable().optional(),
  metadata: z.record(z.string().max(64), z.string().max(512)).nullable().optional(),
  parallel_tool_calls: z.boolean().nullable().optional(),
  prompt_cache_key: z.string().nullable().optional(),
  prompt_cache_options: z.looseObject({}).optional(),
  prompt_cache_retention: z.enum(["in_memory", "24h"]).nullable().optional(),
  reasoning: z
    .strictObject({
      effort: z.enum(["none", "minimal", "low", "medium", "high", "xhigh", "max"]).nullable().optional(),
      summary: z.enum(["auto", "concise", "detailed"]).nullable().optional(),
      generate_summary: z.enum(["auto", "concise", "detailed"]).nullable().optional(),
      context: z.enum(["auto", "current_turn", "all_turns"]).nullable().optional(),
      mode: z.string().optional(),
    })
    .nullable()
    .optional(),
  safety_identifier: z.string().nullable().optional(),
  service_tier: z.string().nullable().optional(),
  temperature: z.number().min(0).max(2).nullable().optional(),
  top_p: z.number().min(0).max(1).nullable().optional(),
  top_logprobs: z.int().min(0).max(20).nullable().optional(),
  text: z
    .strictObject({
      format: z
        .discriminatedUnion("type", [
          z.strictObject({ type: z.literal("text") }),
          z.strictObject({ type: z.literal("json_object") }),
          schemaFormat,
        ])
        .optional(),
      verbosity: z.enum(["low", "medium", "high"]).nullable().optional(),
    })
    .optional(),
  tools: z.array(z.union([functionTool, customTool, namespaceTool, hostedTool])).optional(),
  tool_choice: z
    .union([
      z.enum(["none", "auto", "required"]),
      z.strictObject({ type: z.literal("function"), ...named }),
      z.strictObject({ type: z.literal("custom"), ...named }),
      z.strictObject({
        type: z.literal("allowed_tools"),
        mode: z.enum(["auto", "required"]),
        tools: z.array(z.looseObject({ type: z.string() })),
      }),
    ])
    .optional(),
  truncation: z.enum(["auto", "disabled"]).nullable().optional(),
  user: z.string().optional(),
  /** What Codex sends along; not in the API's types. */
  client_metadata: z.record(z.string(), z.unknown()).nullable().optional(),
  context_management: z
    .array(z.looseObject({ type: z.string() }))
    .nullable()
    .optional(),
  moderation: z.looseObject({}).nullable().optional(),
  /** Known to the API and not modelled here beyond their absence. */
  background: z.literal(false).nullable().optional(),
  conversation: z.null().optional(),
  prompt: z.null().optional(),
});

export type ResponsesBody = z.infer<typeof responsesBody>;
export type InputItem = z.infer<typeof inputItem>;
export type ApiTool = NonNullable<ResponsesBody["tools"]>[number];
