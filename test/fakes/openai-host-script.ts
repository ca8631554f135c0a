/** How the fake OpenAI-compatible host is told to answer, and which request bodies it models. */
import { z } from "zod";

/** Where an answer breaks off, counted in content deltas that were sent whole before. */
export interface Cut {
  readonly kind: "cut";
  /** 0 breaks off right after the headers. As many as there are deltas breaks off before the finish frame. */
  readonly afterTokens: number;
  /** `mid-utf8` cuts inside the first multi-byte character of the next delta, which must have one. */
  readonly where: "between-frames" | "mid-frame" | "mid-utf8";
  /** `reset` = RST, `close` = FIN without the end of the body, `clean` = a well-formed end of the HTTP body. */
  readonly how: "reset" | "close" | "clean";
}

export type Fault =
  | Cut
  | { readonly kind: "reset-before-headers" }
  /** Accepts the request and says nothing until the peer leaves. */
  | { readonly kind: "hang-before-headers" }
  /** Falls silent in mid-answer until the peer leaves. */
  | { readonly kind: "hang"; readonly afterTokens: number }
  /** The delta after `afterTokens` holds a byte that is not UTF-8; the answer then goes on. */
  | { readonly kind: "invalid-utf8"; readonly afterTokens: number }
  /** A frame `{"error":…}` under status 200, then a clean end without `[DONE]`. */
  | { readonly kind: "error-in-band"; readonly afterTokens: number; readonly message: string };

/** An answer that fails before its body: an API error as JSON, or a proxy's HTML page. */
export interface ErrorStatus {
  readonly code: number;
  readonly body: "json" | "html";
  readonly message?: string;
  readonly type?: string;
  readonly errorCode?: string;
  /** Sent as `retry-after`, in seconds. */
  readonly retryAfterS?: number;
}

export interface ToolCallScript {
  readonly id: string;
  readonly name: string;
  /** The JSON text of the arguments, in the pieces in which it is streamed. */
  readonly arguments: readonly string[];
}

/** How server-sent events look on the wire; the defaults are OpenAI's. */
export interface WireFormat {
  readonly lineEnd?: "\n" | "\r\n";
  /** A comment line before every n-th frame, as keep-alive pings are sent. */
  readonly commentEvery?: number;
  /** Breaks each frame's JSON into two `data:` lines. */
  readonly multiLineData?: boolean;
  /** Writes the stream in pieces of this many bytes, wherever they fall. */
  readonly writeBytes?: number;
  /** Ends without `[DONE]`, cleanly, as some servers do. */
  readonly omitDone?: boolean;
  /** The last frame ends without its blank line. */
  readonly unterminatedLastFrame?: boolean;
}

/** One answer. Everything is optional: the default is a short healthy one. */
export interface Script {
  /** The content deltas: their texts, or how many. `max_tokens` of the request shortens them. */
  readonly tokens?: readonly string[] | number;
  readonly msPerToken?: number;
  /** The wait before the headers. */
  readonly firstTokenMs?: number;
  readonly toolCalls?: readonly ToolCallScript[];
  /** `asked`: as OpenAI does, in a stream only under `stream_options.include_usage`. */
  readonly usage?: "asked" | "always" | "never";
  readonly finishReason?: "stop" | "length" | "content_filter";
  readonly status?: ErrorStatus;
  readonly wire?: WireFormat;
  readonly fault?: Fault;
}

const messageSchema = z.strictObject({
  role: z.enum(["system", "developer", "user", "assistant", "tool"]),
  content: z
    .union([z.string(), z.null(), z.array(z.looseObject({ type: z.enum(["text", "image_url", "refusal"]) }))])
    .optional(),
  name: z.string().optional(),
  tool_calls: z
    .array(
      z.strictObject({
        id: z.string(),
        type: z.literal("function"),
        function: z.strictObject({ name: z.string(), arguments: z.string() }),
      }),
    )
    .optional(),
  tool_call_id: z.string().optional(),
  refusal: z.null().optional(),
});

const streamOptions = z.strictObject({ include_usage: z.boolean().optional() }).nullable().optional();
const stopField = z
  .union([z.string(), z.array(z.string()).max(4)])
  .nullable()
  .optional();
const sampling = {
  temperature: z.number().min(0).max(2).nullable().optional(),
  top_p: z.number().min(0).max(1).nullable().optional(),
  presence_penalty: z.number().min(-2).max(2).nullable().optional(),
  frequency_penalty: z.number().min(-2).max(2).nullable().optional(),
  seed: z.int().nullable().optional(),
  stop: stopField,
  max_tokens: z.int().positive().nullable().optional(),
  n: z.literal(1).nullable().optional(),
  user: z.string().optional(),
};

export const chatBody = z.strictObject({
  model: z.string(),
  messages: z.array(messageSchema).min(1),
  stream: z.boolean().nullable().optional(),
  stream_options: streamOptions,
  max_completion_tokens: z.int().positive().nullable().optional(),
  tools: z
    .array(
      z.strictObject({
        type: z.literal("function"),
        function: z.strictObject({
          name: z.string(),
          description: z.string().optional(),
          parameters: z.looseObject({}).optional(),
          strict: z.boolean().nullable().optional(),
        }),
      }),
    )
    .optional(),
  tool_choice: z
    .union([
      z.enum(["none", "auto", "required"]),
      z.strictObject({ type: z.literal("function"), function: z.strictObject({ name: z.string() }) }),
    ])
    .optional(),
  parallel_tool_calls: z.boolean().optional(),
  response_format: z.looseObject({ type: z.enum(["text", "json_object", "json_schema"]) }).optional(),
  reasoning_effort: z.string().nullable().optional(),
  metadata: z.record(z.string(), z.string()).nullable().optional(),
  store: z.boolean().nullable().optional(),
  prompt_cache_key: z.string().optional(),
  service_tier: z.string().nullable().optional(),
  ...sampling,
});

export const completionBody = z.strictObject({
  model: z.string(),
  prompt: z.union([z.string(), z.array(z.string()).length(1)]),
  suffix: z.string().nullable().optional(),
  echo: z.literal(false).nullable().optional(),
  stream: z.boolean().nullable().optional(),
  stream_options: streamOptions,
  ...sampling,
});

export const embeddingsBody = z.strictObject({
  model: z.string(),
  input: z.union([z.string(), z.array(z.string()).min(1)]),
  encoding_format: z.enum(["float", "base64"]).optional(),
  dimensions: z.int().positive().optional(),
  user: z.string().optional(),
});

export type ChatBody = z.infer<typeof chatBody>;
export type CompletionBody = z.infer<typeof completionBody>;
export type EmbeddingsBody = z.infer<typeof embeddingsBody>;
